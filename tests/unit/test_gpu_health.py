"""Which source is believed, and what is wrong with a host's GPUs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Driver,
    Ecc,
    Fabric,
    FabricManager,
    Gpu,
    GpuFacts,
    Host,
    Mig,
    MigInstance,
    NvLink,
    PciLink,
    Reading,
    RowRemap,
    Source,
    SourceError,
    from_dict,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_health import Expectations, checks
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_pci import Bus
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sources import ask, assemble

GPU = Gpu(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    product="H100",
    pci_address="0000:1b:00.0",
    link=PciLink(5, 5, 16, 16),
    ecc=Ecc(True, True, 0, 0, 0),
    row_remap=RowRemap(0, 0, False, False),
    mig=Mig(False, False),
    nvlink=NvLink(18, 18, 18, 4),
    fabric=Fabric("completed", "success", "healthy"),
    persistence=True,
    utilization_percent=0,
)
FACTS = GpuFacts(
    source=Source("nvml"),
    gpus=(GPU, dataclasses.replace(GPU, index=1, pci_address="0000:43:00.0")),
    driver=Driver("580.95.05", "580.95.05", True, "580.95.05"),
    fabric_manager=FabricManager(True, "580.95.05", "active"),
    pci_addresses=("0000:1b:00.0", "0000:43:00.0"),
    nvswitches=4,
)


def failing(facts: GpuFacts, gpu_count: int | None = None) -> list[Check]:
    return [check for check in checks(facts, Expectations(gpu_count)) if not check.ok]


def gpu(**changes: Any) -> dict[str, Any]:
    return {"gpus": (FACTS.gpus[0], dataclasses.replace(FACTS.gpus[1], **changes))}


def driver(**changes: Any) -> dict[str, Any]:
    return {"driver": dataclasses.replace(FACTS.driver, **changes)}


def test_a_whole_host_passes_every_check():
    report = checks(FACTS, Expectations(2))
    assert failing(FACTS, 2) == []
    assert len({check.id for check in report}) == len(report)


WAITING = Fabric("in_progress", "success")


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        (driver(module_version="570.1"), ["driver-library", "fabric-manager"], "570.1 and the library 580.95.05"),
        (driver(module_open=False) | gpu(product="B200"), ["module-kind"], "works only with the open one"),
        (driver(module_open=True) | gpu(product="V100"), ["module-kind"], "works only with the proprietary one"),
        ({"host": Host(nouveau_loaded=True)}, ["nouveau"], "has loaded nouveau"),
        ({"pci_addresses": (*FACTS.pci_addresses, "0000:52:00.0")}, ["driven"], "the GPU at 0000:52:00.0"),
        (gpu(error="GPU is lost."), ["answers"], "GPU 1 (0000:43:00.0): GPU is lost."),
        (gpu(unreadable={"name": "Timeout"}), ["readable"], "GPU 1 (0000:43:00.0): name (Timeout)"),
        (gpu(row_remap=RowRemap(0, 1, True, False)), ["row-remap"], "GPU 1 (0000:43:00.0) will replace bad rows"),
        (gpu(row_remap=RowRemap(0, 9, False, True)), ["row-remap-failed"], "no spare rows left"),
        (gpu(ecc=Ecc(True, True, 0, 2, 2)), ["ecc-errors"], "since the driver was loaded: 2."),
        (gpu(ecc=Ecc(True, False, 0, 0, 0)), ["ecc-mode"], "change its ECC mode"),
        (gpu(link=PciLink(5, 5, 8, 16)), ["link-width"], "x8 of x16"),
        (gpu(link=PciLink(1, 5, 16, 16), utilization_percent=90), ["link-generation"], "generation GPU 1"),
        (gpu(nvlink=NvLink(18, 17, 17)), ["nvlink"], "17 of 18"),
        (gpu(nvlink=NvLink(18, 0, 0)), ["nvlink"], "0 of 18"),
        (gpu(fabric=WAITING), ["fabric"], "GPU 1 (0000:43:00.0): in progress"),
        (gpu(fabric=Fabric("completed", "Unknown Error")), ["fabric"], "completed, Unknown Error"),
        (gpu(fabric=Fabric("completed", "success", "unhealthy")), ["fabric"], "completed, unhealthy"),
        (
            gpu(fabric=WAITING) | {"fabric_manager": FabricManager()},
            ["fabric", "fabric-manager"],
            "is not installed",
        ),
        (
            gpu(fabric=WAITING) | {"fabric_manager": FabricManager(True, None, "failed")},
            ["fabric", "fabric-manager"],
            "is failed",
        ),
        (
            {"fabric_manager": FabricManager(True, "570.1", "active")},
            ["fabric-manager"],
            "570.1 and the driver 580.95.05",
        ),
        (gpu(mig=Mig(True, True)), ["mig"], "MIG on and no instances"),
    ],
)
def test_what_is_wrong_fails_its_check_and_no_other(changes, expected, words):
    broken = failing(dataclasses.replace(FACTS, **changes))
    assert [check.id for check in broken] == [f"gpu.{name}" for name in expected]
    assert words in " ".join(check.reason for check in broken)
    assert all(check.reason.endswith(".") and check.remedy.endswith(".") for check in broken)


@pytest.mark.parametrize(
    "changes",
    [
        # An idle GPU lowers its link's generation, which proves nothing.
        gpu(link=PciLink(1, 5, 16, 16)),
        # What a source does not know is no finding.
        gpu(link=PciLink(), ecc=Ecc(), row_remap=RowRemap(), mig=Mig(), nvlink=None, fabric=None, persistence=None),
        # In a virtual machine the fabric is run from outside.
        {"fabric_manager": FabricManager()},
        {"fabric_manager": None},
        gpu(mig=Mig(True, True, (MigInstance(),))),
        # Cards without a bridge have links that lead nowhere.
        {"gpus": (dataclasses.replace(GPU, nvlink=NvLink(18, 0, 0)),), "pci_addresses": ()},
        # Asleep when nobody uses it: a hint, no failure.
        gpu(persistence=False),
        driver(module_version=None),
    ],
)
def test_what_is_in_order_or_unknown_fails_nothing(changes):
    assert failing(dataclasses.replace(FACTS, **changes)) == []


def test_a_driver_that_forgets_is_a_hint_with_a_remedy():
    facts = dataclasses.replace(FACTS, **gpu(persistence=False))
    (hint,) = [check for check in checks(facts, Expectations()) if check.id == "gpu.persistence"]
    assert hint.ok
    assert "nvidia-persistenced" in hint.remedy


def test_the_idle_link_is_mentioned():
    facts = dataclasses.replace(FACTS, **gpu(link=PciLink(1, 5, 16, 16)))
    (link,) = [check for check in checks(facts, Expectations()) if check.id == "gpu.link-generation"]
    assert "GPU 1 (0000:43:00.0) is idle and has lowered it" in link.reason


def test_an_a100_machine_without_its_fabric_manager_is_told():
    gpus = tuple(dataclasses.replace(each, fabric=None, product="A100-80G") for each in FACTS.gpus)
    facts = dataclasses.replace(FACTS, gpus=gpus, fabric_manager=FabricManager())
    assert [check.id for check in failing(facts)] == ["gpu.fabric-manager"]


def test_a_host_without_gpus_has_nothing_to_be_judged():
    (only,) = checks(GpuFacts(), Expectations())
    assert (only.id, only.ok) == ("gpu.count", True)


def test_gpus_that_are_expected_and_not_there_are_two_findings():
    assert [check.id for check in failing(GpuFacts(), 8)] == ["gpu.count", "gpu.driver"]


def test_gpus_without_a_driver_say_so_and_what_secure_boot_has_to_do_with_it():
    facts = dataclasses.replace(
        FACTS,
        source=Source("pci", {"nvml": "No library.", "nvidia-smi": "No program."}),
        driver=Driver(),
        host=Host(secure_boot=True),
    )
    (broken,) = failing(facts, 2)
    assert broken.id == "gpu.driver"
    assert broken.reason == "The driver does not answer. No library. No program."
    assert "Secure Boot" in broken.remedy


# --- which source is believed -----------------------------------------------------------------------------------------


def refusing(reason: str, **more: Any) -> Any:
    def read() -> Reading:
        raise SourceError(reason, **more)

    return read


def test_the_first_source_that_answers_is_taken_and_the_others_say_why_not():
    source, reading = ask(
        [
            ("nvml", refusing("No library.", driver=Driver(library_version="1.2.3"))),
            ("nvidia-smi", lambda: Reading((GPU,), Driver(version="1.2.4"))),
            ("pci", refusing("never asked")),
        ]
    )
    assert source == Source("nvidia-smi", {"nvml": "No library."})
    assert (reading.driver.version, reading.driver.library_version) == ("1.2.4", "1.2.3")


def test_nobody_answers():
    source, reading = ask([("nvml", refusing("No library.")), ("pci", refusing("No GPU."))])
    assert source == Source("none", {"nvml": "No library.", "pci": "No GPU."})
    assert reading == Reading(())


def test_behind_a_stand_in_the_real_bus_is_not_looked_at():
    source, reading = ask(
        [("nvml", refusing("Broken on purpose.", simulated=True)), ("pci", lambda: Reading((GPU,)))],
    )
    assert (source.answered, reading.gpus, reading.simulated) == ("none", (), True)


BUS = Bus(
    (
        Gpu(
            0, pci_address="0000:1b:00.0", pci_device_id="2330", kernel_driver="nvidia", numa_node=1, cpu_affinity="0-7"
        ),
        Gpu(1, pci_address="0000:43:00.0", pci_device_id="2330", kernel_driver="nvidia"),
    ),
    nvswitches=4,
)


def put_together(*gpus: Gpu, simulated: bool = False) -> GpuFacts:
    reading = Reading(gpus, Driver(version="580.1"), simulated)
    host = Host(nouveau_loaded=True)
    return assemble(Source("nvml"), reading, BUS, host, Driver(module_version="580.1"), FabricManager())


def test_the_bus_fills_in_what_the_driver_does_not_tell():
    facts = put_together(Gpu(0, name="NVIDIA H100 80GB HBM3", pci_address="0000:1b:00.0", numa_node=0))
    (seen,) = facts.gpus
    assert (seen.numa_node, seen.cpu_affinity, seen.kernel_driver) == (0, "0-7", "nvidia")
    assert (seen.product, seen.architecture, seen.compute_capability) == ("H100", "hopper", "9.0")
    assert facts.driver.module_version == "580.1"
    assert facts.nvswitches == 4


def test_the_only_gpu_that_does_not_tell_its_address_has_the_one_that_is_left():
    facts = put_together(Gpu(0, pci_address="0000:1b:00.0"), Gpu(1, error="GPU is lost."))
    assert facts.gpus[1].pci_address == "0000:43:00.0"


def test_an_address_that_could_be_anothers_is_not_guessed():
    assert put_together(Gpu(0, error="GPU is lost.")).gpus[0].pci_address is None


def test_a_stand_in_has_nothing_of_the_machine_below_it():
    facts = put_together(GPU, simulated=True)
    assert (facts.pci_addresses, facts.nvswitches, facts.fabric_manager) == ((), 0, None)
    assert (facts.driver.module_version, facts.host.nouveau_loaded) == (None, False)


def test_facts_of_another_version_can_be_read():
    facts = from_dict(GpuFacts, {"gpus": [{"index": 0, "new_in_the_next_version": 1}], "simulated": True})
    assert (facts.gpus, facts.simulated) == ((Gpu(0),), True)


def test_what_is_not_facts_is_refused():
    with pytest.raises(ValueError, match="GpuFacts is read from a dictionary, found list"):
        from_dict(GpuFacts, [])
