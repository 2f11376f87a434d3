"""`bedplate rollout`: bring the hosts of a site from bare to serving."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate import options
from bedplate.collection import NAMESPACE
from bedplate.runner import Run
from bedplate.session import Ending, Session, hosts_line, leave, run_session
from bedplate.sites import find_site


def rollout(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    check: Annotated[bool, typer.Option("--check", help="Change nothing; say what would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the changes inside files.")] = False,
    tags: Annotated[str, typer.Option("--tags", "-t", help="Only these roles, such as gateway or vllm,gateway.")] = "",
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a site's hosts from bare to serving.

    The same as `ansible-playbook bedplate.llm.site`. A second run changes nothing. Exit code: 0 done, 1 something
    failed on a host, 2 it could not run (a host not reachable, the inventory wrong).
    """
    found = find_site(site, inventories)

    def body(session: Session) -> Ending:
        what = Run(f"{NAMESPACE}.site", found.path, limit, check, diff, tags, tuple(extra_vars or ()))
        report = session.play(what)
        title = "Nothing was changed; a rollout would come to" if check else f"rollout of {site} is done"
        return Ending(report, report.rollout_exit_code(), f"{title}: {hosts_line(report)}")

    leave(run_session("rollout", site, as_json, body))
