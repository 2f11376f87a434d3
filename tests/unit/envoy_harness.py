"""A real Envoy with our configuration in front of a stand-in engine on a Unix socket, for the tests of the gateway."""

from __future__ import annotations

import datetime
import http.server
import json
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import envoy as envoy_wheel
from ansible_collections.bedplate.llm.plugins.module_utils import (
    envoy,
    envoy_model,
    gateway_authority,
    gateway_jwt,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_client import Target

ENVOY = Path(envoy_wheel.__file__).parent / "_bin" / "envoy"
CONTROL = Path(__file__).parents[2] / "roles/gateway/files/gateway_control.py"
ISSUER, AUDIENCE, SUBJECT = "urn:test:issuer", "test-audience", "alice"
BODY_LIMIT = 4096
PATIENCE = 5.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.02)


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """What the tests need of vLLM: it lists a model, echoes a request, and streams one event for every `release()`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.seen: list[tuple[str, str, Mapping[str, str]]] = []
        self.gate = threading.Semaphore(0)
        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def log_message(self, *arguments: object) -> None:
        pass

    def address_string(self) -> str:
        return "socket"

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def note(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))

    def do_GET(self) -> None:
        self.note()
        self.answer({"object": "list", "data": [{"id": "stand-in"}]})

    def do_POST(self) -> None:
        self.note()
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if request.get("stream"):
            self.stream(int(request.get("gated", 0)))
        else:
            self.answer({"model": request.get("model"), "usage": {"completion_tokens": 3}})

    def stream(self, gated: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index in range(gated or 2):
            if gated:
                self.server.gate.acquire(timeout=PATIENCE)
            self.chunk(f"data: {index}\n\n")
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """Keys of a site as the project makes them, in memory."""

    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def __post_init__(self) -> None:
        self.authority_key = gateway_authority.new_authority_key()
        self.authority = gateway_authority.make_authority(self.authority_key, self.now)
        self.authority_pem = gateway_authority.certificate_pem(self.authority).decode()
        self.token_key = gateway_authority.new_token_key()

    def jwks(self, *keys: Any) -> str:
        return json.dumps({"keys": [gateway_jwt.public_jwk(key.public_key()) for key in keys or (self.token_key,)]})

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + 300, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: Any = None, **changes: Any) -> str:
        return gateway_jwt.sign(key or self.token_key, self.claims(**changes))

    def write_certificate(self, directory: Path, name: str) -> None:
        """A fresh key and certificate, put into use as the gateway_certificate module does: by replacing a link."""
        generation = directory / name
        generation.mkdir(parents=True)
        key = generation / "server.key"
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key],
            check=True,
            capture_output=True,
        )
        request = subprocess.run(
            ["openssl", "req", "-new", "-key", key, "-subj", "/CN=localhost"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        signed = gateway_authority.sign_request(
            self.authority, self.authority_key, request, ["localhost", "127.0.0.1", "::1"], 90, self.now
        )
        (generation / "server.crt").write_bytes(gateway_authority.certificate_pem(signed))
        link = directory / "current.new"
        link.symlink_to(name)
        link.replace(directory / "current")


class Stream:
    """An answer that is read as it arrives."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        self.pending = b""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *arguments: object) -> None:
        self.connection.close()

    def until(self, marker: str) -> None:
        while marker.encode() not in self.pending:
            piece = self.connection.recv(65536)
            assert piece, f"the stream ended before {marker!r}, after {self.pending!r}"
            self.pending += piece
        self.pending = self.pending.split(marker.encode(), 1)[1]


