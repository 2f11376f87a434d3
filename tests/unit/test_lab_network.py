"""The forwarding switch of the operator's machine is given back with everything that the kernel turned with it."""

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_network as network

HARDENED = {
    "ip_forward": "0",
    "conf/all/forwarding": "0",
    "conf/default/forwarding": "0",
    "conf/lan0/forwarding": "1",
    "conf/all/accept_redirects": "0",
}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The settings of a machine that routes on one interface and accepts no redirects, as files."""
    settings = tmp_path / "settings"
    monkeypatch.setattr(network, "SETTINGS", settings)
    monkeypatch.setattr(network, "FORWARDING", settings / "ip_forward")
    monkeypatch.setattr(network, "STATE_ROOT", tmp_path / "labs")
    monkeypatch.setattr(network, "_FORWARDING_BEFORE", tmp_path / "labs" / "forwarding.json")
    turn(settings, HARDENED)
    return settings


def turn(settings, values):
    for name, value in values.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / name).write_text(value)


def found(settings):
    return {name: (settings / name).read_text() for name in HARDENED}


def the_kernel_follows(settings, switch):
    """What the kernel does to the rest when somebody turns `ip_forward` (inet_forward_change)."""
    turn(settings, {name: switch for name in HARDENED if name.endswith("forwarding")})
    turn(settings, {"conf/all/accept_redirects": "0" if switch == "1" else "1"})


def test_the_last_lab_gives_everything_back(kernel):
    network.switch_forwarding_on()
    assert found(kernel)["ip_forward"] == "1"
    the_kernel_follows(kernel, "1")
    network.restore_forwarding()
    assert found(kernel) == HARDENED
    assert not (kernel.parent / "labs" / "forwarding.json").exists()


def test_the_switch_comes_first_since_turning_it_overwrites_the_rest(kernel):
    assert next(iter(network.forwarding_settings())) == str(kernel / "ip_forward")


def test_another_lab_keeps_it_on(kernel):
    network.switch_forwarding_on()
    turn(kernel.parent / "labs", {"other/lab.json": "{}"})
    network.restore_forwarding()
    assert found(kernel)["ip_forward"] == "1"


def test_turned_off_under_a_lab_it_is_turned_on_again_and_what_was_before_is_remembered(kernel):
    network.switch_forwarding_on()
    the_kernel_follows(kernel, "0")
    network.switch_forwarding_on()
    network.restore_forwarding()
    assert found(kernel) == HARDENED


def test_an_interface_that_has_gone_is_no_hindrance(kernel):
    network.switch_forwarding_on()
    (kernel / "conf/lan0/forwarding").unlink()
    network.restore_forwarding()
    assert (kernel / "ip_forward").read_text() == "0"
    assert not (kernel / "conf/lan0/forwarding").exists()
