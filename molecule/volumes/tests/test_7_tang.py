"""The tang server, as the clevis of another machine finds it: confined, rotated without a gap, nothing deleted
unasked."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scenario import argv, by_ssh, changed, said
from volume_lab import LAB, module

SERVER, CLIENT, STRANGER = "tang1", "store1", "builder1"
KEYS = "/var/lib/tang"
SECRET = "opens the volume"


class Tang:
    def __init__(self) -> None:
        access = LAB.access()
        self.host = by_ssh(access[SERVER], keep=60)
        self.client = by_ssh(access[CLIENT], keep=60)
        self.stranger = by_ssh(access[STRANGER])
        self.address = access[SERVER].address
        self.url = f"http://{self.address}:7654"

    def files(self) -> list[str]:
        """Every key with its owner, permissions and contents."""
        command = f"sudo find {KEYS} -printf '%P %u:%g %m\\n' -type f -exec sha256sum {{}} +"
        return sorted(self.host.check_output(command).splitlines())

    def shell(self, script: str) -> str:
        """As root, in the folder of keys."""
        return str(self.host.check_output(f"sudo sh -ec {shlex.quote(f'cd {KEYS}; {script}')}"))

    def signing(self) -> list[str]:
        """Thumbprints of the advertised signing keys, by tang's own tool."""
        return str(self.host.check_output("tang-show-keys 7654")).split()

    def hidden(self) -> list[str]:
        return [name[1:].removesuffix(".jwk") for name in self.shell("find . -name '.*.jwk' -printf '%P\\n'").split()]

    def bind(self, thumbprint: str) -> str:
        """Something that only this server can decrypt."""
        pin = json.dumps({"url": self.url, "thp": thumbprint})
        return str(self.client.check_output(f"echo '{SECRET}' | clevis encrypt tang '{pin}' -y"))

    def opens(self, sealed: str) -> bool:
        return bool(self.client.run(f"echo {sealed} | clevis decrypt").stdout.strip() == SECRET)

    def entry(self, name: str, *options: str, **variables: Any):
        """An entry point of the role, as its README says."""
        role = ["-m", "ansible.builtin.include_role", "-a", f"name=bedplate.llm.tang_server tasks_from={name}"]
        given = ["-e", json.dumps(variables)]
        return LAB.run(argv("ansible", SERVER, "-i", str(LAB.inventory), *role, *given, *options))

    def refused(self, name: str, **variables: Any) -> str:
        before = self.files()
        done = self.entry(name, **variables)
        assert done.returncode != 0, done.stdout[-4000:]
        assert self.files() == before
        return said(done)


def converge() -> subprocess.CompletedProcess[str]:
    """The site's playbook on this server alone: volumes are bound to the others meanwhile."""
    return LAB.play("playbooks/tang.yml", None, "--limit", SERVER)


@pytest.fixture(scope="module")
def tang() -> Iterator[Tang]:
    """The server as the site's playbook leaves it."""
    done = converge()
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    yield Tang()


def test_a_second_run_changes_nothing(tang):
    before = tang.files()
    assert changed(converge()) == 0
    assert tang.files() == before


def test_only_its_clients_reach_it_and_only_on_its_own_port(tang):
    assert tang.client.addr(tang.address).port(7654).is_reachable
    assert not tang.client.addr(tang.address).port(80).is_reachable
    assert not tang.stranger.addr(tang.address).port(7654).is_reachable


def test_what_a_site_pins_is_what_tang_itself_says(tang):
    given = {"port": 7654, "addresses": ["0.0.0.0", "::"]}
    done = module("tang_server_info", SERVER, **given)
    fact = json.loads(done.stdout.partition("=>")[2])["ansible_facts"]["bedplate_tang"]
    assert fact["signing"] == tang.signing()
    assert len(fact["exchange"]) == 1


def test_many_connections_at_once_do_not_end_it(tang):
    """By default 200 in two seconds do, until somebody starts the socket again."""
    began = time.monotonic()
    for _ in range(300):
        socket.create_connection((tang.address, 7654), timeout=5).close()
    assert time.monotonic() - began < 2
    assert tang.signing()
    assert tang.client.check_output(f"curl --silent --output /dev/null -w '%{{http_code}}' {tang.url}/adv") == "200"


