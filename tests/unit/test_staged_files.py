"""Decisions of config_files: what differs, what may be replaced, what is refused."""

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.staged_files import (
    Found,
    SpecError,
    Wanted,
    diff_entry,
    needs_change,
    parse,
)

FILE = {"path": "/etc/a", "content": "x\n", "owner": "root", "group": "root", "mode": "0644"}
WANTED = Wanted("/etc/a", b"x\n", "root", "root", 0o644)
DIRECTORY = Wanted("/etc/d", None, "root", "root", 0o755, directory=True)
ABSENT = Wanted("/etc/a", None, "root", "root", 0o644)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        (WANTED, Found("absent"), True),
        (WANTED, Found("file", b"x\n", "root", "root", 0o644), False),
        (WANTED, Found("file", b"y\n", "root", "root", 0o644), True),
        (WANTED, Found("file", b"x\n", "root", "root", 0o600), True),
        (WANTED, Found("file", b"x\n", "nobody", "root", 0o644), True),
        (DIRECTORY, Found("absent"), True),
        (DIRECTORY, Found("directory", None, "root", "root", 0o755), False),
        (DIRECTORY, Found("directory", None, "root", "staff", 0o755), True),
        (ABSENT, Found("absent"), False),
        (ABSENT, Found("file", b"x\n", "root", "root", 0o644), True),
    ],
)
def test_change_is_needed_exactly_when_content_owner_group_or_mode_differ(wanted, found, expected):
    assert needs_change(wanted, found) is expected


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        (WANTED, Found("directory"), "should be a file but a directory"),
        (WANTED, Found("other"), "should be a file but a other"),
        (DIRECTORY, Found("file", b""), "should be a directory but a file"),
        (ABSENT, Found("directory"), "removes files only"),
    ],
)
def test_something_of_another_kind_is_never_replaced(wanted, found, words):
    with pytest.raises(SpecError, match=words):
        needs_change(wanted, found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "etc/a"}, "must be absolute"),
        ({"path": "/etc/../a"}, "must be absolute"),
        ({"mode": "rw"}, "octal string"),
        ({"mode": "99999"}, "octal string"),
        ({"content": None}, "content is missing"),
    ],
)
def test_an_unsound_file_is_refused_in_one_sentence(change, words):
    with pytest.raises(SpecError, match=words):
        parse([{**FILE, **change}], [])


def test_a_path_listed_twice_is_refused():
    with pytest.raises(SpecError, match="listed twice"):
        parse([FILE, FILE], [])


def test_directories_come_before_files():
    wanted = parse([FILE], [{"path": "/etc/d", "owner": "root", "group": "root", "mode": "0755"}])
    assert [item.path for item in wanted] == ["/etc/d", "/etc/a"]


def test_the_diff_shows_a_change_of_mode_alone():
    entry = diff_entry(WANTED, Found("file", b"x\n", "root", "root", 0o600))
    assert entry["before"] == "# root:root 0600\nx\n"
    assert entry["after"] == "# root:root 0644\nx\n"
