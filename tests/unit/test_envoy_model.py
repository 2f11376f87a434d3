"""What the gateway's settings may be, and what is said when they are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_model import ConfigError, canonical_name, parse

PUBLIC = {"kty": "EC", "kid": "k", "crv": "P-256", "x": "a", "y": "b"}


def jwks(*keys: dict[str, str]) -> str:
    return json.dumps({"keys": list(keys)})


SETTINGS: dict[str, Any] = {
    "node_id": "llm1",
    "port": 8443,
    "listen_addresses": ["0.0.0.0", "::"],
    "server_names": ["llm1", "192.0.2.1"],
    "jwt_issuer": "urn:test",
    "jwt_audiences": ["test"],
    "jwks": jwks(PUBLIC),
}


def test_numbers_given_as_text_are_numbers() -> None:
    gateway = parse({**SETTINGS, "port": "8444", "max_requests": "7"})
    assert (gateway.port, gateway.max_requests) == (8444, 7)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("LLM1.Example.ORG", "llm1.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("FD87:B3D0:0:0:0:0:0:11", "fd87:b3d0::11"),
    ],
)
def test_names_are_brought_into_one_form(given: str, canonical: str) -> None:
    assert canonical_name(given) == canonical


def test_names_that_are_the_same_are_one_name() -> None:
    assert parse({**SETTINGS, "server_names": ["A", "a", "::1", "0::1"]}).server_names == ("a", "::1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": 0}, "gateway_port must be a whole number from 1 to 65535, found 0"),
        ({"port": "https"}, "found 'https'"),
        ({"port": True}, "found True"),
        ({"metrics_port": 8443}, "gateway_port and gateway_metrics_port are both 8443"),
        ({"port": 9901}, "gateway_port and gateway_metrics_port are both 9901"),
        ({"listen_addresses": []}, "gateway_listen_addresses must be a list with at least one entry"),
        ({"listen_addresses": "0.0.0.0"}, "must be a list with at least one entry, found '0.0.0.0'"),
        ({"listen_addresses": ["eth0"]}, "'eth0' is not an IP address"),
        ({"server_names": ["llm1:8443"]}, "'llm1:8443' is neither a host name nor an IP address"),
        ({"server_names": ["*"]}, "'*' is neither"),
        ({"server_names": ["-a"]}, "'-a' is neither"),
        ({"server_names": ["a..b"]}, "'a..b' is neither"),
        ({"server_names": ["a" * 64]}, "is neither"),
        ({"server_names": [""]}, "must hold texts that are not empty"),
        ({"jwt_issuer": ""}, "gateway_jwt_issuer must be"),
        ({"jwt_audiences": []}, "gateway_jwt_audiences must be a list"),
        ({"tls_minimum_version": "1.1"}, "gateway_tls_minimum_version must be '1.3' or '1.2', found '1.1'"),
        ({"jwks": "{}"}, "is not a JSON Web Key Set"),
        ({"jwks": "[1"}, "is not a JSON Web Key Set"),
        ({"jwks": jwks()}, "holds no key"),
        ({"jwks": jwks({"kty": "oct", "kid": "s", "k": "c2VjcmV0"})}, "key s is of type oct"),
        ({"jwks": jwks({**PUBLIC, "d": "private"})}, "key k holds its private part"),
        ({"prot": 1}, "unknown gateway setting prot"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({**SETTINGS, **change})
    assert said in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_secret_key_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({**SETTINGS, "jwks": jwks({"kty": "oct", "kid": "s", "k": "marker"})})
    assert "marker" not in str(refusal.value)


@pytest.mark.parametrize("name", ["port", "server_names", "jwks"])
def test_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"gateway_{name} is missing"):
        parse({key: value for key, value in SETTINGS.items() if key != name})
