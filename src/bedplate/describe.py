"""What a site says about itself.

The values come from the collection's `describe` playbook, which resolves the roles' defaults and the inventory without
contacting a host.  So no default (port, issuer, path of the authority…) is written a second time in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bedplate import runner
from bedplate.collection import NAMESPACE
from bedplate.errors import UserError
from bedplate.events import Event, TaskEnded
from bedplate.sites import Site


@dataclass(frozen=True)
class Service:
    """What a client needs to know of one gateway."""

    gateway: str
    authority: str  # path of the certificate to trust; empty for the system's
    local_issuer: bool
    issuer: str
    audiences: tuple[str, ...]
    model: str

    @property
    def api(self) -> str:
        return f"{self.gateway}/v1"


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    connection: str
    ssh_port: int
    ssh_user: str
    ssh_key: str
    ssh_arguments: str
    known_hosts: Path
    secrets_dir: Path
    bundle_dir: Path | None
    service: Service | None

    @classmethod
    def from_description(cls, value: Mapping[str, Any]) -> Host:
        service = None
        if "gateway" in value:
            service = Service(
                gateway=value["gateway"].strip(),
                authority=value["authority"].strip(),
                local_issuer=bool(value["local_issuer"]),
                issuer=value["issuer"],
                audiences=tuple(value["audiences"]),
                model=value["model"],
            )
        return cls(
            name=value["host"],
            address=value["address"],
            connection=value["connection"],
            ssh_port=int(value["ssh_port"]),
            ssh_user=value["ssh_user"],
            ssh_key=value["ssh_key"],
            ssh_arguments=value["ssh_arguments"],
            known_hosts=Path(value["known_hosts"]),
            secrets_dir=Path(value["secrets_dir"]),
            bundle_dir=Path(value["bundle_dir"]) if value["bundle_dir"] else None,
            service=service,
        )


def described(event: Event) -> Host | None:
    """The host that this event of the `describe` playbook describes, if it does."""
    if not isinstance(event, TaskEnded) or not event.action.endswith("debug") or event.status != "ok":
        return None
    message = event.result.get("msg")
    return Host.from_description(message) if isinstance(message, Mapping) and "ssh_arguments" in message else None


def describe(site: Site, interrupts: runner.Interrupts | None = None) -> dict[str, Host]:
    """All hosts of the site by name, in the inventory's order."""
    found: dict[str, Host] = {}

    def collect(event: Event) -> None:
        host = described(event)
        if host is not None:
            found[host.name] = host

    report = runner.ask(runner.Run(f"{NAMESPACE}.describe", site.path), collect, interrupts)
    if report.rc != 0 or report.failures or not found:
        reasons = [failure.message for failure in report.failures] or report.errors
        reason = reasons[0] if reasons else "its inventory declares no host"
        raise UserError(f"Site {site.name} ({site.path}) cannot be described: {reason.strip()}")
    return found


def serving_host(hosts: Mapping[str, Host], wanted: str = "") -> tuple[Host, Service]:
    """The host whose gateway to ask: the wanted one, or the first of gpu_hosts."""
    serving = {name: host for name, host in hosts.items() if host.service is not None}
    if wanted and wanted not in serving:
        raise UserError(f"No host {wanted!r} serves a model; choose one of {', '.join(serving) or 'none'}.")
    for name, host in serving.items():
        if host.service is not None and wanted in ("", name):
            return host, host.service
    raise UserError("The site has no host in the group gpu_hosts, so nobody serves a model; add one to its hosts.yml.")