class Gateway:
    """A running Envoy; `settings` are those of the role."""

    def __init__(self, root: Path, site: Site, **settings: Any) -> None:
        self.root, self.site = root, site
        self.port, self.metrics_port = free_port(), free_port()
        self.paths = envoy_model.Paths(
            *(str(root / part) for part in ("etc", "etc/tls", "endpoints", "admin.sock"))  # type: ignore[arg-type]
        )
        for directory in ("etc/tls", "endpoints"):
            (root / directory).mkdir(parents=True)
        self.socket = root / "engine.sock"
        self.engine = Engine(self.socket)
        self.settings = {
            "node_id": "test",
            "port": self.port,
            "listen_addresses": ["127.0.0.1"],
            "server_names": ["localhost", "127.0.0.1", "::1"],
            "jwt_issuer": ISSUER,
            "jwt_audiences": [AUDIENCE],
            "jwks": site.jwks(),
            "metrics_port": self.metrics_port,
            "request_body_max_bytes": BODY_LIMIT,
            **settings,
        }
        site.write_certificate(root / "etc/tls", "first")
        self.set_endpoints(self.socket)
        self.versions = self.write_configuration()
        self.log = root / "envoy.log"
        self.process: subprocess.Popen[bytes] | None = None

    def replace(self, path: Path, text: str) -> None:
        """By a rename, as everything that Envoy follows is written."""
        new = path.with_name(".new")
        new.write_text(text)
        new.replace(path)

    def write_configuration(self, **changes: Any) -> dict[str, str]:
        rendered = envoy.render(envoy_model.parse({**self.settings, **changes}, self.paths))
        for path, text in rendered.files.items():
            self.replace(Path(path), text)
        return rendered.versions

    def set_endpoints(self, *sockets: Path) -> None:
        line = envoy.endpoints_line(str(path) for path in sockets)
        self.replace(Path(self.paths.endpoint_file), line + "\n")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(ENVOY),
                    "--config-path",
                    f"{self.paths.config}/bootstrap.json",
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "--reject-unknown-dynamic-fields",
                    "--drain-strategy",
                    "immediate",
                    "--file-flush-interval-msec",
                    "50",
                    "--log-level",
                    "warning",
                ],
                stdout=log,
                stderr=log,
            )

    def control(self, action: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        command = ["python3", str(CONTROL), action, self.paths.admin_socket, str(seconds)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE)
        self.engine.shutdown()
        self.engine.server_close()

    def admin(self, url: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.paths.admin_socket)
            connection.sendall(head("GET", url, {"Host": "x"}))
            return parse_response(connection).body.decode()

    def statistic(self, name: str) -> str:
        return self.admin(f"/stats?filter=^{name}$").partition(": ")[2].strip()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port, "localhost", self.site.authority_pem, PATIENCE)

    def connect(self, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=self.site.authority_pem)
        context.maximum_version = maximum
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return context.wrap_socket(plain, server_hostname="localhost")

    def send(self, raw: bytes) -> Response:
        """The answer to exactly these bytes."""
        with self.connect() as connection:
            connection.sendall(raw)
            return parse_response(connection, has_body=not raw.startswith(b"HEAD"))

    def request(
        self, method: str, path: str, token: str = "", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        lines = {"Host": f"localhost:{self.port}", **(headers or {})}
        if token:
            lines["Authorization"] = f"Bearer {token}"
        if body or method == "POST":
            lines.setdefault("Content-Length", str(len(body)))
        return self.send(head(method, path, lines) + body)

    def open_stream(self, events: int) -> Stream:
        """A request under way whose answer is `events` events, each sent when the engine's gate is released."""
        connection = self.connect()
        body = json.dumps({"stream": True, "gated": events}).encode()
        lines = {
            "Host": f"localhost:{self.port}",
            "Authorization": f"Bearer {self.site.token()}",
            "Content-Length": str(len(body)),
        }
        connection.sendall(head("POST", "/v1/chat/completions", lines) + body)
        return Stream(connection)


def head(method: str, path: str, lines: Mapping[str, str]) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode()


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def read_until(connection: socket.socket, marker: bytes) -> bytes:
    found = b""
    while marker not in found:
        piece = connection.recv(65536)
        assert piece, f"the connection ended before {marker!r}, after {found!r}"
        found += piece
    return found


def parse_response(connection: socket.socket, has_body: bool = True) -> Response:
    """One answer, of which Envoy's own and the stand-in's declare the length or come in chunks."""
    start, body = read_until(connection, b"\r\n\r\n").split(b"\r\n\r\n", 1)
    first, *lines = start.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while has_body and len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    if has_body and headers.get("transfer-encoding") == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        body = b"".join(re.split(rb"\r?\n?[0-9a-f]+\r\n", body))
    return Response(int(first.split()[1]), body, headers)


@contextmanager
def running(root: Path, **settings: Any) -> Iterator[Gateway]:
    # Unix sockets have short names: 108 bytes, which pytest's own directories may exceed.
    shutil.rmtree(root, ignore_errors=True)
    Path(root).mkdir(parents=True)
    gateway = Gateway(root, Site(), **settings)
    gateway.start()
    try:
        ready = gateway.control("ready")
        assert ready.returncode == 0, ready.stderr + gateway.log.read_text()
        yield gateway
    finally:
        gateway.stop()
