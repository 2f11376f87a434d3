"""The bus and the host, read from a tree that looks like theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_generations, gpu_host, gpu_pci
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    FabricManager,
    Infiniband,
    NumaNode,
    Nvme,
    PciLink,
    SourceError,
    cpu_list,
    pci_address,
)

OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3)\n"
    "GCC version:  gcc version 13.3.0\n"
)
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
CPU = """\
processor	: 0
model name	: INTEL(R) XEON(R) PLATINUM 8558
physical id	: 0
core id		: 0
flags		: fpu avx512f avx512_vnni amx_tile amx_int8 sgx tdx_host_platform

processor	: 1
physical id	: 0
core id		: 0
flags		: fpu

processor	: 2
physical id	: 1
core id		: 0
flags		: fpu
"""


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def device(root: Path, address: str, number: str, kind: str = "0x030200", vendor: str = "0x10de", **more: str) -> Path:
    folder = root / gpu_pci.DEVICES / address
    files = {"vendor": vendor, "class": kind, "device": f"0x{number}", "numa_node": "-1", **more}
    write(folder, **{name: f"{text}\n" for name, text in files.items()})
    return folder


def test_a_gpu_without_a_driver_is_known_by_its_number(tmp_path):
    device(
        tmp_path,
        "0000:1b:00.0",
        "2330",
        numa_node="1",
        local_cpulist="0-55",
        current_link_speed="2.5 GT/s PCIe",
        max_link_speed="32.0 GT/s PCIe",
        current_link_width="16",
        max_link_width="16",
    )
    (gpu,) = gpu_pci.scan(tmp_path).gpus
    assert (gpu.name, gpu.pci_address, gpu.pci_device_id) == ("NVIDIA H100 80GB HBM3", "0000:1b:00.0", "2330")
    assert gpu.link == PciLink(1, 5, 16, 16)
    assert (gpu.numa_node, gpu.cpu_affinity, gpu.kernel_driver) == (1, "0-55", None)


def test_an_unknown_number_is_shown_as_it_is(tmp_path):
    device(tmp_path, "0000:1b:00.0", "ffff")
    assert gpu_pci.scan(tmp_path).gpus[0].name == "NVIDIA device ffff"


def test_only_nvidias_gpus_and_switches_count(tmp_path):
    device(tmp_path, "0000:02:00.0", "2684", kind="0x030000")
    device(tmp_path, "0000:02:00.1", "22ba", kind="0x040300")  # the sound of a graphics card
    device(tmp_path, "0000:03:00.0", "1234", kind="0x030000", vendor="0x1002")
    device(tmp_path, "0000:04:00.0", "22a3", kind="0x068000")
    bus = gpu_pci.scan(tmp_path)
    assert [gpu.pci_address for gpu in bus.gpus] == ["0000:02:00.0"]
    assert bus.nvswitches == 1


def test_the_driver_that_holds_a_gpu_is_named(tmp_path):
    folder = device(tmp_path, "0000:1b:00.0", "2330")
    driver = tmp_path / "sys/bus/pci/drivers/vfio-pci"
    driver.mkdir(parents=True)
    (folder / "driver").symlink_to(driver)
    assert gpu_pci.scan(tmp_path).gpus[0].kernel_driver == "vfio-pci"


def test_a_link_that_is_down_has_no_width(tmp_path):
    device(
        tmp_path, "0000:1b:00.0", "2330", current_link_width="255", max_link_width="16", current_link_speed="Unknown"
    )
    assert gpu_pci.scan(tmp_path).gpus[0].link == PciLink(None, None, None, 16)


def test_a_bus_without_gpus_is_no_source(tmp_path):
    with pytest.raises(SourceError, match="No NVIDIA GPU"):
        gpu_pci.read(gpu_pci.scan(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2.5 GT/s PCIe", 1), ("8 GT/s", 3), ("16.0 GT/s PCIe", 4), ("64.0 GT/s PCIe", 6), ("?", None)],
)
def test_speeds_are_counted_as_generations(text, expected):
    assert gpu_pci.generation(text) == expected


def test_names_on_the_bus_are_those_of_the_table_of_products():
    unknown = {name for name in gpu_pci.NAMES.values() if gpu_generations.find(f"NVIDIA {name}") is None}
    assert unknown == {"A40", "L40", "RTX 6000 Ada Generation"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN, ("580.95.05", True)),
        (CLOSED, ("535.104.05", False)),
        ("", (None, None)),
        ("NVRM version: ?", (None, None)),
    ],
)
def test_the_module_tells_its_version_and_kind(text, expected):
    assert gpu_host.parse_module_version(text) == expected


def test_the_librarys_version_is_in_the_name_of_its_file(tmp_path):
    folder = tmp_path / "usr/lib/x86_64-linux-gnu"
    write(folder, **{"libnvidia-ml.so.580.95.05": ""})
    (folder / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.95.05")
    assert gpu_host.library_version(tmp_path) == "580.95.05"


def test_a_library_whose_file_has_no_version_tells_none(tmp_path):
    assert gpu_host.library_version(tmp_path) is None
    write(tmp_path / "usr/lib", **{"libnvidia-ml.so.1": ""})
    assert gpu_host.library_version(tmp_path) is None


@pytest.mark.parametrize(
    ("show", "version", "expected"),
    [
        (
            "LoadState=loaded\nActiveState=active\n",
            "Fabric Manager version is : 580.95.05\n",
            FabricManager(True, "580.95.05", "active"),
        ),
        ("LoadState=loaded\nActiveState=failed\n", "", FabricManager(True, None, "failed")),
        ("LoadState=not-found\nActiveState=inactive\n", "", FabricManager(False, None, None)),
        ("", "", FabricManager(False, None, None)),
    ],
)
def test_the_fabric_manager_is_installed_or_not(show, version, expected):
    assert gpu_host.parse_fabric_manager(show, version) == expected


@pytest.mark.parametrize(
    ("variable", "expected"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (b"", None), (b"\x01", None)]
)
def test_secure_boot_is_the_byte_after_the_attributes(variable, expected):
    assert gpu_host.secure_boot(variable) is expected


def test_a_processor_tells_what_it_can_do():
    cpu = gpu_host.parse_cpu(CPU, "x86_64")
    assert (cpu.model, cpu.sockets, cpu.cores, cpu.threads) == ("INTEL(R) XEON(R) PLATINUM 8558", 2, 2, 3)
    assert (cpu.amx, cpu.avx512, cpu.vnni) == (True, ("avx512_vnni", "avx512f"), True)
    assert (cpu.sgx, cpu.tdx, cpu.sev) == (True, True, ())


def test_a_processor_that_tells_less_is_a_processor():
    cpu = gpu_host.parse_cpu("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\n", "aarch64")
    assert (cpu.architecture, cpu.threads, cpu.cores, cpu.amx) == ("aarch64", 2, 2, False)


def test_the_host_is_read_from_its_tree(tmp_path):
    write(
        tmp_path,
        **{
            "proc/meminfo": "MemTotal:       2048 kB\nMemAvailable:   1024 kB\nHugePages_Total:       0\n",
            "proc/cpuinfo": CPU,
            "sys/devices/system/node/node0/cpulist": "0-1\n",
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       2048 kB\n",
            "sys/devices/system/node/possible": "0\n",
            "sys/block/nvme0n1/size": "2000\n",
            "sys/block/nvme0n1/device/model": "Micron 7450  \n",
            "sys/block/nvme0n1/device/numa_node": "0\n",
            "sys/block/sda/size": "2000\n",
            "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
            "sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
            "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
            "sys/class/infiniband/mlx5_0/device/numa_node": "1\n",
            "sys/module/nouveau/refcnt": "0\n",
        },
    )
    host = gpu_host.read(tmp_path)
    assert (host.memory_total_bytes, host.memory_available_bytes) == (2**21, 2**20)
    assert host.numa_nodes == (NumaNode(0, "0-1", 2**21),)
    assert host.nvme == (Nvme("nvme0n1", "Micron 7450", 1024000, 0),)
    assert host.infiniband == (Infiniband("mlx5_0", 1, "active", "400 Gb/sec (4X NDR)", "InfiniBand", 1),)
    assert (host.nouveau_loaded, host.secure_boot) == (True, None)


def test_a_host_that_shows_nothing_is_read_all_the_same(tmp_path):
    host = gpu_host.read(tmp_path)
    assert (host.memory_total_bytes, host.numa_nodes, host.nvme, host.infiniband) == (None, (), (), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:1B:00.0", "0000:1b:00.0"),
        ("1B:00.0", "0000:1b:00.0"),
        ("00010000:1B:00.0", "10000:1b:00.0"),
        ("?", "?"),
    ],
)
def test_addresses_are_spelt_as_the_kernel_does(text, expected):
    assert pci_address(text) == expected


@pytest.mark.parametrize(("numbers", "expected"), [([], ""), ([3], "3"), ([0, 1, 2, 5, 7, 6], "0-2,5-7")])
def test_processors_are_listed_as_the_kernel_does(numbers, expected):
    assert cpu_list(numbers) == expected
