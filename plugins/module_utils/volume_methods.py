# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which ways of unlocking a volume are in its header, by the tokens of systemd-cryptenroll and clevis.

Sources: systemd's `systemd-tpm2` token (man systemd-cryptenroll); clevis' token holds a JWE whose protected header
names
the pin and its configuration (man clevis-luks-bind, clevis-encrypt-sss).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Header, Token
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import BOTH, TANG, TPM2

RECOVERY = "recovery"
# A key slot that a run left when it was cut off before it could say who opens it: nobody has its key.
ORPHAN = "orphan"
# The fewest that cryptsetup lets a key be stretched by.
MACHINE_ITERATIONS = 1000
SYSTEMD_TPM2, CLEVIS = "systemd-tpm2", "clevis"
# What a JWK's thumbprint covers, by kind of key (RFC 7638, section 3.2).
_THUMBPRINT = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "oct": ("k", "kty")}


@dataclass(frozen=True)
class TangServer:
    """thumbprint: of a key that signs the server's advertisement, as `tang-show-keys` prints it (RFC 7638, SHA-256)."""

    url: str
    thumbprint: str


@dataclass(frozen=True)
class Settings:
    """How the ways are set up.

    pcrs: registers of the TPM that have to be as they were, 7 is the Secure Boot policy.  threshold: how many of the
    tang servers have to answer.
    """

    pcrs: Tuple[int, ...] = (7,)
    servers: Tuple[TangServer, ...] = ()
    threshold: int = 1


@dataclass(frozen=True)
class Way:
    """One way that is in the header.

    method: recovery, orphan, one of volume_declared.UNLOCKS, or "other".  urls, thumbprints: of the tang servers that
      it asks,
    with every signing key that they advertised when it was made.  token: -1 for a passphrase.
    """

    method: str
    keyslot: int
    token: int = -1
    pcrs: FrozenSet[int] = frozenset()
    urls: FrozenSet[str] = frozenset()
    thumbprints: FrozenSet[str] = frozenset()
    threshold: int = 0


def settings(given: Mapping[str, Any]) -> Settings:
    """From the options that the modules share."""
    servers = tuple(TangServer(str(server["url"]), str(server["thumbprint"])) for server in given["tang_servers"])
    return Settings(tuple(map(int, given["tpm2_pcrs"])), servers, int(given["tang_threshold"]))


def settings_problems(wanted: Settings, methods: Sequence[str]) -> List[str]:
    """What is wrong with the settings for the methods that volumes name."""
    found = []
    wrong = [pcr for pcr in wanted.pcrs if not 0 <= pcr <= 23]
    if wrong:
        found.append(f"luks_volume_tpm2_pcrs: registers are 0 to 23, found {wrong[0]}")
    if not any(TANG in method for method in methods):
        return found
    if not wanted.servers:
        found.append("luks_volume_tang_servers: volumes are unlocked by tang, name at least one server")
    if not 1 <= wanted.threshold <= max(len(wanted.servers), 1):
        found.append(
            f"luks_volume_tang_threshold: give 1 to {len(wanted.servers)}, the number of servers, found"
            f" {wanted.threshold}"
        )
    for server in wanted.servers:
        if not server.url.startswith(("http://", "https://")):
            found.append(f"luks_volume_tang_servers: url begins with http:// or https://, found {server.url!r}")
        if not server.thumbprint:
            found.append(
                f"luks_volume_tang_servers: {server.url} has no thumbprint; without it whoever answers first is trusted"
                " (`tang-show-keys PORT` on the server prints it)"
            )
    return found


def ways(header: Header) -> Tuple[Way, ...]:
    """All ways in a header; a key slot that no token speaks of is opened by a passphrase, or by nobody any more."""
    found = [_way(token, slot) for token in header.tokens for slot in token.keyslots]
    spoken = {way.keyslot for way in found}
    untold = [
        Way(ORPHAN if _is_machine_made(header, slot) else RECOVERY, slot)
        for slot in header.keyslots
        if slot not in spoken
    ]
    return tuple(sorted([*found, *untold], key=lambda way: way.keyslot))


def _is_machine_made(header: Header, slot: int) -> bool:
    """Whether a key slot is stretched as little as only keys of full strength are, by clevis, systemd and us."""
    kdf = header.metadata["keyslots"][str(slot)].get("kdf", {})
    return kdf.get("type") == "pbkdf2" and int(kdf.get("iterations", 0)) <= MACHINE_ITERATIONS


