"""`bedplate volume`: encrypted volumes that are there, looked at, unlocked, backed up, restored, rotated, erased."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bedplate import options
from bedplate.collection import NAMESPACE
from bedplate.errors import FAILED, OK, UserError
from bedplate.events import Event, TaskEnded
from bedplate.runner import Run
from bedplate.session import Ending, Session, hosts_line, is_interactive, leave, run_session
from bedplate.sites import find_site
from bedplate.volume_report import host_lines

app = typer.Typer(
    no_args_is_help=True, help="Encrypted volumes: look at them, unlock, back up, restore, rotate, erase."
)

# The role's word for what a command does.
_COMMANDS = {
    "unlocked": "unlock",
    "backed_up": "backup",
    "restored": "restore",
    "rotated": "rotate",
    "erased": "erase",
}

Name = Annotated[str, typer.Option("--volume", help="Name of the volume, as the site declares it.")]
OneHost = Annotated[str, typer.Option("--limit", "--host", "-l", help="The host.")]


@app.command()
def status(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    as_json: options.AsJson = False,
) -> None:
    """Tell how each volume is, and how an empty disk would be declared.

    Exit code: 0 every volume is as it should be, 1 some are not, 2 a host could not be asked.
    """
    found = find_site(site, inventories)
    seen: dict[str, Mapping[str, Any]] = {}

    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.status == "ok" and "disks" in event.result:
            seen[event.host] = event.result

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.volume_status", found.path, limit), [listen])
        code = report.rollout_exit_code()
        broken = [check for result in seen.values() for check in result["checks"] if not check["ok"]]
        if code == OK and broken:
            code = FAILED
        shown = [{"host": host, **{key: result[key] for key in ("volumes", "disks")}} for host, result in seen.items()]
        summary = "not every check holds; `bedplate volume status` shows each with its remedy"
        return Ending(report, code, summary, extra={"volumes": shown}, quiet=True)

    ending = run_session("volume status", site, as_json, body)
    if not as_json:
        now = datetime.datetime.now(datetime.UTC)
        for host, result in sorted(seen.items()):
            for line in host_lines(host, result, now):
                typer.echo(line)
    leave(ending)


@app.command()
def unlock(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    volume: Name = "",
    check: options.Check = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Open volumes with the escrow's passphrase, mount them and start what waits for them."""
    _change("unlocked", site, inventories, limit, volume, check, extra_vars, as_json)


@app.command()
def backup(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    volume: Name = "",
    check: options.Check = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Take the headers of volumes to the escrow, where they changed."""
    _change("backed_up", site, inventories, limit, volume, check, extra_vars, as_json)


@app.command()
def restore(
    site: options.SiteName,
    volume: Name,
    limit: OneHost,
    file: Annotated[
        str, typer.Option("--backup", help="File name of a backup in the escrow; default the newest.")
    ] = "",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    check: options.Check = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a damaged header back from the escrow, and unlock the volume. What lay there is kept."""
    _change("restored", site, inventories, limit, volume, check, extra_vars, as_json, luks_volume_backup=file)


@app.command()
def rotate(
    site: options.SiteName,
    volume: Name,
    method: Annotated[str, typer.Option("--method", help="recovery, tpm2, tang or tpm2+tang.")],
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    check: options.Check = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Make one way of unlocking anew: add, prove, back up, and only then take the former one out."""
    _change("rotated", site, inventories, limit, volume, check, extra_vars, as_json, luks_volume_method=method)


@app.command()
def erase(
    site: options.SiteName,
    volume: Name,
    limit: OneHost,
    serial: Annotated[
        str, typer.Option("--serial", help="Serial number of the device; asked for when not given.")
    ] = "",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    check: options.Check = False,
    extra_vars: options.ExtraVars = None,
    as_json: options.AsJson = False,
) -> None:
    """Destroy every key of a volume, on the host and in the escrow, and sign a record of it. Nothing brings it back."""
    if not serial:
        if as_json or not is_interactive():
            raise UserError("volume erase: give --serial with the serial number of the device; nothing was changed.")
        lost = f"All data of the volume {volume} on {limit} will be lost for good."
        serial = typer.prompt(f"{lost}\nSerial number of its device", err=True)
    _change("erased", site, inventories, limit, volume, check, extra_vars, as_json, luks_confirm_erase=serial)


def _change(
    state: str,
    site: str,
    inventories: Path,
    limit: str,
    volume: str,
    check: bool,
    extra_vars: list[str] | None,
    as_json: bool,
    **more: str,
) -> None:
    found = find_site(site, inventories)
    told = {"luks_volume_state": state, "luks_volume_names": [volume] if volume else [], **more}
    variables = (*(extra_vars or ()), json.dumps(told))
    what = Run(f"{NAMESPACE}.volume", found.path, limit, check, extra_vars=variables)
    command = f"volume {_COMMANDS[state]}"
    done: list[dict[str, Any]] = []

    def body(session: Session) -> Ending:
        def listen(event: Event) -> None:
            for entry in actions(event):
                done.append(entry)
                session.say("; ".join(entry["actions"]), f"{entry['host']} {entry['volume']}")

        report = session.play(what, [listen])
        title = f"Nothing was changed; {command} would come to" if check else f"{command} of {site} is done"
        return Ending(report, report.rollout_exit_code(), f"{title}: {hosts_line(report)}", extra={"actions": done})

    leave(run_session(command, site, as_json, body))


def actions(event: Event) -> list[dict[str, Any]]:
    """What was done to each volume, by the result of the role's task; also when it failed for another one."""
    items = event.result.get("results") if isinstance(event, TaskEnded) else None
    return [
        {"host": event.host, "volume": item["item"]["name"], "actions": item["actions"]}
        for item in items or []
        if isinstance(event, TaskEnded) and isinstance(item, Mapping) and item.get("actions")
    ]
