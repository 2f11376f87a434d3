"""What is told of a host's volumes and disks, without a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.modules import luks_volume_info
from module_runner import ModuleFailedError, run
from volume_controller import TANG_SERVERS, Controller
from volume_lab import SIZE, Lab, Power, host
from volume_samples import DECLARED, SERIAL

VOLUME = {**DECLARED, "size": SIZE, "unlock": ["tpm2", "tang"]}


@pytest.fixture
def controller(tmp_path, monkeypatch):
    made = Controller(Lab(tmp_path / "lab", Power()), monkeypatch)
    monkeypatch.setattr(
        luks_volume_info, "VolumeHost", lambda volume, escrow, run: host(made.lab, escrow, unlock=volume.unlock)
    )
    monkeypatch.setattr(luks_volume_info, "module_runner", lambda _module: made.lab.run)
    real = Path.read_text
    host_says = {"/proc/swaps": "Filename Type\n", "/proc/sys/kernel/core_pattern": "|/bin/false\n"}
    monkeypatch.setattr(
        Path, "read_text", lambda path, *rest, **more: host_says.get(str(path)) or real(path, *rest, **more)
    )
    return made


def told(controller: Controller, **options: Any) -> dict[str, Any]:
    escrow = controller.store.read(SERIAL)
    given = {"volumes": [VOLUME], "tang_servers": TANG_SERVERS, "escrow": [escrow.as_dict()] if escrow else []}
    result: dict[str, Any] = run(luks_volume_info, **{**given, **options})
    return result


def failing(result: dict[str, Any]) -> list[str]:
    return [check["id"].removeprefix("luks_volume.") for check in result["checks"] if not check["ok"]]


def test_a_volume_as_rolled_out_has_no_failing_check(controller):
    uuid = controller.run()["uuid"]
    result = told(controller)
    assert failing(result) == []
    (volume,) = result["volumes"]
    backup = controller.store.read(SERIAL).backup
    assert volume == {
        "name": "models",
        "device": DECLARED["device"],
        "serial": SERIAL,
        "mount": "/var/lib/bedplate",
        "state": "ready",
        "decision": "keep",
        "problems": [],
        "path": str(controller.lab.disk),
        "uuid": uuid,
        "sequence": controller.lab.scan.header.sequence,
        "open": True,
        "mounted": ["/var/lib/bedplate"],
        "ways": [
            {"method": "recovery", "keyslot": 0},
            {"method": "tpm2", "keyslot": 1},
            {"method": "tang", "keyslot": 2},
        ],
        "backup": {"made": backup.made, "sequence": volume["sequence"]},
    }


def test_an_empty_disk_is_told_as_what_a_rollout_would_do(controller):
    result = told(controller)
    assert (result["volumes"][0]["decision"], failing(result)) == ("format", ["models-there"])
    assert [(disk["serial"], disk["size"], disk["holds"]) for disk in result["disks"]] == [(SERIAL, SIZE, [])]


def test_ways_that_do_not_open_are_told_and_only_when_asked(controller):
    controller.run()
    controller.lab.missing.add("clevis")
    controller.lab.tpm.clear()
    assert failing(told(controller)) == ["models-opens-by-tpm2-1", "models-opens-by-tang-2"]
    assert failing(told(controller, prove=False)) == []


def test_nothing_is_changed_and_no_secret_is_asked_for(controller):
    controller.run()
    before, commands = controller.lab.disk.stat().st_mtime_ns, len(controller.lab.argvs)
    result = told(controller)
    assert controller.lab.disk.stat().st_mtime_ns == before
    asked = {" ".join(argv[:3]) for argv in controller.lab.argvs[commands:] if argv[0] == "cryptsetup"}
    assert asked == {"cryptsetup open --test-passphrase"}
    assert not any(secret in str(result) for secret in controller.secrets())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"volumes": [{**VOLUME, "mount": "/"}]}, "mount: give"),
        ({"escrow": [{"serial": "data0"}]}, "is no record of an escrow"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence(options, words, controller):
    with pytest.raises(ModuleFailedError, match=words):
        told(controller, **options)


def test_a_tool_that_gives_no_answer_is_one_sentence(controller):
    controller.lab.broken.add("wipefs")
    with pytest.raises(ModuleFailedError, match=r"`wipefs --no-act --json .* ended with 1 on this host\."):
        told(controller)


def test_a_volume_that_was_renamed_still_has_its_escrow(controller):
    """The escrow is a device's, by its serial number; the name in it is that of its first day."""
    controller.run()
    escrow = controller.store.read(SERIAL)
    result = told(controller, escrow=[{**escrow.as_dict(), "name": "weights"}])
    assert failing(result) == []


def test_the_escrow_of_an_array_is_that_of_its_host(controller):
    array = {"name": "models", "array": "weights", "mount": "/var/lib/bedplate"}
    (volume,), _problems = luks_volume_info.parse([array], ["weights"])
    escrows = [{"serial": "gpu1.md-weights"}, {"serial": "md-other"}, {"serial": "weights"}]
    assert luks_volume_info.escrow_of(volume, escrows) == escrows[0]
    assert luks_volume_info.escrow_of(volume, escrows[1:]) is None
