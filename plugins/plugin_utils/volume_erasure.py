# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The record of an erasure: what was destroyed, when, by whom, with which result; signed by the operator's ssh key.

It is kept from the first step on, so that a run that was cut off leaves what it did to the one that completes it:

    <escrow>/<serial>/erasing-<uuid>.json        while it goes on
    <escrow>/<serial>/erasure-<uuid>.json, .sig  when it is over

    ssh-keygen -Y verify -n bedplate-erase -f ALLOWED_SIGNERS -I WHO -s FILE.sig < FILE
"""

from __future__ import annotations

import datetime
import getpass
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import sync_folder, write_durably
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import EscrowError

NAMESPACE = "bedplate-erase"


class Erasure:
    """folder: of the device in the escrow.  key: path of an ssh key, of its public half when an agent has the other."""

    def __init__(self, folder: Path, uuid: str, key: str) -> None:
        self._under_way = folder / f"erasing-{uuid}.json"
        self._final = folder / f"erasure-{uuid}.json"
        self._signature = folder / f"erasure-{uuid}.json.sig"
        self._key = str(Path(key).expanduser()) if key else ""
        self._kept: dict[str, Any] = {}

    @property
    def is_under_way(self) -> bool:
        return self._under_way.exists()

    def require_key(self) -> None:
        """What cannot be signed afterwards is not begun."""
        if not self._key:
            raise EscrowError(
                "luks_volume_signing_key is empty: name the ssh key that signs the record of the erasure. Nothing was"
                " changed."
            )
        self._sign(b"nothing", "Nothing was changed.")

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Go on with what an earlier run began, or begin."""
        kept = self._under_way.read_text(encoding="utf-8") if self.is_under_way else ""
        self._kept = json.loads(kept) if kept else {**facts, "steps": []}
        self.add([f"{'completed' if self._kept['steps'] else 'begun'} by {_who()}"])

    def add(self, steps: Sequence[str], **facts: Any) -> None:
        self._kept.update(facts)
        self._kept["steps"] += [{"at": _now(), "what": step} for step in steps]
        write_durably(self._under_way, json.dumps(self._kept, indent=1) + "\n")

    def finish(self) -> Path:
        """The signed record, with the signature beside it."""
        content = json.dumps({**self._kept, "erased": _now()}, indent=1) + "\n"
        signed = self._sign(content.encode(), "The volume is erased; run it again once the key can be used.")
        write_durably(self._final, content, 0o444)
        write_durably(self._signature, signed, 0o444)
        argv = ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(self._signature)]
        if _ssh_keygen(argv, self._final.read_bytes())[0]:
            raise EscrowError(f"{self._signature} does not hold for {self._final}; run it again.")
        self._under_way.unlink()
        sync_folder(self._under_way.parent)
        return self._final

    def _sign(self, content: bytes, otherwise: str) -> str:
        code, output, said = _ssh_keygen(["-Y", "sign", "-n", NAMESPACE, "-f", self._key], content)
        if code:
            raise EscrowError(
                f"luks_volume_signing_key: {self._key} does not sign ({said}); give the .pub of a key with a"
                f" passphrase, and keep it in ssh-agent. {otherwise}"
            )
        return output


def _ssh_keygen(arguments: Sequence[str], content: bytes) -> tuple[int, str, str]:
    try:
        # In a session of its own it has no terminal to ask a passphrase at, and fails instead.
        done = subprocess.run(
            ["ssh-keygen", *arguments], input=content, capture_output=True, check=False, start_new_session=True
        )
    except FileNotFoundError:
        return 127, "", "ssh-keygen is missing"
    return done.returncode, done.stdout.decode(), " ".join(done.stderr.decode(errors="replace").split())


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
