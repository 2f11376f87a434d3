"""The commands, with Ansible replaced by a list of events: arguments in, sentences and exit codes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from typer.testing import CliRunner

from bedplate import runner
from bedplate.cli import app
from bedplate.commands import lab, status
from bedplate.commands import token as token_command
from bedplate.describe import Host, Service, describe, serving_host
from bedplate.errors import UserError
from bedplate.events import HostSummary, Summary, TaskEnded, Text
from bedplate.report import Report
from bedplate.sites import find_site

SERVICE = Service("https://10.1.0.11:8443", "/site/ca.crt", True, "urn:bedplate:site", ("bedplate",), "tiny")
GPU1 = Host("gpu1", "10.1.0.11", "ssh", 22, "ops", "", "", Path("k"), Path("s"), None, SERVICE)
CLIENT = Host("client1", "10.1.0.21", "ssh", 22, "ops", "", "", Path("k"), Path("s"), None, None)

HOLDS = Check("a.holds", True, "it does.")
BROKEN = Check("a.broken", False, "it is.", "mend it.")
DONE = Summary({"gpu1": HostSummary(ok=3, changed=1)})


@pytest.fixture
def acme(tmp_path, monkeypatch) -> Path:
    """A site acme in ./inventories of an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEDPLATE_INVENTORIES", raising=False)
    monkeypatch.delenv("BEDPLATE_TOKEN", raising=False)
    folder = tmp_path / "inventories/acme"
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text("gpu_hosts:\n  hosts:\n    gpu1:\n", encoding="utf-8")
    return folder


@pytest.fixture
def plays(monkeypatch):
    """Stands in for Ansible: set `.events` and `.rc`, find what was asked in `.asked`."""

    class Plays:
        events = ()
        rc = 0
        asked = ()

        def run(self, what, listeners, *_) -> Report:
            self.asked = (*self.asked, what)
            report = Report(rc=self.rc)
            for event in self.events:
                for listener in (report.add, *listeners):
                    listener(event)
            return report

    plays = Plays()
    monkeypatch.setattr(runner, "run", plays.run)
    return plays


def bedplate(*words: str):
    return CliRunner().invoke(app, list(words))


def test_a_bundle_is_for_gpu_hosts_unless_another_device_is_named(monkeypatch):
    from bedplate.bundles import build

    asked = []
    monkeypatch.setattr(build, "build", lambda name, folder, **more: asked.append((name, folder, more["device"])))
    assert bedplate("bundle", "build", "clinic").exit_code == 0
    assert bedplate("bundle", "build", "lab", "--device", "cpu").exit_code == 0
    assert asked == [("clinic", Path("bundles/clinic"), "cuda"), ("lab", Path("bundles/lab"), "cpu")]


def test_a_bundle_has_to_be_named():
    result = bedplate("bundle", "build")
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr


def test_an_unknown_site_is_answered_with_those_that_are_there(acme):
    result = bedplate("rollout", "--site", "acne")
    assert result.exit_code == 2
    assert result.stderr == (
        "bedplate: No site 'acne': inventories holds acme; choose one of these, or another folder with --inventories.\n"
    )


