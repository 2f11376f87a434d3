"""GPUs by name and from facts: what is taken, and what is refused in one sentence."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import MEASURED, PRODUCTS, find
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSetError, from_facts, parse

MIB = 1024**2


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H100", "H100"),
        ("h100-sxm", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("A100", "A100-80G"),
        ("A100-40G", "A100-40G"),
        ("NVIDIA A100-SXM4-40GB", "A100-40G"),
        ("NVIDIA A100-PCIE-40GB", "A100-40G-PCIe"),
        ("NVIDIA A100 80GB PCIe", "A100-80G-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell Server"),
        ("Tesla V100-SXM2-32GB", "V100"),
    ],
)
def test_a_product_is_found_by_every_name_that_is_in_use(name, product):
    found = find(name)
    assert found is not None and found.name == product


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_row_of_the_table_is_whole(product):
    assert product.source and product.memory_bandwidth > 1e11 and product.memory_bytes > 8 * 1024**3
    assert product.link in ("nvswitch", "bridge", "pcie") and product.link_bandwidth > 1e10
    assert product.open_kernel_module in ("required", "supported", "no")
    assert (product.open_kernel_module == "required") == (product.architecture == "blackwell")
    assert (product.open_kernel_module == "no") == (product.architecture == "volta")
    assert ("bf16" in product.precisions) != bool(product.too_old)
    assert ("fp8" in product.precisions) == (product.compute_capability >= (8, 9))
    assert ("fp4" in product.precisions) == (product.compute_capability >= (10, 0))
    assert find(product.name) is product


def test_no_two_products_have_a_name_in_common():
    names = [name for product in PRODUCTS for name in (product.name, *product.nvml_names, *product.aliases)]
    owners = [{p.name for p in PRODUCTS if name in (p.name, *p.nvml_names, *p.aliases)} for name in names]
    assert all(len(owner) == 1 for owner in owners)


def test_what_was_read_from_a_card_is_what_nvml_said():
    sizes = {product.name: product.memory_bytes for product in PRODUCTS if product.memory_source == MEASURED}
    assert sizes == {"H200": 150_754_820_096, "H100": 81_559 * MIB}


@pytest.mark.parametrize(
    ("text", "hosts", "gpus", "label"),
    [
        ("8xH200", 1, 8, "8xH200"),
        ("2x8xH100", 2, 8, "2x8xH100"),
        ("1xRTX4090", 1, 1, "1xRTX-4090"),
        ("4xA100-40G", 1, 4, "4xA100-40G"),
        (" 8 X h200 ", 1, 8, "8xH200"),
        ("4×L40S", 1, 4, "4xL40S"),
    ],
)
def test_sets_are_read_as_people_write_them(text, hosts, gpus, label):
    found = parse(text)
    assert (found.hosts, found.gpus_per_host, found.total, found.label) == (hosts, gpus, hosts * gpus, label)
    assert found.simulated
    assert parse(found.label).product is found.product


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("H200", "one of them is 1xH200"),
        ("eight H200", "write GPUSxNAME"),
        ("8xH20O", "did you mean H20 or H200"),
        ("8xMI300X", "is not known"),
        ("0xH100", "a host has 1 to 16"),
        ("32xH100", "write several hosts as 4x8xH100"),
        ("99x8xH100", "plan for 1 to 64 hosts"),
        ("1xV100", "cannot serve on a V100: it has no bfloat16"),
        ("8xGB200", "write 2x4xGB200"),
    ],
)
def test_other_words_are_refused_with_what_to_write(text, said):
    with pytest.raises(GpuSetError, match=said) as refused:
        parse(text)
    assert "\n" not in str(refused.value)


def gpu(index: int, **changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "index": index,
        "name": "NVIDIA H200",
        "product": "H200",
        "error": None,
        "memory": {"total_bytes": 150_754_820_096},
        "mig": {"enabled": False},
    }
    return {**facts, **changes}


def test_facts_make_a_set_of_what_is_really_there():
    smaller = gpu(1, memory={"total_bytes": 150_000_000_000})
    found = from_facts({"llm1": {"simulated": False, "gpus": [gpu(0), smaller]}})
    assert (found.label, found.memory_bytes, found.simulated) == ("2xH200", 150_000_000_000, False)


def test_a_host_of_a_lab_says_so():
    assert from_facts({"llm1": {"simulated": True, "gpus": [gpu(0)]}}).simulated


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ({}, "no host"),
        ({"llm1": {"gpus": []}}, "llm1: no GPU was found"),
        ({"llm1": {"gpus": [gpu(0), gpu(1, error="GPU is lost")]}}, r"GPU 1 does not answer \(GPU is lost\)"),
        ({"llm1": {"gpus": [gpu(0, mig={"enabled": True})]}}, "is split"),
        ({"llm1": {"gpus": [gpu(0), gpu(1, product="H100")]}}, "of different kinds"),
        ({"llm1": {"gpus": [gpu(0)]}, "llm2": {"gpus": [gpu(0), gpu(1)]}}, "not alike"),
        ({"llm1": {"gpus": [gpu(0, product=None, name="NVIDIA Z9")]}}, "'NVIDIA Z9' is not known"),
    ],
)
def test_facts_that_no_plan_can_be_made_of_are_refused(hosts, said):
    with pytest.raises(GpuSetError, match=said):
        from_facts(hosts)


def test_links_decide_how_far_gpus_are_apart():
    switch, pairs, bus = parse("8xH200"), parse("8xH100-NVL"), parse("8xRTX4090")
    assert switch.linked(8) and pairs.linked(2) and not pairs.linked(4) and not bus.linked(2)
    assert bus.bandwidth_between(2) < pairs.bandwidth_between(2) < switch.bandwidth_between(8)
    assert parse("2x8xH200").bandwidth_between(16) < switch.bandwidth_between(8)
