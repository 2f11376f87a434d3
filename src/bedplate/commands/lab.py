"""`bedplate lab`: throw-away machines on this computer."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bedplate import options
from bedplate.beside import BundleBuild
from bedplate.collection import NAMESPACE, collection_folder
from bedplate.describe import describe
from bedplate.errors import FAILED, OK, UserError
from bedplate.events import Event, TaskEnded
from bedplate.runner import Run
from bedplate.session import Ending, Session, hosts_line, leave, run_session
from bedplate.sites import Site, find_site, is_site

app = typer.Typer(no_args_is_help=True, help="Throw-away machines on this computer, provisioned like real ones.")

LabName = Annotated[str, typer.Option("--site", "-s", help="Name of the lab's site.")]


@app.command()
def up(
    site: LabName = "lab",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    extra_vars: options.ExtraVars = None,
    bundle: Annotated[bool, typer.Option(help="Also build the bundle that feeds the lab's hosts.")] = True,
    as_json: options.AsJson = False,
) -> None:
    """Raise the lab's machines and build their bundle. A second run changes nothing."""
    _need_root("up")
    found = _lab_site(site, inventories, as_json)

    def body(session: Session) -> Ending:
        # First, in a moment: a bundle that cannot be described would otherwise be found out after the machines are up.
        folders = {host.bundle_dir for host in describe(found, session.interrupts).values() if host.bundle_dir}
        builds = [
            BundleBuild(folder, lambda line: session.say(line, "bundle")) for folder in (folders if bundle else ())
        ]
        try:
            report = session.play(Run(f"{NAMESPACE}.lab_up", found.path, extra_vars=tuple(extra_vars or ())))
            code = report.rollout_exit_code()
            if code != OK:
                return Ending(report, code)
            for build in builds:
                session.progress.beside("bundle", "being built")
                problem = build.wait(lambda: bool(session.interrupts))
                session.progress.beside("bundle", "")
                if problem:
                    report.errors.append(f"The machines are up, but their bundle is not complete: {problem}")
                    return Ending(report, FAILED)
        finally:
            for build in builds:
                build.end()
        return Ending(report, OK, f"the lab is up: {hosts_line(report)}")

    leave(run_session("lab up", site, as_json, body))


@app.command()
def down(
    site: LabName = "lab",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    as_json: options.AsJson = False,
) -> None:
    """Remove everything that `lab up` made, also in the middle of one: no process, mount, bridge or rule stays."""
    _need_root("down")
    found = find_site(site, inventories)

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.lab_down", found.path))
        return Ending(report, report.rollout_exit_code(), "the lab is down")

    leave(run_session("lab down", site, as_json, body))


@app.command()
def reset(
    hosts: Annotated[list[str] | None, typer.Argument(help="Machines to make afresh; default all.")] = None,
    site: LabName = "lab",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    as_json: options.AsJson = False,
) -> None:
    """Make machines afresh, with empty disks; their keys and addresses stay."""
    _need_root("reset")
    found = find_site(site, inventories)

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.lab_reset", found.path, limit=",".join(hosts or ())))
        return Ending(report, report.rollout_exit_code(), f"made afresh: {', '.join(report.hosts)}")

    leave(run_session("lab reset", site, as_json, body))


@app.command()
def status(
    site: LabName = "lab",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    as_json: options.AsJson = False,
) -> None:
    """Tell which machines of the lab stand on this computer."""
    _need_root("status")
    found = find_site(site, inventories)
    seen: dict[str, Any] = {}

    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded) and "machines" in event.result:
            seen.update({name: event.result[name] for name in ("exists", "outside", "machines")})

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.lab_status", found.path), [listen])
        return Ending(report, report.rollout_exit_code(), extra={"lab": seen}, quiet=True)

    ending = run_session("lab status", site, as_json, body)
    if seen and not as_json:
        for line in _machine_lines(site, seen):
            typer.echo(line)
    leave(ending)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def ssh(
    host: Annotated[str, typer.Argument(help="Name of the machine, such as llm1.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run there; default a login.")] = None,
    site: LabName = "lab",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
) -> None:
    """Log in to a machine of the lab, or run a command there. Options go before the name of the machine."""
    hosts = describe(find_site(site, inventories))
    if host not in hosts:
        raise UserError(f"No host {host!r} in the site {site}; choose one of {', '.join(hosts)}.")
    there = hosts[host]
    words = ["ssh", *shlex.split(there.ssh_arguments), "-p", str(there.ssh_port)]
    words += ["-i", there.ssh_key] if there.ssh_key else []
    words += [f"{there.ssh_user}@{there.address}" if there.ssh_user else there.address, *(command or [])]
    if shutil.which("ssh") is None:
        raise UserError("lab ssh: the program ssh is missing; install the package openssh-client.")
    raise typer.Exit(subprocess.run(words, check=False).returncode)


def _need_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise UserError(
            f"lab {verb}: the lab lives in network namespaces and mounts of this computer, which needs root; "
            f"run `sudo bedplate lab {verb}`."
        )


def _lab_site(name: str, inventories: Path, as_json: bool) -> Site:
    """The site; the embedded lab is copied here the first time: an ordinary inventory to read and change."""
    folder = inventories / name
    if name == "lab" and not folder.exists():
        embedded = collection_folder() / "inventories" / "lab"
        if not is_site(embedded):
            raise UserError(
                f"The lab's inventory is missing in the installed collection ({embedded}); install it again."
            )
        shutil.copytree(embedded, folder, ignore=shutil.ignore_patterns(".*", "known_hosts*"))
        if not as_json:
            typer.echo(f"{folder} is new: the embedded lab's inventory, yours to read and change.", err=True)
    return find_site(name, inventories)


def _machine_lines(site: str, seen: Mapping[str, Any]) -> list[str]:
    if not seen["exists"] and not seen["machines"]:
        return [f"Nothing of the lab {site} stands on this computer; `bedplate lab up` raises it."]
    lines = [f"Lab {site}, outside {'reachable' if seen['outside'] else 'switched off'}:"]
    for machine in seen["machines"]:
        if "kind" not in machine:  # its making was interrupted before it was recorded, or is under way
            lines.append(f"  {machine['name']:<12} not made completely; `bedplate lab up` makes it, `down` removes it")
            continue
        state = "running" if machine["running"] else "ended"
        if machine["running"] and not machine["reachable"]:
            state += ", ssh does not answer"
        addresses = f"{machine['address']}, {machine['address6']}"
        lines.append(f"  {machine['name']:<12} {machine['kind']:<10} {state:<10} {addresses}")
    return lines
