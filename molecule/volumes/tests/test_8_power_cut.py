"""Power goes at each step of making a volume, and the next run goes on; `power_cuts.py` has done it meanwhile."""

from __future__ import annotations

import pytest
from power_cuts import CUTS, PLAY
from scenario import changed
from volume_lab import DEVICES, LAB, checks, escrow, header, is_mounted, opens, passphrase


@pytest.mark.parametrize("number", range(len(CUTS)), ids=[" ".join(cut) for cut in CUTS])
def test_the_run_was_held_there_when_power_went(campaign, number):
    cut = campaign.cuts[number]
    assert cut.reached, cut.report[-3000:]


def test_the_last_run_completes_the_volume(campaign):
    assert changed(campaign.finished) >= 1


def test_it_is_one_volume_from_the_first_run_to_the_last(campaign, other_machine):
    assert campaign.finished.returncode == 0
    kept = escrow("cut")
    assert len(kept["passphrases"]) == 1
    assert opens(other_machine, "cut", passphrase("cut"))
    uuid = other_machine.check_output(f"sudo cryptsetup luksUUID {DEVICES['cut']}")
    assert uuid == kept["uuid"]
    found = header(other_machine, "cut")
    assert len(found["keyslots"]) == 2, "no key slot is left over that nobody has the key of"
    assert is_mounted(other_machine, "/srv/bedplate-cut")


def test_every_check_of_it_holds_and_nothing_is_left_to_do(campaign):
    assert campaign.finished.returncode == 0
    assert [check for check in checks(LAB, "store2").values() if not check["ok"]] == []
    assert changed(LAB.play(PLAY)) == 0
