"""The lab bundle's engine in .dev/engine, made when it is not there: prints the path of its interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import bundle as manifests
from ansible_collections.bedplate.llm.plugins.module_utils import vllm_install

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "lab"


def make(engine: vllm_install.Engine, incoming: str) -> None:
    """As the module vllm_engine does on a host: beside, then renamed."""
    shutil.rmtree(engine.building, ignore_errors=True)
    Path(engine.path).parent.mkdir(parents=True, exist_ok=True)
    # The installer wants an interpreter that is no virtual environment's.
    python = os.path.realpath(sys.executable)
    try:
        for command in vllm_install.install_commands(engine, incoming, python):
            # Files are compiled by use here; most are never used.
            argv = [argument for argument in command if argument != "--compile-bytecode"]
            subprocess.run(argv, env=vllm_install.installer_environment(engine), check=True)
        shim = vllm_install.metadata_shim(engine)
        for packages in Path(engine.building).glob("lib/python3*/site-packages") if shim else []:
            folder, metadata = shim
            (packages / folder).mkdir()
            (packages / folder / "METADATA").write_text(metadata, encoding="utf-8")
        Path(engine.building).rename(engine.path)
    finally:
        shutil.rmtree(engine.cache, ignore_errors=True)


def main() -> None:
    part = manifests.load(str(BUNDLE)).parts["engine"]
    path = ROOT / ".dev" / "engine" / part.digest[:12]
    engine = vllm_install.Engine(str(path), part.name, part.version, part.digest)
    if not path.exists():
        sys.stderr.write(
            f"reference: making {part.name} {part.version} in {path.relative_to(ROOT)} (a minute or two)\n"
        )
        make(engine, str(BUNDLE / part.path))
    sys.stdout.write(f"{path}/bin/python\n")


if __name__ == "__main__":
    main()
