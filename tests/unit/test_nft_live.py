"""The real nft, in a network namespace of its own: nothing of this computer's own rules is seen or changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.nft_host import Host, HostError
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import normalise, open_hooks, rollback_script
from ansible_collections.bedplate.llm.plugins.module_utils.nftables import parse_policy, render

NFT = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]
USABLE = NFT and subprocess.run([*NAMESPACE, str(NFT), "list", "ruleset"], capture_output=True).returncode == 0

pytestmark = pytest.mark.skipif(not USABLE, reason="needs nft and a kernel that lets users make network namespaces")

POLICIES: dict[str, dict[str, Any]] = {
    "smallest": {},
    "largest": {
        "operator_networks": ["192.0.2.0/24", "192.0.2.0/25", "2001:db8::/64"],
        "ssh_port": 2222,
        "services": {
            "a_firewall_services": [
                {"name": "everybody", "port": 443, "protocol": "tcp", "networks": ["0.0.0.0/0", "::/0"]},
                {"name": "range", "port": "8000-8010", "protocol": "udp", "networks": ["10.0.0.0/8", "10.2.0.0/16"]},
            ]
        },
        "egress": {"a_firewall_egress": [{"name": "m", "port": 80, "protocol": "tcp", "networks": ["fd00::/8"]}]},
        "denied_users": ["nobody"],
        "dns_servers": ["192.0.2.53", "2001:db8::35"],
        "ntp_servers": ["192.0.2.123"],
        "forward_policy": "drop",
    },
    "quiet": {"log_per_minute": 0, "dhcp_client": False},
}
# Some versions of nft end their JSON with a new line and some do not.
LIST = '"$nft" -s -j list table inet bedplate; echo'
FOREIGN = "add table inet foreign { chain c { type filter hook input priority 10; policy accept; } ; }"


def script(name: str) -> str:
    return render(parse_policy({"operator_networks": ["192.0.2.0/24"], **POLICIES[name]}))


def in_namespace(directory: Path, *steps: str) -> str:
    """Runs the steps with $nft in one namespace, with every policy as a file, and gives what they print."""
    for name in POLICIES:
        (directory / name).write_text(script(name))
    done = subprocess.run(
        [*NAMESPACE, "sh", "-euc", "\n".join(steps)],
        cwd=directory,
        env={"nft": str(NFT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listings(output: str) -> list[str]:
    return [line for line in output.splitlines() if line]


@pytest.mark.parametrize("name", POLICIES)
def test_every_script_loads_and_loads_again_to_the_same_rules(tmp_path: Path, name: str) -> None:
    first, second = listings(in_namespace(tmp_path, f'"$nft" -f {name}', LIST, f'"$nft" -f {name}', LIST))
    assert normalise(first) == normalise(second)
    assert open_hooks(normalise(first)) == []


def test_two_policies_are_told_apart(tmp_path: Path) -> None:
    steps = [step for name in POLICIES for step in (f'"$nft" -f {name}', LIST)]
    found = [normalise(line) for line in listings(in_namespace(tmp_path, *steps))]
    assert len({json.dumps(rules) for rules in found}) == len(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_what_nft_prints_is_a_way_back(tmp_path: Path, name: str) -> None:
    (tmp_path / "way_back_head").write_text(rollback_script(None))
    steps = (
        f'"$nft" -f {name}',
        LIST,
        '(cat way_back_head; "$nft" -s list table inet bedplate) > way_back',
        '"$nft" flush table inet bedplate',
        '"$nft" -f way_back',
        LIST,
    )
    before, after = listings(in_namespace(tmp_path, *steps))
    assert normalise(before) == normalise(after)


def test_a_table_of_somebody_else_survives_everything(tmp_path: Path) -> None:
    (tmp_path / "way_back").write_text(rollback_script(None))
    steps = [f"\"$nft\" '{FOREIGN}'"]
    for file in ("smallest", "largest", "way_back", "way_back", "quiet"):
        steps += [f'"$nft" -f {file}', '"$nft" list table inet foreign | grep -c "policy accept"']
    assert in_namespace(tmp_path, *steps).split() == ["1"] * 5


def run(argv: Any) -> tuple[int, str, str]:
    """Host's own namespace inside one that belongs to the test, so that it works without being root."""
    done = subprocess.run([*NAMESPACE, *argv], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "extra",
    ["flush ruleset\n", "table inet other { }\n", "delete table inet canary\n"],
)
def test_a_script_that_reaches_beyond_its_table_is_refused(extra: str) -> None:
    host = Host(run, NFT)
    assert open_hooks(host._loaded(script("smallest"))) == []
    with pytest.raises(HostError, match="touch no other"):
        host._loaded(script("smallest") + extra)


def test_what_nft_says_about_a_wrong_script_reaches_the_user() -> None:
    with pytest.raises(HostError, match=r"nft refuses the rules: .*syntax error"):
        Host(run, NFT)._loaded("table inet bedplate { chain }\n")
