"""A machine is told who it is by an archive that both kinds can unpack."""

import io
import tarfile

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_seed as seed
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import parse_lab, parse_machine

LAB = parse_lab("bedplate", "10.87.0.0/24", "fd87:b3d0::/64")
IDENTITY = seed.Identity(
    machine=parse_machine(LAB, {"name": "llm1", "address": "10.87.0.11"}),
    machine_id="0" * 32,
    host_key="PRIVATE\n",
    host_key_public="ssh-ed25519 AAAA llm1\n",
    authorized_key="ssh-ed25519 BBBB ops\n",
    resolv_conf="nameserver 192.0.2.53\n",
    peers={"llm1": "10.87.0.11", "client1": "10.87.0.21"},
)


def entries():
    with tarfile.open(fileobj=io.BytesIO(seed.seed_archive(seed.seed_files(LAB, IDENTITY)))) as archive:
        return {entry.name: entry for entry in archive.getmembers()}


@pytest.mark.parametrize(
    ("path", "mode", "owner"),
    [
        ("etc/ssh/ssh_host_ed25519_key", 0o600, 0),
        ("etc/ssh/ssh_host_ed25519_key.pub", 0o644, 0),
        ("home/ops/.ssh", 0o700, 1000),
        ("home/ops/.ssh/authorized_keys", 0o600, 1000),
    ],
)
def test_keys_arrive_with_the_owner_and_mode_that_sshd_demands(path, mode, owner):
    entry = entries()[path]
    assert (entry.mode, entry.uid, entry.gid) == (mode, owner, owner)


def test_directories_of_the_system_are_left_as_the_image_has_them():
    assert [name for name, entry in entries().items() if entry.isdir()] == ["home/ops", "home/ops/.ssh"]


def test_both_addresses_are_static():
    unit = seed.network_unit(LAB, IDENTITY.machine)
    assert "Address=10.87.0.11/24\n" in unit
    assert "Address=fd87:b3d0::b/64\n" in unit
    assert "Gateway=10.87.0.1\n" in unit


def test_a_machine_knows_its_peers_by_name_and_itself_by_loopback():
    assert seed.hosts_file(IDENTITY).splitlines()[2:] == ["127.0.1.1 llm1", "10.87.0.21 client1"]


def test_resolvers_on_the_operators_loopback_are_not_handed_on():
    text = "nameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\nsearch example\n"
    assert seed.resolv_conf(text) == "nameserver 192.0.2.53\nsearch example\n"


@pytest.mark.parametrize("length", range(4))
def test_the_archive_follows_the_initramfs_at_a_multiple_of_four(length):
    combined = seed.initramfs(b"x" * length, b"content")
    assert combined.index(b"070701") % 4 == 0


def read_cpio(data):
    """The kernel's own reading: a header of thirteen hexadecimal numbers, name and content padded to four."""
    position, found = 0, {}
    while True:
        head = data[position : position + 110]
        assert head[:6] == b"070701"
        numbers = [int(head[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        size, name_size = numbers[6], numbers[11]
        name = data[position + 110 : position + 109 + name_size].decode()
        begin = (position + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (numbers[1], data[begin : begin + size])
        position = (begin + size + 3) // 4 * 4


@pytest.mark.parametrize("content", [b"", b"1", b"content", b"x" * 1024])
def test_the_addition_to_the_initramfs_is_a_cpio_that_only_root_reads(content):
    assert read_cpio(seed.initramfs_addition(content)) == {seed.SEED_NAME: (0o100600, content)}


def test_a_file_that_the_initramfs_itself_runs_has_its_name_and_mode():
    assert read_cpio(seed.initramfs_addition(b"#!/bin/sh", "look", 0o755)) == {"look": (0o100755, b"#!/bin/sh")}
