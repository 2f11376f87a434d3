"""How long a machine may boot, which one is made once more, and what is told of a boot that did not come through."""

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_boot
from ansible_collections.bedplate.llm.plugins.module_utils.lab_boot import Boot

# As the kernel of a machine on a loaded computer said it; the last line is the last thing that such a kernel does.
PANIC = """\
[    0.020000] ..TIMER: vector=0x30 apic1=0 pin1=2 apic2=-1 pin2=-1\r
[    0.473819] ..MP-BIOS bug: 8254 timer not connected to IO-APIC\r
[    2.015512] Kernel panic - not syncing: IO-APIC + timer doesn't work!\r
[    2.016000] Call Trace:\r
[    2.020000] ---[ end Kernel panic - not syncing: IO-APIC + timer doesn't work! ]---\r
"""
SYSTEMD = (
    "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m.\r\n\r\n"
    "[  \x1b[0;31m*\x1b[0;1;31m*\x1b[0m] A start job is running for db.service (12s / 1min 30s)\r"
    "[ \x1b[0;31m*\x1b[0;1;31m*\x1b[0m ] A start job is running for db.service (13s / 1min 30s)\r"
)


@pytest.mark.parametrize(
    ("action", "kind", "emulated", "expected"),
    [
        ("create", "vm", True, (180.0, 240.0)),
        ("create", "vm", False, (420.0,)),
        # What was there before may hold something, so that it is waited for and never made afresh.
        ("start", "vm", True, (420.0,)),
        ("keep", "vm", True, (420.0,)),
        ("create", "container", False, (180.0,)),
        ("start", "container", False, (180.0,)),
    ],
)
def test_only_an_emulated_machine_of_this_very_run_has_a_second_boot(action, kind, emulated, expected):
    assert lab_boot.patience(action, kind, emulated) == expected


def test_a_second_boot_takes_nobody_more_time():
    assert sum(lab_boot.patience("create", "vm", True)) == sum(lab_boot.patience("create", "vm", False))


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (PANIC, True),
        # It is still saying where it was.
        (PANIC[: PANIC.rindex("[")], False),
        # An earlier boot's: the machine was started again since.
        (PANIC + SYSTEMD, False),
        (SYSTEMD, False),
        ("", False),
    ],
)
def test_a_panic_is_seen_when_nothing_follows_it(console, expected):
    assert lab_boot.panicked(console) == expected


def test_of_a_panic_is_told_what_led_to_it():
    panic = "[    2.015512] Kernel panic - not syncing: IO-APIC + timer doesn't work!"
    assert lab_boot.last_lines(PANIC)[-1] == panic
    assert lab_boot.last_lines(PANIC + PANIC)[-1] == panic
    assert any("Call Trace" in line for line in lab_boot.last_lines(PANIC + SYSTEMD))


def test_a_console_is_told_without_colours_and_empty_lines():
    assert lab_boot.last_lines(SYSTEMD) == [
        "[  OK  ] Started ssh.service.",
        "[  **] A start job is running for db.service (12s / 1min 30s)",
        "[ ** ] A start job is running for db.service (13s / 1min 30s)",
    ]
    assert lab_boot.last_lines("\n".join(map(str, range(100)))) == [str(number) for number in range(85, 100)]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("", ()),
        ("No jobs running.\n", ()),
        (
            " 12 db.service start running\n130 multi-user.target start waiting\n",
            ("db.service (start, running)", "multi-user.target (start, waiting)"),
        ),
    ],
)
def test_the_jobs_that_systemd_still_has_are_named(listed, expected):
    assert lab_boot.jobs(listed) == expected


HUNG = Boot("gpu1", 180.2, "no ssh server answers", "Loading initial ramdisk\n", "/lab/console.failed.log", 171.4)
BUSY = Boot(
    "gpu1", 240.0, "its boot does not come to an end", SYSTEMD, "/lab/console.log", 0.6, ("db.service (start)",)
)


def test_a_boot_is_told_with_all_that_is_known_of_it():
    assert HUNG.evidence() == (
        "gpu1 did not come through its boot in 180 s: no ssh server answers; its console has been silent for 171 s and"
        " ends with: Loading initial ramdisk; all of it: /lab/console.failed.log"
    )
    assert "to an end; systemd waits for db.service (start); its console" in BUSY.evidence()


def test_the_kernels_own_words_go_before_what_was_seen_from_outside():
    panicked = Boot("gpu1", 3.0, "no ssh server answers", PANIC, "/lab/console.log")
    assert "in 3 s: its kernel panicked; its console" in panicked.evidence()
    assert "timer doesn't work!; all of it" in panicked.evidence()
    assert "no ssh server answers" not in panicked.evidence()


def test_a_console_that_shows_nothing_is_told_as_such():
    assert "silent for 0 s and shows nothing; all of it: log" in Boot("gpu1", 1.0, "x", "\n", "log").evidence()


def test_a_second_boot_is_never_silent():
    assert lab_boot.once_more(HUNG) == f"{HUNG.evidence()}. It held nothing yet and was made once more."


def test_a_machine_that_is_given_up_is_told_with_all_its_boots():
    once = lab_boot.given_up((BUSY,))
    assert once.startswith(BUSY.evidence())
    assert "bedplate lab reset" in once
    assert "second boot" not in once
    twice = lab_boot.given_up((HUNG, BUSY))
    assert twice.startswith(BUSY.evidence())
    assert f"of the first one: {HUNG.evidence()}." in twice
