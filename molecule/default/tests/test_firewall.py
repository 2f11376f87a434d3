"""What another machine can reach, by somebody else's port scanner, over IPv4 and IPv6."""

from __future__ import annotations

import re

import pytest
from conftest import machine


def open_ports(host, address: str) -> set[int]:
    family = "-6" if ":" in address else ""
    report = host.check_output(
        f"sudo nmap {family} -n -Pn -sS -p1-65535 --min-rate 8000 --max-retries 1 --open -oG - {address}"
    )
    return {int(port) for port in re.findall(r"(\d+)/open/tcp", report)}


@pytest.mark.parametrize("family", ["address", "address6"])
def test_a_client_reaches_the_gateway_and_nothing_else(client, site, family):
    assert open_ports(client, getattr(site, family)) == {site.port}


def test_the_engines_user_reaches_nothing_outside(server, client):
    address = client.check_output("hostname --all-ip-addresses").split()[0]
    ask = f"curl --silent --max-time 3 http://{address}:22/"
    # What a machine without our firewall gets there: ssh's greeting, which curl does not understand.
    assert machine("spare1").run(ask).rc == 1
    done = server.run(f"sudo setpriv --reuid=bedplate-vllm --clear-groups {ask}")
    assert done.rc in (7, 28), f"the engine's user reached another machine: {done}"


def test_nothing_of_the_engine_listens_on_the_network(server):
    listeners = server.check_output("sudo ss --no-header --listening --tcp --numeric --processes")
    for line in listeners.splitlines():
        if "vllm" in line.lower() or "python" in line.lower():
            assert re.search(r"\s(127\.0\.0\.1|\[::1\]):", line), line
