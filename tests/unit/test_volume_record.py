"""What is remembered of a volume: written whole or not at all, and never guessed when it cannot be read."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import volume_record
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    FORMATTING,
    READY,
    STATES,
    Record,
    RecordError,
    parse_escrow,
    parse_record,
    read,
    write,
    write_durably,
)
from volume_samples import BACKUP, ERASED_ESCROW, KEPT, PREPARED, SERIAL, UUID, record


@pytest.mark.parametrize("state", STATES)
def test_a_record_comes_back_as_it_was_written(state, tmp_path):
    for confirmed in (False, True):
        write(record(state, confirmed=confirmed), tmp_path / "records")
        assert read(SERIAL, tmp_path / "records") == record(state, confirmed=confirmed)


def test_a_device_without_a_record_has_none(tmp_path):
    assert read(SERIAL, tmp_path) is None


def test_a_record_goes_on_and_keeps_what_it_knows():
    assert record(FORMATTING, confirmed=True).after(READY) == Record(SERIAL, "models", UUID, READY, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no record of a volume"),
        ("{}", "is no record of a volume"),
        ("[]", "is no record of a volume"),
        ('{"serial": "data0"', "is no record of a volume"),
        ('{"serial": "d", "name": "m", "uuid": "u", "state": "new", "confirmed": false}', "found 'new'"),
    ],
)
def test_a_record_that_cannot_be_understood_is_an_error_and_not_absence(text, words, tmp_path):
    (tmp_path / f"{SERIAL}.json").write_text(text)
    with pytest.raises(RecordError, match=words) as error:
        read(SERIAL, tmp_path)
    assert str(tmp_path / f"{SERIAL}.json") in str(error.value)
    with pytest.raises(RecordError, match=words):
        parse_record(text, "here")


@pytest.mark.parametrize("escrow", [PREPARED, KEPT, ERASED_ESCROW])
def test_an_escrow_comes_back_as_it_was_written(escrow):
    assert parse_escrow(json.loads(json.dumps(escrow.as_dict())), "here") == escrow


def test_the_newest_backup_is_the_last():
    assert KEPT.backup == BACKUP
    assert PREPARED.backup is None


@pytest.mark.parametrize(
    "changed",
    [
        {"uuid": None},
        {"passphrases": None},
        {"backups": [{"file": "x"}]},
        {"backups": [{"file": "x", "sha256": "", "sequence": 1, "made": "", "more": 1}]},
    ],
)
def test_an_escrow_that_cannot_be_understood_is_an_error_and_not_absence(changed):
    content = {**KEPT.as_dict(), **changed}
    content = {key: value for key, value in content.items() if value is not None}
    with pytest.raises(RecordError, match="here is no record of an escrow"):
        parse_escrow(content, "here")


def test_what_is_written_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), real_fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("name"), real_replace(a, b)))
    write_durably(tmp_path / "a", "content")
    assert done == ["sync", "name", "sync"]
    assert (tmp_path / "a").read_text() == "content"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    write_durably(tmp_path / "a", "before")

    def full(_file: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "before"


def test_the_folder_of_the_records_is_for_root_only_and_on_no_volume(tmp_path):
    write(record(READY), tmp_path / "records")
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700
    assert not str(volume_record.FOLDER).startswith("/var/lib/bedplate/")


def test_what_a_crash_left_of_a_write_is_not_written_into(tmp_path):
    """It may be read-only, as a part of a secret is, and then only root could open it again."""
    other = tmp_path / "other"
    other.write_text("somebody's")
    os.link(other, tmp_path / ".a.part")
    write_durably(tmp_path / "a", "content", 0o400)
    assert (tmp_path / "a").read_text() == "content"
    assert other.read_text() == "somebody's"


def test_a_new_folder_is_on_the_disk_too(tmp_path, monkeypatch):
    synced: list[str] = []
    real = volume_record.sync_folder
    monkeypatch.setattr(volume_record, "sync_folder", lambda folder: (synced.append(str(folder)), real(folder)))
    write_durably(tmp_path / "a/b/c", "content")
    assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")]
    write_durably(tmp_path / "a/b/d", "content")
    assert synced[3:] == [str(tmp_path / "a/b")]
