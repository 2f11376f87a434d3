# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The doing half of `nft_table` and `nft_table_info`: runs nft and systemctl, reads and writes their files.

The runner is handed in, so that this file needs no Ansible.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import nft_state
from ansible_collections.bedplate.llm.plugins.module_utils.nftables import FAMILY, TABLE

RUN_DIR = "/run/bedplate-firewall"
ROLLBACK = f"{RUN_DIR}/rollback.nft"
CANDIDATE = f"{RUN_DIR}/candidate.nft"
PENDING = f"{RUN_DIR}/pending.json"
ROLLED_BACK = f"{RUN_DIR}/rolled-back.json"
UNIT_PATH = f"/etc/systemd/system/{nft_state.UNIT}"

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


class HostError(RuntimeError):
    """The host refused something; the message is for the user."""


def read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str, mode: int) -> None:
    """Atomic: a crash leaves the old file or the new one."""
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".bedplate-", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def find_peer(pid: int, proc: str = "/proc") -> Optional[nft_state.Peer]:
    """The ssh connection that a process came through, from its ancestors: sudo strips it from our environment."""
    while pid > 1:
        try:
            with open(f"{proc}/{pid}/environ", "rb") as handle:
                environment = handle.read().split(b"\0")
            with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as handle:
                parent = int(handle.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        for entry in environment:
            name, equals, value = entry.partition(b"=")
            if equals and name == b"SSH_CONNECTION":
                return nft_state.parse_peer(value.decode("ascii", "replace"))
        pid = parent
    return None


def missing_users(names: Sequence[str]) -> Tuple[str, ...]:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return tuple(name for name in names if name not in known)


@dataclass(frozen=True)
class Host:
    run: Runner
    nft: Optional[str]
    systemctl: str = "systemctl"

    def must(self, argv: Sequence[str], what: str) -> str:
        code, out, err = self.run(argv)
        if code:
            raise HostError(f"{what}: {(err.strip() or out.strip() or f'exit status {code}')[-2000:]}")
        return out

    # --- looking ---

    def state(self, ruleset: str, denied_users: Sequence[str]) -> nft_state.State:
        """Everything that decides; `ruleset` may be empty when the table is to go."""
        absent = missing_users(denied_users)
        active = self._active([nft_state.UNIT, f"{nft_state.ROLLBACK_UNIT}.timer", *nft_state.OTHER_FIREWALLS])
        live = wanted = None
        forwarders: List[str] = []
        if self.nft is not None:
            live = self._live()
            wanted = self._loaded(ruleset) if ruleset and not absent else None
            forwarders = nft_state.port_forwarders(self.must([self.nft, "-s", "list", "ruleset"], "nft list ruleset"))
        return nft_state.State(
            nft=self.nft,
            missing_users=absent,
            live=live,
            wanted=wanted,
            stored=read(nft_state.FILE),
            stored_unit=read(UNIT_PATH),
            enabled=self.run([self.systemctl, "is-enabled", "--quiet", nft_state.UNIT])[0] == 0,
            active=active[nft_state.UNIT],
            pending=active[f"{nft_state.ROLLBACK_UNIT}.timer"],
            others=tuple(name for name in nft_state.OTHER_FIREWALLS if active[name]),
            forwarders=tuple(forwarders),
        )

    def _active(self, units: Sequence[str]) -> Dict[str, bool]:
        lines = self.run([self.systemctl, "is-active", *units])[1].split()
        return {unit: index < len(lines) and lines[index] == "active" for index, unit in enumerate(units)}

    def _live(self) -> Optional[Tuple[Any, ...]]:
        code, out, _err = self.run([str(self.nft), "-s", "-j", "list", "table", FAMILY, TABLE])
        return None if code else tuple(nft_state.normalise(out))

    def _loaded(self, ruleset: str) -> Tuple[Any, ...]:
        """What the kernel makes of the script, tried in a network namespace of its own that ends with the process.

        The script may touch our table only: that is proved by what it does there, not by reading its text.
        """
        with tempfile.TemporaryDirectory(prefix="bedplate-nft-") as directory:
            script = os.path.join(directory, "wanted.nft")
            write(script, ruleset, 0o600)
            # One process must load and list, since the namespace goes with its last process.
            steps = '"$0" add table inet canary && "$0" -f "$1" && exec "$0" -s -j list ruleset'
            out = self.must(["unshare", "--net", "sh", "-c", steps, str(self.nft), script], "nft refuses the rules")
        tables = sorted(nft_state.tables_of(out))
        if tables != sorted([(FAMILY, TABLE), ("inet", "canary")]):
            raise HostError(
                f"the rules must make the table {FAMILY} {TABLE} and touch no other; beside a table inet canary they"
                f" leave: {', '.join(' '.join(table) for table in tables) or 'none'}"
            )
        return tuple(item for item in nft_state.normalise(out) if item.get("table", {}).get("name") != "canary")

    # --- changing with a way back ---

    def arm_and_apply(self, ruleset: str, change: Mapping[str, Any], seconds: int) -> None:
        """Put the rules in force; unless `confirm` comes within `seconds`, the host puts the former ones back."""
        os.makedirs(RUN_DIR, mode=0o700, exist_ok=True)
        remove(ROLLED_BACK)
        code, previous, _err = self.run([str(self.nft), "-s", "list", "table", FAMILY, TABLE])
        write(ROLLBACK, nft_state.rollback_script(None if code else previous), 0o600)
        write(CANDIDATE, ruleset, 0o600)
        self.must([str(self.nft), "-c", "-f", ROLLBACK], "nft could not load the former rules again")
        self.must([str(self.nft), "-c", "-f", CANDIDATE], "nft refuses the rules")
        write(PENDING, json.dumps(dict(change)), 0o600)
        # The way back stands before the first step is made, and needs nobody: neither us nor the operator's session.
        argv = ["systemd-run", "--quiet", "--collect", f"--unit={nft_state.ROLLBACK_UNIT}", f"--on-active={seconds}"]
        argv += [
            "--timer-property=AccuracySec=100ms",
            "--property=Type=oneshot",
            "--description=Roll back the firewall",
        ]
        argv += [f"--property=ExecStartPost=/usr/bin/mv -f {PENDING} {ROLLED_BACK}"]
        try:
            self.must([*argv, str(self.nft), "-f", ROLLBACK], "systemd-run could not set the roll-back timer")
            self.must([str(self.nft), "-f", CANDIDATE], "nft could not load the rules")
        except HostError:
            self.disarm()
            raise

    def disarm(self) -> None:
        self.run([self.systemctl, "stop", f"{nft_state.ROLLBACK_UNIT}.timer"])
        remove(PENDING, ROLLBACK, CANDIDATE)

    def roll_back_now(self) -> None:
        """A change that nobody confirmed is void: start again from the rules before it."""
        self.run([self.systemctl, "stop", f"{nft_state.ROLLBACK_UNIT}.timer"])
        if os.path.exists(ROLLBACK) and os.path.exists(PENDING):
            self.must([str(self.nft), "-f", ROLLBACK], "nft could not load the former rules")
        remove(PENDING, ROLLBACK, CANDIDATE)

    def pending_change(self) -> Optional[Dict[str, Any]]:
        text = read(PENDING)
        return dict(json.loads(text)) if text else None

    def rolled_back_change(self) -> Optional[Dict[str, Any]]:
        text = read(ROLLED_BACK)
        return dict(json.loads(text)) if text else None

    def stop_timer(self) -> None:
        self.must([self.systemctl, "stop", f"{nft_state.ROLLBACK_UNIT}.timer"], "the roll-back timer does not stop")

    def persist(self, ruleset: str) -> None:
        """What is in force now is what the next boot loads."""
        unit = nft_state.boot_unit(str(self.nft))
        if read(nft_state.FILE) != ruleset:
            write(nft_state.FILE, ruleset, 0o600)
        if read(UNIT_PATH) != unit:
            write(UNIT_PATH, unit, 0o644)
            self.must([self.systemctl, "daemon-reload"], "systemd does not reload its units")
        self.must([self.systemctl, "--quiet", "enable", "--now", nft_state.UNIT], f"{nft_state.UNIT} does not start")
        remove(PENDING, ROLLBACK, CANDIDATE)

    def take_away(self) -> None:
        """Our table, our file, our unit; nothing of anybody else."""
        if self.run([self.systemctl, "cat", nft_state.UNIT])[0] == 0:
            self.must([self.systemctl, "--quiet", "disable", "--now", nft_state.UNIT], f"{nft_state.UNIT} stays")
        self.roll_back_now()
        if self.nft is not None:
            write(CANDIDATE, nft_state.rollback_script(None), 0o600)
            self.must([self.nft, "-f", CANDIDATE], "nft could not remove the table")
        remove(nft_state.FILE, UNIT_PATH, CANDIDATE, ROLLED_BACK)
        for directory in (os.path.dirname(nft_state.FILE), RUN_DIR):
            with contextlib.suppress(OSError):  # Missing, or somebody put something there: not ours to remove.
                os.rmdir(directory)
        self.must([self.systemctl, "daemon-reload"], "systemd does not reload its units")
