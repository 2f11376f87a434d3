"""A machine that waits for a reboot, with a service to drain: what the tests of the reboot contract start from."""

from __future__ import annotations

import subprocess

from conftest import SCENARIO, play

ENGINE = "bedplate-test-engine.service"
REASON = "module 2 of the test is installed and 1 is loaded"
REASON_FILE = "/run/bedplate/reboot.d/test_driver"
WITHDRAWN = "/var/lib/bedplate-test-engine-withdrawn"

# Takes itself out by its own stop command, and remembers in which boot that was.
UNIT = f"""\
[Service]
Type=exec
ExecStart=/usr/bin/sleep infinity
ExecStop=/bin/sh -c 'cp /proc/sys/kernel/random/boot_id {WITHDRAWN}'
[Install]
WantedBy=multi-user.target
"""


def have_it_wait(machine) -> None:
    machine.check_output(f"sudo tee /etc/systemd/system/{ENGINE} <<'UNIT'\n{UNIT}\nUNIT")
    machine.check_output(f"sudo systemctl daemon-reload && sudo systemctl enable --now {ENGINE}")
    machine.check_output(f'sudo mkdir -p $(dirname {REASON_FILE}) && echo "{REASON}" | sudo tee {REASON_FILE}')


def reboot(**variables: object) -> subprocess.CompletedProcess[str]:
    return play(str(SCENARIO / "playbooks" / "reboot.yml"), {"reboot_services": [ENGINE], **variables})


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).replace("\\n", " ").split())