@pytest.mark.parametrize(
    ("folder", "name", "says"),
    [
        ("empty", "x", "holds no site; `bedplate lab up` makes the site lab"),
        ("missing", "x", "holds no site"),
        ("", "hollow", "holds no hosts.yml, so it declares no host"),
    ],
)
def test_what_is_no_site_is_said_in_a_sentence(tmp_path, folder, name, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    with pytest.raises(UserError, match=says):
        find_site(name, tmp_path / folder)


def test_sites_are_found_in_the_folder_of_the_environment(acme, plays, monkeypatch, tmp_path):
    plays.events = (DONE,)
    monkeypatch.chdir("/")
    monkeypatch.setattr("bedplate.runlog.FOLDER", tmp_path / "log")
    monkeypatch.setenv("BEDPLATE_INVENTORIES", str(acme.parent))
    assert bedplate("rollout", "--site", "acme").exit_code == 0
    assert plays.asked[0].inventory == acme


def test_rollout_hands_its_options_to_the_playbook_of_the_collection(acme, plays):
    plays.events = (DONE,)
    result = bedplate(
        *["rollout", "-s", "acme", "--limit", "gpu1", "--check", "--diff", "--tags", "vllm", "-e", "a=1", "-e", "b=2"]
    )
    assert result.exit_code == 0
    [what] = plays.asked
    assert what == runner.Run("bedplate.llm.site", acme, "gpu1", True, True, "vllm", ("a=1", "b=2"))
    assert "gpu1: 1 changed, 2 unchanged" in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        ([], ()),
        (["-e", "a=1"], ("a=1",)),
        # Last, so that it wins over what -e says of it.
        (["--reboot", "-e", "a=1"], ("a=1", '{"bedplate_reboot_allowed": true}')),
    ],
)
def test_provision_restarts_hosts_only_when_asked_to(acme, plays, words, variables):
    plays.events = (DONE,)
    result = bedplate("provision", "-s", "acme", "--limit", "gpu1", *words)
    assert result.exit_code == 0
    [what] = plays.asked
    assert what == runner.Run("bedplate.llm.provision", acme, "gpu1", extra_vars=variables)
    assert "provision of acme is done: gpu1: 1 changed, 2 unchanged" in result.stderr


def test_that_a_host_waits_for_a_reboot_is_told_also_when_all_went_well(acme, plays):
    waits = Check("reboot.distribution-not-waiting", False, "The host waits for a reboot: updated libc6.", "allow it.")
    plays.events = (TaskEnded("gpu1", "reboot", "Look", "ok", checks=(waits, HOLDS, BROKEN)), DONE)
    result = bedplate("provision", "-s", "acme")
    assert result.exit_code == 0
    assert f"gpu1: {waits.sentence}\n" in result.stderr
    assert BROKEN.sentence not in result.stderr


def test_a_failed_rollout_ends_with_host_role_task_message_and_log(acme, plays):
    plays.rc = 2
    plays.events = (TaskEnded("gpu1", "vllm", "Install", "failed", message="no room"), DONE)
    result = bedplate("rollout", "--site", "acme")
    assert result.exit_code == 1
    assert "  gpu1 · vllm · Install: no room\n" in result.stderr
    [log] = Path(".bedplate/log").iterdir()
    assert f"Log: {log.absolute()}" in result.stderr
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("events", "rc", "code", "outcome"),
    [
        ((TaskEnded("gpu1", "a", "Look", "ok", checks=(HOLDS,)), DONE), 0, 0, "ok"),
        ((TaskEnded("gpu1", "a", "Look", "ok", checks=(HOLDS, BROKEN)), DONE), 2, 1, "failed"),
        ((TaskEnded("gpu1", "", "", "unreachable", message="timed out"), DONE), 4, 2, "could-not-run"),
        ((Text("bad inventory", "error"),), 1, 2, "could-not-run"),
    ],
)
def test_verify_tells_machines_its_result_last(acme, plays, events, rc, code, outcome):
    plays.events, plays.rc = events, rc
    result = bedplate("verify", "--site", "acme", "--json")
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == code
    assert (objects[0]["event"], objects[-1]["event"]) == ("start", "result")
    assert (objects[-1]["outcome"], objects[-1]["exit_code"]) == (outcome, code)
    checks = getattr(events[0], "checks", ())
    assert objects[-1]["checks"] == [{"host": "gpu1", **check.as_dict()} for check in checks]


def test_verify_prints_a_table_with_the_remedy_of_what_is_broken(acme, plays):
    plays.events, plays.rc = (TaskEnded("gpu1", "a", "Look", "ok", checks=(HOLDS, BROKEN)), DONE), 2
    result = bedplate("verify", "--site", "acme")
    assert result.exit_code == 1
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == ["gpu1", "FAIL a.broken it is.", "→ mend it.", "ok a.holds it does."]
    assert "1 of 2 checks do not hold" in result.stderr


