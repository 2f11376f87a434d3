"""The controller's half: what is on the operator's side before the host changes, and what nobody may see."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import READY
from volume_controller import Controller, files
from volume_lab import SIZE, Lab, Power, remembered
from volume_samples import OTHER, SERIAL, UUID, both_copies, metadata


@pytest.fixture
def controller(tmp_path, monkeypatch):
    return Controller(Lab(tmp_path / "lab", Power()), monkeypatch)


def state_of(controller: Controller) -> object:
    """Of the disk, the host and the operator's side."""
    escrow = {name: content for name, content in files(controller.escrow_dir).items() if not name.endswith(".lock")}
    return controller.lab.disk.stat().st_mtime_ns, files(controller.lab.root), escrow


def refused(controller: Controller, words: str, **options: object) -> None:
    """The run fails with these words, and nothing has changed on either side."""
    before = state_of(controller)
    with pytest.raises(AnsibleActionFail, match=words):
        controller.run(**options)
    assert state_of(controller) == before


def test_an_empty_disk_becomes_a_mounted_volume_with_three_ways_in(controller):
    result = controller.run()
    uuid = result["uuid"]
    disk, root = controller.lab.disk, controller.lab.root
    assert result["actions"] == [
        "kept a new recovery passphrase in the escrow",
        f"formatted {disk}",
        "added tpm2",
        "added tang",
        "opened /dev/mapper/models with the escrow's passphrase",
        "made ext4 on /dev/mapper/models",
        f"wrote {root}/etc/systemd/system/bedplate-.service.d/volume-models.conf",
        f"wrote {root}/etc/crypttab",
        f"wrote {root}/etc/fstab",
        "mounted /var/lib/bedplate",
    ]
    record, escrow = remembered(controller.lab), controller.store.read(SERIAL)
    assert record
    assert escrow
    assert (record.uuid, record.state) == (uuid, READY)
    assert (escrow.uuid, escrow.host, len(escrow.backups)) == (uuid, "gpu1", 3)
    assert f"models UUID={uuid} none" in (root / "etc/crypttab").read_text()


def test_a_second_run_looks_and_changes_nothing(controller):
    controller.run()
    controller.steps.clear()
    before = files(controller.escrow_dir)
    assert controller.run()["changed"] is False
    assert controller.steps == ["look"]
    assert files(controller.escrow_dir) == before


def test_the_escrow_is_there_before_the_format_and_a_backup_before_the_host_relies_on_it(controller):
    controller.run()
    events = controller.lab.power.events
    order = [
        "passphrase",
        "escrow with 1 passphrases, 0 backups",
        "step format",
        "record formatting",
        "a header",
        "header",
        "escrow with 1 passphrases, 1 backups",
        "step backed_up",
        "record formatted",
        "step enroll",
        "a token",
        "escrow with 1 passphrases, 2 backups",
        "step finish",
        "record making-filesystem",
        "a file system",
        "record ready",
        "mounted",
    ]
    told = iter(events)
    assert [event for event in order if event in told] == order


def test_no_secret_is_in_an_argument_of_a_command_or_in_the_result(controller):
    result = controller.run()
    controller.lab.reboot()
    controller.run(state="unlocked")
    secrets = controller.secrets()
    assert len(secrets) == 3
    shown = json.dumps(result) + " ".join(word for argv in controller.lab.argvs for word in argv)
    shown += "".join(content.decode(errors="replace") for content in files(controller.lab.root).values())
    shown += str(controller.lab.scan.header)
    for secret in secrets:
        assert secret not in shown


def test_the_passphrase_goes_to_the_host_only_with_the_steps_that_need_it(controller):
    controller.run()
    given = {arguments["step"] for arguments in controller.arguments if arguments.get("passphrase")}
    assert given == {"format", "enroll", "open"}
    assert all("passphrase-1.vault" in str(arguments["escrow"]) for arguments in controller.arguments[1:])


def test_a_connection_that_would_write_the_passphrase_to_a_file_is_refused(controller):
    controller.pipelined = False
    refused(controller, "the connection is not pipelined.* set ansible_pipelining: true")
    assert controller.steps == []


@pytest.mark.parametrize("name", ["step", "escrow", "uuid", "passphrase", "passphrases", "header"])
def test_what_the_controller_says_itself_is_not_for_a_task_to_say(name, controller):
    refused(controller, f"{name} is not for a task to give", **{name: "format"})


@pytest.mark.parametrize("name", ["escrow_dir", "escrow_password_file"])
def test_without_an_escrow_nothing_begins(name, controller):
    refused(controller, f"{name} is missing; a volume without an escrow would be lost with its host", **{name: None})


def test_a_volume_that_cannot_be_is_refused_on_the_controller(controller):
    refused(controller, "mount: the host itself needs /var", volume={"mount": "/var"})
    assert controller.steps == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (both_copies(metadata(), OTHER), f"holds a LUKS2 volume \\(UUID {OTHER}.*Nothing was changed"),
        (both_copies(metadata(()), OTHER), f"holds a LUKS2 volume \\(UUID {OTHER}"),
        (both_copies(metadata())[:4200], "damaged LUKS header"),
        (b"LUKS\xba\xbe\0\1", "LUKS1 volume"),
        (b"somebody's bytes", "is not empty"),
    ],
)
def test_a_disk_that_holds_something_is_left_as_it_is(content, words, controller):
    controller.lab.write(content)
    refused(controller, words)
    refused(controller, words, check_mode=True)


