"""`bedplate status`: what stands where, and how to try it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

from bedplate import options
from bedplate.collection import NAMESPACE
from bedplate.describe import Host, described
from bedplate.errors import FAILED, OK
from bedplate.events import Event, TaskEnded
from bedplate.runner import Run
from bedplate.session import Ending, Session, leave, run_session
from bedplate.sites import find_site

# Where an engine stands on a host says which one it is: …/engines/<version>-<digest>/bin/vllm.
_ENGINE = re.compile(r"/engines/(?P<version>[^/]+)-[0-9a-f]{12}/")


@dataclass(frozen=True)
class Unit:
    name: str
    active: str
    detail: str
    since: str
    engine: str

    @property
    def line(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return f"{self.name}: {self.active} ({self.detail}){since}"


def parse_units(text: str) -> list[Unit]:
    """What `systemctl show` printed for several units, one block each."""
    units = []
    for block in text.split("\n\n"):
        shown = parse_show(block)
        if shown.get("LoadState") != "loaded":
            continue
        engine = _ENGINE.search(shown.get("ExecStart", ""))
        units.append(
            Unit(
                name=shown.get("Id", ""),
                active=shown.get("ActiveState", ""),
                detail=shown.get("SubState", ""),
                since=shown.get("ActiveEnterTimestamp", ""),
                engine=engine["version"] if engine else "",
            )
        )
    return sorted(units, key=lambda unit: unit.name)


def status(
    site: options.SiteName,
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    as_json: options.AsJson = False,
) -> None:
    """Tell what runs on each serving host, its model, engine and address, and the line to try it with.

    Exit code: 0 all services run, 1 some do not, 2 a host could not be asked.
    """
    found = find_site(site, inventories)
    hosts: dict[str, Host] = {}
    units: dict[str, list[Unit]] = {}

    def listen(event: Event) -> None:
        host = described(event)
        if host is not None:
            hosts[host.name] = host
        elif isinstance(event, TaskEnded) and event.status == "ok" and "stdout" in event.result:
            units[event.host] = parse_units(event.result["stdout"])

    def body(session: Session) -> Ending:
        report = session.play(Run(f"{NAMESPACE}.status", found.path, limit), [listen])
        code = report.rollout_exit_code()
        if code == OK and any(not states or any(u.active != "active" for u in states) for states in units.values()):
            code = FAILED
            report.errors.append("Not every service runs; `bedplate verify` says what is wrong and what to do.")
        extra = {"site": [_as_dict(host, units.get(name, [])) for name, host in hosts.items() if host.service]}
        return Ending(report, code, extra=extra, quiet=True)

    ending = run_session("status", site, as_json, body)
    if not as_json:
        for host in hosts.values():
            for line in _host_lines(host, units.get(host.name)):
                typer.echo(line)
        for line in _try_lines(site, hosts):
            typer.echo(line)
    leave(ending)


def _host_lines(host: Host, units: list[Unit] | None) -> list[str]:
    if host.service is None:
        return []
    engine = next((unit.engine for unit in units or [] if unit.engine), "")
    lines = [
        f"{host.name} ({host.address})",
        f"  gateway  {host.service.gateway}",
        f"  model    {host.service.model}",
        f"  engine   {'vLLM ' + engine if engine else 'not installed' if units is not None else 'unknown'}",
    ]
    if units is None:
        return [*lines, "  services unknown: the host did not answer"]
    return lines + [f"  service  {unit.line}" for unit in units or []] + (["  service  none yet"] if not units else [])


def program(started_as: str, here: Path) -> str:
    """How the user can call this command from where they are; `make demo` has a PATH that their shell has not."""
    path = Path(started_as).absolute()
    if path.is_relative_to(here):
        return f"./{path.relative_to(here)}"
    return path.name if shutil.which(path.name) == str(path) else str(path)


def _try_lines(site: str, hosts: dict[str, Host]) -> list[str]:
    """A command that works when pasted.  The token goes in by stdin: an argument would show in the process list."""
    for host in hosts.values():
        if host.service is None:
            continue
        request = f'{{"model": "{host.service.model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        words = [
            "curl",
            "--header",
            "@-",
            "--header",
            "Content-Type: application/json",
            "--data",
            request,
            f"{host.service.api}/chat/completions",
        ]
        if host.service.authority:
            words[1:1] = ["--cacert", host.service.authority]
        token = (
            f"{shlex.quote(program(sys.argv[0], Path.cwd()))} token --site {site} --header"
            if host.service.local_issuer
            else ("printf 'Authorization: Bearer %s' \"$BEDPLATE_TOKEN\"")
        )
        return ["Try it:", f"  {token} | {shlex.join(words)}"]
    return []


def _as_dict(host: Host, units: list[Unit]) -> dict[str, Any]:
    return {
        "host": host.name,
        "address": host.address,
        **(vars(host.service) if host.service else {}),
        "engine": next((unit.engine for unit in units if unit.engine), ""),
        "units": [vars(unit) for unit in units],
    }
