"""What provisioning does with a host, from what is found there."""

from __future__ import annotations

from itertools import product

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter.provision import provision_step
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.provision import ADMIT, FLIP, LEAVE, WAIT, step

HOLDS = Check("driver.loaded", True, "it is.")
BROKEN = Check("driver.loaded", False, "it is not.")


@pytest.mark.parametrize(
    ("checks", "own", "distribution", "drained", "allowed", "expected"),
    [
        ([HOLDS], False, False, False, False, LEAVE),
        ([HOLDS], False, False, False, True, LEAVE),
        ([BROKEN], False, False, False, False, FLIP),
        ([HOLDS, BROKEN], False, False, False, True, FLIP),
        # Cut off after everything was done.
        ([HOLDS], False, False, True, False, ADMIT),
        ([HOLDS], False, False, True, True, ADMIT),
        # Cut off in the middle.
        ([BROKEN], False, False, True, False, FLIP),
        # A role waits: with leave it goes on, without it nothing is drained for what would be found again.
        ([BROKEN], True, False, False, True, FLIP),
        ([HOLDS], True, False, False, True, FLIP),
        ([BROKEN], True, False, False, False, WAIT),
        ([HOLDS], True, True, True, False, WAIT),
        # Only the distribution waits: that stops nobody, and is done where it is allowed.
        ([HOLDS], False, True, False, False, LEAVE),
        ([HOLDS], False, True, False, True, FLIP),
        ([], False, False, False, True, LEAVE),
    ],
)
def test_the_step_follows_from_what_is_found(checks, own, distribution, drained, allowed, expected):
    assert step(checks, own, distribution, drained, allowed) == expected


def test_without_leave_a_host_that_waits_is_never_taken_out_again():
    for checks, distribution, drained in product(([HOLDS], [BROKEN]), (False, True), (False, True)):
        assert step(checks, True, distribution, drained, False) == WAIT


def test_the_filter_reads_what_the_modules_return():
    reboot = {"own": False, "distribution": False, "drained": ["bedplate-vllm.service"]}
    assert provision_step([HOLDS.as_dict()], reboot) == ADMIT
    assert provision_step([BROKEN.as_dict()], reboot, allowed=True) == FLIP


@pytest.mark.parametrize(
    ("checks", "reboot"), [([{"id": "a"}], {"own": False, "distribution": False, "drained": []}), ([], {})]
)
def test_a_report_that_cannot_be_read_decides_nothing(checks, reboot):
    with pytest.raises(AnsibleFilterError, match="provision_step"):
        provision_step(checks, reboot)