UNITS = """\
ExecStart={ path=/var/lib/bedplate/engines/0.32.0-82dca4c90f0e/bin/vllm ; argv[]=vllm serve }
Id=bedplate-vllm.service
LoadState=loaded
ActiveState=%s
SubState=%s
ActiveEnterTimestamp=Tue 2026-11-24 02:46:53 UTC

Id=bedplate-gateway.service
LoadState=loaded
ActiveState=active
SubState=running

Id=bedplate-old.service
LoadState=not-found
ActiveState=inactive
"""


@pytest.mark.parametrize(("state", "code"), [(("active", "running"), 0), (("activating", "start-post"), 1)])
def test_status_shows_units_engine_address_and_a_line_to_try(acme, plays, monkeypatch, state, code):
    monkeypatch.setattr(status, "described", lambda event: GPU1 if event is DONE else None)
    plays.events = (DONE, TaskEnded("gpu1", "", "Ask", "ok", result={"stdout": UNITS % state}))
    result = bedplate("status", "--site", "acme")
    assert result.exit_code == code
    assert "engine   vLLM 0.32.0" in result.stdout
    assert f"bedplate-vllm.service: {state[0]} ({state[1]}) since Tue" in result.stdout
    assert "bedplate-old" not in result.stdout
    assert " token --site acme --header | curl --cacert /site/ca.crt --header @-" in result.stdout
    assert "https://10.1.0.11:8443/v1/chat/completions" in result.stdout


def test_the_line_to_try_calls_the_program_as_the_user_can(tmp_path, monkeypatch):
    installed = tmp_path / "bin" / "bedplate"
    installed.parent.mkdir()
    installed.write_text("")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(installed.parent))
    assert status.program(str(installed), tmp_path / "elsewhere") == "bedplate"
    # Also where PATH would find it: `make demo` sets a PATH that the user's own shell does not have.
    assert status.program(str(installed), tmp_path) == "./bin/bedplate"
    monkeypatch.setenv("PATH", "/nowhere")
    assert status.program(str(installed), tmp_path / "elsewhere") == str(installed)


@pytest.mark.parametrize("words", [["up"], ["down"], ["reset"], ["status"]])
def test_the_lab_asks_for_root_in_a_sentence(acme, monkeypatch, words):
    monkeypatch.setattr(lab.os, "geteuid", lambda: 1000)
    result = bedplate("lab", *words)
    assert result.exit_code == 2
    assert f"run `sudo bedplate lab {words[0]}`" in result.stderr


def test_lab_status_names_a_machine_whose_making_was_interrupted(acme, plays, monkeypatch):
    half = {"name": "store1", "running": False, "reachable": False, "console": "console.log"}
    seen = {"exists": True, "outside": False, "machines": [half]}
    plays.events = (TaskEnded("store1", "", "Look", "ok", result=seen), DONE)
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0)
    result = bedplate("lab", "status", "--site", "acme")
    assert result.exit_code == 0, result.output
    assert "store1       not made completely" in result.stdout


def test_lab_up_copies_the_embedded_inventory_once_and_without_secrets(acme, plays, monkeypatch, tmp_path):
    embedded = tmp_path / "collection/inventories/lab"
    (embedded / ".secrets").mkdir(parents=True)
    (embedded / ".secrets/id").write_text("key", encoding="utf-8")
    (embedded / "hosts.yml").write_text("lab:\n", encoding="utf-8")
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0)
    monkeypatch.setattr(lab, "collection_folder", lambda: tmp_path / "collection")
    monkeypatch.setattr(lab, "describe", lambda *_: {"gpu1": GPU1})
    plays.events = (DONE,)
    first = bedplate("lab", "up")
    assert first.exit_code == 0 and "inventories/lab is new" in first.stderr
    assert [path.name for path in Path("inventories/lab").iterdir()] == ["hosts.yml"]
    Path("inventories/lab/hosts.yml").write_text("lab: {}\n", encoding="utf-8")
    second = bedplate("lab", "up")
    assert second.exit_code == 0 and "is new" not in second.stderr
    assert Path("inventories/lab/hosts.yml").read_text(encoding="utf-8") == "lab: {}\n"
    assert [what.playbook for what in plays.asked] == ["bedplate.llm.lab_up"] * 2


