"""Which services run on a volume, and which wait for it, by what systemctl says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ansible_collections.bedplate.llm.plugins.module_utils.volume_services import patterns, running, waiting
from volume_samples import VOLUME

STATES = {
    "bedplate-vllm.service": ("loaded", "inactive"),
    "bedplate-gateway.service": ("loaded", "active"),
    "bedplate-audit.service": ("loaded", "failed"),
    "bedplate-kv.service": ("masked", "inactive"),
    "bedplate-cache.service": ("loaded", "activating"),
}


class Systemctl:
    """As Debian 12's answers: one unit to a line, blocks with an empty line between."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._listed = listed
        self.asked: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.asked.append(argv)
        if argv[1] == "show":
            blocks = [f"Id={name}\nLoadState={STATES[name][0]}\nActiveState={STATES[name][1]}\n" for name in argv[3:]]
            return 0, "\n".join(blocks)
        return (0 if self._listed else 1), "".join(f"{name} enabled enabled\n" for name in self._listed)


def test_a_name_that_ends_in_a_dash_is_every_unit_that_begins_so():
    volume = replace(VOLUME, services=("bedplate-.service", "audit.service"))
    assert patterns(volume) == ["bedplate-*.service", "audit.service"]


def test_what_waits_is_enabled_and_not_up():
    ask = Systemctl(list(STATES))
    assert waiting(VOLUME, ask) == ["bedplate-vllm.service", "bedplate-audit.service"]
    assert ask.asked[0][-2:] == ["--state=enabled", "bedplate-*.service"]


def test_what_is_up_or_on_its_way_has_to_go_first():
    assert running(VOLUME, Systemctl(list(STATES))) == ["bedplate-gateway.service", "bedplate-cache.service"]


def test_a_template_is_no_service():
    assert waiting(VOLUME, Systemctl(["bedplate-engine@.service"])) == []


def test_where_there_is_no_such_unit_nobody_is_asked_further():
    ask = Systemctl([])
    assert (waiting(VOLUME, ask), running(VOLUME, ask)) == ([], [])
    assert [argv[1] for argv in ask.asked] == ["list-unit-files", "list-units"]
