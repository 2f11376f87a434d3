# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The keys of a tang server: what they are called, which of them are advertised, and what to do with them.

tangd advertises every `*.jwk` of its folder.  A key whose file begins with a dot is hidden: it goes on unlocking the
volumes that were bound to it, and no new volume is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Sequence

SIGNING = "signing"
EXCHANGE = "exchange"
# What `jose jwk gen` makes for each use: tang's own choice.
ALGORITHMS = {EXCHANGE: "ECMR", SIGNING: "ES512"}
THUMBPRINT = re.compile(r"^[A-Za-z0-9_-]{43}$")
MODE = 0o440
_OPERATIONS = {"sign": SIGNING, "verify": SIGNING, "deriveKey": EXCHANGE}
_PUBLIC = ("alg", "crv", "kty", "x", "y")


class TangError(ValueError):
    """The message is one sentence for the user."""


@dataclass(frozen=True)
class Key:
    """One key, without its private part.

    file: name in the folder of keys; empty for a key that was advertised by a server elsewhere.
    """

    use: str
    thumbprint: str
    public: Mapping[str, str]
    file: str = ""
    owner: str = ""
    group: str = ""
    mode: int = MODE

    @property
    def hidden(self) -> bool:
        return self.file.startswith(".")

    def as_dict(self) -> Dict[str, Any]:
        return {
            "use": self.use,
            "thumbprint": self.thumbprint,
            "hidden": self.hidden,
            "public": dict(self.public),
        }


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(public: Mapping[str, Any]) -> str:
    """RFC 7638 with SHA-256, as clevis and tang-show-keys write it."""
    required = {name: public[name] for name in ("crv", "kty", "x", "y")}
    compact = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(compact.encode("utf-8")).digest())


def parse_key(jwk: Any, file: str = "", owner: str = "", group: str = "", mode: int = MODE) -> Key:
    """From a JSON Web Key, private or public; the private part is dropped."""
    if not isinstance(jwk, dict) or jwk.get("kty") != "EC":
        raise TangError("it is not an elliptic curve key in JSON")
    public = {name: str(jwk[name]) for name in _PUBLIC if name in jwk}
    if not {"crv", "x", "y"} <= set(public):
        raise TangError("its point is not complete")
    operations = jwk.get("key_ops")
    uses = {_OPERATIONS[name] for name in operations or () if name in _OPERATIONS}
    uses |= {use for use, algorithm in ALGORITHMS.items() if not uses and public.get("alg") == algorithm}
    if len(uses) != 1:
        raise TangError(f"it is for neither signing nor exchange (alg {public.get('alg')}, key_ops {operations})")
    return Key(uses.pop(), thumbprint(public), public, file, owner, group, mode)


def advertised(keys: Iterable[Key], use: str = "") -> List[Key]:
    return [key for key in keys if not key.hidden and use in ("", key.use)]


def missing_uses(keys: Sequence[Key]) -> List[str]:
    """What tangd would make by itself on the next request, and unnoticed."""
    return [use for use in ALGORITHMS if not advertised(keys, use)]


def hidden_name(key: Key) -> str:
    """By the thumbprint, and not by the former name: two keys that somebody called sig.jwk must not become one."""
    return f".{key.thumbprint}.jwk"


def plan_rotation(keys: Sequence[Key], named: Iterable[str]) -> List[Key]:
    """Which keys to hide once new ones are advertised, in this order; none when no named key is advertised any more.

    All that is advertised is hidden, since tang's keys are no pairs.  Named ones come last: whatever cuts the rotation
    off, a named key is still advertised then, and the next run completes it.
    """
    wanted = set(named)
    shown = advertised(keys)
    if not any(key.thumbprint in wanted for key in shown):
        return []
    return sorted(shown, key=lambda key: (key.thumbprint in wanted, key.use))


def plan_forgetting(keys: Sequence[Key], named: Iterable[str]) -> List[Key]:
    """The hidden keys of these names; names of keys that are gone, or another server's, are no fault."""
    wanted = set(named)
    shown = [key for key in advertised(keys) if key.thumbprint in wanted]
    if shown:
        raise TangError(
            f"the {shown[0].use} key {shown[0].thumbprint} is advertised, and clients bind to it; rotate it out first, "
            "and forget it when every client is bound to the new one."
        )
    return [key for key in keys if key.hidden and key.thumbprint in wanted]


def require_names(names: Sequence[str]) -> None:
    if not names:
        raise TangError("no thumbprint is given, so it is not known which keys are meant.")
    wrong = [name for name in names if not THUMBPRINT.match(name)]
    if wrong:
        raise TangError(
            f"'{wrong[0]}' is no thumbprint, which has 43 letters, digits, - and _; copy it from the report."
        )


def parse_advertisement(text: str) -> List[Key]:
    """The keys that a server advertises.  That it signed them is what every client of it checks."""
    try:
        keys = json.loads(from_base64url(json.loads(text)["payload"]))["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise TangError(f"it is not a signed set of keys ({type(error).__name__}: {error})") from None
    found = []
    for jwk in keys:
        try:
            found.append(parse_key(jwk))
        except TangError as error:
            raise TangError(f"one of its keys cannot be used: {error}") from None
    return found
