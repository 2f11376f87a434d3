"""What is stopped, remembered and brought back, from every state that a unit can be found in."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.service_drain import (
    Steps,
    Unit,
    admit,
    drain,
    parse_marker,
)

NAME = "bedplate-vllm.service"


def unit(active: str, load: str = "loaded", name: str = NAME) -> Unit:
    return Unit(name, load, active)


@pytest.mark.parametrize(
    ("found", "marked", "steps"),
    [
        (unit("active"), (), Steps((NAME,), stop=(NAME,))),
        (unit("activating"), (), Steps((NAME,), stop=(NAME,))),  # on its way up, or between two attempts
        (unit("inactive"), (), Steps()),
        (unit("failed"), (), Steps()),
        (unit("inactive", "not-found"), (), Steps()),
        (unit("inactive", "masked"), (), Steps()),
        # An earlier run stopped it, and was cut off before it stopped the next one.
        (unit("active"), ("other.service",), Steps(("other.service", NAME), stop=(NAME,))),
        (unit("inactive"), (NAME,), Steps((NAME,))),
        # It was cut off between writing down and stopping.
        (unit("active"), (NAME,), Steps((NAME,), stop=(NAME,))),
    ],
)
def test_what_is_up_is_stopped_and_remembered(found, marked, steps):
    assert drain([found], marked, ()) == steps


def test_what_was_out_before_a_reboot_is_remembered_again():
    assert drain([unit("inactive")], (), (NAME,)) == Steps((NAME,))


@pytest.mark.parametrize(
    ("found", "marked", "also", "start"),
    [
        (unit("inactive"), (NAME,), (), (NAME,)),
        (unit("failed"), (NAME,), (), (NAME,)),
        (unit("active"), (NAME,), (), ()),
        (unit("activating"), (), (), (NAME,)),  # after a reboot it starts by itself, and is waited for
        (unit("inactive"), (), (NAME,), (NAME,)),  # a unit that no boot starts, and the reboot cleared what was written
        (unit("inactive"), (), (), ()),  # somebody else stopped it
        (unit("failed"), (), (), ()),
        (unit("inactive", "not-found"), (NAME,), (), ()),
    ],
)
def test_what_we_took_out_comes_back_and_what_others_stopped_does_not(found, marked, also, start):
    assert admit([found], marked, also).start == start


def test_the_marker_is_read_back_without_blanks_and_doubles():
    assert parse_marker(f"{NAME}\n\n {NAME}\nb.service\n") == (NAME, "b.service")
    assert parse_marker("") == ()
