"""What a client can and cannot do, asked of a real Envoy that runs our configuration."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_authority, gateway_checks
from cryptography.hazmat.primitives import serialization
from envoy_harness import (
    AUDIENCE,
    BODY_LIMIT,
    SUBJECT,
    Gateway,
    Site,
    free_port,
    head,
    parse_response,
    read_all,
    read_until,
    running,
    wait_for,
)

MODELS, CHAT = "/v1/models", "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gw") / "g") as started:
        yield started


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(site: Site) -> str:
    return f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(site.claims())}."


def signed_with_the_public_key(site: Site) -> str:
    """The old confusion attack: what everybody may know, used as if it were a shared secret."""
    public = site.token_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = json.loads(site.jwks())["keys"][0]["kid"]
    signed = f"{encode({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encode(site.claims())}"
    digest = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def altered(site: Site) -> str:
    header, _claims, signature = site.token().split(".")
    return f"{header}.{encode(site.claims(sub='root'))}.{signature}"


TOKENS: dict[str, tuple[int, Callable[[Site], str]]] = {
    "good": (200, lambda site: site.token()),
    "good, audience in a list": (200, lambda site: site.token(aud=["other", AUDIENCE])),
    "good, of another library": (
        200,
        lambda site: jwt.encode(
            site.claims(), site.token_key, "ES256", headers={"kid": json.loads(site.jwks())["keys"][0]["kid"]}
        ),
    ),
    "none": (401, lambda _site: ""),
    "not a token": (401, lambda _site: "abc"),
    "expired": (401, lambda site: site.token(exp=int(time.time()) - 60)),
    "without an end": (401, lambda site: site.token(exp=None)),
    "not valid yet": (401, lambda site: site.token(nbf=int(time.time()) + 600)),
    "unsigned": (401, unsigned),
    "HS256 with the public key": (401, signed_with_the_public_key),
    "altered payload": (401, altered),
    "of an unknown key": (401, lambda site: site.token(key=gateway_authority.new_token_key())),
    "of another issuer": (401, lambda site: site.token(iss="urn:other")),
    "without issuer": (401, lambda site: site.token(iss=None)),
    "for another audience": (403, lambda site: site.token(aud="other")),
    "without audience": (403, lambda site: site.token(aud=None)),
}


@pytest.mark.parametrize("name", TOKENS)
def test_only_a_valid_token_is_let_in(gateway: Gateway, name: str) -> None:
    status, make = TOKENS[name]
    answer = gateway.request("GET", MODELS, make(gateway.site))
    assert answer.status == status
    if status != 200:
        error = json.loads(answer.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == {401: "invalid_token", 403: "forbidden"}[status]


def test_token_in_the_query_is_not_a_token(gateway: Gateway) -> None:
    assert gateway.request("GET", f"{MODELS}?access_token={gateway.site.token()}").status == 401


ALLOWED = [("GET", MODELS)] + [("POST", path) for path in (CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses")]
REFUSED = [
    *((method, path) for method in ("GET", "POST") for path in ("/", "/metrics", "/health", "/version", "/docs")),
    *((method, path) for path in (MODELS, CHAT) for method in ("PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")),
    ("POST", MODELS),
    ("GET", CHAT),
    ("POST", "/healthz/"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("POST", "/pause"),
    ("POST", "/update_weights"),
    ("POST", "/v1/load_lora_adapter"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/models/stand-in"),
    ("GET", "/V1/models"),
    ("GET", "/v1/../metrics"),
    ("GET", "/v1/models/../../metrics"),
    ("GET", "/v1/%2e%2e/metrics"),
    ("GET", "/v1/models/%2e%2e/%2e%2e/metrics"),
    ("GET", "//metrics"),
    ("GET", "/v1%2fmodels"),
    ("GET", "/v1%5cmodels"),
    ("GET", "/v1/models;/../../metrics"),
    ("GET", "/v1/models%00"),
    ("GET", "/healthz/../metrics"),
    ("GET", "http://localhost/metrics"),
    ("CONNECT", "localhost:22"),
]


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_listed_paths_reach_the_engine(gateway: Gateway, method: str, path: str) -> None:
    assert gateway.request(method, path, gateway.site.token(), b"{}" if method == "POST" else b"").status == 200
    assert gateway.engine.seen[-1][:2] == (method, path)


def test_no_other_path_or_method_reaches_the_engine(gateway: Gateway) -> None:
    before = len(gateway.engine.seen)
    token = gateway.site.token()
    found = {(method, path): gateway.request(method, path, token).status for method, path in REFUSED}
    assert {case: status for case, status in found.items() if status not in (400, 404)} == {}
    assert len(gateway.engine.seen) == before


@pytest.mark.parametrize("path", ["/metrics", "/nothing"])
def test_unknown_path_is_unknown_with_or_without_token(gateway: Gateway, path: str) -> None:
    answers = [gateway.request("GET", path, token) for token in ("", gateway.site.token())]
    assert [answer.status for answer in answers] == [404, 404]
    assert json.loads(answers[0].body)["error"]["code"] == "unknown_url"


def test_health_needs_no_token(gateway: Gateway) -> None:
    answer = gateway.request("GET", "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("evil.example", 421),
        ("localhost:1", 421),
        ("localhost/health?", 400),
        ("a/?x=", 400),
        ("localhost@evil.example", 421),
    ],
)
def test_only_the_names_of_the_gateway_are_served(gateway: Gateway, host: str, status: int) -> None:
    answer = gateway.request("GET", MODELS, gateway.site.token(), headers={"Host": host})
    assert answer.status == status


def smuggled(port: int, *lines: str) -> bytes:
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", f"Host: localhost:{port}", *lines, "", ""]).encode()


SMUGGLING = {
    "length and chunks": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "two lengths": ["Content-Length: 4", "Content-Length: 5"],
    "lengths in a list": ["Content-Length: 4, 5"],
    "signed length": ["Content-Length: +4"],
    "unknown coding": ["Transfer-Encoding: xchunked"],
    "coding after chunks": ["Transfer-Encoding: chunked, identity"],
    "space before the colon": ["Transfer-Encoding : chunked"],
}


def test_ambiguous_requests_are_refused_and_end_the_connection(gateway: Gateway) -> None:
    before = len(gateway.engine.seen)
    token = f"Authorization: Bearer {gateway.site.token()}"
    hidden = b"0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
    with contextlib.ExitStack() as stack:
        # All at a time, since Envoy gives each a second to read its refusal before it closes.
        connections = {name: stack.enter_context(gateway.connect()) for name in SMUGGLING}
        for name, connection in connections.items():
            connection.sendall(smuggled(gateway.port, token, *SMUGGLING[name]) + hidden)
        answers = {name: read_all(connection) for name, connection in connections.items()}
    statuses = {name: (answer.split(b" ")[1], answer.count(b"HTTP/1.1 ")) for name, answer in answers.items()}
    refusals = [(status, 1) for status in (b"400", b"411", b"501")]
    assert {name: found for name, found in statuses.items() if found not in refusals} == {}
    assert len(gateway.engine.seen) == before


def test_header_with_underscore_is_refused(gateway: Gateway) -> None:
    answer = gateway.request("GET", MODELS, gateway.site.token(), headers={"x_bedplate_subject": "root"})
    assert answer.status == 400


def test_engine_sees_who_asks_and_nothing_that_a_client_made_up(gateway: Gateway) -> None:
    claimed = {
        "X-Bedplate-Subject": "root",
        "X-Bedplate-Tenant": "other",
        "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
        "X-Forwarded-For": "203.0.113.9",
        "X-Request-Id": "mine",
        "Forwarded": "for=203.0.113.9",
        "Cookie": "a=b",
        "OpenAI-Organization": "org",
    }
    answer = gateway.request("GET", MODELS, gateway.site.token(), headers=claimed)
    headers = gateway.engine.seen[-1][2]
    assert answer.status == 200
    assert headers["x-bedplate-subject"] == SUBJECT
    assert headers["host"] == "vllm"
    assert headers["x-request-id"] == answer.headers["x-request-id"] != "mine"
    assert "203.0.113.9" not in str(headers)
    forbidden = {"authorization", "cookie", "forwarded", "openai-organization", "x-bedplate-tenant"}
    assert forbidden.isdisjoint(headers)
    assert not [name for name in headers if name.startswith("x-envoy-")]


def test_body_is_bounded_by_its_declared_length(gateway: Gateway) -> None:
    token = gateway.site.token()
    fits = json.dumps({"model": "m" * (BODY_LIMIT - 13)}).encode()
    assert len(fits) == BODY_LIMIT
    assert gateway.request("POST", CHAT, token, fits).status == 200
    assert gateway.request("POST", CHAT, token, fits + b" ").status == 413
    chunked = {"Transfer-Encoding": "chunked", "Authorization": f"Bearer {token}", "Host": "localhost"}
    assert gateway.send(head("POST", CHAT, chunked) + b"2\r\n{}\r\n0\r\n\r\n").status == 411
    assert gateway.request("POST", CHAT, "", fits + b" ").status == 401


def test_stream_arrives_event_by_event(gateway: Gateway) -> None:
    with gateway.open_stream(3) as stream:
        for index in range(3):
            gateway.engine.gate.release()
            # Reading the event before the next one is made is the proof that nothing on the way collects them.
            stream.until(f"data: {index}\n\n")
        stream.until("[DONE]")


def test_drained_engine_gets_no_new_request_and_finishes_the_old_one(gateway: Gateway) -> None:
    with gateway.open_stream(2) as stream:
        gateway.engine.gate.release()
        stream.until("data: 0")
        gateway.set_endpoints()
        try:
            wait_for(lambda: gateway.statistic("cluster.vllm.membership_total") == "0", "draining")
            answer = gateway.request("GET", MODELS, gateway.site.token())
            assert answer.status == 503
            assert answer.headers["retry-after"] == "5"
            assert json.loads(answer.body)["error"]["code"] == "model_unavailable"
            assert gateway.request("GET", "/healthz").status == 200
            gateway.engine.gate.release()
            stream.until("[DONE]")
        finally:
            gateway.set_endpoints(gateway.socket)
            wait_for(lambda: gateway.statistic("cluster.vllm.membership_total") == "1", "return")
    assert gateway.request("GET", MODELS, gateway.site.token()).status == 200


def test_new_keys_count_at_once_even_on_open_connections(gateway: Gateway) -> None:
    site, new_key = gateway.site, gateway_authority.new_token_key()
    old, new = site.token(), site.token(key=new_key)

    def runs(versions: dict[str, str]) -> Callable[[], bool]:
        statistic = next(name for name in versions if "jwt_authn" in name)
        return lambda: gateway.statistic(f"{statistic}.version_text") == f'"{versions[statistic]}"'

    def ask(connection: ssl.SSLSocket, token: str) -> bytes:
        lines = {"Host": "localhost", "Authorization": f"Bearer {token}"}
        connection.sendall(head("GET", MODELS, lines))
        return read_until(connection, b"}").split(b" ")[1]

    with gateway.connect() as connection, gateway.open_stream(1) as stream:
        assert [ask(connection, token) for token in (old, new)] == [b"200", b"401"]
        wait_for(runs(gateway.write_configuration(jwks=site.jwks(site.token_key, new_key))), "overlap")
        assert [ask(connection, token) for token in (old, new)] == [b"200", b"200"]
        wait_for(runs(gateway.write_configuration(jwks=site.jwks(new_key))), "end of the old key")
        assert [ask(connection, token) for token in (old, new)] == [b"401", b"200"]
        wait_for(runs(gateway.write_configuration()), "return")
        gateway.engine.gate.release()
        stream.until("[DONE]")


def test_new_certificate_is_used_without_breaking_a_stream(gateway: Gateway) -> None:
    def serial() -> str:
        with gateway.connect() as connection:
            return str((connection.getpeercert() or {})["serialNumber"])

    before = serial()
    with gateway.open_stream(2) as stream:
        gateway.engine.gate.release()
        stream.until("data: 0")
        gateway.site.write_certificate(Path(gateway.paths.certificates), "second")
        wait_for(lambda: serial() != before, "the new certificate")
        gateway.engine.gate.release()
        stream.until("[DONE]")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"normalize_path": true', '"normalise_path": true'),
        ('"resources": [', '"resources": ]'),
        ('"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"', '"@type": "type.googleapis.com/nothing"'),
    ],
    ids=["unknown field", "not json", "unknown type"],
)
def test_configuration_that_envoy_refuses_leaves_the_old_one_in_service(
    gateway: Gateway, right: str, wrong: str
) -> None:
    listeners = Path(gateway.paths.config) / "lds.json"

    def refusals() -> int:
        names = ("update_rejected", "update_failure")
        return sum(int(gateway.statistic(f"listener_manager.lds.{name}") or 0) for name in names)

    good, before = listeners.read_text(), refusals()
    assert right in good
    gateway.replace(listeners, good.replace(right, wrong))
    try:
        wait_for(lambda: refusals() > before, "the refusal")
        assert gateway.request("GET", MODELS, gateway.site.token()).status == 200
    finally:
        gateway.replace(listeners, good)


def test_older_tls_is_refused(gateway: Gateway) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        gateway.connect(maximum=ssl.TLSVersion.TLSv1_2)


def test_plain_http_gets_no_answer(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 2) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection) == b""


@pytest.mark.parametrize(("path", "status"), [("/stats/prometheus", 200), ("/stats", 404), ("/quitquitquit", 404)])
def test_metrics_port_offers_metrics_only(gateway: Gateway, path: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", gateway.metrics_port), 2) as connection:
        connection.sendall(head("GET", path, {"Host": "x"}))
        assert parse_response(connection).status == status


def test_access_log_says_who_and_what_but_holds_no_secret(gateway: Gateway) -> None:
    token = gateway.site.token()
    answer = gateway.request("POST", f"{CHAT}?key=marker-query", token, b'{"model": "marker-body"}')
    request_id = answer.headers["x-request-id"]
    wait_for(lambda: request_id in gateway.log.read_text(), "the log line")
    text = gateway.log.read_text()
    line = json.loads(next(line for line in text.splitlines() if request_id in line))
    assert (line["subject"], line["method"], line["path"], line["status"]) == (SUBJECT, "POST", CHAT, 200)
    assert line["client"] == "127.0.0.1"
    for secret in ("marker-query", "marker-body", token.split(".")[2]):
        assert secret not in text


def test_probe_finds_everything_in_order(gateway: Gateway) -> None:
    checks = gateway_checks.probe(
        gateway.target, gateway_checks.Expectation(token=gateway.site.token(), model="stand-in")
    )
    assert [check.sentence for check in checks if not check.ok] == []
    assert {"gateway.tls-minimum", "gateway.closed-paths", "gateway.generates", "gateway.streams"} <= {
        check.id for check in checks
    }


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"token": ""}, {"gateway.token"}),
        ({"token": "x.y.z"}, {"gateway.lists-models"}),
        ({"model": "other"}, {"gateway.lists-models"}),
    ],
)
def test_probe_names_what_does_not_hold(gateway: Gateway, change: dict[str, str], broken: set[str]) -> None:
    expected = gateway_checks.Expectation(**{"token": gateway.site.token(), "token_remedy": "Give one.", **change})
    checks = gateway_checks.probe(gateway.target, expected)
    failing = [check for check in checks if not check.ok]
    assert {check.id for check in failing} == broken
    assert all(check.remedy for check in failing)


def test_probe_does_not_trust_another_authority(gateway: Gateway) -> None:
    target = gateway_checks.Target("127.0.0.1", gateway.port, "localhost", Site().authority_pem)
    checks = gateway_checks.probe(target, gateway_checks.Expectation())
    assert [(check.id, check.ok) for check in checks] == [("gateway.certificate-verifies", False)]


def test_probe_says_that_nobody_answers() -> None:
    target = gateway_checks.Target("127.0.0.1", free_port(), "localhost")
    checks = gateway_checks.probe(target, gateway_checks.Expectation())
    assert [(check.id, check.ok) for check in checks] == [("gateway.reachable", False)]


def test_draining_refuses_newcomers_and_waits_for_the_stream(tmp_path: Path) -> None:
    with running(tmp_path / "g", tls_minimum_version="1.2", listen_addresses=["127.0.0.1", "::1"]) as gateway:
        with gateway.connect(maximum=ssl.TLSVersion.TLSv1_2) as old:
            assert old.version() == "TLSv1.2"
        with gateway.open_stream(1) as stream:
            wait_for(lambda: gateway.statistic("http.api.downstream_rq_active") == "1", "the stream")
            assert "drain time is over" in gateway.control("drain", 0.3).stderr
            with pytest.raises(OSError):
                gateway.connect()
            gateway.engine.gate.release()
            stream.until("[DONE]")
        assert gateway.control("drain").stderr == ""


def test_taken_port_is_said_by_the_start(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    gateway = Gateway(tmp_path / "g", Site())
    with socket.create_server(("127.0.0.1", gateway.port)):
        gateway.start()
        try:
            ready = gateway.control("ready", 0.8)
        finally:
            gateway.stop()
    assert ready.returncode == 1
    assert "Address already in use" in ready.stderr
