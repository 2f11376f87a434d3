"""A host restarts: its volumes come up by themselves, or it does without them and says so."""

from __future__ import annotations

import shutil

import pytest
from scenario import by_ssh, said, wait_until
from volume_lab import LAB, PROBE, STORE, bedplate, checks, is_mounted, machine_state, power_on, restart, switch_off

MODELS, CACHE = "/var/lib/bedplate", "/var/cache/bedplate-kv"
UNLOCKING = "--unit 'systemd-cryptsetup@*' --unit 'clevis-*' --unit '*.mount'"


def served(machine) -> bool:
    return bool(machine.run("systemctl is-active bedplate-probe.service").stdout.strip() == "active")


@pytest.fixture(scope="module", autouse=True)
def probe(machine):
    """A service that reads the model from the volume, as an engine does; nothing of it knows of volumes."""
    machine.check_output(f"echo '{PROBE}' | sudo tee /etc/systemd/system/bedplate-probe.service")
    machine.check_output("sudo systemctl daemon-reload && sudo systemctl enable --now bedplate-probe.service")
    assert served(machine)


def test_after_a_restart_the_tpm_and_tang_open_the_volumes_and_the_service_reads_from_them(machine, access):
    restart(machine, access)
    wait_until(lambda: is_mounted(machine, MODELS) and is_mounted(machine, CACHE), 240)
    wait_until(lambda: served(machine), 60)
    said_by_unit = machine.check_output("sudo journalctl --boot --unit systemd-cryptsetup@models.service --no-pager")
    assert "TPM2" not in said_by_unit, "the TPM gave out the key at once"
    assert machine.check_output("systemctl list-dependencies --plain multi-user.target | grep -c bedplate-probe") == "1"


@pytest.fixture(scope="class")
def another_tpm(machine):
    """The board was exchanged: another TPM, the same disks."""
    state = machine_state(LAB.declared(STORE)["lab_name"], STORE)
    switch_off(machine, STORE)
    (state / "tpm").rename(state / "tpm.kept")
    (state / "tpm").mkdir()
    yield
    switch_off(machine, STORE)
    shutil.rmtree(state / "tpm")
    (state / "tpm.kept").rename(state / "tpm")
    power_on(STORE)


@pytest.mark.usefixtures("another_tpm")
class TestWithAnotherTpm:
    def test_the_host_boots_and_says_which_volume_is_locked(self, machine, tang):
        for server in tang:
            server.check_output("sudo systemctl stop tangd.socket")
        power_on(STORE)
        assert not is_mounted(machine, MODELS)
        assert not served(machine)
        found = checks(LAB)
        assert found["luks_volume.models-mounted"]["ok"] is False
        assert "locked" in found["luks_volume.models-mounted"]["reason"]
        assert found["luks_volume.models-there"]["ok"] is True

    def test_the_service_does_not_run_on_the_bare_mount_point(self, machine):
        machine.run("sudo timeout 5 systemctl start bedplate-probe.service")
        assert not served(machine)
        assert machine.run(f"sudo touch {MODELS}/stray").rc != 0

    def test_the_escrow_opens_it_and_the_service_starts(self, machine):
        done = bedplate("volume", "unlock", "--volume", "models")
        assert done.returncode == 0, said(done)
        assert is_mounted(machine, MODELS)
        wait_until(lambda: served(machine), 60)

    def test_tang_alone_opens_what_it_may_and_not_what_needs_the_tpm_too(self, machine, access, tang):
        # One of two servers, as the threshold says.
        tang[0].check_output("sudo systemctl start tangd.socket")
        restart(machine, access)
        wait_until(lambda: is_mounted(machine, MODELS), 240)
        wait_until(lambda: served(machine), 60)
        assert not is_mounted(machine, CACHE)
        tang[1].check_output("sudo systemctl start tangd.socket")


def test_with_its_own_tpm_again_everything_opens_by_itself(machine, access):
    machine = by_ssh(access)
    try:
        wait_until(lambda: is_mounted(machine, MODELS) and is_mounted(machine, CACHE), 240)
    except AssertionError:
        pytest.fail(machine.check_output(f"findmnt; sudo journalctl --boot --no-pager --lines 100 {UNLOCKING}"))
    assert all(check["ok"] for check in checks(LAB).values())
