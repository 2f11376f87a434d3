"""The look at a host, on a tree of files and with commands that answer what a host would."""

from __future__ import annotations

import json
from pathlib import Path

import module_runner
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.modules import reboot_info

SESSION = """\
Id=9
Name=ops
TTY=pts/2
Class=user
State=active
RemoteHost=10.0.0.6
Scope=session-9.scope
Timestamp=Wed 09:00
"""
LOCK = json.dumps({"data": [[["shutdown", "apt", "Installing", "block", 0, 91]]]})
NO_LOCK = (0, json.dumps({"data": [[]]}), "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch):
    """Set `.answers`, by the beginning of a command; every other command ends well and says nothing."""

    class Host:
        root = tmp_path
        answers: dict[str, tuple[int, str, str]]
        programs = ("loginctl", "dpkg-query")

        def run(self, _module, argv, **_):
            line = " ".join(argv)
            return next((reply for start, reply in self.answers.items() if line.startswith(start)), (0, "", ""))

        def write(self, path: str, text: str) -> None:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

    host = Host()
    host.answers = {"busctl": NO_LOCK}
    host.write("proc/sys/kernel/random/boot_id", "boot-1\n")
    host.write("proc/self/cgroup", "0::/user.slice/user-1000.slice/session-3.scope\n")
    monkeypatch.setattr(reboot_info, "ROOT", tmp_path)
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *args, **more: host.run(*args, **more))
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda _self, name, **_: name if name in host.programs else None)
    return host


def look(**options):
    return module_runner.run(reboot_info, patience=0, **options)


def test_a_host_that_waits_for_nothing_has_only_good_news(host):
    found = look()
    assert all(check["ok"] for check in found["checks"] + found["conditions"])
    assert (found["own"], found["distribution"], found["sentence"], found["drained"]) == (False, False, "", [])
    assert found["boot_id"] == "boot-1"
    assert not found["changed"]


def test_reasons_come_from_roles_and_from_the_distribution(host):
    host.write("run/bedplate/reboot.d/nvidia_driver", "580 is installed and 575 is loaded\n")
    host.write("run/reboot-required", "")
    host.write("run/reboot-required.pkgs", "libc6\n")
    host.write("run/bedplate/drained", "bedplate-vllm.service\n")
    found = look()
    assert (found["own"], found["distribution"], found["drained"]) == (True, True, ["bedplate-vllm.service"])
    assert found["sentence"] == ("nvidia_driver: 580 is installed and 575 is loaded; the distribution: updated libc6")


def test_dnf_is_asked_on_its_own_systems_and_not_where_it_is_a_tool(host):
    host.answers |= {"dnf": (1, "  * kernel\nReboot is required\n", "")}
    host.programs = ("loginctl", "dnf")
    assert look()["distribution"]
    host.programs = ("loginctl", "dnf", "dpkg-query")
    assert not look()["distribution"]


@pytest.mark.parametrize(
    ("answers", "options", "broken"),
    [
        (
            {
                "loginctl list": (0, "9 1000 ops\n", ""),
                "loginctl show-session --property=Id --property=Name": (0, SESSION, ""),
            },
            {},
            "nobody-at-work",
        ),
        ({"loginctl list": (1, "", "Connection refused")}, {}, "nobody-at-work"),
        ({"busctl": (0, LOCK, "")}, {}, "not-inhibited"),
        ({"busctl": (1, "", "no such service")}, {}, "not-inhibited"),
        ({"busctl": (0, "{}", "")}, {}, "not-inhibited"),
        # Without logind nobody can have a lock.
        ({"systemctl is-active": (3, "", ""), "busctl": (1, "", "gone")}, {}, None),
        (
            {
                "loginctl list": (0, "9 1000 ops\n", ""),
                "loginctl show-session --property=Id --property=Name": (0, SESSION, ""),
            },
            {"sessions_allowed": True},
            None,
        ),
    ],
)
def test_what_forbids_a_reboot_is_a_condition_that_does_not_hold(host, answers, options, broken):
    host.answers = {"busctl": NO_LOCK, **answers}
    found = [check["id"] for check in look(**options)["conditions"] if not check["ok"]]
    assert found == ([f"reboot.{broken}"] if broken else [])


def test_logins_that_are_not_recorded_are_not_taken_for_nobody(host, monkeypatch):
    host.write("proc/self/cgroup", "0::/system.slice/ssh.service\n")
    monkeypatch.setattr(reboot_info, "find_peer", lambda _pid: object())
    [condition] = [check for check in look()["conditions"] if check["id"] == "reboot.nobody-at-work"]
    assert not condition["ok"]
    assert "libpam-systemd may be missing" in condition["reason"]


def test_a_holder_is_a_condition_that_does_not_hold_unless_its_unit_is_excused(host):
    (host.root / "proc/44/fd").mkdir(parents=True)
    (host.root / "proc/44/fd/3").symlink_to("/dev/nvidia0")
    host.write("proc/44/maps", "")
    host.write("proc/44/cmdline", "train\0")
    host.write("proc/44/comm", "train\n")
    host.write("proc/44/cgroup", "0::/system.slice/x.service\n")
    assert not look()["conditions"][0]["ok"]
    assert look(excused_units=["x.service"])["conditions"][0]["ok"]
