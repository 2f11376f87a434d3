# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold for a gateway as a client sees it, asked over the network."""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from typing import Callable, Iterator

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_client import (
    Answer,
    Connection,
    Target,
    ask,
    events,
    send,
    tls_context,
)

# A sample of what an engine offers without asking for a key, and of ways to reach it around a filter.
CLOSED_PATHS = (
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/tokenize"),
    ("POST", "/invocations"),
    ("POST", "/pause"),
    ("POST", "/update_weights"),
    ("POST", "/v1/load_lora_adapter"),
    ("GET", "/v1/../metrics"),
    ("GET", "//metrics"),
    ("GET", "/v1/models/../../metrics"),
    ("POST", "/v1/models"),
    ("OPTIONS", "/v1/chat/completions"),
    ("TRACE", "/v1/models"),
)

CERTIFICATE_DAYS_LEFT = 14
MALFORMED_TOKEN = "not.a.token"  # noqa: S105
NETWORK_ERRORS = (OSError, http.client.HTTPException)
_GENERATED_TOKENS = 8


@dataclass(frozen=True)
class Expectation:
    """What the inventory says about the gateway. generation_timeout is in seconds."""

    tls_minimum_version: str = "1.3"
    token: str = ""
    token_remedy: str = ""
    model: str = ""
    generation_timeout: float = 120.0


def check(identity: str, ok: bool, reason: str, remedy: str = "") -> Check:
    return Check(f"gateway.{identity}", ok, reason, remedy)


def tls_checks(target: Target, expected: Expectation, connection: Connection, now: float) -> Iterator[Check]:
    """Opens the connection that the checks after these use."""
    where = f"{target.address}:{target.port}"
    try:
        secured = connection.handshake()
    except ssl.SSLCertVerificationError as error:
        remedy = (
            "Roll the gateway role out again, which renews the certificate; check gateway_server_names and the clock."
        )
        yield check("certificate-verifies", False, f"{target.server_name} at {where}: {error.verify_message}.", remedy)
        return
    except NETWORK_ERRORS as error:
        yield check(
            "reachable",
            False,
            f"{where} does not answer with TLS: {error}.",
            "See that bedplate-gateway.service runs and that gateway_client_networks holds this machine's network.",
        )
        return
    certificate = secured.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now) / 86400
    yield check("reachable", True, f"{where} answers with {secured.version()}.")
    yield check(
        "certificate-verifies", True, f"The certificate is for {target.server_name} and of the trusted authority."
    )
    yield check(
        "certificate-lifetime",
        days > CERTIFICATE_DAYS_LEFT,
        f"The certificate is valid for another {days:.0f} days.",
        "Roll the gateway role out again, which renews it; a certificate of your own you replace yourself.",
    )
    if expected.tls_minimum_version == "1.3":
        yield old_tls_check(target)


def old_tls_check(target: Target) -> Check:
    context = tls_context(target)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = Connection(target, context)
    try:
        connection.connect()
    except NETWORK_ERRORS:
        return check("tls-minimum", True, "TLS 1.2 is refused.")
    finally:
        connection.close()
    return check("tls-minimum", False, "TLS 1.2 is accepted.", "Roll the gateway role out again and see its listener.")


def refusal_checks(get: Callable[..., Answer], expected: Expectation) -> Iterator[Check]:
    health = get("GET", "/healthz")
    yield check("health", health.status == 200, f"/healthz answers {health.status}.", "See the gateway's journal.")
    remedy = "This must never happen: take the gateway off the network and report it."
    for identity, token, what in (
        ("rejects-no-token", "", "no token"),
        ("rejects-malformed-token", MALFORMED_TOKEN, "a malformed token"),
    ):
        status = get("GET", "/v1/models", token).status
        yield check(identity, status == 401, f"/v1/models with {what} answers {status}, expected is 401.", remedy)
    # With a valid token when there is one: that is the stronger statement.
    found = [(method, path, get(method, path, expected.token).status) for method, path in CLOSED_PATHS]
    opened = [f"{method} {path} answers {status}" for method, path, status in found if status not in (400, 404)]
    reason = f"{len(found)} requests outside the allowlist are refused." if not opened else "; ".join(opened) + "."
    yield check("closed-paths", not opened, reason, remedy)


