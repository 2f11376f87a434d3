"""The site's own tokens, read by another library."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from ansible_collections.bedplate.llm.plugins.modules import site_identity
from module_runner import run

from bedplate.tokens import TokenError, mint


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    run(site_identity, path=str(tmp_path), authority=False)
    return tmp_path


def read(token: str, secrets: Path) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_json((secrets / "jwks.json").read_text())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, object] = jwt.decode(token, key, ["ES256"], audience="bedplate", issuer="urn:test")
    return claims


def test_token_is_accepted_by_another_library(secrets: Path) -> None:
    claims = read(mint(secrets, "urn:test", "bedplate", "alice", ["chat", "embed"], 60), secrets)
    assert (claims["sub"], claims["scope"]) == ("alice", "chat embed")
    assert 55 < float(str(claims["exp"])) - time.time() <= 60


def test_two_tokens_differ(secrets: Path) -> None:
    first, second = (mint(secrets, "urn:test", "bedplate", "alice", [], 60) for index in range(2))
    assert read(first, secrets)["jti"] != read(second, secrets)["jti"]


def test_key_id_is_the_thumbprint_that_other_libraries_compute(secrets: Path) -> None:
    (key,) = json.loads((secrets / "jwks.json").read_text())["keys"]
    assert set(key) == {"alg", "crv", "kid", "kty", "use", "x", "y"}
    required = json.dumps({name: key[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    digest = jwt.algorithms.hashlib.sha256(required.encode()).digest()
    assert key["kid"] == jwt.utils.base64url_encode(digest).decode()


@pytest.mark.parametrize(
    ("subject", "lifetime", "said"),
    [("", 60, "needs a subject"), ("alice", 0, "positive number of seconds, found 0"), ("alice", -1, "found -1")],
)
def test_token_that_makes_no_sense_is_refused(secrets: Path, subject: str, lifetime: int, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        mint(secrets, "urn:test", "bedplate", subject, [], lifetime)


def test_missing_key_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"token\.key does not exist; roll the site out once"):
        mint(tmp_path, "urn:test", "bedplate", "alice", [], 60)


def test_key_of_another_kind_is_refused(secrets: Path) -> None:
    run(site_identity, path=str(secrets / "other"), issuer=False)
    (secrets / "token.key").unlink()
    (secrets / "other/ca.key").rename(secrets / "token.key")
    with pytest.raises(TokenError, match="is not a P-256 key"):
        mint(secrets, "urn:test", "bedplate", "alice", [], 60)
