"""Why a host waits for a reboot, and how that is said."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import failing
from ansible_collections.bedplate.llm.plugins.module_utils.reboot_reasons import (
    Reason,
    Reasons,
    checks,
    parse_debian,
    parse_needs_restarting,
    parse_own,
    sentence,
)

ASKED = """\
Core libraries or services have been updated since boot-up:
  * kernel
  * glibc
  * glibc

Reboot is required to fully utilize these updates.
More information: https://access.redhat.com/solutions/27943
"""


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        ({}, ()),
        ({"nvidia_driver": "575 is loaded\nnouveau is loaded\n\n"}, ("575 is loaded", "nouveau is loaded")),
        ({"b": "2", "a": "1"}, ("1", "2")),
        ({"nvidia_driver": "\n"}, ("it does not say why",)),
    ],
)
def test_roles_give_a_reason_to_a_line_and_an_empty_file_is_one(files, reasons):
    assert tuple(reason.text for reason in parse_own(files)) == reasons


@pytest.mark.parametrize(
    ("flag", "packages", "reasons"),
    [
        (None, "left over\n", ()),
        ("*** System restart required ***\n", "", ("a package asks for it",)),
        ("", "linux-image-amd64\nlibc6\nlibc6\n", ("updated libc6, linux-image-amd64",)),
    ],
)
def test_debian_is_asked_by_its_flag_and_the_packages_only_explain_it(flag, packages, reasons):
    assert tuple(reason.text for reason in parse_debian(flag, packages)) == reasons


@pytest.mark.parametrize(
    ("code", "output", "reasons", "unknown"),
    [
        (0, "No core libraries or services have been updated since boot-up.\n", (), ""),
        (1, ASKED, ("updated glibc, kernel",), ""),
        # Without the plugin dnf ends with 1 as well, which is no answer.
        (1, "No such command: needs-restarting.", (), "does not answer (No such command: needs-restarting.)"),
        (1, "", (), "does not answer (exit status 1)"),
    ],
)
def test_dnf_is_asked_and_no_answer_is_not_a_no(code, output, reasons, unknown):
    found, why = parse_needs_restarting(code, output)
    assert tuple(reason.text for reason in found) == reasons
    assert why.endswith(unknown)
    assert bool(why) == bool(unknown)


OWN = (Reason("nvidia_driver", "580 is installed and 575 is loaded."),)
DISTRIBUTION = (Reason("the distribution", "updated libc6"),)


@pytest.mark.parametrize(
    ("reasons", "broken"),
    [
        (Reasons(), []),
        (Reasons(OWN), ["reboot.not-waiting"]),
        (Reasons((), DISTRIBUTION), ["reboot.distribution-not-waiting"]),
        (Reasons(OWN, DISTRIBUTION), ["reboot.not-waiting", "reboot.distribution-not-waiting"]),
        (Reasons(unknown="dnf does not answer"), ["reboot.distribution-not-waiting"]),
    ],
)
def test_what_waits_and_what_is_not_known_are_checks_that_do_not_hold(reasons, broken):
    assert [check.id for check in failing(checks(reasons))] == broken


def test_a_check_says_what_waits_and_how_to_allow_it():
    assert checks(Reasons(OWN))[0].sentence == (
        "reboot.not-waiting: The host waits for a reboot: nvidia_driver: 580 is installed and 575 is loaded."
        " Remedy: allow it: `bedplate provision --reboot`, or bedplate_reboot_allowed: true."
    )
    assert sentence((*OWN, *DISTRIBUTION)) == (
        "nvidia_driver: 580 is installed and 575 is loaded; the distribution: updated libc6"
    )
