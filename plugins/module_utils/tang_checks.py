# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold for a tang server: as its own host has it, and as another machine finds it."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Callable, FrozenSet, Iterable, List, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.tang import (
    EXCHANGE,
    SIGNING,
    Key,
    TangError,
    advertised,
    base64url,
    from_base64url,
    missing_uses,
    parse_advertisement,
)
from ansible_collections.bedplate.llm.plugins.module_utils.tang_host import SOCKET, Server, exposed_keys, is_exposed

_RUN = "Run the role tang_server on this host."
# Of all that the role's drop-in says, what shows that it is in force.
SANDBOX = {"NoNewPrivileges": "yes", "PrivateNetwork": "yes", "ProtectSystem": "strict"}

# The base point of the curve P-521 (FIPS 186-4, D.1.2.5): a public value that no secret can be learned from.
_P521_BYTES = 66
_P521_GENERATOR = (
    int(
        "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dba"
        "a14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
        16,
    ),
    int(
        "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c"
        "97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650",
        16,
    ),
)


@dataclass(frozen=True)
class Answer:
    """status: 0 when there was no answer, and `text` says why."""

    status: int
    text: str


Ask = Callable[[str, str], Answer]  # (path, body), an empty body is a GET


def endpoints(addresses: Iterable[str], port: int) -> FrozenSet[str]:
    """As systemd and ss write them. ValueError for what is no address."""
    found = [ipaddress.ip_address(address) for address in addresses]
    return frozenset(f"[{one}]:{port}" if one.version == 6 else f"{one}:{port}" for one in found)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "nothing"


def _listening(server: Server, wanted: FrozenSet[str], port: int) -> Check:
    held = frozenset(address for address in server.listening if address.endswith(f":{port}"))
    states = [server.socket.get(name, "") for name in ("ActiveState", "UnitFileState", "NeedDaemonReload")]
    if states[0] != "active" or states[1] != "enabled":
        problem = f"{SOCKET} is {states[0] or 'unknown'} and {states[1] or 'not enabled'}"
    elif server.configured != wanted:
        problem = f"{SOCKET} is to listen on {_listed(server.configured)} instead of {_listed(wanted)}"
    elif held != wanted or states[2] == "yes":
        problem = f"{SOCKET} was not started again since it changed: port {port} has {_listed(held)}"
    else:
        return Check("tang_server.listening", True, f"{SOCKET} listens on {_listed(wanted)}.")
    remedy = f"{_RUN} `systemctl cat {SOCKET}` shows who else has a say."
    return Check("tang_server.listening", False, f"{problem}.", remedy)


def _sandboxed(server: Server) -> Check:
    lacking = [f"{name}={value}" for name, value in SANDBOX.items() if server.service.get(name) != value]
    reload = server.service.get("NeedDaemonReload") == "yes"
    ok = not lacking and not reload
    found = f"without {', '.join(lacking)}" if lacking else "as it was before its unit changed"
    return Check(
        "tang_server.sandboxed",
        ok,
        "tangd runs without network and with a read-only system." if ok else f"tangd runs {found}.",
        "" if ok else _RUN,
    )


def _keys(server: Server) -> Check:
    ident = "tang_server.keys"
    folder = server.folder.path if server.folder else ""
    if server.broken:
        name, why = sorted(server.broken.items())[0]
        return Check(
            ident,
            False,
            f"{folder}/{name} is no key: {why}.",
            f"Bring it back from the backup, or move it out of {folder}; what is bound to it alone stays closed.",
        )
    missing = missing_uses(server.keys)
    if missing:
        return Check(ident, False, f"{folder} has no {' and no '.join(missing)} key that is advertised.", _RUN)
    shown = [f"the {use} key {key.thumbprint}" for use in (SIGNING, EXCHANGE) for key in advertised(server.keys, use)]
    hidden = sum(key.hidden for key in server.keys)
    more = f"; {hidden} hidden keys still unlock what was bound to them" if hidden else ""
    return Check(ident, True, f"The server advertises {' and '.join(shown)}{more}.")


