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
    check: options.Check = False,
    diff: options.Diff = False,
    tags: Annotated[str, typer.Option("--tags", "-t", help="Only these roles, such as gateway or vllm,gateway.")] = "",
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a site's hosts from bare to serving.

    The same as `ansible-playbook bedplate.llm.site`. A second run changes nothing. Exit code: 0 done, 1 something
    failed on a host, 2 it could not run (a host not reachable, the inventory wrong).
    """
    found = find_site(site, inventories)
    what = Run(f"{NAMESPACE}.site", found.path, limit, check, diff, tags, tuple(extra_vars or ()))
    change_hosts("rollout", site, what, as_json)


def change_hosts(command: str, site: str, what: Run, as_json: bool) -> None:
    """Run a playbook that changes hosts, tell what it came to, and leave with its exit code."""

    def body(session: Session) -> Ending:
        report = session.play(what)
        title = f"Nothing was changed; a {command} would come to" if what.check else f"{command} of {site} is done"
        # That a host waits for a reboot fails no run that was not to restart it, and must not go unread either.
        waiting = [
            f"{host}: {check.sentence}" for host, check in report.failing_checks if check.id.startswith("reboot.")
        ]
        return Ending(report, report.rollout_exit_code(), f"{title}: {hosts_line(report)}", notes=waiting)

    leave(run_session(command, site, as_json, body))
