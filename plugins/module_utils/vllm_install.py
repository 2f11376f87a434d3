# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an engine is made from a bundle's wheels: the decisions and commands of the `vllm_engine` module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

MARKER = "installed.json"
FLAGS = "flags.json"


@dataclass(frozen=True)
class Engine:
    """The engine that is wanted: an immutable directory, known by the digest of the bundle's part."""

    path: str
    name: str
    version: str
    digest: str

    @property
    def building(self) -> str:
        """Where it is made: beside the place it goes to, so that the last step is one rename."""
        return self.path + ".building"

    @property
    def cache(self) -> str:
        """The installer's unpacked wheels: on the same filesystem, so that they are linked and not copied."""
        return self.path + ".cache"

    @property
    def python(self) -> str:
        return self.building + "/bin/python"

    def marker(self) -> Dict[str, Any]:
        return {"schema": 1, "name": self.name, "version": self.version, "digest": self.digest}


class InstallError(Exception):
    """Why the engine cannot be installed, as one sentence."""


def is_installed(wanted: Engine, exists: bool, marker: Optional[str]) -> bool:
    """Whether the wanted engine is complete; InstallError when something else stands in its place."""
    if not exists:
        return False
    try:
        found = json.loads(marker or "")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InstallError(
            f"{wanted.path} exists without a readable {MARKER}, so this collection did not make it; move it away."
        )
    if found.get("digest") != wanted.digest:
        raise InstallError(
            f"{wanted.path} holds an engine with digest {found.get('digest')}, wanted is {wanted.digest}; engines are"
            " never changed in place, so move it away."
        )
    return True


def installer_environment(engine: Engine) -> Dict[str, str]:
    """All that the installer sees of the host: no configuration file, index or proxy of an administrator."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "UV_CACHE_DIR": engine.cache,
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }


def install_commands(engine: Engine, incoming: str, python: str) -> List[List[str]]:
    """Make the environment (relocatable, since it is renamed when complete) and fill it with exactly what is pinned."""
    uv = incoming + "/bin/uv"
    return [
        [uv, "venv", "--quiet", "--relocatable", "--no-managed-python", "--python", python, engine.building],
        [
            *[uv, "pip", "install", "--quiet", "--python", engine.python],
            *["--offline", "--no-index", "--find-links", incoming + "/wheels"],
            *["--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "hardlink"],
            # The engine's user may not write here, so without this every start would compile thousands of files anew.
            "--compile-bytecode",
            *["--requirement", incoming + "/requirements.txt"],
        ],
    ]


def metadata_shim(engine: Engine) -> Optional[Tuple[str, str]]:
    """Folder and METADATA text that let the CPU build find its own version; None when the engine needs none.

    The CPU build is published under another name, and the engine looks for its version under "vllm" only.
    The suffix matters: "+cpu" is what selects the CPU platform.
    """
    if engine.name == "vllm":
        return None
    version = engine.version if "+" in engine.version else engine.version + "+cpu"
    return f"vllm-{version}.dist-info", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"


def recorder_environment(home: str) -> Dict[str, str]:
    """For asking the engine what it accepts: nothing of ours, no network, no statistics."""
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
        "HOME": home,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
