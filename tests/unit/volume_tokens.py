"""Tokens of key slots as systemd-cryptenroll and clevis leave them in a header."""

from __future__ import annotations

import base64
import json
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import Settings, TangServer, thumbprint

KEY = {"kty": "EC", "crv": "P-521", "x": "AA", "y": "BB", "alg": "ES512", "key_ops": ["verify"]}
EXCHANGE = {**KEY, "x": "CC", "alg": "ECMR", "key_ops": ["deriveKey"]}
THUMBPRINT = thumbprint(KEY)
ONE = TangServer("http://tang1:7654", THUMBPRINT)
TWO = TangServer("http://tang2:7654", THUMBPRINT)
ALONE, PAIR = Settings((7,), (ONE,), 1), Settings((7,), (ONE, TWO), 2)


def encoded(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def protected(pin: str, **content: Any) -> str:
    return encoded({"alg": "dir", "clevis": {"pin": pin, pin: content}})


def tang(server: TangServer = ONE) -> str:
    return protected("tang", url=server.url, adv={"keys": [KEY, EXCHANGE]})


def tpm2(ids: Any = "7") -> str:
    return protected("tpm2", hash="sha256", pcr_bank="sha256", pcr_ids=ids)


def sss(threshold: int, *pins: str) -> str:
    return protected("sss", t=threshold, jwe=[f"{pin}..iv.text.tag" for pin in pins])


def clevis(pin: str, *slots: int) -> dict[str, Any]:
    return {"type": "clevis", "keyslots": [str(slot) for slot in slots or (1,)], "jwe": {"protected": pin}}


def systemd(*pcrs: int) -> dict[str, Any]:
    return {"type": "systemd-tpm2", "keyslots": ["1"], "tpm2-pcrs": list(pcrs)}
