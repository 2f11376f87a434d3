"""What may be declared as a lab, what its parts are called, and what happens to a machine that exists already."""

import ipaddress

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_model as model

LAB = model.parse_lab("bedplate", "10.87.0.0/24", "fd87:b3d0::/64")
LLM1 = {"name": "llm1", "address": "10.87.0.11"}


def machine(**changes):
    return model.parse_machine(LAB, {**LLM1, **changes})


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "my-lab", "a" * 13, "lab\n"])
def test_a_lab_name_that_cannot_name_a_bridge_is_refused(name):
    with pytest.raises(model.LabError, match="cannot name a bridge"):
        model.parse_lab(name, "10.87.0.0/24", "fd87::/64")


@pytest.mark.parametrize("network", ["banana", "10.87.0.1/24", "fd87::/64"])
def test_a_network_that_is_none_is_refused(network):
    with pytest.raises(model.LabError, match="not a network"):
        model.parse_lab("lab", network, "fd87::/64")


def test_a_network_without_room_is_refused():
    with pytest.raises(model.LabError, match="too small"):
        model.parse_lab("lab", "10.87.0.0/30", "fd87::/64")


def test_names_of_interfaces_fit_into_what_the_kernel_allows():
    lab = model.parse_lab("a" * 12, "10.87.0.0/24", "fd87::/64")
    assert len(lab.bridge) <= 15
    assert len(lab.tap("a-machine-with-a-long-name")) <= 15


def test_two_labs_share_no_name():
    other = model.parse_lab("other", "10.88.0.0/24", "fd88::/64")
    for names in (lambda lab: lab.bridge, lambda lab: lab.table, lambda lab: lab.tap("m"), lambda lab: lab.cgroup("m")):
        assert names(LAB) != names(other)


def test_the_operator_has_the_first_address_of_both_networks():
    assert (str(LAB.gateway), str(LAB.gateway6)) == ("10.87.0.1", "fd87:b3d0::1")


def test_a_machine_has_the_same_place_in_both_networks():
    assert machine().address6 == "fd87:b3d0::b"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": ""}, "ansible_host of llm1 is ''"),
        ({"address": "10.88.0.11"}, "choose a host address in lab_network 10.87.0.0/24"),
        ({"address": "10.87.0.0"}, "choose a host address"),
        ({"address": "10.87.0.255"}, "choose a host address"),
        ({"address": "10.87.0.1"}, "the operator's own"),
        ({"name": "LLM_1"}, "cannot be a host name"),
        ({"kind": "docker"}, "lab_kind of llm1 is 'docker'"),
        ({"tpm": True}, "is a container and has no disks or TPM"),
        ({"disks": [{"serial": "a", "size": "1G"}]}, "is a container and has no disks or TPM"),
        ({"kind": "vm", "memory": "lots"}, "lab_memory of llm1 is 'lots'"),
        ({"kind": "vm", "cpus": 0}, "lab_cpus of llm1 is 0"),
        ({"kind": "vm", "disks": [{"serial": "a", "size": "1X"}]}, "the size '1X' for a"),
        ({"kind": "vm", "disks": [{"serial": "a,b", "size": "1G"}]}, "the serial 'a,b'"),
        ({"kind": "vm", "disks": [{"serial": "x" * 21, "size": "1G"}]}, "up to 20 letters"),
        ({"kind": "vm", "disks": [{"serial": "root", "size": "1G"}]}, "not 'root'"),
        ({"kind": "vm", "disks": [{"serial": "a", "size": "1G"}] * 2}, "twice"),
    ],
)
def test_a_declaration_that_cannot_be_raised_is_refused_by_name_and_value(changes, words):
    with pytest.raises(model.LabError, match=words):
        machine(**changes)


@pytest.mark.parametrize(("size", "expected"), [("1M", 2**20), ("512M", 2**29), ("8G", 2**33), ("2T", 2**41)])
def test_sizes_are_binary(size, expected):
    assert model.Disk("a", size).bytes == expected


def test_an_address_given_twice_is_refused():
    with pytest.raises(model.LabError, match=r"llm1 is 10.87.0.21, which client1 has already"):
        model.check_peers(LAB, {"llm1": "10.87.0.21", "client1": "10.87.0.21"})


@pytest.mark.parametrize(
    ("recorded", "running", "expected"),
    [(False, False, "create"), (False, True, "create"), (True, False, "start"), (True, True, "keep")],
)
def test_what_happens_to_a_machine_follows_from_its_record_and_its_process(recorded, running, expected):
    declared = machine()
    assert model.decide(declared.as_dict() if recorded else None, declared, running) == expected


@pytest.mark.parametrize("running", [True, False])
def test_a_machine_with_another_declaration_is_never_changed_in_place(running):
    before = machine(kind="vm", disks=[{"serial": "a", "size": "1G"}])
    after = machine(kind="vm", disks=[{"serial": "a", "size": "2G"}])
    with pytest.raises(model.LabError, match=r"llm1 exists with another declaration \(disks.*reset"):
        model.decide(before.as_dict(), after, running)


@pytest.mark.parametrize(
    ("addresses", "culprit"),
    [
        ({"eth0": ["192.0.2.2/24", "fe80::1/64"]}, None),
        ({"bp-bedplate": ["10.87.0.1/24"]}, None),
        ({"eth0": ["10.87.0.9/24"]}, "lab_network"),
        ({"eth0": ["10.0.0.1/8"]}, "lab_network"),
        ({"eth0": ["fd87:b3d0::5/64"]}, "lab_network6"),
    ],
)
def test_a_network_in_use_is_found_before_it_is_taken(addresses, culprit):
    conflict = model.network_conflict(LAB, addresses)
    if culprit is None:
        assert conflict is None
    else:
        assert "eth0" in conflict
        assert conflict.endswith(f"{culprit}.")


def test_the_outside_is_a_matter_of_the_labs_own_table():
    for outside in (True, False):
        rules = model.ruleset(LAB, outside)
        assert rules.startswith(f"table inet {LAB.table} {{}}\ndelete table inet {LAB.table}\n")
        assert "flush" not in rules
        assert ("masquerade" in rules) is outside


def test_without_the_outside_nothing_crosses_not_even_what_was_open_before():
    crossing = model.ruleset(LAB, False).split("chain crossing {")[1].split("}")[0]
    assert crossing.strip() == "reject with icmpx type admin-prohibited"


def test_addresses_are_counted_in_networks_of_any_size():
    lab = model.parse_lab("lab", "10.0.0.0/16", "fd00::/64")
    assert lab.address6(ipaddress.IPv4Address("10.0.1.0")) == ipaddress.IPv6Address("fd00::100")


def test_a_machine_with_other_gpus_is_another_machine():
    wearing = machine(gpus="8xH100@0123456789ab")
    recorded = wearing.as_dict()
    assert model.decide(recorded, wearing, running=True) == "keep"
    for other in (machine(), machine(gpus="8xH100@ffffffffffff")):
        with pytest.raises(model.LabError, match="another declaration \\(gpus 8xH100@0123456789ab"):
            model.decide(recorded, other, running=True)


def test_a_machine_from_before_there_were_gpus_wears_none():
    recorded = machine().as_dict()
    del recorded["gpus"]
    assert model.decide(recorded, machine(), running=True) == "keep"
