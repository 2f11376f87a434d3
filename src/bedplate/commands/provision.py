"""`bedplate provision`: what lies below the service, host by host."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate import options
from bedplate.collection import NAMESPACE
from bedplate.commands.rollout import change_hosts
from bedplate.runner import Run
from bedplate.sites import find_site


def provision(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    reboot: Annotated[
        bool, typer.Option("--reboot", help="Restart hosts that wait for it, drained and one after the other.")
    ] = False,
    check: options.Check = False,
    diff: options.Diff = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring drivers and toolkits of a site's hosts to what the site says, one host after the other.

    The same as `ansible-playbook bedplate.llm.provision`. A host that has nothing to change goes on serving; the first
    one that fails ends the run, and the next run goes on there. Exit code: 0 done, 1 something failed on a host or it
    waits for a reboot that was not allowed, 2 it could not run (a host not reachable, the inventory wrong).
    """
    found = find_site(site, inventories)
    allowed = ('{"bedplate_reboot_allowed": true}',) if reboot else ()
    variables = (*(extra_vars or ()), *allowed)
    what = Run(f"{NAMESPACE}.provision", found.path, limit, check, diff, extra_vars=variables)
    change_hosts("provision", site, what, as_json)
