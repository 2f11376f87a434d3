# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a gateway is: the one typed model from which every Envoy document is rendered.

`parse` turns the role's variables into it and refuses, in one sentence, what Envoy would refuse later or, worse,
accept.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, fields
from typing import Any, Mapping, Sequence


class ConfigError(ValueError):
    """The settings are not sound; the message is one sentence for the user."""


@dataclass(frozen=True)
class Paths:
    """Where things are on the host. Tests render the same documents for another root."""

    config: str = "/etc/bedplate/gateway"
    certificates: str = "/etc/bedplate/gateway/tls"
    endpoints: str = "/run/bedplate-endpoints"
    admin_socket: str = "/run/bedplate-gateway/admin.sock"

    @property
    def endpoint_file(self) -> str:
        return f"{self.endpoints}/{UPSTREAM}.yaml"


DEFAULT_PATHS = Paths()

# The cluster's name in Envoy, which is also the name of the endpoint file that the engine's role writes.
UPSTREAM = "vllm"


@dataclass(frozen=True)
class Endpoint:
    """One path with the one method that it is reachable by."""

    path: str
    method: str


# Everything that a client reaches in the engine. An engine offers far more (tokenize, pause, update_weights, metrics);
# what is not here does not exist for a client.
ENDPOINTS = (
    Endpoint("/v1/models", "GET"),
    Endpoint("/v1/chat/completions", "POST"),
    Endpoint("/v1/completions", "POST"),
    Endpoint("/v1/embeddings", "POST"),
    Endpoint("/v1/responses", "POST"),
)

TLS_VERSIONS = {"1.2": "TLSv1_2", "1.3": "TLSv1_3"}


@dataclass(frozen=True)
class Gateway:
    """Units: seconds, bytes unless the name says otherwise."""

    node_id: str
    port: int
    listen_addresses: tuple[str, ...]
    server_names: tuple[str, ...]
    jwt_issuer: str
    jwt_audiences: tuple[str, ...]
    jwks: str
    tls_minimum_version: str = "1.3"
    metrics_port: int = 9901
    request_body_max_bytes: int = 16 * 1024 * 1024
    request_timeout: int = 60
    stream_idle_timeout: int = 600
    max_connections: int = 4096
    max_requests: int = 1024
    memory_max_mib: int = 1024
    paths: Paths = DEFAULT_PATHS


_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


def canonical_name(value: str) -> str:
    """A host name in lower case, or an address in its shortest form; ConfigError for anything else."""
    try:
        return ipaddress.ip_address(value).compressed
    except ValueError:
        pass
    if len(value) > 253 or not _NAME.fullmatch(value.lower()):
        raise ConfigError(
            f"gateway_server_names: {value!r} is neither a host name nor an IP address; "
            "use letters, digits, hyphens and dots, or an address, without a port."
        )
    return value.lower()


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_jwks(text: str) -> str:
    """The key set in one canonical form; refuses what would make anybody who can read it able to sign tokens."""
    try:
        keys = json.loads(text)["keys"]
        kinds = [(str(key["kty"]), str(key.get("kid", "?")), set(key)) for key in keys]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            'gateway_jwt_jwks_file is not a JSON Web Key Set; it must hold {"keys": [...]}, the issuer\'s public keys.'
        ) from None
    if not kinds:
        raise ConfigError("gateway_jwt_jwks_file holds no key, so no token would be accepted; export the issuer's.")
    for kind, kid, members in kinds:
        if kind not in ("EC", "RSA", "OKP"):
            raise ConfigError(f"gateway_jwt_jwks_file: key {kid} is of type {kind}; use public keys: EC, RSA or OKP.")
        if "d" in members:
            raise ConfigError(
                f"gateway_jwt_jwks_file: key {kid} holds its private part; replace this key and export the public set."
            )
    return json.dumps({"keys": keys}, sort_keys=True, separators=(",", ":"))


def _whole(settings: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = settings[name]
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise ConfigError(f"gateway_{name} must be a whole number from {low} to {high}, found {value!r}.")
    return number


def _texts(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = settings[name]
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(f"gateway_{name} must be a list with at least one entry, found {value!r}.")
    if not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f"gateway_{name} must hold texts that are not empty, found {list(value)!r}.")
    return tuple(dict.fromkeys(str(item) for item in value))


def _addresses(settings: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for item in _texts(settings, "listen_addresses"):
        try:
            found.append(ipaddress.ip_address(item).compressed)
        except ValueError:
            raise ConfigError(
                f"gateway_listen_addresses: {item!r} is not an IP address; use 0.0.0.0, :: or one of the host's."
            ) from None
    return tuple(found)


_LIMITS = {
    "port": (1, 65535),
    "metrics_port": (1, 65535),
    "request_body_max_bytes": (1024, 1 << 32),
    "request_timeout": (1, 3600),
    "stream_idle_timeout": (1, 86400),
    "max_connections": (1, 1_000_000),
    "max_requests": (1, 1_000_000),
    "memory_max_mib": (128, 65536),
}


def parse(settings: Mapping[str, Any], paths: Paths = DEFAULT_PATHS) -> Gateway:
    """The model from the role's variables, named without their `gateway_` prefix."""
    given = dict(settings)
    known = {field.name for field in fields(Gateway)} - {"paths"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"unknown gateway setting {unknown[0]}; known are {', '.join(sorted(known))}.")
    for name in ("node_id", "port", "listen_addresses", "server_names", "jwt_issuer", "jwt_audiences", "jwks"):
        if name not in given:
            raise ConfigError(f"gateway_{name} is missing.")
    numbers = {name: _whole(given, name, *limits) for name, limits in _LIMITS.items() if name in given}
    if numbers["port"] == numbers.get("metrics_port", Gateway.metrics_port):
        raise ConfigError(
            f"gateway_port and gateway_metrics_port are both {numbers['port']}; give them different ports."
        )
    minimum = str(given.get("tls_minimum_version", Gateway.tls_minimum_version))
    if minimum not in TLS_VERSIONS:
        raise ConfigError(f"gateway_tls_minimum_version must be '1.3' or '1.2', found {minimum!r}.")
    issuer = given["jwt_issuer"]
    if not isinstance(issuer, str) or not issuer:
        raise ConfigError(f"gateway_jwt_issuer must be the 'iss' value of the tokens, found {issuer!r}.")
    return Gateway(
        node_id=str(given["node_id"]),
        listen_addresses=_addresses(given),
        server_names=tuple(dict.fromkeys(canonical_name(name) for name in _texts(given, "server_names"))),
        jwt_issuer=issuer,
        jwt_audiences=_texts(given, "jwt_audiences"),
        jwks=check_jwks(given["jwks"]),
        tls_minimum_version=minimum,
        paths=paths,
        **numbers,
    )
