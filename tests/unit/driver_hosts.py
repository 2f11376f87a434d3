"""Hosts for the tables of the driver's decisions: a Debian 12 with one H100, and what differs from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    DriverFacts,
    Gpu,
    Initramfs,
    Kernel,
    Module,
    Offers,
    Package,
    Service,
    System,
    Wanted,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find

OLD, NEW = "535.261.03", "535.309.01"
DEBIAN = System("debian", "12", "x86_64", "6.1.0-50-amd64", "apt")
RUNNING, OTHER = "6.1.0-50-amd64", "6.1.0-50-cloud-amd64"


def gpu(name: str) -> Gpu:
    product = find(name)
    assert product is not None
    return Gpu(name, product.name, product.architecture, product.open_kernel_module, product.link)


H100, V100, B200, GB200 = gpu("H100"), gpu("V100"), gpu("B200"), gpu("GB200")
UNKNOWN = Gpu("device 9999")


def kernel(release: str, **differences: Any) -> Kernel:
    image = Initramfs(f"/boot/initrd.img-{release}", nouveau=True, blocks_nouveau=True)
    plain = Kernel(release, release == RUNNING, None, True, f"linux-headers-{release}", None, image)
    return replace(plain, **differences)


def driven(release: str, version: str = OLD, kind: str = "open", **differences: Any) -> Kernel:
    return kernel(
        release, module=Module(version, kind, "DKMS module signing key", "nvidia-current-open"), **differences
    )


VIRGIN = DriverFacts(system=DEBIAN, kernels=(kernel(RUNNING), kernel(OTHER)), gpus=(H100,), unattended_away=False)

NAMES = (
    "firmware-nvidia-gsp",
    "libcuda1",
    "libnvidia-cfg1",
    "libnvidia-ml1",
    "libnvidia-nvvm4",
    "libnvidia-ptxjitcompiler1",
    "nvidia-open-kernel-dkms",
    "nvidia-smi",
)
# As Debian 12 offers them: the newer version has no open module.
OFFERS = Offers(
    {
        **dict.fromkeys((*NAMES, "nvidia-kernel-dkms"), (f"{NEW}-0+deb12u1", f"{OLD}-1")),
        "nvidia-open-kernel-dkms": (f"{OLD}-1",),
        "nvidia-persistenced": ("535.171.04-1~deb12u1",),
    }
)
WANTED = Wanted(version=OLD)


def packages(version: str = OLD, held: bool = True, names: tuple[str, ...] = NAMES) -> tuple[Package, ...]:
    return (
        *(Package(name, f"{version}-1", held) for name in names),
        Package("nvidia-persistenced", "535.171.04-1~deb12u1", held),
    )


# Installed, started again, and as the role leaves it.
GOOD = replace(
    VIRGIN,
    kernels=(driven(RUNNING), driven(OTHER)),
    packages=packages(),
    loaded_version=OLD,
    loaded_kind="open",
    running_module=Module(OLD, "open"),
    library_version=OLD,
    nouveau_blocked=True,
    unattended_away=True,
    persistence=Service(True, True, True),
)
