"""Pinning host keys, against ssh servers on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from typer.testing import CliRunner

from bedplate import ssh_trust
from bedplate.cli import app
from bedplate.commands import ssh_trust as command
from bedplate.describe import Host
from bedplate.ssh_trust import Finding, HostKey, Target

ED25519_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
ED25519_FINGERPRINT = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"  # as ssh-keygen -lf says
EC_KEY = paramiko.ECDSAKey.generate()
OTHER_EC_KEY = paramiko.ECDSAKey.generate()
RSA_KEY = paramiko.RSAKey.generate(2048)


@contextlib.contextmanager
def ssh_server(*keys: paramiko.PKey) -> Iterator[int]:
    """A server that can do a key exchange, and nothing else; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            transports = []
            while not stop.is_set():
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    connection, _ = listener.accept()
                    transport = paramiko.Transport(connection)
                    for key in keys:
                        transport.add_server_key(key)
                    transports.append(transport)
                    transport.start_server(event=threading.Event(), server=paramiko.ServerInterface())
            for transport in transports:
                transport.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def target(port: int) -> Target:
    return Target("gpu1", "127.0.0.1", port)


def key_of(key: paramiko.PKey) -> HostKey:
    return HostKey(key.get_name(), key.get_base64())


def test_a_fingerprint_is_the_one_that_ssh_keygen_shows():
    kind, value = ED25519_LINE.split()
    assert HostKey(kind, value).fingerprint == ED25519_FINGERPRINT


@pytest.mark.parametrize(("port", "name"), [(22, "10.0.0.1"), (2222, "[10.0.0.1]:2222")])
def test_a_host_is_named_as_ssh_names_it(port, name):
    assert Target("gpu1", "10.0.0.1", port).name == name


def test_a_new_host_shows_its_key():
    with ssh_server(EC_KEY) as port:
        [finding] = ssh_trust.examine([target(port)], {})
    assert finding == Finding(target(port), "new", key_of(EC_KEY))
    assert key_of(EC_KEY).fingerprint in finding.sentence


def test_a_pinned_host_is_recognised_also_by_a_key_of_a_kind_that_is_not_preferred():
    with ssh_server(EC_KEY, RSA_KEY) as port:
        [finding] = ssh_trust.examine([target(port)], {target(port).name: [key_of(RSA_KEY)]})
    assert finding.state == "pinned"


@pytest.mark.parametrize(("pinned", "shown"), [(OTHER_EC_KEY, EC_KEY), (RSA_KEY, EC_KEY)])
def test_another_key_than_the_pinned_one_is_told_apart(pinned, shown):
    with ssh_server(shown) as port:
        [finding] = ssh_trust.examine([target(port)], {target(port).name: [key_of(pinned)]})
    assert finding.state == "different"
    assert key_of(pinned).fingerprint in finding.sentence and "Nothing was pinned" in finding.sentence


def test_a_port_that_nobody_listens_on_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    [finding] = ssh_trust.examine([target(port)], {})
    assert finding.state == "unreachable" and "refused" in finding.sentence


def test_pins_are_added_to_what_is_there(tmp_path):
    file = tmp_path / "known_hosts.txt"
    file.write_text(f"# ours\n10.0.0.9 {ED25519_LINE}", encoding="utf-8")
    ssh_trust.pin(file, [Finding(target(22), "new", key_of(EC_KEY))])
    assert file.read_text(encoding="utf-8").splitlines() == [
        "# ours",
        f"10.0.0.9 {ED25519_LINE}",
        f"127.0.0.1 {EC_KEY.get_name()} {EC_KEY.get_base64()}",
    ]
    assert set(ssh_trust.read_pinned(file)) == {"10.0.0.9", "127.0.0.1"}
    assert [path.name for path in tmp_path.iterdir()] == ["known_hosts.txt"]


def test_a_file_of_ssh_with_other_kinds_of_lines_is_read(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(f"\n# c\n|1|hash {ED25519_LINE}\n@revoked x {ED25519_LINE}\na,b {ED25519_LINE} note\n", "utf-8")
    assert set(ssh_trust.read_pinned(file)) == {"a", "b"}


# The command itself, with a described site but no Ansible.


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that describes one host of the site acme, at a port."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/hosts.yml").write_text("all:\n", encoding="utf-8")
    monkeypatch.setattr(command, "is_interactive", lambda: True)

    def at(port: int) -> Path:
        file = tmp_path / "acme/known_hosts.txt"
        host = Host("gpu1", "127.0.0.1", "ssh", port, "", "", "", file, tmp_path, None, None)
        monkeypatch.setattr(command, "describe", lambda _site: {"gpu1": host})
        return file

    return at


def trust(file: Path, *options: str, answer: str | None = None):
    words = ["ssh-trust", "--site", "acme", "--inventories", str(file.parent.parent), *options]
    return CliRunner().invoke(app, words, input=answer)


def test_nothing_is_pinned_without_a_yes(site):
    with ssh_server(EC_KEY) as port:
        file = site(port)
        result = trust(file, answer="n\n")
    assert key_of(EC_KEY).fingerprint in result.output
    assert result.exit_code != 0 and not file.exists()


def test_nothing_is_pinned_when_nobody_can_answer(site, monkeypatch):
    monkeypatch.setattr(command, "is_interactive", lambda: False)
    with ssh_server(EC_KEY) as port:
        file = site(port)
        result = trust(file)
    assert result.exit_code == 2 and "--yes" in result.output and not file.exists()


@pytest.mark.parametrize(("options", "answer"), [(["--yes"], None), ([], "y\n")])
def test_a_yes_pins_and_a_second_run_changes_nothing(site, options, answer):
    with ssh_server(EC_KEY) as port:
        file = site(port)
        assert trust(file, *options, answer=answer).exit_code == 0
        written = file.read_text(encoding="utf-8")
        again = trust(file, *options)
    assert again.exit_code == 0 and "already pinned" in again.output
    assert (
        written
        == file.read_text(encoding="utf-8")
        == f"[127.0.0.1]:{port} {key_of(EC_KEY).kind} {EC_KEY.get_base64()}\n"
    )


def test_a_changed_key_is_refused_even_with_yes_and_the_file_stays(site):
    with ssh_server(EC_KEY) as port:
        file = site(port)
        before = f"[127.0.0.1]:{port} {OTHER_EC_KEY.get_name()} {OTHER_EC_KEY.get_base64()}\n"
        file.write_text(before, encoding="utf-8")
        result = trust(file, "--yes")
    assert result.exit_code == 1
    assert "somebody may be in between" in result.output
    assert file.read_text(encoding="utf-8") == before
