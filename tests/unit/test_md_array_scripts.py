"""The role's two scripts, run as they are against a /sys of files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/md_array/files"
DEVICE = "/dev/disk/by-id/md-name-bedplate:weights"


class Host:
    """by-id: links as udev makes them.  blocks: as /sys/class/block."""

    def __init__(self, folder: Path) -> None:
        self.by_id, self.blocks, self.bin = folder / "by-id", folder / "blocks", folder / "bin"
        for path in (self.by_id, self.blocks, self.bin):
            path.mkdir()

    def array(self, kernel: str, name: str = "", **files: str) -> Path:
        folder = self.blocks / kernel / "md"
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text + "\n")
        if name:
            (self.by_id / f"md-name-bedplate:{name}").symlink_to(f"../{kernel}")
        return folder

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "MD_REPORT_BY_ID": str(self.by_id),
            "MD_REPORT_BLOCKS": str(self.blocks),
            "MD_START_BY_ID": str(self.by_id),
            "MD_START_BLOCKS": str(self.blocks),
        }
        return subprocess.run(
            ["/bin/sh", *map(str, argv)], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (["Fail", DEVICE, "/dev/vdc"], "<3>weights: disk /dev/vdc failed; `bedplate verify` says what to do"),
        (["FailSpare", DEVICE, "/dev/vdc"], "<3>weights: disk /dev/vdc failed; `bedplate verify` says what to do"),
        (["DegradedArray", DEVICE], "<3>weights: a disk is missing; `bedplate verify` says which and what to do"),
        (["DeviceDisappeared", DEVICE], "<3>weights: the array is gone"),
        (["RebuildStarted", DEVICE], "<5>weights: its disks are being made alike"),
        (["Rebuild40", DEVICE], "<6>weights: its disks are being made alike, 40 %"),
        (["RebuildFinished", DEVICE], "<5>weights: its disks are alike, or the copying was ended"),
        (["SpareActive", DEVICE, "/dev/vdd"], "<5>weights: disk /dev/vdd takes part now"),
        (["NewArray", "/dev/md3"], "<6>/dev/md3: NewArray"),
        (["MoveSpare", DEVICE, "/dev/vdd"], "<6>weights: MoveSpare /dev/vdd"),
    ],
)
def test_an_event_is_a_line_with_its_priority(host: Host, event: list[str], line: str):
    done = host.run(FILES / "md-report", *event)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{line}\n", "")


def test_anything_else_is_refused(host: Host):
    done = host.run(FILES / "md-report", "help")
    assert done.returncode == 2
    assert "found 'help'" in done.stderr


def test_the_metrics(host: Host, tmp_path: Path):
    idle = {"degraded": "0", "mismatch_cnt": "0", "sync_completed": "none"}
    host.array("md127", "weights", **idle)
    host.array("md126", "audit", degraded="1", mismatch_cnt="128", sync_completed="100 / 400")
    host.array("md125", "slow", **{**idle, "sync_completed": "delayed"})
    file = tmp_path / "md_array.prom"
    done = host.run(FILES / "md-report", "metrics", file, "weights", "audit", "slow", "gone")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    samples = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert samples == [
        'bedplate_md_array_up{array="weights"} 1',
        'bedplate_md_array_up{array="audit"} 1',
        'bedplate_md_array_up{array="slow"} 1',
        'bedplate_md_array_up{array="gone"} 0',
        'bedplate_md_array_missing_disks{array="weights"} 0',
        'bedplate_md_array_missing_disks{array="audit"} 1',
        'bedplate_md_array_missing_disks{array="slow"} 0',
        'bedplate_md_array_copied_ratio{array="weights"} 1',
        'bedplate_md_array_copied_ratio{array="audit"} 0.2500',
        'bedplate_md_array_copied_ratio{array="slow"} 0',
        'bedplate_md_array_mismatched_sectors{array="weights"} 0',
        'bedplate_md_array_mismatched_sectors{array="audit"} 128',
        'bedplate_md_array_mismatched_sectors{array="slow"} 0',
    ]
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_nothing_is_written_where_no_folder_is(host: Host, tmp_path: Path):
    """The volume is not mounted: what was written would lie below it."""
    done = host.run(FILES / "md-report", "metrics", tmp_path / "metrics/md_array.prom", "weights")
    assert done.returncode == 0
    assert not (tmp_path / "metrics").exists()


# --- starting without a disk ---

MDADM = """#!/bin/sh
# Plays mdadm: what a disk says of itself, and --run as the kernel would answer it.
case $1 in
--examine) case $3 in */vdb) echo MD_NAME=bedplate:weights ;; */vdd) echo MD_NAME=bedplate:weights2 ;; esac ;;
--run)
    echo "$2" >>"$MD_START_BLOCKS/started"
    [ -e "$MD_START_BLOCKS/stubborn" ] || echo clean >"$MD_START_BLOCKS/${2#/dev/}/md/array_state"
    ;;
esac
"""


@pytest.fixture
def started(host: Host):
    (host.bin / "mdadm").write_text(MDADM)
    (host.bin / "mdadm").chmod(0o755)
    return lambda: (host.blocks / "started").read_text().split() if (host.blocks / "started").exists() else []


def half(host: Host, kernel: str, member: str, state: str = "inactive") -> None:
    (host.array(kernel, array_state=state) / f"dev-{member}").mkdir()


def test_an_array_that_runs_is_left_alone(host: Host, started):
    (host.by_id / "md-name-bedplate:weights").touch()
    done = host.run(FILES / "md-start", "0", "weights")
    assert (done.returncode, done.stdout, started()) == (0, "", [])


def test_half_an_array_is_started_and_that_is_told(host: Host, started):
    half(host, "md126", "vdd")
    half(host, "md127", "vdb")
    done = host.run(FILES / "md-start", "0", "weights")
    assert (done.returncode, started()) == (0, ["/dev/md127"])
    assert done.stdout == "<3>weights: not all of its disks came, started it as /dev/md127 with those that did\n"


def test_what_runs_under_another_name_is_not_started_again(host: Host, started):
    half(host, "md127", "vdb", "clean")
    done = host.run(FILES / "md-start", "0", "weights")
    assert (done.returncode, started()) == (1, [])
    assert "none of its disks came" in done.stdout


def test_that_mdadm_ended_well_proves_nothing(host: Host, started):
    half(host, "md127", "vdb")
    (host.blocks / "stubborn").touch()
    done = host.run(FILES / "md-start", "0", "weights")
    assert (done.returncode, started()) == (1, ["/dev/md127"])
    assert done.stdout == "<3>weights: none of its disks came, or they cannot be started alone\n"


def test_one_that_cannot_be_started_does_not_keep_the_next_one_waiting(host: Host, started):
    half(host, "md127", "vdb")
    done = host.run(FILES / "md-start", "0", "nothing", "weights")
    assert (done.returncode, started()) == (1, ["/dev/md127"])
