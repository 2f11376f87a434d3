# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tokens of the site's own issuer: the public key set, and short-lived ES256 tokens.

Runs on the operator's machine only, where the key is; needs the cryptography package there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from typing import Any, Iterable

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

KEY_FILE = "token.key"
_COORDINATE_BYTES = 32


class TokenError(ValueError):
    """No token can be made; the message is one sentence for the user."""


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8")


def public_jwk(public_key: Any) -> dict[str, str]:
    """The P-256 public key as a JSON Web Key; its id is the thumbprint of RFC 7638, so the same key has the same id."""
    numbers = public_key.public_numbers()
    required = {
        "crv": "P-256",
        "kty": "EC",
        "x": _base64url(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": _base64url(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
    }
    thumbprint = _base64url(hashlib.sha256(_compact(required)).digest())
    return {**required, "alg": "ES256", "kid": thumbprint, "use": "sig"}


def sign(private_key: Any, claims: dict[str, Any]) -> str:
    """The claims as a compact JWS."""
    header = {"alg": "ES256", "kid": public_jwk(private_key.public_key())["kid"], "typ": "JWT"}
    signed = f"{_base64url(_compact(header))}.{_base64url(_compact(claims))}"
    r, s = utils.decode_dss_signature(private_key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_base64url(b''.join(number.to_bytes(_COORDINATE_BYTES, 'big') for number in (r, s)))}"


def load_key(secrets_dir: str) -> Any:
    path = os.path.join(secrets_dir, KEY_FILE)
    if not HAS_CRYPTOGRAPHY:
        raise TokenError("tokens need the Python package cryptography on this machine; install it and try again.")
    try:
        with open(path, "rb") as handle:
            key = serialization.load_pem_private_key(handle.read(), password=None)
    except FileNotFoundError:
        raise TokenError(
            f"{path} does not exist; roll the site out once, which makes it, or ask your own issuer for a token."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise TokenError(f"{path} cannot be read as a private key: {error}.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TokenError(f"{path} is not a P-256 key, which ES256 tokens need; move it away and roll out again.")
    return key


def mint(
    secrets_dir: str, issuer: str, audience: str, subject: str, scopes: Iterable[str] = (), lifetime: int = 900
) -> str:
    """A token for `lifetime` seconds from now."""
    if lifetime <= 0:
        raise TokenError(f"the lifetime of a token must be a positive number of seconds, found {lifetime}.")
    if not subject:
        raise TokenError("a token needs a subject, the name under which its requests are logged.")
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "scope": " ".join(scopes),
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "jti": secrets.token_urlsafe(12),
    }
    return sign(load_key(secrets_dir), claims)
