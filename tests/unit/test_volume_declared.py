"""What a site may say of its volumes, and what is refused before any host is asked."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.filter.volumes import luks_volume_problems, volume_escrow_keys
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import (
    BOTH,
    TANG,
    TPM2,
    Volume,
    array_device,
    escrow_key,
    parse,
    parse_size,
)
from volume_samples import DECLARED, SIZE, VOLUME


def without(*keys: str, **changed: object) -> dict[str, object]:
    return {key: value for key, value in {**DECLARED, **changed}.items() if key not in keys}


def test_the_smallest_declaration_is_a_volume():
    assert parse([DECLARED]) == ([VOLUME], [])


@pytest.mark.parametrize("serial", ["data0", "S64HNE0T500123", "vol_0abc", "eui.0025385", "6-1:2+3"])
def test_a_serial_number_is_what_lsblk_says(serial):
    assert parse([without(serial=serial)])[1] == []


def test_a_whole_declaration_is_a_volume():
    given = {
        **DECLARED,
        "filesystem": "xfs",
        "cipher": "guomi",
        "unlock": ["tpm2", "tang"],
        "options": ["ro"],
        "services": ["a.service"],
    }
    volumes, problems = parse([given])
    assert problems == []
    assert volumes == [
        Volume(
            *("models", VOLUME.device, "data0", SIZE, "/var/lib/bedplate"),
            *("xfs", "guomi", ("tpm2", "tang"), ("ro",), ("a.service",)),
        )
    ]


def test_an_array_says_its_device_itself():
    given = without("device", "serial", "size", array="weights")
    (volume,), problems = parse([given], ["weights"])
    assert problems == []
    assert (volume.device, volume.serial, volume.size) == (array_device("weights"), "md-weights", 0)
    assert escrow_key(volume, "gpu1") == "gpu1.md-weights"
    assert escrow_key(VOLUME, "gpu1") == "data0"
    assert volume_escrow_keys([given, DECLARED], "gpu1") == ["gpu1.md-weights", "data0"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("models", "a volume is a mapping of"),
        (without("name"), "name: give small letters"),
        (without(name="Models"), "found 'Models'"),
        (without(name="a" * 32), "at most 31"),
        (without(name="../x"), "name: give"),
        (without(name="1st"), "a letter first"),
        (without(sise=1), "unknown key sise; known are array, cipher,"),
        (without("device"), "device: give a name below /dev/disk/by-id/"),
        (without(device="/dev/sdb"), "found '/dev/sdb'"),
        (without(device="/dev/nvme0n1"), "stays the same when disks are added or swapped"),
        (without(device="/dev/disk/by-id/"), "device: give"),
        (without(device="/dev/disk/by-id/../../sdb"), "device: give"),
        (without(device="/dev/disk/by-uuid/6ba7"), "device: give"),
        (without("serial"), "serial: give the device's serial number"),
        (without(serial=""), "serial: give"),
        (without(serial="../data0"), "serial: give"),
        (without(serial="a b"), "serial: give"),
        (without("size"), "size: give bytes"),
        (without(size="many"), "found 'many' (`lsblk -bdo NAME,SIZE`)"),
        (without(size=1 << 20), "give 67108864 bytes or more"),
        (without(size=-1), "found -1"),
        (without(size=True), "found True"),
        (without("mount"), "mount: give an absolute path"),
        (without(mount="models"), "mount: give an absolute path"),
        (without(mount="/var/../etc"), "mount: give an absolute path"),
        (without(mount="/a b"), "mount: give an absolute path"),
        (without(mount="/var/lib/bedplate/"), "mount: give an absolute path"),
        (without(mount="/"), "mount: give"),
        (without(mount="/var"), "the host itself needs /var"),
        (without(mount="/var/lib"), "/var/lib/bedplate-volumes, where the host remembers its volumes"),
        (without(mount="/var/lib/bedplate-volumes"), "where the host remembers its volumes"),
        (without(mount="/var/lib/bedplate-volumes/x"), "where the host remembers its volumes"),
        (without(mount="/home"), "the host itself needs /home"),
        (without(mount="/boot/efi"), "the host itself needs /boot/efi"),
        (without(mount="/usr/local"), "the host itself needs /usr/local"),
        (without(filesystem="btrfs"), "filesystem: give ext4 or xfs"),
        (without(cipher="rot13"), "cipher: give international or guomi"),
        (without(unlock=[]), "unlock: give one or more of tpm2, tang, tpm2+tang, each once"),
        (without(unlock="tpm2"), "found 'tpm2'"),
        (without(unlock=["tpm2", "tpm2"]), "found ['tpm2', 'tpm2']"),
        (without(unlock=["usb"]), "found ['usb']"),
        (without(unlock=[TPM2, BOTH]), "tpm2 opens the volume without the network"),
        (without(unlock=[TANG, BOTH]), "tang opens the volume without the TPM"),
        (without(options="ro"), "give a list of mount options"),
        (without(options=["ro,exec"]), "give a list of mount options"),
        (without(services=["a.timer"]), "give a list of units"),
        (without(services=["a b.service"]), "give a list of units"),
        (without(array="weights"), "device: leave it out where array is given"),
        (
            without("device", "serial", "size", array="other"),
            "'other' is not declared in md_arrays (declared: weights)",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence_that_says_where(entry, words):
    volumes, problems = parse([entry], ["weights"])
    assert volumes == []
    assert len(problems) == 1, problems
    assert problems[0].startswith("luks_volumes[0]")
    assert words in problems[0]
    assert problems[0].endswith(".")


def test_everything_that_is_wrong_is_said_at_once():
    _volumes, problems = parse([{"name": "models"}, DECLARED, {"name": "x", "mount": "/srv/x", "unlock": []}])
    assert len(problems) == 8
    assert {problem.split(":")[0] for problem in problems} == {"luks_volumes[0] (models)", "luks_volumes[2] (x)"}


@pytest.mark.parametrize("what", ["name", "device", "serial", "mount"])
def test_every_volume_has_its_own_name_device_and_mount_point(what):
    other = {
        "name": "kv",
        "device": "/dev/disk/by-id/virtio-data1",
        "serial": "data1",
        "size": SIZE,
        "mount": "/srv/kv",
    }
    _volumes, problems = parse([DECLARED, {**other, what: DECLARED[what]}])
    assert problems == [f"luks_volumes: {what} {DECLARED[what]} is given twice; every volume has its own."]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (512, 512),
        ("512", 512),
        ("8G", 8 << 30),
        ("8 GiB", 8 << 30),
        ("3T", 3 << 40),
        ("64m", 64 << 20),
        (" 1K ", 1024),
        ("10GB", 10 << 30),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_power_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8X", "1.5G", "G", None, [8], -1.5])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="give bytes, or a number with K, M, G or T"):
        parse_size(text)


# --- what the role's validate says, with the settings of all volumes ---


def settings(tmp_path, **changed):
    (tmp_path / "password").touch()
    return {
        "volumes": [DECLARED],
        "arrays": [],
        "escrow_dir": str(tmp_path / "escrow"),
        "escrow_password_file": str(tmp_path / "password"),
        "tpm2_pcrs": [7],
        "tang_servers": [],
        "tang_threshold": 1,
        **changed,
    }


def test_settings_that_work_have_no_problem(tmp_path):
    assert luks_volume_problems(settings(tmp_path)) == []


def test_a_site_without_volumes_needs_no_escrow(tmp_path):
    assert luks_volume_problems(settings(tmp_path, volumes=[], escrow_password_file="")) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"volumes": [without(mount="/")]}, "mount: give"),
        ({"escrow_password_file": ""}, "would be lost with its host"),
        ({"escrow_password_file": "/nowhere"}, "there is no file /nowhere"),
        ({"escrow_dir": "secrets/volumes"}, "luks_volume_escrow_dir: give an absolute path, found 'secrets/volumes'"),
        ({"escrow_dir": "~/volumes"}, "luks_volume_escrow_dir: give an absolute path, found '~/volumes'"),
        ({"tpm2_pcrs": [24]}, "registers are 0 to 23, found 24"),
        ({"volumes": [without(unlock=[TANG])]}, "name at least one server"),
    ],
)
def test_settings_that_cannot_work_are_refused_on_the_operators_machine(changed, words, tmp_path):
    (problem,) = luks_volume_problems(settings(tmp_path, **changed))
    assert words in problem
    assert problem.endswith(".")


def test_the_password_does_not_lie_in_what_it_opens(tmp_path):
    (problem,) = luks_volume_problems(settings(tmp_path, escrow_dir=str(tmp_path)))
    assert "lies in the escrow that it opens" in problem