def test_lab_up_fails_when_the_bundle_cannot_be_built(acme, plays, monkeypatch):
    class NoBundle:
        def __init__(self, folder, say) -> None:
            say(f"looking for wheels for {folder}")

        def wait(self, _stop) -> str:
            return "no wheel of torch"

        def end(self) -> None:
            pass

    host = Host("gpu1", "a", "ssh", 22, "", "", "", Path("k"), Path("s"), Path("/b/lab"), SERVICE)
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0)
    monkeypatch.setattr(lab, "describe", lambda *_: {"gpu1": host})
    monkeypatch.setattr(lab, "BundleBuild", NoBundle)
    plays.events = (DONE,)
    result = bedplate("lab", "up", "--site", "acme")
    assert result.exit_code == 1
    assert "bundle: looking for wheels for /b/lab" in result.stderr
    assert "their bundle is not complete: no wheel of torch" in result.stderr


def test_a_token_of_somebody_elses_issuer_is_not_ours_to_sign(acme, monkeypatch):
    foreign = Service(**{**vars(SERVICE), "local_issuer": False, "issuer": "https://login.example.org"})
    host = Host(**{**vars(GPU1), "service": foreign})
    monkeypatch.setattr(token_command, "describe", lambda _: {"gpu1": host})
    result = bedplate("token", "--site", "acme")
    assert result.exit_code == 2
    assert "https://login.example.org" in result.stderr and "BEDPLATE_TOKEN" in result.stderr
    monkeypatch.setenv("BEDPLATE_TOKEN", " theirs\n")
    assert token_command.given_or_minted(host, foreign, 60) == "theirs"


def test_the_gateway_to_ask_is_the_wanted_one_or_the_first():
    hosts = {"client1": CLIENT, "gpu1": GPU1}
    assert serving_host(hosts) == serving_host(hosts, "gpu1") == (GPU1, SERVICE)
    with pytest.raises(UserError, match="choose one of gpu1"):
        serving_host(hosts, "client1")
    with pytest.raises(UserError, match="no host in the group gpu_hosts"):
        serving_host({"client1": CLIENT})


SITE = """
gpu_hosts:
  hosts:
    gpu1: {ansible_host: 10.1.0.11}
    gpu2: {ansible_host: "fd00::12", gateway_port: 9443, gateway_server_names: [llm.example.org]}
clients:
  hosts:
    client1: {ansible_connection: local}
  vars:
    vllm_model: unused
all:
  vars:
    ansible_user: ops
    vllm_model: deepseek
    gateway_jwt_issuer: https://login.example.org
"""


def test_a_site_is_described_from_the_roles_defaults_and_the_inventory(acme):
    (acme / "hosts.yml").write_text(SITE, encoding="utf-8")
    hosts = describe(find_site("acme", acme.parent))
    assert sorted(hosts) == ["client1", "gpu1", "gpu2"]
    assert hosts["client1"].service is None and hosts["client1"].connection == "local"
    gpu1, gpu2 = hosts["gpu1"].service, hosts["gpu2"].service
    assert gpu1.api == "https://10.1.0.11:8443/v1" and gpu2.api == "https://llm.example.org:9443/v1"
    assert (gpu1.model, gpu1.issuer, gpu1.local_issuer) == ("deepseek", "https://login.example.org", True)
    assert gpu1.authority == str(hosts["gpu1"].secrets_dir / "ca.crt")
    assert hosts["gpu1"].known_hosts == acme / "known_hosts.txt"


def test_help_needs_nothing_that_is_heavy_to_import():
    heavy = ("ansible", "ansible_runner", "openai", "paramiko", "cryptography", "pexpect")
    script = (
        "import sys\nfrom bedplate.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
