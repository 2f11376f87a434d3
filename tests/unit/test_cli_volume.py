"""`bedplate volume`: what it asks of the playbook, and what a person and a machine are told."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_harness import local_site, play
from test_cli import acme, bedplate, plays  # noqa: F401

from bedplate import runner
from bedplate.commands import volume
from bedplate.events import HostSummary, Summary, TaskEnded
from bedplate.volume_report import host_lines, stanza, state

PLAYBOOK = Path(__file__).resolve().parents[2] / "playbooks/volume.yml"
DONE = Summary({"gpu1": HostSummary(ok=3, changed=1)})
DISK = {
    "path": "/dev/nvme1n1",
    "names": ["/dev/disk/by-id/nvme-SAMSUNG_S64HNE0T500123"],
    "serial": "S64HNE0T500123",
    "size": 3840755982336,
    "model": "SAMSUNG MZQL23T8HCLS",
    "holds": [],
}
MODELS = {
    "name": "models",
    "path": "/dev/nvme0n1",
    "state": "ready",
    "decision": "keep",
    "problems": [],
    "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "sequence": 7,
    "open": True,
    "mounted": ["/var/lib/bedplate"],
    "ways": [{"method": "recovery", "keyslot": 0}, {"method": "tpm2", "keyslot": 1}],
    "backup": {"made": "2026-11-20T07:00:00Z", "sequence": 7},
}
HOLDS = {"id": "luks_volume.models-there", "ok": True, "reason": "it is", "remedy": ""}
BROKEN = {"id": "luks_volume.models-mounted", "ok": False, "reason": "models is locked", "remedy": "unlock it"}
NOW = datetime.datetime(2026, 11, 25, 8, tzinfo=datetime.UTC)


def looked(*checks: dict[str, Any], volumes: Any = (MODELS,), disks: Any = (DISK,)) -> TaskEnded:
    result = {"volumes": list(volumes), "disks": list(disks), "checks": list(checks)}
    return TaskEnded("gpu1", "luks_volume", "Look at the volumes", "ok", result=result)


def changed(status: Any = "changed") -> TaskEnded:
    items = [
        {"item": {"name": "models"}, "actions": ["opened /dev/mapper/models", "mounted /var/lib/bedplate"]},
        {"item": {"name": "cache"}, "actions": []},
    ]
    message = "cache: no" if status == "failed" else ""
    return TaskEnded("gpu1", "luks_volume", "Bring", status, message=message, result={"results": items})


# --- what the playbook is asked ---


@pytest.mark.parametrize(
    ("words", "limit", "told"),
    [
        (["unlock"], "", {"luks_volume_state": "unlocked", "luks_volume_names": []}),
        (["unlock", "--volume", "models"], "", {"luks_volume_state": "unlocked", "luks_volume_names": ["models"]}),
        (["backup", "--limit", "gpu1"], "gpu1", {"luks_volume_state": "backed_up", "luks_volume_names": []}),
        (
            ["restore", "--volume", "models", "--host", "gpu1", "--backup", "header-3"],
            "gpu1",
            {"luks_volume_state": "restored", "luks_volume_names": ["models"], "luks_volume_backup": "header-3"},
        ),
        (
            ["restore", "--volume", "models", "-l", "gpu1"],
            "gpu1",
            {"luks_volume_state": "restored", "luks_volume_names": ["models"], "luks_volume_backup": ""},
        ),
        (
            ["rotate", "--volume", "models", "--method", "tpm2+tang"],
            "",
            {"luks_volume_state": "rotated", "luks_volume_names": ["models"], "luks_volume_method": "tpm2+tang"},
        ),
        (
            ["erase", "--volume", "models", "--limit", "gpu1", "--serial", "S1"],
            "gpu1",
            {"luks_volume_state": "erased", "luks_volume_names": ["models"], "luks_confirm_erase": "S1"},
        ),
    ],
)
def test_a_command_is_the_playbook_with_what_was_given(acme, plays, words, limit, told):  # noqa: F811
    plays.events = (DONE,)
    result = bedplate("volume", *words, "--site", "acme", "-e", "a=1", "--check")
    assert result.exit_code == 0, result.stderr
    [what] = plays.asked
    assert (what.playbook, what.inventory, what.limit, what.check) == ("bedplate.llm.volume", acme, limit, True)
    given, ours = what.extra_vars
    # Last, so that it wins over what -e says of it.
    assert (given, json.loads(ours)) == ("a=1", told)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["restore", "--volume", "models"], "--limit"),
        (["restore", "--limit", "gpu1"], "--volume"),
        (["rotate", "--method", "tpm2"], "--volume"),
        (["rotate", "--volume", "models"], "--method"),
        (["erase", "--volume", "models", "--serial", "S1"], "--limit"),
        (["erase", "--limit", "gpu1", "--serial", "S1"], "--volume"),
    ],
)
def test_what_is_done_to_one_volume_has_to_name_it(acme, plays, words, missing):  # noqa: F811
    result = bedplate("volume", *words, "--site", "acme")
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr
    assert plays.asked == ()


def test_without_a_terminal_nobody_is_asked_for_the_serial_number(acme, plays):  # noqa: F811
    result = bedplate("volume", "erase", "--site", "acme", "--volume", "models", "--limit", "gpu1")
    assert result.exit_code == 2
    assert "give --serial with the serial number of the device; nothing was changed" in result.stderr
    assert plays.asked == ()


def test_at_a_terminal_the_serial_number_is_asked_for(acme, plays, monkeypatch):  # noqa: F811
    plays.events = (DONE,)
    monkeypatch.setattr(volume, "is_interactive", lambda: True)
    monkeypatch.setattr(volume.typer, "prompt", lambda text, err: asked.append(text) or "S64HNE0T500123")
    asked: list[str] = []
    result = bedplate("volume", "erase", "--site", "acme", "--volume", "models", "--limit", "gpu1")
    assert result.exit_code == 0
    assert asked == ["All data of the volume models on gpu1 will be lost for good.\nSerial number of its device"]
    assert json.loads(plays.asked[0].extra_vars[0])["luks_confirm_erase"] == "S64HNE0T500123"


def test_machines_are_never_asked(acme, plays, monkeypatch):  # noqa: F811
    monkeypatch.setattr(volume, "is_interactive", lambda: True)
    result = bedplate("volume", "erase", "--site", "acme", "--volume", "models", "--limit", "gpu1", "--json")
    assert result.exit_code == 2
    assert plays.asked == ()


# --- what is told ---


def test_what_was_done_to_each_volume_is_told(acme, plays):  # noqa: F811
    plays.events = (changed(), DONE)
    result = bedplate("volume", "unlock", "--site", "acme")
    assert result.exit_code == 0
    assert "opened /dev/mapper/models; mounted /var/lib/bedplate" in result.stderr
    assert "volume unlock of acme is done: gpu1: 1 changed, 2 unchanged" in result.stderr
    [log] = Path(".bedplate/log").iterdir()
    assert "gpu1 models: opened /dev/mapper/models" in log.read_text()


def test_what_was_done_is_told_also_when_another_volume_failed(acme, plays):  # noqa: F811
    plays.events, plays.rc = (changed("failed"), DONE), 2
    result = bedplate("volume", "unlock", "--site", "acme", "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert last["outcome"] == "failed"
    assert last["actions"] == [
        {"host": "gpu1", "volume": "models", "actions": ["opened /dev/mapper/models", "mounted /var/lib/bedplate"]}
    ]


def test_a_check_says_that_nothing_was_changed(acme, plays):  # noqa: F811
    plays.events = (DONE,)
    result = bedplate("volume", "backup", "--site", "acme", "--check")
    assert "Nothing was changed; volume backup would come to: gpu1" in result.stderr


@pytest.mark.parametrize(
    ("events", "rc", "code"),
    [
        ((looked(HOLDS), DONE), 0, 0),
        ((looked(HOLDS, BROKEN), DONE), 0, 1),
        ((TaskEnded("gpu1", "", "", "unreachable", message="timed out"), DONE), 4, 2),
    ],
)
def test_status_ends_with_whether_all_is_as_it_should_be(acme, plays, events, rc, code):  # noqa: F811
    plays.events, plays.rc = events, rc
    result = bedplate("volume", "status", "--site", "acme", "--limit", "gpu1")
    assert result.exit_code == code
    assert plays.asked == (runner.Run("bedplate.llm.volume_status", acme, "gpu1"),)


def test_machines_are_told_all_of_it(acme, plays):  # noqa: F811
    plays.events = (looked(HOLDS), DONE)
    result = bedplate("volume", "status", "--site", "acme", "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["volumes"] == [{"host": "gpu1", "volumes": [MODELS], "disks": [DISK]}]


def shown(*checks: dict[str, Any], **more: Any) -> list[str]:
    return list(host_lines("gpu1", looked(*checks, **more).result, NOW))


def test_a_person_reads_a_line_a_volume_and_how_a_free_disk_is_declared():
    cache = {**MODELS, "name": "kv", "path": "/dev/nvme2n1", "open": False, "mounted": [], "backup": {}}
    assert shown(HOLDS, BROKEN, volumes=(MODELS, cache)) == [
        "gpu1",
        "  models  open    /var/lib/bedplate  recovery, tpm2  header backed up 5 days ago",
        "  kv      locked  not mounted        recovery, tpm2  no backup of the header",
        "  FAIL luks_volume.models-mounted: models is locked",
        "       → unlock it",
        "  /dev/nvme1n1 (3.84 TB, SAMSUNG MZQL23T8HCLS) holds nothing known; to declare it:",
        "    - name: CHANGE-ME",
        "      device: /dev/disk/by-id/nvme-SAMSUNG_S64HNE0T500123",
        '      serial: "S64HNE0T500123"',
        "      size: 3840755982336",
        "      mount: CHANGE-ME",
        "      unlock: [tpm2]",
    ]


def test_a_refusal_is_told_once():
    refused = {**MODELS, "decision": "refuse", "problems": ["/dev/nvme0n1 holds ext4"], "uuid": "", "ways": []}
    there = {**HOLDS, "ok": False, "reason": "/dev/nvme0n1 holds ext4"}
    assert shown(there, volumes=(refused,), disks=())[1:] == [
        "  models  refused  /var/lib/bedplate  no way in  header backed up 5 days ago",
        "    /dev/nvme0n1 holds ext4",
    ]


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({}, "open"),
        ({"open": False}, "locked"),
        ({"decision": "format", "uuid": "", "state": ""}, "not made yet"),
        ({"decision": "make-filesystem", "state": "formatted"}, "half made"),
        ({"decision": "back-up", "state": "formatting"}, "half made"),
        ({"decision": "refuse"}, "refused"),
        ({"decision": "refuse", "state": "erasing"}, "erasing"),
        ({"decision": "refuse", "state": "erased", "uuid": ""}, "erased"),
    ],
)
def test_the_state_of_a_volume_is_a_word(told, word):
    assert state({**MODELS, **told}) == word


@pytest.mark.parametrize(
    ("backup", "words"),
    [
        ({}, "no backup of the header"),
        ({"made": "2026-11-25T07:00:00Z", "sequence": 7}, "header backed up today"),
        ({"made": "2026-11-24T07:00:00Z", "sequence": 7}, "header backed up yesterday"),
        ({"made": "2026-11-20T07:00:00Z", "sequence": 5}, "header backed up 5 days ago, and changed since"),
    ],
)
def test_the_age_of_a_backup_is_told_and_whether_it_is_the_header_as_it_is(backup, words):
    assert shown(volumes=({**MODELS, "backup": backup},), disks=())[1].endswith(f"  {words}")


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ({**DISK, "serial": ""}, "has no serial number, so that it cannot be declared"),
        ({**DISK, "names": []}, "has no stable name below /dev/disk/by-id"),
    ],
)
def test_a_disk_that_cannot_be_told_from_another_is_not_offered(disk, words):
    assert words in shown(disks=(disk,))[-1]


@pytest.mark.parametrize("disk", [{**DISK, "holds": ["ext4"]}, {**DISK, "path": "/dev/nvme0n1"}])
def test_a_disk_that_holds_something_or_is_declared_is_not_offered(disk):
    assert len(shown(disks=(disk,))) == 2


@pytest.mark.parametrize("serial", ["S64HNE0T500123", "0123456", "1e5"])
def test_what_is_offered_is_what_an_inventory_takes(serial):
    (entry,) = yaml.safe_load("\n".join(stanza({**DISK, "serial": serial})))
    assert (entry["serial"], entry["size"], entry["device"]) == (serial, DISK["size"], DISK["names"][0])


# --- the playbook itself, as far as it goes before a host is asked ---

SITE = """
gpu_hosts:
  hosts:
    here: {luks_volumes: [{name: models}]}
    there: {luks_volumes: [{name: cache}]}
  vars:
    ansible_connection: local
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"luks_volume_state": "unlocked", "luks_volume_names": ["modles"]},
            "no host has modles; there is models, cache",
        ),
        ({"luks_volume_state": "erased", "luks_volume_names": ["models"]}, "A volume is erased on one host at a time"),
        ({"luks_volume_state": "restored", "luks_volume_names": ["models"]}, "give --limit HOST, found here, there"),
    ],
)
def test_the_playbook_ends_before_it_asks_a_host(told, words, tmp_path):
    site = local_site(tmp_path / "site", SITE)
    report, _events, _log = play(PLAYBOOK, site, tmp_path / "log", extra_vars=[json.dumps(told)])
    assert report.rc != 0
    assert any(words in failure.message for failure in report.failures), report.failures
    assert all("Nothing was changed" in failure.message for failure in report.failures)
