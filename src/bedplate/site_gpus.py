"""The GPUs of a site's hosts, as `bedplate.llm.gpu_info` finds them there."""

from __future__ import annotations

from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets

from bedplate import runner
from bedplate.collection import NAMESPACE
from bedplate.errors import UserError
from bedplate.events import Event, TaskEnded
from bedplate.sites import Site


def gpus_of(site: Site, limit: str = "") -> gpu_sets.GpuSet:
    """The set of equal GPUs in the site's serving hosts; a sentence when they cannot be asked or are not alike."""
    found: dict[str, dict[str, Any]] = {}

    def collect(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.status == "ok":
            facts = (event.result.get("ansible_facts") or {}).get("bedplate_gpus")
            if facts is not None:
                found[event.host] = facts

    report = runner.ask(runner.Run(f"{NAMESPACE}.gpus", site.path, limit), collect)
    if report.rc != 0 or report.failures or not found:
        reasons = report.explanation() or ["no host of gpu_hosts answered"]
        raise UserError(f"plan: the GPUs of {site.name} cannot be seen: {reasons[0]}")
    try:
        return gpu_sets.from_facts(found)
    except gpu_sets.GpuSetError as error:
        raise UserError(f"plan: {error}") from error
