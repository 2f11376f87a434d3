"""When the gateway's certificate has to be replaced, and how the module replaces it, with the real openssl."""

from __future__ import annotations

import datetime
import grp
import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_authority
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_certificates import (
    Certificate,
    CertificateError,
    parse,
    subject_alternative_name,
    why_replace,
)
from ansible_collections.bedplate.llm.plugins.modules import gateway_certificate
from envoy_harness import Site
from module_runner import ModuleFailedError, run

DAY = 86400
FOUND = Certificate("01", ("fd87:b3d0::11", "llm1"), "ab12", 0, 90 * DAY, "key")
NAMES = ["LLM1", "FD87:B3D0:0:0:0:0:0:11"]


@pytest.mark.parametrize(
    ("found", "names", "issuer", "now", "reason"),
    [
        (FOUND, NAMES, "AB12", 0, ""),
        (FOUND, NAMES, "", 59 * DAY, ""),
        (FOUND, NAMES, "ab12", 61 * DAY, "less than a third of its lifetime is left (29 days)"),
        (FOUND, NAMES, "ab12", 90 * DAY, "it has expired"),
        (FOUND, [*NAMES, "llm2"], "ab12", 0, "wanted is fd87:b3d0::11, llm1, llm2"),
        (FOUND, ["llm1"], "ab12", 0, "it is for fd87:b3d0::11, llm1, wanted is llm1"),
        (replace(FOUND, names=()), NAMES, "ab12", 0, "it is for no name"),
        (FOUND, NAMES, "ff", 0, "another authority"),
        (None, NAMES, "ab12", 0, "there is none"),
    ],
)
def test_reason_to_replace(found: Certificate | None, names: list[str], issuer: str, now: float, reason: str) -> None:
    said = why_replace(found, names, issuer, now)
    assert said == "" if not reason else reason in said


def test_names_are_written_as_openssl_takes_them() -> None:
    assert subject_alternative_name(["LLM1", "192.0.2.1", "::1"]) == "subjectAltName=DNS:llm1,IP:192.0.2.1,IP:::1"


def test_text_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(CertificateError, match="no public key"):
        parse("hello")


class Host:
    """A directory that stands for the host's, and an authority that stands for the operator's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.site = Site()
        self.group = grp.getgrgid(os.getgid()).gr_name
        self.names = ["llm1", "fd87:b3d0::11"]

    def act(self, state: str, **options: Any) -> dict[str, Any]:
        return run(gateway_certificate, state=state, directory=str(self.directory), group=self.group, **options)

    def query(self, **options: Any) -> dict[str, Any]:
        issuer = gateway_authority.key_id(self.site.authority)
        return self.act("query", **{"names": self.names, "issuer_key_id": issuer, **options})

    def sign(self, request: str, days: int = 90, age: int = 0) -> str:
        now = self.site.now - datetime.timedelta(days=age)
        signed = gateway_authority.sign_request(
            self.site.authority, self.site.authority_key, request, self.names, days, now
        )
        return gateway_authority.certificate_pem(signed).decode()

    def renew(self, **options: int) -> dict[str, Any]:
        request = self.act("requested", names=self.names)["request"]
        return self.act("installed", certificate=self.sign(request, **options))

    @property
    def generation(self) -> str:
        return str((self.directory / "current").readlink())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "tls")


def test_first_certificate_is_requested_signed_and_used(host: Host) -> None:
    assert host.query()["needed"] == "there is none"
    installed = host.renew()
    assert installed["changed"]
    found = host.query()
    assert (found["needed"], found["changed"], found["group_exists"]) == ("", False, True)
    assert found["certificate"]["names"] == ["fd87:b3d0::11", "llm1"]
    key = host.directory / "current" / "server.key"
    assert key.stat().st_mode & 0o777 == 0o640
    assert key.resolve().parent.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("change", "reason"), [({"names": ["llm2"]}, "wanted is llm2"), ({"issuer_key_id": "00"}, "another authority")]
)
def test_certificate_that_no_longer_fits_is_needed_anew(host: Host, change: dict[str, Any], reason: str) -> None:
    host.renew()
    assert reason in host.query(**change)["needed"]


def test_old_certificate_is_needed_anew(host: Host) -> None:
    host.renew(age=70)
    assert "less than a third" in host.query()["needed"]


def test_only_the_generation_before_is_kept(host: Host) -> None:
    generations = []
    for days in (30, 60, 90):
        host.renew(days=days)
        generations.append(host.generation)
    assert sorted(entry.name for entry in host.directory.iterdir()) == sorted([*generations[1:], "current"])


def test_interrupted_request_goes_on_with_the_same_key(host: Host) -> None:
    first = host.act("requested", names=host.names)["request"]
    host.act("requested", names=host.names)
    assert host.act("installed", certificate=host.sign(first))["changed"]


def test_certificate_for_another_key_is_refused_and_the_old_one_stays(host: Host, tmp_path: Path) -> None:
    host.renew()
    before = host.generation
    other = Host(tmp_path / "other")
    foreign = host.sign(other.act("requested", names=host.names)["request"])
    host.act("requested", names=host.names)
    with pytest.raises(ModuleFailedError, match="do not belong together"):
        host.act("installed", certificate=foreign)
    assert host.generation == before
    assert not [entry for entry in host.directory.iterdir() if entry.name.startswith(".new-")]


def test_certificate_without_a_request_is_refused(host: Host) -> None:
    host.directory.mkdir()
    with pytest.raises(ModuleFailedError, match="no request is pending"):
        host.act("installed", certificate="x")


def test_key_that_everybody_could_read_is_replaced(host: Host) -> None:
    host.renew()
    before = (host.directory / "current/server.key").read_text()
    (host.directory / "current/server.key").chmod(0o644)
    assert "private key" in host.query()["needed"]
    host.renew()
    assert host.query()["needed"] == ""
    assert (host.directory / "current/server.key").read_text() != before


def test_given_certificate_is_shipped_only_when_it_differs(host: Host, tmp_path: Path) -> None:
    key = tmp_path / "given.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    command = ["openssl", "req", "-new", "-key", key, "-subj", "/CN=x"]
    chain = host.sign(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    digest = hashlib.sha256(chain.encode()).hexdigest()
    assert host.query(chain_sha256=digest)["needed"] == "there is none"
    host.act("installed", certificate=chain, private_key=key.read_text())
    assert host.query(chain_sha256=digest)["needed"] == ""
    assert host.query(chain_sha256="0" * 64)["needed"] == "another one is in use"


def test_check_mode_writes_nothing(host: Host) -> None:
    options = {"names": host.names, "_ansible_check_mode": True}
    assert host.act("requested", **options) == {"changed": True, "request": ""}
    assert host.act("installed", certificate="", _ansible_check_mode=True)["changed"]
    assert not host.directory.exists()
