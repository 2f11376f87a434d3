# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has of SM4: its kernels, packages and builds, read through its own tools.  Changes nothing, except that
the kernel may load its modules when it is asked to encrypt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import driver_host, gpu_host, sm4_module
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import GUOMI, probe
from ansible_collections.bedplate.llm.plugins.module_utils.dkms import (
    Run,
    boot_images,
    has_headers,
    headers_package,
    signing_key,
)
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import QUIET

BOOT_FILE = "etc/modules-load.d/bedplate-sm4.conf"


def look(root: Path, run: Run) -> sm4_module.Facts:
    here = driver_host.system(root, run)
    key, enrolled = signing_key(root, run)
    return sm4_module.Facts(
        system=here,
        kernels=tuple(
            sm4_module.Kernel(
                release=release,
                headers=has_headers(root, release),
                headers_package=headers_package(here, release),
                sm4=provides(release, run),
            )
            for release in boot_images(path.name for path in (root / "boot").glob("vmlinu*"))
        ),
        packages={package.name: package.version for package in driver_host.installed(here, run) if package.complete},
        builds=sm4_module.parse_dkms(run(["dkms", "status"]) or ""),
        unusable=probe(GUOMI.name, lambda argv: (0, run(argv) or ""), root) or "",
        loaded_at_boot=(root / BOOT_FILE).is_file(),
        secure_boot=gpu_host.read_secure_boot(root),
        signing_key=key,
        signing_key_enrolled=enrolled,
    )


def provides(release: str, run: Run) -> bool:
    """Whether a kernel that is asked for SM4 finds it, whoever built it."""
    return run(["modprobe", "--dry-run", "--quiet", "--set-version", release, sm4_module.ALIAS]) is not None


class Tools:
    """The host's tools, as the modules run them; one that is missing says nothing."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def command(self, argv: Sequence[str]) -> Tuple[int, str, str]:
        tool = self._module.get_bin_path(argv[0], opt_dirs=["/sbin", "/usr/sbin"])
        if tool is None:
            return 127, "", f"{argv[0]} is missing"
        code, out, err = self._module.run_command([tool, *argv[1:]], environ_update=QUIET)
        return code, out, err

    def run(self, argv: Sequence[str]) -> Optional[str]:
        code, out, _err = self.command(argv)
        # mokutil tells the answer by its words; its status differs between versions.
        return out if code == 0 or argv[0] == "mokutil" else None