@pytest.mark.parametrize("changed", [{"serial": "data1"}, {"size": SIZE + 4096}])
def test_another_disk_than_the_declared_one_is_left_as_it_is(changed, controller):
    refused(controller, "declared", volume=changed)


def test_a_header_that_was_destroyed_is_never_replaced(controller):
    controller.run()
    controller.lab.reboot()
    controller.lab.write(bytes(1 << 20))
    controller.steps.clear()
    refused(controller, "bedplate volume restore")
    (controller.lab.root / f"var/lib/bedplate-volumes/{SERIAL}.json").unlink()
    refused(controller, "the escrow has a backup of the header")


def test_a_host_that_was_installed_anew_takes_its_volume_back(controller):
    first = controller.run()
    controller.lab.reboot()
    for name in files(controller.lab.root):
        (controller.lab.root / name).unlink()
    controller.steps.clear()
    result = controller.run()
    assert result["uuid"] == first["uuid"]
    assert "format" not in controller.steps
    assert not any("made" in action for action in result["actions"])
    record = remembered(controller.lab)
    assert record
    assert record.state == READY
    assert controller.lab.mounted


def test_a_host_that_lost_its_records_only_takes_its_volume_back(controller):
    first = controller.run()
    (controller.lab.root / f"var/lib/bedplate-volumes/{SERIAL}.json").unlink()
    assert controller.run()["uuid"] == first["uuid"]
    record = remembered(controller.lab)
    assert record
    assert record.state == READY


def test_a_mount_point_with_files_is_refused_before_the_format(controller):
    folder = controller.lab.root / "var/lib/bedplate"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    refused(controller, "holds model.safetensors, which the volume would hide")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("crypttab", f"models UUID={OTHER} none luks"),
        ("fstab", "LABEL=x /var/lib/bedplate ext4 defaults 0 2"),
    ],
)
def test_somebody_elses_line_is_refused_before_the_format(file, line, controller):
    (controller.lab.root / "etc").mkdir()
    (controller.lab.root / "etc" / file).write_text(f"{line}\n")
    refused(controller, f"/etc/{file}, line 1, .*; take that line out first")
    refused(controller, f"/etc/{file}, line 1, .*; take that line out first", check_mode=True)


def test_a_tang_server_that_does_not_answer_leaves_what_the_next_run_completes(controller):
    controller.lab.broken.add("clevis encrypt")
    with pytest.raises(AnsibleActionFail, match=r"`clevis encrypt tang -y` .*Done before: .*added tpm2\."):
        controller.run()
    controller.lab.broken.clear()
    result = controller.run()
    assert "added tang" in result["actions"]
    assert not any("formatted" in action for action in result["actions"])
    assert controller.run()["changed"] is False


def test_a_way_that_does_not_open_the_volume_is_taken_out_again(controller):
    controller.lab.broken.add("clevis decrypt")
    with pytest.raises(AnsibleActionFail, match="tang does not open the volume, and was taken out"):
        controller.run()
    header = controller.lab.scan.header
    assert header
    assert [token.type for token in header.tokens] == ["systemd-tpm2"]
    controller.lab.broken.clear()
    controller.run()
    assert controller.run()["changed"] is False


# --- the confirmation ---


def test_a_confirmation_that_stands_in_a_file_is_none(controller):
    controller.lab.write(b"somebody's bytes")
    refused(controller, "give it with -e luks_confirm_wipe=SERIAL and nowhere else", confirm_wipe=SERIAL)
    controller.extra_vars = {"luks_confirm_wipe": "data1"}
    refused(controller, "found 'data0' in the inventory or the play", confirm_wipe=SERIAL)


def test_a_confirmation_of_another_disk_is_none(controller):
    controller.lab.write(b"somebody's bytes")
    controller.extra_vars = {"luks_confirm_wipe": "data1"}
    refused(controller, "is not empty", confirm_wipe="data1")


def test_a_confirmed_disk_is_formatted_and_a_volume_on_it_never(controller):
    controller.extra_vars = {"luks_confirm_wipe": SERIAL}
    controller.lab.write(both_copies(metadata(), UUID))
    refused(controller, "holds a LUKS2 volume", confirm_wipe=SERIAL)
    controller.lab.write(b"somebody's bytes".ljust(1 << 16, b"."))
    assert "formatted" in str(controller.run(confirm_wipe=SERIAL)["actions"])


# --- check mode, and the other states ---


def test_check_mode_says_what_a_run_would_do(controller):
    result = controller.run(check_mode=True)
    assert result["actions"] == [
        f"would format {controller.lab.disk}",
        "would add tpm2",
        "would add tang",
        "would make ext4",
        "would mount /var/lib/bedplate",
    ]
    assert result["uuid"] == ""
    assert controller.steps == ["look"]
    assert files(controller.lab.root) == {}
    controller.run()
    assert controller.run(check_mode=True)["changed"] is False


