"""`rollout --check` on a machine that was never touched: it passes, and the machine stays as it was."""

from __future__ import annotations

from conftest import SCENARIO, machine, run

# Where a running system writes by itself, and where Ansible puts its own modules while they run.
OF_THE_SYSTEM = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/root", "/home"]
PRUNED = " -o ".join(f"-path {path}" for path in OF_THE_SYSTEM)
LOOK = (
    f'sudo sh -c \'find / \\( {PRUNED} \\) -prune -o -printf "%p %y %m %U:%G %s %T@\\n"; nft list ruleset;'
    ' systemctl list-units --all --plain --no-legend --type service | cut -d " " -f 1\''
)


def look(host) -> set[str]:
    return set(host.check_output(LOOK).splitlines())


def test_check_mode_on_a_virgin_host_passes_and_changes_nothing():
    virgin = machine("spare1")
    before = look(virgin)
    assert not [line for line in before if "bedplate" in line], "this machine is no virgin, so nothing is proved"
    done = run("bedplate.llm.site", "-i", str(SCENARIO / "tests" / "virgin.yml"), "--limit", "spare1", "--check")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "spare1" in done.stdout.split("PLAY RECAP")[1], "the play did not reach the machine"
    assert look(virgin) == before
