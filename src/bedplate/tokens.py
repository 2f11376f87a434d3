"""Short-lived tokens of the site's own issuer, for `bedplate token` and `bedplate chat`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import gateway_jwt

TokenError = gateway_jwt.TokenError


def mint(secrets_dir: Path, issuer: str, audience: str, subject: str, scopes: Iterable[str], lifetime: int) -> str:
    """A token that the site's gateways accept for `lifetime` seconds; TokenError, one sentence, when there is none."""
    return str(gateway_jwt.mint(str(secrets_dir), issuer, audience, subject, scopes, lifetime))
