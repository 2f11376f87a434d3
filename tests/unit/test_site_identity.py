"""What the operator's machine makes, keeps and signs."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_authority
from ansible_collections.bedplate.llm.plugins.modules import site_identity
from cryptography import x509
from envoy_harness import Site
from module_runner import ModuleFailedError, run

FILES = {".gitignore": 0o644, "ca.crt": 0o644, "ca.key": 0o600, "jwks.json": 0o644, "token.key": 0o600}
NAMES = ["llm1", "192.0.2.11", "fd87:b3d0::11"]


def identity(path: Path, **options: Any) -> dict[str, Any]:
    return run(site_identity, path=str(path), **options)


def snapshot(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def request(directory: Path, *key: str) -> str:
    """As a host makes it, but asking for somebody else's name."""
    path = directory / "host.key"
    kind = key or ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(["openssl", "genpkey", *kind, "-out", path], check=True, capture_output=True)
    command = ["openssl", "req", "-new", "-key", path, "-subj", "/CN=evil", "-addext", "subjectAltName=DNS:evil"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    identity(tmp_path / "secrets")
    return tmp_path / "secrets"


def test_everything_is_made_once_and_keys_are_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "secrets"
    made = identity(path)
    assert made["changed"]
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in path.iterdir()} == FILES
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / ".gitignore").read_text() == "*\n"
    before = snapshot(path)
    again = identity(path)
    assert (again["changed"], again["created"]) == (False, [])
    assert snapshot(path) == before
    assert [again[name] for name in ("authority", "jwks")] == [made[name] for name in ("authority", "jwks")]


def test_private_keys_are_not_returned(tmp_path: Path) -> None:
    assert "PRIVATE" not in json.dumps(identity(tmp_path / "secrets"))


def test_check_mode_writes_nothing_but_returns_what_rendering_needs(tmp_path: Path) -> None:
    planned = identity(tmp_path / "secrets", _ansible_check_mode=True)
    assert planned["changed"]
    assert set(planned["created"]) == set(FILES)
    assert json.loads(planned["jwks"])["keys"]
    assert not (tmp_path / "secrets").exists()


def test_hosts_that_come_at_the_same_time_get_the_same_keys(tmp_path: Path) -> None:
    command = [sys.executable, site_identity.__file__]
    argument = json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(tmp_path / "secrets")}})
    wrapper = (
        "import runpy, sys; from ansible.module_utils import basic; basic._ANSIBLE_ARGS = sys.argv.pop().encode(); "
        "basic._ANSIBLE_PROFILE = 'legacy'; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    full = [command[0], "-c", wrapper, command[1], argument]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(subprocess.run, full, capture_output=True, text=True, check=False) for index in range(3)]
        results = [json.loads(future.result().stdout) for future in runs]
    assert len({(result["authority"], result["jwks"]) for result in results}) == 1
    assert [result["changed"] for result in results].count(True) == 1


def test_only_what_is_asked_for_is_made(tmp_path: Path) -> None:
    identity(tmp_path / "secrets", authority=False)
    assert {entry.name for entry in (tmp_path / "secrets").iterdir()} == {".gitignore", "jwks.json", "token.key"}


@pytest.mark.parametrize(("gone", "kept"), [("ca.crt", "ca.key"), ("jwks.json", "token.key")])
def test_public_half_that_is_missing_is_made_of_the_private_one(store: Path, gone: str, kept: str) -> None:
    before = (store / kept).read_bytes()
    (store / gone).unlink()
    assert identity(store)["created"] == [gone]
    assert (store / kept).read_bytes() == before


def test_authority_key_may_be_elsewhere_until_something_has_to_be_signed(store: Path, tmp_path: Path) -> None:
    (store / "ca.key").unlink()
    assert not identity(store)["changed"]
    with pytest.raises(ModuleFailedError, match=r"ca\.key is not there, so no certificate can be signed"):
        identity(store, request=request(tmp_path), names=NAMES)


def test_key_that_others_can_read_is_closed(store: Path) -> None:
    (store / "token.key").chmod(0o644)
    assert identity(store)["changed"]
    assert (store / "token.key").stat().st_mode & 0o777 == 0o600


def test_keys_that_the_site_adds_to_the_set_stay(store: Path) -> None:
    keys = json.loads((store / "jwks.json").read_text())["keys"]
    both = json.dumps({"keys": [*json.loads(Site().jwks())["keys"], *keys]})
    (store / "jwks.json").write_text(both)
    found = identity(store)
    assert (found["changed"], found["jwks"]) == (False, both)


def test_set_that_does_not_know_the_signing_key_is_refused(store: Path) -> None:
    (store / "jwks.json").write_text(Site().jwks())
    with pytest.raises(ModuleFailedError, match=r"does not hold the public key of token\.key"):
        identity(store)


@pytest.mark.parametrize(("name", "said"), [("ca.crt", "as a certificate"), ("token.key", "as a private key")])
def test_damaged_file_is_named_and_not_replaced(store: Path, name: str, said: str) -> None:
    (store / name).write_text("damaged")
    with pytest.raises(ModuleFailedError, match=f"{name} cannot be read {said}"):
        identity(store)
    assert (store / name).read_text() == "damaged"


def test_certificate_has_the_names_of_the_inventory_and_verifies(store: Path, tmp_path: Path) -> None:
    signed = identity(store, request=request(tmp_path), names=NAMES, days=30)
    (tmp_path / "server.crt").write_text(signed["certificate"])
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "192.0.2.11"]
    verified = subprocess.run(
        [*command, "-CAfile", store / "ca.crt", tmp_path / "server.crt"], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    certificate = x509.load_pem_x509_certificate(signed["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == NAMES
    assert "evil" not in certificate.subject.rfc4514_string()
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(days=30) <= lifetime < datetime.timedelta(days=31)


@pytest.mark.parametrize("key", [("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"), ("-algorithm", "ED25519")])
def test_weak_or_unusual_key_is_not_signed(store: Path, tmp_path: Path, key: tuple[str, ...]) -> None:
    with pytest.raises(ModuleFailedError, match="the host's key must be"):
        identity(store, request=request(tmp_path, *key), names=NAMES)


def test_altered_request_is_not_signed(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ModuleFailedError, match="the host's certificate request"):
        identity(store, request=request(tmp_path).replace("evil", "good").replace("A", "B", 3), names=NAMES)


def test_authority_does_not_sign_beyond_its_own_end(tmp_path: Path) -> None:
    site = Site()
    late = site.now + datetime.timedelta(days=gateway_authority.AUTHORITY_DAYS - 1)
    arguments = (site.authority, site.authority_key, request(tmp_path), NAMES, 90)
    assert gateway_authority.sign_request(*arguments, late).not_valid_after_utc == site.authority.not_valid_after_utc
    with pytest.raises(gateway_authority.AuthorityError, match="has expired"):
        gateway_authority.sign_request(*arguments, late + datetime.timedelta(days=2))


def test_key_and_certificate_of_two_authorities_do_not_sign(store: Path, tmp_path: Path) -> None:
    identity(tmp_path / "other")
    shutil.copy(tmp_path / "other/ca.key", store / "ca.key")
    with pytest.raises(ModuleFailedError, match=r"ca\.key is not the key of ca\.crt"):
        identity(store, request=request(tmp_path), names=NAMES)