def fits(way: Way, method: str, settings: Settings) -> bool:
    """Whether a way is what the settings ask for; tang keys are compared by `outdated`, since servers change them."""
    if way.method != method:
        return False
    pcrs = TPM2 not in method or way.pcrs == frozenset(settings.pcrs)
    servers = TANG not in method or (
        way.urls == frozenset(server.url for server in settings.servers)
        and way.threshold == (settings.threshold if len(settings.servers) > 1 else 1)
    )
    return pcrs and servers


def missing(header: Header, methods: Sequence[str], settings: Settings) -> List[str]:
    present = ways(header)
    return [method for method in methods if not any(fits(way, method, settings) for way in present)]


def outdated(way: Way, settings: Settings) -> List[str]:
    """Servers whose pinned key was not among those that the way was made with: they have changed keys since."""
    return [
        server.url for server in settings.servers if server.url in way.urls and server.thumbprint not in way.thumbprints
    ]


def clevis_config(method: str, settings: Settings) -> Tuple[str, Dict[str, Any]]:
    """Pin and configuration for `clevis luks bind`."""
    tang: List[Dict[str, Any]] = [{"url": server.url, "thp": server.thumbprint} for server in settings.servers]
    pin: Tuple[str, Dict[str, Any]] = ("tang", tang[0])
    if len(tang) > 1:
        pin = ("sss", {"t": settings.threshold, "pins": {"tang": tang}})
    if method == TANG:
        return pin
    tpm2: Dict[str, Any] = {"pcr_bank": "sha256"}
    if settings.pcrs:
        tpm2["pcr_ids"] = ",".join(map(str, settings.pcrs))
    return "sss", {"t": 2, "pins": {"tpm2": tpm2, pin[0]: pin[1]}}


def _way(token: Token, slot: int) -> Way:
    if token.type == SYSTEMD_TPM2:
        return Way(TPM2, slot, token.number, pcrs=frozenset(map(int, token.content.get("tpm2-pcrs", ()))))
    if token.type != CLEVIS:
        return Way("other", slot, token.number)
    pins = _pins(_decode(str(token.content.get("jwe", {}).get("protected", ""))))
    names = {name for name, _content in pins}
    threshold = sum(content.get("t", 0) for name, content in pins if name == "sss" and content.get("tangs"))
    servers = [content for name, content in pins if name == "tang"]
    keys = [key for server in servers for key in server.get("adv", {}).get("keys", ())]
    either = any(
        name == "sss" and not content["tangs"] and content.get("t") != content["parts"] for name, content in pins
    )
    method = "other" if either else BOTH if {"tang", "tpm2"} <= names else TANG if "tang" in names else "other"
    return Way(
        method,
        slot,
        token.number,
        pcrs=frozenset(pcr for name, content in pins if name == "tpm2" for pcr in _pcrs(content)),
        urls=frozenset(str(server.get("url", "")) for server in servers),
        thumbprints=frozenset(thumbprint(key) for key in keys if "verify" in key.get("key_ops", ())),
        threshold=threshold or (1 if servers else 0),
    )


def _pins(protected: Mapping[str, Any]) -> List[Tuple[str, Mapping[str, Any]]]:
    """Pins with their configuration; of Shamir's sharing also those below it."""
    clevis = protected.get("clevis", {})
    name = str(clevis.get("pin", ""))
    content = dict(clevis.get(name, {}))
    if name != "sss":
        return [(name, content)]
    parts = [_decode(str(jwe).split(".", 1)[0]) for jwe in content.get("jwe", ())]
    below = [pin for part in parts for pin in _pins(part)]
    content["parts"] = len(parts)
    # The threshold that counts is that of the sharing between servers, not that between TPM and servers.
    content["tangs"] = all(pin == "tang" for pin, _content in below)
    return [(name, content), *below]


def _pcrs(content: Mapping[str, Any]) -> List[int]:
    ids = content.get("pcr_ids", "")
    listed = ids if isinstance(ids, list) else str(ids).split(",")
    return [int(number) for number in listed if str(number).strip()]


def _decode(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def thumbprint(key: Mapping[str, Any]) -> str:
    """RFC 7638 with SHA-256, as tang prints it; empty for a key of an unknown kind."""
    names = _THUMBPRINT.get(str(key.get("kty")), ())
    if not names:
        return ""
    text = json.dumps({name: key.get(name) for name in names}, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
