"""`bedplate verify`: every role's checks on every serving host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedplate import options
from bedplate.collection import NAMESPACE
from bedplate.errors import COULD_NOT_RUN
from bedplate.runner import Run
from bedplate.session import Ending, Session, leave, run_session
from bedplate.sites import find_site

if TYPE_CHECKING:
    from bedplate.report import Report


def verify(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that everything a site promises holds, from the outside where that is possible.

    Exit code: 0 all checks hold, 1 some do not, 2 the checks could not be made (a host not reachable, no inventory).
    """
    found = find_site(site, inventories)

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.verify", found.path, limit, extra_vars=tuple(extra_vars or ())))
        total = sum(len(checks) for checks in report.checks.values())
        broken = len(report.failing_checks)
        exit_code = report.verify_exit_code()
        summary = f"all {total} checks of {site} hold" if not broken else f"{broken} of {total} checks do not hold"
        if exit_code == COULD_NOT_RUN and not report.checks:
            summary = "not one check was made"
        return Ending(report, exit_code, summary, verdicts=False)

    ending = run_session("verify", site, as_json, body)
    if not as_json:
        _print_table(ending.report)
    leave(ending)


def _print_table(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for host, checks in sorted(report.checks.items()):
        console.print(Text(host, style="bold"))
        width = max(len(name) for name in checks)
        for name, check in sorted(checks.items(), key=lambda pair: (pair[1].ok, pair[0])):
            line = Text("  ok    " if check.ok else "  FAIL  ", style="green" if check.ok else "bold red")
            line.append(f"{name:<{width}}  ", style="default").append(check.reason, style="default")
            console.print(line, soft_wrap=True)
            if not check.ok and check.remedy:
                console.print(Text(f"        {'':<{width}}  → {check.remedy}"), soft_wrap=True)
