"""Quoting for systemd, and the release of a unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_unit import environment_line, exec_line, release_of


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("plain/path-1.2=x,y:z@w+v", "plain/path-1.2=x,y:z@w+v"),
        ("two words", '"two words"'),
        ('{"a":1}', '"{\\"a\\":1}"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ("back\\slash", '"back\\\\slash"'),
        (";", '";"'),
        ("", '""'),
        ("it's", '"it\'s"'),
        ("模型", '"模型"'),
    ],
)
def test_an_argument_is_quoted_as_systemd_reads_it(argument: str, quoted: str) -> None:
    assert exec_line(["/bin/x", argument]) == f"/bin/x {quoted}"


def test_every_option_has_its_own_line() -> None:
    assert exec_line(["/bin/x", "serve", "-a", "1", "--b"]) == "/bin/x serve \\\n    -a 1 \\\n    --b"


def test_a_dollar_is_plain_in_the_environment() -> None:
    assert environment_line("A", "$x %i") == '"A=$x %%i"'
    assert environment_line("A", "") == "A="


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\x1bb"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        exec_line(["/bin/x", text])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_itself_reads_a_unit_with_every_kind_of_argument(tmp_path: Path) -> None:
    arguments = ["two words", '{"a": "b\\"c"}', "100%", "$HOME", "back\\slash", ";", "", "it's", "-x"]
    unit = tmp_path / "bedplate-quoting.service"
    lines = [
        "[Service]",
        f"Environment={environment_line('A', '100% $x')}",
        f"ExecStart={exec_line(['/bin/true', *arguments])}",
    ]
    unit.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)], capture_output=True, text=True
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_a_release_changes_with_what_the_unit_says_and_not_with_its_comments() -> None:
    unit = "# one\n[Service]\nExecStart=/bin/x\n"
    assert release_of(unit) == release_of("# two\n\n[Service]\n  # three\nExecStart=/bin/x\n")
    assert release_of(unit) != release_of(unit.replace("/bin/x", "/bin/y"))
    assert len(release_of(unit)) == 12
