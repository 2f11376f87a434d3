"""What another machine can reach, by somebody else's port scanner, over IPv4 and IPv6."""

from __future__ import annotations

import re

import pytest


def open_ports(machine, address: str) -> set[int]:
    family = "-6" if ":" in address else ""
    report = machine.check_output(
        f"sudo nmap {family} -n -Pn -sS -p1-65535 --min-rate 8000 --max-retries 1 --open -oG - {address}"
    )
    return {int(port) for port in re.findall(r"(\d+)/open/tcp", report)}


@pytest.mark.parametrize("family", ["address", "address6"])
def test_a_client_reaches_the_gateway_and_nothing_else(client, site, family):
    assert open_ports(client, getattr(site, family)) == {site.port}


def test_the_engines_user_reaches_nothing_outside(server):
    network = server.check_output("ip -4 route show default").split()
    gateway = network[2] if network else "10.89.0.1"
    done = server.run(
        f"sudo setpriv --reuid=bedplate-vllm --clear-groups curl --silent --max-time 3 http://{gateway}:22/"
    )
    assert done.rc not in (0, 1, 52, 56), "the engine's user reached the operator's machine"


def test_nothing_of_the_engine_listens_on_the_network(server):
    listeners = server.check_output("sudo ss --no-header --listening --tcp --numeric --processes")
    for line in listeners.splitlines():
        if "vllm" in line.lower() or "python" in line.lower():
            assert re.search(r"\s(127\.0\.0\.1|\[::1\]):", line), line
