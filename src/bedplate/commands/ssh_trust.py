"""`bedplate ssh-trust`: show the fingerprints of a site's hosts and pin their keys."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate import options
from bedplate.describe import describe
from bedplate.errors import COULD_NOT_RUN, FAILED, UserError
from bedplate.session import is_interactive
from bedplate.sites import find_site


def ssh_trust(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Pin without asking: you compared the fingerprints.")
    ] = False,
) -> None:
    """Fetch the ssh host keys of a site, show their fingerprints, and pin them.

    Needs no root and sends no secret. A host that shows another key than the pinned one is refused: exit code 1.
    """
    hosts = list(describe(find_site(site, inventories)).values())
    from bedplate import ssh_trust as trust

    over_ssh = [host for host in hosts if host.connection in ("ssh", "ansible.builtin.ssh")]
    if not over_ssh:
        raise UserError(f"No host of {site} is reached over ssh, so there is no host key to pin.")
    file = over_ssh[0].known_hosts
    targets = [trust.Target(host.name, host.address, host.ssh_port) for host in over_ssh]
    findings = trust.examine(targets, trust.read_pinned(file))
    for finding in findings:
        typer.echo(finding.sentence, err=finding.state in ("different", "unreachable"))

    if any(finding.state == "different" for finding in findings):
        raise typer.Exit(FAILED)
    new = [finding for finding in findings if finding.state == "new"]
    if new:
        if not yes:
            if not is_interactive():
                raise UserError("ssh-trust: nobody is here to confirm; compare the fingerprints and give --yes.")
            typer.confirm(f"Pin {len(new)} in {file}?", abort=True, err=True)
        typer.echo(f"{trust.pin(file, new)} pinned in {file}")
    if any(finding.state == "unreachable" for finding in findings):
        raise typer.Exit(COULD_NOT_RUN)