def test_tangd_makes_no_keys_by_itself(tang):
    names = tang.shell("ls *.jwk").split()
    tang.shell("for key in *.jwk; do mv $key .$key; done")
    try:
        before = tang.files()
        assert not tang.client.run(f"curl --fail --silent {tang.url}/adv").succeeded
        assert tang.files() == before
    finally:
        tang.shell(f"for key in {' '.join(names)}; do mv .$key $key; done")


def test_a_damaged_key_is_not_replaced(tang):
    [signing] = tang.signing()
    tang.shell(f"cp -p {signing}.jwk /run/kept; truncate -s -1 {signing}.jwk")
    try:
        before = tang.files()
        done = converge()
        assert done.returncode != 0
        assert f"nothing was changed: {KEYS}/{signing}.jwk is no key" in said(done)
        assert tang.files() == before
    finally:
        tang.shell(f"cp -p /run/kept {signing}.jwk; rm /run/kept")


def test_keys_that_others_can_read_are_closed_to_them_again(tang):
    before = tang.files()
    tang.shell("chmod 0444 *.jwk; chown root *.jwk; chmod 0755 .")
    assert changed(converge()) == 1
    assert tang.files() == before


def test_a_socket_that_was_not_started_again_is(tang):
    """As after a run that ended between writing the unit and starting it."""
    drop_in = "/etc/systemd/system/tangd.socket.d/bedplate.conf"
    tang.shell(f"sed -i s/7654/7655/ {drop_in}; systemctl daemon-reload; systemctl restart tangd.socket")
    tang.shell(f"sed -i s/7655/7654/ {drop_in}; systemctl daemon-reload")
    assert changed(converge()) == 1
    assert tang.signing()


def test_a_rotation_has_no_gap_and_deletes_nothing(tang):
    [old] = tang.signing()
    sealed = tang.bind(old)
    assert f"advertises the signing key {old}: name it there" in tang.refused("rotate")
    assert "'all' is no thumbprint" in tang.refused("rotate", tang_server_rotate_keys=["all"])

    before = tang.files()
    assert tang.entry("rotate", "--check", tang_server_rotate_keys=[old]).returncode == 0
    assert tang.files() == before

    done = tang.entry("rotate", tang_server_rotate_keys=[old])
    assert done.returncode == 0, done.stdout[-4000:]
    [new] = tang.signing()
    assert new != old
    assert old in tang.hidden()
    assert tang.opens(sealed)
    assert tang.opens(tang.bind(new))

    # Once more, as by somebody who is not sure that it went through.
    before = tang.files()
    assert tang.entry("rotate", tang_server_rotate_keys=[old]).returncode == 0
    assert tang.files() == before


def test_a_rotation_that_was_cut_off_is_completed(tang):
    [old] = tang.signing()
    sealed = tang.bind(old)
    # New keys are there, the old ones not hidden yet, and one more key was just being made.
    tang.shell("/usr/libexec/tangd-keygen . sig exc; chown _tang:_tang *.jwk; touch .bedplate-cut")
    assert len(tang.signing()) == 2
    assert tang.entry("rotate", tang_server_rotate_keys=[old]).returncode == 0
    assert len(tang.signing()) == 1
    assert old in tang.hidden()
    assert not tang.host.file(f"{KEYS}/.bedplate-cut").exists
    assert tang.opens(sealed)
    assert changed(converge()) == 0


def test_old_keys_are_deleted_by_their_names_only(tang):
    [signing] = tang.signing()
    sealed = tang.bind(signing)
    assert tang.entry("rotate", tang_server_rotate_keys=[signing]).returncode == 0
    [new] = tang.signing()
    kept = tang.bind(new)
    hidden = tang.hidden()

    assert "so nothing was deleted; tang1 hides" in tang.refused("forget_old_keys")
    advertised = tang.refused("forget_old_keys", tang_server_forget_keys=[*hidden, new])
    assert f"the signing key {new} is advertised" in advertised
    assert tang.opens(sealed)

    done = tang.entry("forget_old_keys", tang_server_forget_keys=hidden)
    assert done.returncode == 0, done.stdout[-4000:]
    assert tang.hidden() == []
    assert not tang.opens(sealed)
    assert tang.opens(kept)
