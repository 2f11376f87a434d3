"""A host is back when it is in another boot, and in no other case; the host is a list of what it answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.bedplate.llm.plugins.action import host_reboot

BEFORE = "1e79c9c0-ade8-4a95-9209-fc209e9bcea8"
AFTER = "21097731-5ebc-46fe-907e-7b7eb954ca08"
GONE = AnsibleConnectionFailure("no route to host")
NOLOGIN = {"rc": 1, "stdout": "", "stderr": "System is going down."}


def answer(boot_id: str) -> dict[str, object]:
    return {"rc": 0, "stdout": f"{boot_id}\n"}


class Host(host_reboot.ActionModule):
    """Answers one after the other, the last one for ever."""

    def __init__(self, *answers: object, check_mode: bool = False, **given: object) -> None:
        self.answers, self.commands = list(answers), []
        self._task = SimpleNamespace(check_mode=check_mode, args={"boot_id": BEFORE, **given}, async_val=0)
        self._display = SimpleNamespace(vv=lambda _text: None, display=lambda _text: None)

    def validate_argument_spec(self, argument_spec):
        defaults = {name: option.get("default") for name, option in argument_spec.items()}
        return None, {**defaults, **self._task.args}

    def _low_level_execute_command(self, cmd: str):
        if cmd.startswith("systemd-run"):
            self.commands.append(cmd)
            return {"rc": 0, "stdout": ""}
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    def _reset_connection(self) -> None:
        pass


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    """Ten seconds pass with each look at the clock."""
    clock = iter(range(0, 10**9, 10))
    monkeypatch.setattr(host_reboot.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(host_reboot.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(host_reboot.ActionBase, "run", lambda *_: {})


@pytest.mark.parametrize(
    "meanwhile",
    [
        [],
        [GONE, GONE],
        # Slow to go down: it still answers, in the boot before.
        [answer(BEFORE), answer(BEFORE), GONE],
        [NOLOGIN, GONE, NOLOGIN],
        [{"rc": 0, "stdout": "Welcome!\n"}],
    ],
)
def test_it_is_back_with_another_boot_whatever_was_seen_meanwhile(meanwhile):
    host = Host(answer(BEFORE), *meanwhile, answer(AFTER), timeout=10**6, reason="driver 2\nis installed")
    result = host.run()
    assert (result["boot_id"], result["changed"]) == (AFTER, True)
    assert result["msg"] == f"The host was restarted and is back after {result['seconds']:.0f} s."
    [command] = host.commands
    assert "'--description=bedplate restarts this host: driver 2 is installed' systemctl reboot" in command


@pytest.mark.parametrize(
    ("for_ever", "words"),
    [
        (answer(BEFORE), "after 300 s the host is still in the former boot; something keeps it from shutting down"),
        (GONE, "after 300 s the host is not reachable; look at its console"),
        (NOLOGIN, "after 300 s the host is not letting anybody in; look at its console"),
    ],
)
def test_when_the_time_is_over_it_is_said_how_the_host_was_last_seen(for_ever, words):
    with pytest.raises(AnsibleActionFail, match=words):
        Host(answer(BEFORE), for_ever, timeout=300).run()


def test_a_host_that_somebody_else_restarted_meanwhile_is_not_restarted_again():
    host = Host(answer(AFTER))
    with pytest.raises(AnsibleActionFail, match="somebody else restarted it meanwhile"):
        host.run()
    assert host.commands == []


def test_check_mode_restarts_nothing():
    host = Host(answer(BEFORE), check_mode=True)
    assert host.run() == {"changed": True, "msg": "The host would be restarted."}
    assert host.commands == []
