"""A volume is made on a machine whose power is cut at every step; each next run goes on where the last one was ended.

The step is found by a program of the same name that stands before the real one in the search path and holds the run
there, until the machine is killed.  What the machine had not written to its disk by then is lost, as it would be.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field

import testinfra
from scenario import said, wait_until
from volume_lab import LAB, SCENARIO, cut_power, power_on

NAME = "store2"
PLAY = SCENARIO / "make_volume.yml"

# When, and the words that the command's line holds.  What is cut in the middle may be done a moment later, so that each
# next one is a command that comes in either case.
CUTS = (
    ("before", "luksFormat"),
    ("during", "luksFormat"),
    ("before", "luksHeaderBackup"),
    ("after", "luksAddKey"),
    ("during", "mkfs.ext4"),
    ("before", "blockdev --flushbufs"),
    ("before", "chattr"),
)

SHIM = r"""#!/bin/sh
name=${0##*/}
real=$(PATH=/usr/sbin:/usr/bin command -v "$name")
read -r when words < /run/cut-at 2>/dev/null || exec "$real" "$@"
case "$name $*" in *"$words"*) ;; *) exec "$real" "$@" ;; esac
exec 3<&0
case $when in
    during) "$real" "$@" <&3 & sleep 0.1 ;;
    after) "$real" "$@" <&3 ;;
esac
touch /run/cut-here
sleep 600
"""


@dataclass
class Cut:
    """What happened at one of them; an error is told by the test that asks for it."""

    when: str
    words: str
    reached: bool = False
    report: str = ""


@dataclass
class Campaign:
    cuts: list[Cut] = field(default_factory=list)
    finished: subprocess.CompletedProcess[str] | None = None


def install(machine: testinfra.host.Host) -> None:
    for name in ("blockdev", "chattr", "clevis", "cryptsetup", "mkfs.ext4"):
        machine.check_output(f"sudo tee /usr/local/sbin/{name} > /dev/null <<'EOF'\n{SHIM}EOF")
        machine.check_output(f"sudo chmod 0755 /usr/local/sbin/{name} && sudo sync")


def run(machine: testinfra.host.Host) -> Campaign:
    campaign = Campaign()
    install(machine)
    for when, words in CUTS:
        campaign.cuts.append(_cut(machine, Cut(when, words)))
    campaign.finished = LAB.play(PLAY)
    return campaign


def _cut(machine: testinfra.host.Host, cut: Cut) -> Cut:
    machine.check_output(f"echo '{cut.when} {cut.words}' | sudo tee /run/cut-at > /dev/null")
    play = subprocess.Popen(
        LAB.play_argv(PLAY),
        env=LAB.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: machine.file("/run/cut-here").exists or play.poll() is not None, 300, 0.5)
        cut.reached = machine.file("/run/cut-here").exists
        cut_power(str(LAB.declared(NAME)["lab_name"]), NAME)
        # Nobody answers any more; Ansible and its workers would wait for their connection.
        os.killpg(play.pid, signal.SIGKILL)
        cut.report = said(subprocess.CompletedProcess([], 0, play.communicate()[0], ""))
    finally:
        if play.poll() is None:
            os.killpg(play.pid, signal.SIGKILL)
    power_on(NAME)
    return cut