def _said(answer: Answer) -> str:
    return f"answers {answer.status}: {answer.body[:200].decode('utf-8', 'replace').strip()}"


def _models(answer: Answer) -> list[str]:
    document = answer.json()
    entries = document.get("data", []) if isinstance(document, dict) else []
    return [str(entry.get("id", "")) for entry in entries if isinstance(entry, dict)]


def serving_checks(expected: Expectation, connection: Connection) -> Iterator[Check]:
    yield check(
        "token",
        bool(expected.token),
        "There is a token to ask with." if expected.token else "There is no token, so answers could not be checked.",
        expected.token_remedy,
    )
    if not expected.token:
        return
    listing = ask(connection, "GET", "/v1/models", expected.token)
    models = _models(listing)
    ok = listing.status == 200 and bool(models) and (not expected.model or expected.model in models)
    reason = f"/v1/models lists {', '.join(models)}." if models else f"/v1/models {_said(listing)}."
    remedy = {
        401: "The token is refused: see gateway_jwt_issuer, gateway_jwt_audiences, the key set and the clocks.",
        403: "The token is for another audience: see gateway_jwt_audiences.",
        503: "The engine is not ready: see bedplate-vllm.service.",
    }.get(listing.status, "See vllm_served_model_name and the engine's journal.")
    yield check("lists-models", ok, reason, remedy)
    if ok:
        yield from generation_checks(expected, connection, expected.model or models[0])


def generation_checks(expected: Expectation, connection: Connection, model: str) -> Iterator[Check]:
    request = {
        "model": model,
        "messages": [{"role": "user", "content": "Say one word."}],
        "max_tokens": _GENERATED_TOKENS,
    }
    path, remedy = "/v1/chat/completions", "See the engine's journal."
    if connection.sock:
        connection.sock.settimeout(expected.generation_timeout)
    started = time.monotonic()
    answer = ask(connection, "POST", path, expected.token, request)
    document = answer.json()
    tokens = document.get("usage", {}).get("completion_tokens", 0) if isinstance(document, dict) else 0
    took = time.monotonic() - started
    ok = answer.status == 200 and tokens > 0
    reason = f"{model} generated {tokens} tokens in {took:.2f} s." if ok else f"{path} {_said(answer)}."
    yield check("generates", ok, reason, remedy)
    response = send(connection, "POST", path, expected.token, {**request, "stream": True})
    chunks = list(events(response))
    ok = response.status == 200 and len(chunks) > 1 and chunks[-1] == "[DONE]"
    reason = (
        f"{model} streamed {len(chunks)} events."
        if ok
        else f"the stream answers {response.status}, then {chunks[-1:]}."
    )
    yield check("streams", ok, reason, remedy)


def probe(target: Target, expected: Expectation) -> list[Check]:
    """Every check that can be made; a connection that breaks ends the list with a check that says so."""
    connection = Connection(target, tls_context(target))

    def get(method: str, path: str, token: str = "") -> Answer:
        return ask(connection, method, path, token)

    def stages() -> Iterator[Check]:
        yield from tls_checks(target, expected, connection, time.time())
        if connection.sock:
            yield from refusal_checks(get, expected)
            yield from serving_checks(expected, connection)

    found: list[Check] = []
    try:
        for item in stages():
            found.append(item)
    except NETWORK_ERRORS as error:
        remedy = "See the gateway's and the engine's journals for the same moment."
        found.append(check("answers", False, f"The connection broke: {type(error).__name__}: {error}.", remedy))
    finally:
        connection.close()
    return found