def test_an_array_that_the_run_would_make_first_is_no_missing_disk_in_check_mode_only(controller):
    on_array = {"device": None, "serial": None, "size": None, "array": "weights"}
    options = {"volume": on_array, "arrays": ["weights"]}
    foreseen = controller.run(check_mode=True, **options)
    assert foreseen["actions"] == [
        "would have the volume on /dev/disk/by-id/md-name-bedplate:weights, which is not there yet"
    ]
    refused(controller, "md-name-bedplate:weights is not there", **options)


def test_a_locked_volume_is_opened_with_the_escrows_passphrase(controller):
    controller.run()
    controller.lab.reboot()
    assert controller.run(state="unlocked", check_mode=True)["actions"] == [
        "would unlock it with the escrow's passphrase",
        "would mount /var/lib/bedplate",
    ]
    assert not controller.lab.opened
    result = controller.run(state="unlocked")
    assert result["actions"] == [
        "opened /dev/mapper/models with the escrow's passphrase",
        "mounted /var/lib/bedplate",
    ]
    assert controller.run(state="unlocked")["changed"] is False


def test_a_changed_header_is_backed_up_once(controller):
    controller.run()
    controller.lab._rewrite({**controller.lab.scan.header.metadata}, "by hand")
    assert controller.run(state="backed_up", check_mode=True)["actions"] == ["would back up the header"]
    assert controller.run(state="backed_up")["actions"] == ["backed up the header"]
    assert controller.run(state="backed_up")["changed"] is False
    assert controller.run(state="backed_up", check_mode=True)["changed"] is False


@pytest.mark.parametrize("state", ["unlocked", "backed_up"])
def test_what_is_not_there_is_neither_unlocked_nor_backed_up(state, controller):
    refused(controller, "there is no volume on /dev/disk/by-id/virtio-data0 yet", state=state)


def test_a_lost_escrow_is_told_and_the_volume_left(controller):
    controller.run()
    for name in files(controller.escrow_dir):
        (controller.escrow_dir / name).unlink()
    refused(controller, "The escrow knows nothing of data0 .*; bring it back from a backup", state="present")


def test_two_runs_on_one_disk_lock_each_other_out(controller):
    with controller.store.locked(SERIAL):
        refused(controller, "Another run works on the volume of data0")


def test_a_header_that_opening_it_changed_is_backed_up_too(controller):
    """Going around the work queues is written into the header by the first opening, as on every NVMe."""
    controller.run(bypass_workqueues="yes")
    escrow, header = controller.store.read(SERIAL), controller.lab.scan.header
    assert escrow
    assert escrow.backup
    assert header.flags == ("no-read-workqueue", "no-write-workqueue")
    assert escrow.backup.sequence == header.sequence
    assert controller.run(bypass_workqueues="yes")["changed"] is False


def test_unlocking_that_changed_the_header_is_followed_by_a_backup(controller):
    controller.run()
    controller.lab.reboot()
    controller.run(state="unlocked", bypass_workqueues="yes")
    assert controller.store.read(SERIAL).backup.sequence == controller.lab.scan.header.sequence
    controller.lab.reboot()
    backups = len(controller.store.read(SERIAL).backups)
    controller.run(state="unlocked", bypass_workqueues="yes")
    assert len(controller.store.read(SERIAL).backups) == backups


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_serial_number_that_two_hosts_have_makes_no_second_volume_with_one_key(check_mode, controller):
    """As disks of virtual machines may have: the escrow of one would hold the other's header."""
    controller.store.begin(SERIAL, "models", "gpu2", UUID)
    refused(controller, "is that of gpu2, and the device on gpu1 is empty", check_mode=check_mode)


def test_a_disk_that_was_moved_to_another_host_is_taken_over(controller):
    first = controller.run()
    controller.lab.reboot()
    for name in files(controller.lab.root):
        (controller.lab.root / name).unlink()
    controller.host = "gpu2"
    assert controller.run()["uuid"] == first["uuid"]


def test_check_mode_leaves_no_trace_on_the_operators_side(controller):
    controller.run(check_mode=True)
    assert not controller.escrow_dir.exists()


def test_a_way_is_not_added_to_a_header_that_is_not_ours(controller):
    """The disk may have been exchanged since the controller looked."""
    controller.run()
    controller.lab.write(both_copies(metadata(), OTHER))
    escrow = controller.store.read(SERIAL)
    answer = controller._execute(
        "bedplate.llm.luks_volume",
        {**controller.arguments[-1], "step": "enroll", "method": "tang", "escrow": escrow.as_dict(), "passphrase": "x"},
        {},
    )
    assert "the volume known here is" in answer["msg"]
    assert "luksAddKey" not in [argv[1] for argv in controller.lab.argvs[-3:]]


@pytest.mark.parametrize("folder", ["secrets/volumes", "~/volumes"])
def test_an_escrow_that_depends_on_the_working_directory_is_refused(folder, controller):
    refused(controller, "escrow_dir: give an absolute path", escrow_dir=folder)
