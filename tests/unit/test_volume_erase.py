"""A volume is made unreadable for good: by whoever names its serial number, and no cut makes a lie of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Mapping
from ansible_collections.bedplate.llm.plugins.module_utils.volume_erase import problems
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import ERASED, ERASING, READY
from test_luks_volume_action import refused, state_of
from volume_controller import Controller, files
from volume_lab import SIZE, Lab, Power, PowerCutError, remembered
from volume_samples import (
    COPY,
    DAMAGED,
    ERASED_ESCROW,
    EXT4,
    FOREIGN,
    KEPT,
    LUKS1,
    OTHER,
    OTHERS_KEPT,
    OURS,
    OURS_KEYLESS,
    SERIAL,
    UUID,
    VOLUME,
    both_copies,
    device,
    metadata,
    record,
)


def mapping(*mounts: str) -> tuple[Mapping, ...]:
    return (Mapping("models", f"CRYPT-LUKS2-{UUID.replace('-', '')}-models", "/dev/mapper/models", mounts),)


IN_USE = {"holders": ("dm-0",), "children": ("models",), "exclusive": False}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (device(OURS), ""),
        (device(OURS_KEYLESS), ""),
        (device(DAMAGED), ""),
        (device(blank=False), ""),
        (device(OURS, mappings=mapping(VOLUME.mount), **IN_USE), ""),
        (device(OURS, mappings=mapping(VOLUME.mount, "/mnt"), **IN_USE), "is mounted at /mnt, too"),
        (device(FOREIGN), f"holds volume {OTHER} (label models), not {UUID}"),
        (device(LUKS1), "holds a LUKS1 volume"),
        (device(signatures=EXT4), "holds ext4 at byte 1080"),
        (device(array_member=True), "is a member of a RAID array"),
        (device(mounts=("/mnt",)), "in use at /mnt"),
        (device(OURS, exclusive=False), "in use by something"),
        (Device(VOLUME.device), "no such device"),
        (device(OURS, serial="data1"), "declared is data0"),
        (device(OURS, size=1), "declared are"),
    ],
)
def test_what_is_erased_is_the_declared_device_with_our_volume_or_what_is_left_of_it(found, words):
    said = "; ".join(problems(VOLUME, found, record(READY), KEPT))
    assert bool(said) == bool(words)
    assert words in said


@pytest.mark.parametrize(
    ("remembered_as", "escrow", "words"),
    [
        (record(READY), None, ""),
        (None, KEPT, ""),
        (record(ERASING), KEPT, ""),
        (record(ERASING), ERASED_ESCROW, ""),
        (record(ERASED), KEPT, ""),
        (record(ERASED), None, ""),
        (None, ERASED_ESCROW, ""),
        (record(READY), OTHERS_KEPT, f"as volume {UUID} and the escrow as {OTHER}"),
        (None, None, "neither the host nor the escrow knows a volume"),
    ],
)
def test_only_what_somebody_remembers_is_erased(remembered_as, escrow, words):
    said = "; ".join(problems(VOLUME, device(), remembered_as, escrow))
    assert bool(said) == bool(words)
    assert words in said


# --- with both sides ---


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ops", "-f", str(path)], check=True)
    return path


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """A volume that is there and mounted, and a service that uses it."""
    made = Controller(Lab(tmp_path / "lab", Power()), monkeypatch)
    made.lab.services = {"bedplate-vllm.service": "inactive"}
    made.run()
    made.run(state="unlocked")
    made.extra_vars = {"luks_confirm_erase": SERIAL}
    made.steps.clear()
    return made


def erase(controller: Controller, key: Path, **more: object) -> dict:
    return controller.run(state="erased", confirm_erase=SERIAL, signing_key=str(key), **more)


def prove_erased(controller: Controller, key: Path, uuid: str, case: object = "") -> dict:
    """Nothing opens, nothing is left that would, and the record says so with a signature that holds; the record."""
    lab, folder = controller.lab, controller.escrow_dir / SERIAL
    assert not lab.scan.traces, case
    assert lab.disk.open("rb").read(4 * COPY) == bytes(4 * COPY), case
    assert not lab.opened and not lab.mounted, case
    assert remembered(lab).state == ERASED, case
    assert list(folder.glob("*.vault")) == [], case
    assert controller.store.read(SERIAL).erased, case
    for name in ("crypttab", "fstab"):
        assert "models" not in (lab.root / "etc" / name).read_text(), case
    assert list((lab.root / "etc/systemd/system").iterdir()) == [], case
    (final,) = folder.glob("erasure-*.json")
    assert final.name == f"erasure-{uuid}.json", case
    assert not list(folder.glob("erasing-*")), case
    signers = folder.parent.parent / "signers"
    signers.write_text(f"ops {key.with_suffix('.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-n", "bedplate-erase", "-f", str(signers), "-I", "ops"]
    command += ["-s", str(final.with_suffix(".json.sig"))]
    verified = subprocess.run(command, input=final.read_bytes(), capture_output=True, check=False)
    assert verified.returncode == 0, (case, verified)
    found: dict = json.loads(final.read_text())
    assert found["proof"] == {"header": "none", "key slots": 0, "recognised by wipefs and blkid": "nothing"}, case
    return found


def test_an_erased_volume_opens_with_nothing_and_leaves_a_signed_record(controller, key):
    uuid = controller.store.read(SERIAL).uuid
    assert controller.lab.services == {"bedplate-vllm.service": "active"}
    actions = erase(controller, key)["actions"]
    found = prove_erased(controller, key, uuid)
    final = controller.escrow_dir / SERIAL / f"erasure-{uuid}.json"
    told = [step["what"] for step in found["steps"]]
    assert told[0].startswith("begun by ")
    assert told[1:] == actions[:-1]
    assert actions == [
        "stopped bedplate-vllm.service",
        "unmounted /var/lib/bedplate",
        "locked /dev/mapper/models",
        "destroyed key slots 0, 1, 2 (cryptsetup luksErase)",
        f"overwrote the first {1 << 24} bytes with random bytes and then with zeros",
        f"no secure erase by the device itself: {controller.lab.disk} is not the namespace of an NVMe device",
        "took models out of /etc/crypttab",
        "took /dev/mapper/models out of /etc/fstab",
        "removed /etc/systemd/system/bedplate-.service.d/volume-models.conf",
        "destroyed the recovery passphrase and every backup of the header in the escrow",
        f"signed {final}",
    ]
    wanted = {"host": "gpu1", "name": "models", "serial": SERIAL, "uuid": uuid, "size": controller.lab.size}
    assert {name: found[name] for name in wanted} == wanted


def test_a_record_that_was_changed_afterwards_is_not_what_was_signed(controller, key):
    uuid = controller.store.read(SERIAL).uuid
    erase(controller, key)
    final = controller.escrow_dir / SERIAL / f"erasure-{uuid}.json"
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", "bedplate-erase", "-s", f"{final}.sig"]
    text = final.read_bytes()
    assert subprocess.run(command, input=text, capture_output=True, check=False).returncode == 0
    changed = text.replace(b"gpu1", b"gpu2")
    assert subprocess.run(command, input=changed, capture_output=True, check=False).returncode != 0


def test_a_second_erasure_finds_nothing_to_do(controller, key):
    erase(controller, key)
    before = files(controller.escrow_dir)
    assert erase(controller, key)["changed"] is False
    assert files(controller.escrow_dir) == before


def test_check_mode_says_what_would_go(controller, key):
    before, uuid = state_of(controller), controller.store.read(SERIAL).uuid
    assert erase(controller, key, check_mode=True)["actions"] == [
        "would stop bedplate-vllm.service",
        f"would erase volume {uuid} on {controller.lab.disk}",
        "would destroy its escrow",
    ]
    assert state_of(controller) == before
    assert controller.lab.mounted


@pytest.mark.parametrize("said", ["", "data1", "models", "DATA0"])
def test_without_the_declared_serial_number_nothing_is_erased(said, controller, key):
    controller.extra_vars = {"luks_confirm_erase": said}
    words = (
        f"give the serial number of {VOLUME.device}, as it is declared, .* found {said or 'none'}. Nothing was changed"
    )
    refused(controller, words, state="erased", confirm_erase=said, signing_key=str(key))
    assert controller.steps == []


def test_a_serial_number_that_stands_in_a_file_confirms_nothing(controller, key):
    controller.extra_vars = {}
    words = "luks_confirm_erase is for one run: give it with -e luks_confirm_erase=SERIAL and nowhere else"
    refused(controller, words, state="erased", confirm_erase=SERIAL, signing_key=str(key))


def test_another_disk_than_the_declared_one_is_not_erased(controller, key):
    controller.lab.serial = "data1"
    words = "with the serial number data1, declared is data0"
    refused(controller, words, state="erased", confirm_erase=SERIAL, signing_key=str(key))


def test_somebody_elses_volume_is_not_erased(controller, key):
    controller.lab.mounted = False
    controller.lab.reboot()
    controller.lab.write(both_copies(metadata(), OTHER))
    refused(controller, f"holds volume {OTHER}", state="erased", confirm_erase=SERIAL, signing_key=str(key))


def test_a_host_with_a_disk_of_the_same_serial_number_does_not_erase_anothers_escrow(controller, key):
    controller.lab.reboot()
    controller.host = "gpu2"
    controller.lab.write(bytes(1 << 20))
    (controller.lab.root / f"var/lib/bedplate-volumes/{SERIAL}.json").unlink()
    refused(controller, "is that of gpu1", state="erased", confirm_erase=SERIAL, signing_key=str(key))


@pytest.mark.parametrize("given", ["", "/nowhere/id_ed25519"])
def test_an_erasure_that_nobody_can_sign_is_not_begun(given, controller):
    refused(
        controller,
        "luks_volume_signing_key.* Nothing was changed",
        state="erased",
        confirm_erase=SERIAL,
        signing_key=given,
    )
    assert controller.lab.mounted


def test_a_key_with_a_passphrase_does_not_wait_for_somebody_to_type_it(controller, tmp_path):
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)
    words = "does not sign .* keep it in ssh-agent. Nothing was changed"
    refused(controller, words, state="erased", confirm_erase=SERIAL, signing_key=str(path))


def test_a_mount_that_does_not_go_ends_the_erasure_while_the_volume_is_whole(controller, key):
    controller.lab._stop = lambda units: None
    with pytest.raises(AnsibleActionFail, match=r"/var/lib/bedplate stays mounted .`fuser --verbose --mount"):
        erase(controller, key)
    assert controller.lab.scan.header.keyslots == (0, 1, 2)
    assert remembered(controller.lab).state == READY
    assert controller.run()["changed"] is False


def test_a_volume_whose_header_is_gone_is_erased_too(controller, key):
    uuid = controller.store.read(SERIAL).uuid
    controller.lab.mounted = False
    controller.lab.reboot()
    controller.lab.write(bytes(2 * COPY))
    erase(controller, key)
    prove_erased(controller, key, uuid)


def test_an_erasure_that_was_begun_is_taken_for_no_volume_and_no_empty_disk(controller, key):
    uuid = controller.store.read(SERIAL).uuid
    controller.lab.codes["wipefs --all"] = 1
    with pytest.raises(AnsibleActionFail, match="`wipefs --all"):
        erase(controller, key)
    assert remembered(controller.lab).state == ERASING
    for state in ("present", "unlocked", "backed_up", "restored", "rotated"):
        options = {"method": "recovery"} if state == "rotated" else {}
        refused(controller, "is being erased, and the run that did so was cut off", state=state, **options)
    controller.lab.codes.clear()
    erase(controller, key)
    prove_erased(controller, key, uuid)


def test_a_disk_that_was_erased_is_not_formatted_without_a_word(controller, key):
    """Behind the beginning lies what was encrypted, and nobody can say what it is."""
    controller.lab.write(b"ciphertext", offset=SIZE - 4096)
    erase(controller, key)
    refused(controller, "is not empty")


def test_an_erasure_that_was_cut_off_anywhere_is_completed_by_the_next(tmp_path, key):
    cut = 0
    while True:
        cut += 1
        with pytest.MonkeyPatch.context() as patch:
            controller = Controller(Lab(tmp_path / f"{cut}", Power()), patch)
            controller.run()
            uuid = controller.store.read(SERIAL).uuid
            controller.extra_vars = {"luks_confirm_erase": SERIAL}
            controller.lab.write(b"ciphertext", offset=SIZE - 4096)
            controller.lab.power = Power(cut)
            try:
                erase(controller, key)
            except PowerCutError as error:
                case = f"after {error} ({cut})"
                controller.lab.power = Power()
                controller.lab.reboot()
                # A rollout has the whole volume, or refuses; it makes nothing new.
                try:
                    controller.run()
                except AnsibleActionFail as refusal:
                    assert "erase" in str(refusal) or "is not empty" in str(refusal), (case, refusal)
                else:
                    assert (controller.lab.mounted, controller.store.read(SERIAL).uuid) == (True, uuid), case
                erase(controller, key)
                prove_erased(controller, key, uuid, case)
                assert erase(controller, key)["changed"] is False, case
            else:
                break
    assert cut > 15
