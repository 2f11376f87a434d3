"""The order of steps on a host: the way back stands before the first change, nothing is kept before the proof."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.bedplate.llm.plugins.action import nft_table
from ansible_collections.bedplate.llm.plugins.module_utils import nft_host, nft_state

SCRIPT = "table inet bedplate { }\n"


class Recorder:
    """Stands in for the host's programs: remembers what was run, and fails what it is told to fail."""

    def __init__(self, fails: Callable[[Sequence[str]], bool] | None = None, out: str = "") -> None:
        self.argvs: list[Sequence[str]] = []
        self.fails = fails
        self.out = out

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.argvs.append(argv)
        return (1, "", "no") if self.fails and self.fails(argv) else (0, self.out, "")

    def verbs(self) -> list[str]:
        """Program and file, enough to tell the steps apart."""
        return [f"{Path(argv[0]).name} {Path(argv[-1]).name}" for argv in self.argvs]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ROLLBACK", "CANDIDATE", "PENDING", "ROLLED_BACK"):
        monkeypatch.setattr(nft_host, name, str(tmp_path / "run" / Path(getattr(nft_host, name)).name))
    monkeypatch.setattr(nft_host, "RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(nft_host, "UNIT_PATH", str(tmp_path / "unit" / nft_state.UNIT))
    monkeypatch.setattr(nft_state, "FILE", str(tmp_path / "etc" / "bedplate.nft"))
    return tmp_path


def test_the_timer_runs_before_the_rules_come_into_force(paths: Path) -> None:
    run = Recorder(out="table inet bedplate { former }\n")
    nft_host.Host(run, "/usr/sbin/nft").arm_and_apply(SCRIPT, {"change": "c1"}, 60)
    assert run.verbs() == [
        "nft bedplate",
        "nft rollback.nft",
        "nft candidate.nft",
        "systemd-run rollback.nft",
        "nft candidate.nft",
    ]
    assert [argv[1] for argv in run.argvs[1:3]] == ["-c", "-c"], "both ways are tried before the first step"
    assert "--on-active=60" in run.argvs[3]
    assert (paths / "run/rollback.nft").read_text().endswith("{ former }\n")
    assert json.loads((paths / "run/pending.json").read_text()) == {"change": "c1"}
    assert not (paths / "etc").exists(), "nothing is kept before it is confirmed"


@pytest.mark.parametrize("step", ["systemd-run", "-f"])
def test_a_step_that_fails_takes_the_timer_back(paths: Path, step: str) -> None:
    def fails(argv: Sequence[str]) -> bool:
        return (argv[0] == step) or (step == "-f" and list(argv[1:2]) == ["-f"])

    run = Recorder(fails)
    with pytest.raises(nft_host.HostError):
        nft_host.Host(run, "/usr/sbin/nft").arm_and_apply(SCRIPT, {"change": "c1"}, 60)
    assert run.verbs()[-1] == "systemctl bedplate-firewall-rollback.timer"
    assert not (paths / "run/pending.json").exists()


def test_rules_that_nft_refuses_are_never_armed(paths: Path) -> None:
    run = Recorder(lambda argv: argv[-1].endswith("candidate.nft"))
    with pytest.raises(nft_host.HostError, match="nft refuses the rules: no"):
        nft_host.Host(run, "/usr/sbin/nft").arm_and_apply(SCRIPT, {"change": "c1"}, 60)
    assert "systemd-run" not in [argv[0] for argv in run.argvs]


def test_confirmed_rules_are_kept_for_the_next_boot(paths: Path) -> None:
    run = Recorder()
    host = nft_host.Host(run, "/usr/sbin/nft")
    host.persist(SCRIPT)
    assert (paths / "etc/bedplate.nft").read_text() == SCRIPT
    assert (paths / "etc/bedplate.nft").stat().st_mode & 0o777 == 0o600
    assert [argv[1] for argv in run.argvs] == ["daemon-reload", "--quiet"]
    host.persist(SCRIPT)
    assert [argv[1] for argv in run.argvs].count("daemon-reload") == 1, "a needless reload can hurt others"


def test_an_unconfirmed_change_of_another_run_is_void(paths: Path) -> None:
    run = Recorder()
    host = nft_host.Host(run, "/usr/sbin/nft")
    host.arm_and_apply(SCRIPT, {"change": "c1"}, 60)
    host.roll_back_now()
    assert run.verbs()[-2:] == ["systemctl bedplate-firewall-rollback.timer", "nft rollback.nft"]
    assert host.pending_change() is None


def test_a_script_that_touches_other_tables_is_refused() -> None:
    def listing(*names: str) -> str:
        return json.dumps({"nftables": [{"table": {"family": "inet", "name": name}} for name in names]})

    for tables in (("bedplate", "canary", "other"), ("bedplate",), ("canary",)):
        with pytest.raises(nft_host.HostError, match="touch no other"):
            nft_host.Host(Recorder(out=listing(*tables)), "/usr/sbin/nft")._loaded(SCRIPT)
    loaded = nft_host.Host(Recorder(out=listing("bedplate", "canary")), "/usr/sbin/nft")._loaded(SCRIPT)
    assert [item["table"]["name"] for item in loaded] == ["bedplate"]


def test_the_ssh_connection_is_found_behind_sudo(tmp_path: Path) -> None:
    for pid, parent, environment in (
        (30, 20, b"HOME=/root\0"),
        (20, 10, b"HOME=/root\0SSH_CONNECTION_X=1\0"),
        (10, 1, b"HOME=/home/ops\0SSH_CONNECTION=192.0.2.9 51234 192.0.2.1 22\0"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(environment)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")
    assert nft_host.find_peer(30, str(tmp_path)) == nft_state.Peer("192.0.2.9", 51234, 22)
    (tmp_path / "10/environ").write_bytes(b"")
    assert nft_host.find_peer(30, str(tmp_path)) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"outcome": "rolled-back"}, "went back to the former rules and the file for the next boot was not touched"),
        ({"outcome": "unknown"}, "not applied, or another run replaced it"),
        ({"outcome": "same-connection"}, "only the old one was used again"),
        ({"outcome": "unreachable"}, "look at the host's console"),
        ({"failed": True, "msg": "nft_table: the unit does not start."}, "the unit does not start"),
    ],
)
def test_everything_but_a_confirmation_is_a_failure_that_says_what_happened(
    answer: dict[str, object], words: str
) -> None:
    verdict = nft_table.ActionModule._verdict(answer, 60)
    assert verdict["failed"] is True
    assert words in verdict["msg"]


def action(answers: list[object], monkeypatch: pytest.MonkeyPatch) -> nft_table.ActionModule:
    """The controller's half with a host that gives these answers, and a clock that stands still."""
    plugin = object.__new__(nft_table.ActionModule)

    def execute(name: str, module_args: dict[str, object], task_vars: object) -> dict[str, object]:
        assert module_args["phase"] == "confirm"
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(nft_table.time, "sleep", Mock())
    plugin._execute_module = execute
    plugin._connection = Mock()
    plugin._display = Mock()
    return plugin


def test_a_new_connection_is_tried_again_until_the_host_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [
        AnsibleConnectionFailure("timed out"),
        {"outcome": "same-connection"},
        {"outcome": "confirmed"},
    ]
    plugin = action(answers, monkeypatch)
    assert plugin._confirm({}, {}, deadline=float("inf"))["outcome"] == "confirmed"
    assert plugin._connection.reset.call_count == 3


def test_it_gives_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = action([AnsibleConnectionFailure("timed out")], monkeypatch)
    assert plugin._confirm({}, {}, deadline=float("-inf")) == {"outcome": "unreachable"}
