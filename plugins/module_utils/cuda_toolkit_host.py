# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what a host has of CUDA's toolkit; shared by the module that brings it and the one that looks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, List, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import cuda_toolkit, gpu_host
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import parse_locks
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import APT
from ansible_collections.bedplate.llm.plugins.module_utils.package_source_host import find_manager

Run = Callable[[List[str]], Tuple[int, str, str]]


def look(wanted: cuda_toolkit.Wanted, run: Run, root: Path) -> cuda_toolkit.Found:
    manager = find_manager()
    names = wanted.names(manager)
    if manager == APT:
        text = run(["dpkg-query", "--show", "--showformat", "${Package}\\t${Status}\\t${Version}\\n", *names])[1]
        installed, held = cuda_toolkit.parse_dpkg(text), tuple(run(["apt-mark", "showhold"])[1].split())
    else:
        text = run(["rpm", "--query", "--queryformat", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n", *names])[1]
        installed = cuda_toolkit.parse_rpm(text)
        held = parse_locks(run(["dnf", "-q", "versionlock", "list"])[1]) if installed else ()
    compiler = f"{wanted.home}/bin/nvcc"
    answer = run([compiler, "--version"])[1] if os.access(compiler, os.X_OK) else ""
    driver = gpu_host.library_version(root) or gpu_host.read_module(root).module_version or ""
    return cuda_toolkit.Found(manager, installed, held, cuda_toolkit.parse_nvcc(answer), driver)
