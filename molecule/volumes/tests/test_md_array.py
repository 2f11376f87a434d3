"""Arrays on a real kernel: made once, a disk that fails, another in its place, a boot without one, never made again.

The tests are one story, in this order; at its end the array is made anew, so that what comes after finds it empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import testinfra
from scenario import changed, said, wait_until
from volume_lab import LAB, MADE, SCENARIO, STORE, restart

ARRAYS, ROLE = SCENARIO / "playbooks/arrays.yml", SCENARIO / "playbooks/arrays_role.yml"
NAME = "weights"
ARRAY = f"/dev/disk/by-id/md-name-bedplate:{NAME}"
RECORD = f"/var/lib/bedplate-volumes/arrays/{NAME}.json"
METRICS = "/var/lib/bedplate/metrics"


def legs(*serials: str) -> dict[str, object]:
    """The array as the inventory has it, of these disks."""
    declared = LAB.declared(STORE)
    sizes = {disk["serial"]: disk["size"] for disk in declared["lab_disks"]}  # type: ignore[attr-defined]
    array = next(entry for entry in declared["md_arrays"] if entry["name"] == NAME)  # type: ignore[attr-defined]
    devices = [{"device": disk(serial), "serial": serial, "size": sizes[serial]} for serial in serials]
    return {"md_arrays": [{**array, "devices": devices}]}


def disk(serial: str) -> str:
    return f"/dev/disk/by-id/virtio-{serial}"


def rolled_out(*serials: str) -> dict[str, Any]:
    """What the role says after it brought an array of these disks up."""
    done = LAB.play(ARRAYS, legs(*serials))
    assert done.returncode == 0, said(done)[-3000:]
    return found()


def looked_at(*serials: str) -> dict[str, dict[str, Any]]:
    done = LAB.play(ARRAYS, {**legs(*serials), "arrays_changed": False})
    assert done.returncode == 0, said(done)[-3000:]
    return {check["id"]: check for check in found()["checks"]}


def found() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((MADE / "arrays.json").read_text())
    return answer


def refused(*serials: str) -> str:
    done = LAB.play(ARRAYS, legs(*serials))
    assert done.returncode != 0, said(done)[-3000:]
    return said(done)


def detail(machine: testinfra.host.Host) -> dict[str, str]:
    """What mdadm says of the array."""
    text = machine.check_output(f"sudo mdadm --detail --export {ARRAY}")
    return dict(line.split("=", 1) for line in text.splitlines())


def members(machine: testinfra.host.Host) -> dict[str, str]:
    """The state of every member, by its serial number."""
    folder = f"/sys/class/block/$(basename $(readlink -f {ARRAY}))/md"
    text = machine.check_output(
        f"for m in {folder}/dev-*; do d=${{m##*dev-}}; echo $(lsblk -dno SERIAL /dev/$d) $(cat $m/state); done"
    )
    return dict(line.split(None, 1) for line in text.splitlines())


def sums(machine: testinfra.host.Host, serials: Sequence[str]) -> str:
    """Of all that is on disks, past every cache."""
    return machine.check_output(
        " && ".join(f"sudo dd if={disk(serial)} bs=4M iflag=direct status=none | sha256sum" for serial in serials)
    )


def content(machine: testinfra.host.Host) -> str:
    return machine.check_output(f"sudo dd if={ARRAY} bs=1M count=32 iflag=direct status=none | sha256sum")


def empty(machine: testinfra.host.Host, *serials: str) -> None:
    for serial in serials:
        machine.check_output(f"sudo blkdiscard --force --zeroout {disk(serial)}")


def stop(machine: testinfra.host.Host) -> None:
    machine.check_output("sudo udevadm settle")
    machine.check_output(f"sudo mdadm --stop $(readlink -f {ARRAY}) && sudo udevadm settle")


def wait_for_copy(machine: testinfra.host.Host) -> None:
    machine.run(f"sudo mdadm --wait {ARRAY}")
    wait_until(lambda: set(members(machine).values()) == {"in_sync"}, 120)


def journal(machine: testinfra.host.Host, unit: str) -> str:
    return machine.check_output(f"sudo journalctl --boot --unit {unit} --priority err --no-pager --output cat")


def metric(machine: testinfra.host.Host, name: str) -> str:
    found = re.search(rf'^{name}{{array="{NAME}"}} (.*)$', machine.run(f"cat {METRICS}/md_array.prom").stdout, re.M)
    return found.group(1) if found else ""


@pytest.fixture(scope="module", autouse=True)
def array(machine):
    """Made by the whole role; in the end made anew as it was at first."""
    machine.check_output(f"sudo mkdir -p {METRICS}")
    done = LAB.play(ROLE)
    assert done.returncode == 0, said(done)[-3000:]
    yield
    machine.run(f"sudo mdadm --stop $(readlink -f {ARRAY})")
    machine.run(f"sudo rm {RECORD}")
    empty(machine, "leg0", "leg1", "leg2")
    rolled_out("leg0", "leg1")


@pytest.fixture(scope="module")
def data(machine, array):
    """What was written to the whole array, by its sum."""
    machine.check_output(f"sudo dd if=/dev/urandom of={ARRAY} bs=1M count=32 oflag=direct status=none")
    return content(machine)


def test_the_array_is_found_by_its_name_and_by_nothing_that_changes(machine):
    made = detail(machine)
    assert made["MD_NAME"] == f"bedplate:{NAME}"
    assert (made["MD_LEVEL"], made["MD_DEVICES"], made["MD_METADATA"]) == ("raid1", "2", "1.2")
    assert set(members(machine)) == {"leg0", "leg1"}
    record = json.loads(machine.check_output(f"sudo cat {RECORD}"))
    assert record["uuid"] == made["MD_UUID"]
    assert record["state"] == "ready"
    assert f"UUID={made['MD_UUID']}" in machine.check_output("cat /etc/mdadm/mdadm.conf")
    assert "Internal Bitmap" in machine.check_output(f"sudo mdadm --examine {disk('leg0')}")


def test_a_second_run_and_check_mode_change_nothing():
    assert changed(LAB.play(ROLE)) == 0
    assert changed(LAB.play(ROLE, None, "--check")) == 0


def test_what_watches_it_runs_and_tells(machine):
    for unit in ("mdstart-bedplate.service", "mdmonitor-bedplate.service", "mdmetrics-bedplate.timer"):
        assert machine.service(unit).is_running
        assert machine.service(unit).is_enabled
    wait_until(lambda: metric(machine, "bedplate_md_array_up") == "1", 90, 3)
    assert metric(machine, "bedplate_md_array_missing_disks") == "0"


@pytest.mark.usefixtures("data")
class TestADiskFails:
    @pytest.fixture(scope="class", autouse=True)
    def failure(self, machine):
        wait_for_copy(machine)
        machine.check_output(f"sudo mdadm $(readlink -f {ARRAY}) --fail $(readlink -f {disk('leg1')})")

    def test_what_is_on_it_is_still_read_and_written(self, machine, data):
        assert content(machine) == data
        command = f"sudo dd if=/dev/urandom of={ARRAY} bs=1M count=8 seek=64 oflag=direct status=none"
        assert machine.run(command).rc == 0

    def test_the_check_fails_with_the_disk_and_what_to_do(self):
        check = looked_at("leg0", "leg1")[f"md_array.{NAME}-whole"]
        assert check["ok"] is False
        assert "with 1 of 2 disks" in check["reason"]
        assert "(serial number leg1) failed" in check["reason"]
        assert "declare it in md_arrays in place of the failed one" in check["remedy"]

    def test_the_journal_and_the_metric_say_so(self, machine):
        wait_until(lambda: f"{NAME}: disk" in journal(machine, "mdmonitor-bedplate"), 60, 3)
        wait_until(lambda: metric(machine, "bedplate_md_array_missing_disks") == "1", 90, 3)

    def test_a_healthy_disk_is_not_given_up_for_another_one(self, machine):
        before = members(machine)
        text = refused("leg1", "leg2")
        assert "(serial number leg0) is a healthy member of" in text
        assert members(machine) == before

    def test_a_disk_with_something_on_it_is_refused_and_left_as_it_is(self, machine):
        machine.check_output(f"sudo mkfs.ext4 -q -F {disk('leg2')}")
        before = (members(machine), sums(machine, ["leg2"]))
        assert "holds ext4" in refused("leg0", "leg2")
        assert (members(machine), sums(machine, ["leg2"])) == before

    def test_an_empty_disk_takes_the_failed_ones_place_while_everything_goes_on(self, machine, data):
        empty(machine, "leg2")
        answer = rolled_out("leg0", "leg2")
        assert set(members(machine)) == {"leg0", "leg2"}
        whole = next(check for check in answer["checks"] if check["id"] == f"md_array.{NAME}-whole")
        # As fast as these disks are, it may be filled by now; until then the check fails, and says how far it is.
        assert whole["ok"] or (answer["waiting"] == [whole["id"]] and "is being filled" in whole["reason"])
        assert content(machine) == data
        wait_for_copy(machine)
        assert all(check["ok"] for check in looked_at("leg0", "leg2").values())
        # The failed disk leaves the machine: with its superblock it would be put together at the next boot, by the
        # same name.
        empty(machine, "leg1")
        assert detail(machine)["MD_UUID"] == json.loads(machine.check_output(f"sudo cat {RECORD}"))["uuid"]

    def test_the_new_disk_holds_everything_alone(self, machine, data):
        machine.check_output(f"sudo mdadm $(readlink -f {ARRAY}) --fail $(readlink -f {disk('leg0')})")
        assert content(machine) == data

    def test_a_disk_that_was_only_away_is_taken_back_and_catches_up(self, machine, data):
        machine.check_output(f"sudo mdadm $(readlink -f {ARRAY}) --remove failed && sudo udevadm settle")
        machine.check_output(f"sudo dd if=/dev/urandom of={ARRAY} bs=1M count=1 seek=80 oflag=direct status=none")
        rolled_out("leg0", "leg2")
        wait_for_copy(machine)
        assert set(members(machine)) == {"leg0", "leg2"}
        assert content(machine) == data
        kernel = machine.check_output(f"basename $(readlink -f {ARRAY})")
        machine.check_output(
            f"echo check | sudo tee /sys/class/block/{kernel}/md/sync_action && sudo mdadm --wait {ARRAY} || true"
        )
        assert machine.check_output(f"cat /sys/class/block/{kernel}/md/mismatch_cnt") == "0"


def test_two_halves_that_were_written_apart_are_not_put_together(machine, data):
    """Each ran without the other, as after a controller that lost one disk and then the other one."""
    stop(machine)
    for serial in ("leg0", "leg2"):
        machine.check_output(
            f"sudo mdadm --assemble --run /dev/md/bedplate-{NAME} {disk(serial)} && sudo udevadm settle"
        )
        machine.check_output(f"sudo dd if=/dev/urandom of={ARRAY} bs=1M count=1 seek=90 oflag=direct status=none")
        stop(machine)
    before = sums(machine, ["leg0", "leg2"])
    assert "were written one without the other" in refused("leg0", "leg2")
    assert sums(machine, ["leg0", "leg2"]) == before
    # Somebody chose: leg2 is given up.
    empty(machine, "leg2")
    machine.check_output(f"sudo mdadm --assemble --run /dev/md/bedplate-{NAME} {disk('leg0')} && sudo udevadm settle")
    rolled_out("leg0", "leg2")
    wait_for_copy(machine)
    assert content(machine) == data


def test_the_host_boots_with_a_disk_missing_and_the_array_runs(machine, access, data):
    """Its initramfs does not know the array, and has half of it before anybody else does."""
    machine.check_output("sudo systemctl stop mdmonitor-bedplate")
    stop(machine)
    empty(machine, "leg2")
    restart(machine, access)
    wait_until(lambda: machine.file(ARRAY).exists, 120, 3)
    assert "not all of its disks came, started it" in journal(machine, "mdstart-bedplate")
    wait_until(lambda: "a disk is missing" in journal(machine, "mdmonitor-bedplate"), 90, 3)
    assert content(machine) == data
    assert "leg2) does not take part" in looked_at("leg0", "leg2")[f"md_array.{NAME}-whole"]["reason"]
    rolled_out("leg0", "leg2")
    wait_for_copy(machine)


def test_an_array_that_ran_is_never_made_again(machine):
    stop(machine)
    empty(machine, "leg0", "leg2")
    before = sums(machine, ["leg0", "leg2"])
    text = refused("leg0", "leg2")
    assert "remembers array" in text
    assert "It is not made again" in text
    assert sums(machine, ["leg0", "leg2"]) == before


@pytest.mark.parametrize("written", [(), ("leg0",), ("leg2",), ("leg0", "leg2")])
def test_what_a_power_cut_left_of_making_it_is_completed(machine, written):
    """Power went after the record was written and before, while or after mdadm wrote the superblocks."""
    uuid = "0f8f6c1e:2b4d4a7b:9d0c7d1f:5e6a7b8c"
    record = {"name": NAME, "uuid": uuid, "level": 1, "serials": ["leg0", "leg2"], "state": "creating"}
    machine.run(f"sudo mdadm --stop $(readlink -f {ARRAY}); sudo udevadm settle")
    empty(machine, "leg0", "leg2")
    options = f"--run --metadata=1.2 --homehost=bedplate --name={NAME} --uuid={uuid} --level=1 --raid-devices=2"
    machine.check_output(
        f"sudo mdadm --create /dev/md/bedplate-{NAME} {options} --bitmap=internal {disk('leg0')} {disk('leg2')}"
    )
    stop(machine)
    empty(machine, *({"leg0", "leg2"} - set(written)))
    machine.check_output(f"echo '{json.dumps(record)}' | sudo tee {RECORD}")
    # As at a boot: the kernel is told of the disks, and udev puts together what it finds.
    machine.check_output("sudo udevadm trigger --action=add --subsystem-match=block && sudo udevadm settle")
    rolled_out("leg0", "leg2")
    assert detail(machine)["MD_UUID"] == uuid
    assert set(members(machine)) == {"leg0", "leg2"}
    assert json.loads(machine.check_output(f"sudo cat {RECORD}"))["state"] == "ready"


def test_something_else_on_a_disk_of_half_an_array_is_not_overwritten(machine):
    uuid = "0f8f6c1e:2b4d4a7b:9d0c7d1f:5e6a7b8c"
    record = {"name": NAME, "uuid": uuid, "level": 1, "serials": ["leg0", "leg2"], "state": "creating"}
    stop(machine)
    empty(machine, "leg0", "leg2")
    machine.check_output(f"echo '{json.dumps(record)}' | sudo tee {RECORD}")
    machine.check_output(f"echo somebody | sudo dd of={disk('leg2')} bs=1M seek=2 conv=fsync status=none")
    before = sums(machine, ["leg0", "leg2"])
    assert "holds bytes behind the place of its superblock" in refused("leg0", "leg2")
    assert sums(machine, ["leg0", "leg2"]) == before
