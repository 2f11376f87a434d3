# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's bridge, its firewall table and the forwarding switch on the operator's machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import (
    lock,
    read_json,
    record_lab,
    run,
    write,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import (
    STATE_ROOT,
    Lab,
    LabError,
    network_conflict,
    ruleset,
)

SETTINGS = Path("/proc/sys/net/ipv4")
FORWARDING = SETTINGS / "ip_forward"
# What the operator's machine had before the first lab, for the last lab's down to restore.
_FORWARDING_BEFORE = STATE_ROOT / "forwarding.json"


def addresses() -> dict[str, list[str]]:
    """{interface: [address/prefix, …]} of this machine."""
    found: dict[str, list[str]] = {}
    for link in json.loads(run("ip", "-json", "address", "show")):
        found[link["ifname"]] = [f"{item['local']}/{item['prefixlen']}" for item in link.get("addr_info", [])]
    return found


def _stamped_ruleset(lab: Lab, outside: bool) -> tuple[str, str]:
    """The rules with their digest as the table's comment, so that a later run can tell whether they are in place."""
    rules = ruleset(lab, outside)
    stamp = f"bedplate {hashlib.sha256(rules.encode()).hexdigest()[:16]}"
    head = f"delete table inet {lab.table}\ntable inet {lab.table} {{\n"
    return stamp, rules.replace(head, f'{head}  comment "{stamp}"\n', 1)


def network_changes(lab: Lab, outside: bool) -> list[str]:
    """What of the network is missing: any of bridge, firewall, forwarding."""
    found = addresses()
    conflict = network_conflict(lab, found)
    if conflict:
        raise LabError(conflict)
    changes = []
    wanted = {f"{lab.gateway}/{lab.network.prefixlen}", f"{lab.gateway6}/{lab.network6.prefixlen}"}
    if not wanted <= set(found.get(lab.bridge, [])):
        changes.append("bridge")
    if _stamped_ruleset(lab, outside)[0] not in run("nft", "list", "table", "inet", lab.table, check=False):
        changes.append("firewall")
    if outside and FORWARDING.read_text().strip() != "1":
        changes.append("forwarding")
    return changes


def make_network(lab: Lab, outside: bool) -> list[str]:
    """Make what is missing; returns what was."""
    with lock("host"), lock(lab.name):
        changes = network_changes(lab, outside)
        record_lab(lab, outside)
        if "bridge" in changes:
            _make_bridge(lab)
        if "firewall" in changes:
            run("nft", "-f", "-", stdin=_stamped_ruleset(lab, outside)[1])
        if "forwarding" in changes:
            switch_forwarding_on()
    return changes


def _make_bridge(lab: Lab) -> None:
    if not Path(f"/sys/class/net/{lab.bridge}").exists():
        run("ip", "link", "add", lab.bridge, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    run("ip", "address", "replace", f"{lab.gateway}/{lab.network.prefixlen}", "dev", lab.bridge)
    run("ip", "address", "replace", f"{lab.gateway6}/{lab.network6.prefixlen}", "dev", lab.bridge, "nodad")
    run("ip", "link", "set", lab.bridge, "up")


def remove_network(lab: Lab) -> bool:
    """Remove bridge, ports and table; true when there was any.  The caller holds the locks."""
    bridge = Path(f"/sys/class/net/{lab.bridge}")
    existed = bridge.exists()
    for port in (bridge / "brif").glob("*"):
        run("ip", "link", "delete", port.name, check=False)  # a container's goes by itself at the same time
    if existed:
        run("ip", "link", "delete", lab.bridge)
    if run("nft", "list", "table", "inet", lab.table, check=False):
        run("nft", "delete", "table", "inet", lab.table)
        existed = True
    return existed


def forwarding_settings() -> dict[str, str]:
    """The forwarding switch, and what the kernel overwrites when it is turned: the switches of single interfaces, and
    whether redirects are accepted.  In the order in which they are to be restored."""
    paths = [FORWARDING, *sorted(SETTINGS.glob("conf/*/forwarding")), SETTINGS / "conf/all/accept_redirects"]
    return {str(path): path.read_text().strip() for path in paths}


def switch_forwarding_on() -> None:
    if not _FORWARDING_BEFORE.exists():  # else somebody has turned it off under a lab: not what was before all labs
        write(_FORWARDING_BEFORE, json.dumps(forwarding_settings()), 0o600)
    FORWARDING.write_text("1")


def restore_forwarding() -> None:
    """Give the forwarding switch back, and what went with it, once no lab is left."""
    before = read_json(_FORWARDING_BEFORE)
    if before is None or any(STATE_ROOT.glob("*/lab.json")):
        return
    for path, value in before.items():
        with contextlib.suppress(FileNotFoundError):  # an interface that has gone meanwhile
            if Path(path).read_text().strip() != value:
                Path(path).write_text(value)
    _FORWARDING_BEFORE.unlink()