def _private(server: Server) -> Check:
    ident, owners = "tang_server.keys-private", (server.user, server.group)
    folder = server.folder
    if folder is None or not folder.owner:
        return Check(ident, False, f"{folder.path if folder else 'The folder of keys'} is not there.", _RUN)
    wrong = [f"{folder.path}/{key.file} ({key.owner}:{key.group} {key.mode:04o})" for key in exposed_keys(server)]
    if is_exposed(server):
        wrong.insert(0, f"{folder.path} ({folder.owner}:{folder.group} {folder.mode:04o})")
    if wrong:
        reason = f"{', '.join(wrong)} is not for {':'.join(owners)} alone to read."
        return Check(ident, False, reason, f"{_RUN} If somebody may have read a key, rotate it.")
    return Check(ident, True, f"Only {':'.join(owners)} and root can read the keys.")


def evaluate(server: Server, addresses: Iterable[str], port: int) -> List[Check]:
    if server.folder is None:
        return [Check("tang_server.installed", False, "The host has no tang.", _RUN)]
    return [
        Check("tang_server.installed", True, f"tang is installed, and keeps its keys in {server.folder.path}."),
        _listening(server, endpoints(addresses, port), port),
        _sandboxed(server),
        _keys(server),
        _private(server),
    ]


def settled(checks: Iterable[Check]) -> bool:
    """Whether systemd has nothing to load or to start again."""
    return all(check.ok for check in checks if check.id in ("tang_server.listening", "tang_server.sandboxed"))


def recovery_request() -> str:
    """The curve's own generator, as if it were a client's point: the answer to it is the key's public point.

    It shows that tangd can read the key and works with it, and no secret is involved. It does not show that nobody
    stands between, who would know the answer too; what he could not do is to unlock a volume.
    """
    x, y = (base64url(number.to_bytes(_P521_BYTES, "big")) for number in _P521_GENERATOR)
    return json.dumps({"alg": "ECMR", "crv": "P-521", "kty": "EC", "x": x, "y": y})


def _recovers(key: Key, answer: Answer) -> str:
    """Empty when the server has the key, else what is wrong."""
    if answer.status != 200:
        return answer.text if not answer.status else f"HTTP status {answer.status}"
    try:
        point = json.loads(answer.text)
        same = all(from_base64url(point[name]) == from_base64url(key.public[name]) for name in ("x", "y"))
    except (ValueError, KeyError, TypeError):
        return "an answer that is no key"
    return "" if same else "the answer of another key"


def outside(url: str, keys: Sequence[Key], ask: Ask) -> List[Check]:
    """What a client finds at `url`, against the keys that the host itself has."""
    answer = ask("/adv", "")
    if answer.status != 200:
        found = f"answers with HTTP status {answer.status}" if answer.status else f"gives no answer: {answer.text}"
        remedy = (
            "See `systemctl status tangd.socket` and `journalctl -u 'tangd@*'` there; the machine that asks has to be "
            "in tang_server_client_networks."
        )
        return [Check("tang_server.answers", False, f"{url} {found}.", remedy)]
    checks = [Check("tang_server.answers", True, f"{url} answers.")]
    try:
        told = parse_advertisement(answer.text)
    except TangError as error:
        reason = f"{url}/adv is no advertisement: {error}."
        return [*checks, Check("tang_server.advertises", False, reason, "See what answers on that port.")]
    want = {key.thumbprint for key in advertised(keys)}
    have = {key.thumbprint for key in told}
    checks.append(
        Check(
            "tang_server.advertises",
            have == want,
            f"{url} advertises the keys of its host."
            if have == want
            else f"{url} advertises {_listed(have)}, and the host has {_listed(want)}.",
            "" if have == want else "Somebody else answers there, or changed the keys meanwhile; bind no client to it.",
        )
    )
    return [*checks, _recovering(keys, ask)]


def _recovering(keys: Sequence[Key], ask: Ask) -> Check:
    """Hidden keys too: volumes that were bound before the last rotation are opened by them alone."""
    asked = [key for key in keys if key.use == EXCHANGE and key.public["crv"] == "P-521"]
    failed = []
    for key in asked:
        problem = _recovers(key, ask(f"/rec/{key.thumbprint}", recovery_request()))
        if problem:
            failed.append(f"{key.thumbprint} ({problem})")
    hidden = sum(key.hidden for key in asked)
    if failed or not asked:
        reason = (
            f"Volumes cannot be unlocked with {_listed(failed)}." if failed else "No exchange key could be asked for."
        )
        return Check("tang_server.recovers", False, reason, "See `journalctl -u 'tangd@*'` on the server.")
    reason = f"The server unlocks with {len(asked)} exchange keys, {hidden} of them hidden."
    return Check("tang_server.recovers", True, reason)
