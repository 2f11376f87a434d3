"""The helper that decides when the engine gets requests, against a server on a real Unix socket."""

from __future__ import annotations

import json
import os
import socketserver
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import envoy

HELPER = Path(__file__).parents[2] / "roles/vllm/files/vllm_endpoint.py"


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Stands in for the engine's API. What it answers is set by the test; what it was asked is kept."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.models = ["r1"]
        self.tokens_given = True
        self.healthy_after = 0.0
        self.completions: list[dict[str, Any]] = []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200 if time.monotonic() >= self.server.healthy_after else 503, None)
        elif self.path == "/v1/models":
            self._answer(200, {"data": [{"id": model} for model in self.server.models]})
        else:
            self._answer(404, None)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.completions.append(request)
        tokens = request["max_tokens"] if self.server.tokens_given else 0
        self._answer(200, {"usage": {"completion_tokens": tokens}})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    old = os.umask(0o077)
    server = Engine(tmp_path / "api.sock")
    os.umask(old)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def helper(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(HELPER), *arguments], capture_output=True, text=True, timeout=30)


def ready(tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return helper("ready", "--socket", str(tmp_path / "api.sock"), "--model", "r1", "--timeout", "3", *more)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_ready_warms_the_engine_up_and_then_opens_its_socket(engine: Engine, tmp_path: Path) -> None:
    assert mode(tmp_path / "api.sock") & 0o077 == 0
    done = ready(tmp_path, "--warmup-requests", "2")
    assert done.returncode == 0, done.stderr
    assert "model r1 generates" in done.stderr
    assert mode(tmp_path / "api.sock") == 0o660
    # Two warm-ups of growing length, then the one token that is the proof.
    assert [request["max_tokens"] for request in engine.completions] == [8, 8, 1]
    assert len(engine.completions[0]["prompt"]) < len(engine.completions[1]["prompt"])


def test_ready_waits_for_an_engine_that_is_not_healthy_yet(engine: Engine, tmp_path: Path) -> None:
    engine.healthy_after = time.monotonic() + 1
    assert ready(tmp_path).returncode == 0


def test_ready_gives_up_at_its_time_limit_and_says_what_it_waited_for(tmp_path: Path) -> None:
    done = helper("ready", "--socket", str(tmp_path / "none"), "--model", "r1", "--timeout", "1")
    assert done.returncode == 1
    assert "not ready: after 1 s still waiting for the engine's socket to answer" in done.stderr
    assert "vllm_start_timeout" in done.stderr


def test_ready_does_not_wait_for_an_engine_that_has_ended(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    started = time.monotonic()
    done = helper(
        *["ready", "--socket", str(tmp_path / "none"), "--model", "r1", "--timeout", "20", "--main-pid", str(gone.pid)]
    )
    assert done.returncode == 1
    assert time.monotonic() - started < 5
    assert "not ready: the engine ended while waiting for" in done.stderr


def test_an_engine_that_lists_another_model_stays_closed(engine: Engine, tmp_path: Path) -> None:
    engine.models = ["other"]
    done = ready(tmp_path)
    assert done.returncode == 1
    assert "not ready: the engine lists other and not r1." in done.stderr
    assert mode(tmp_path / "api.sock") & 0o077 == 0


def test_an_engine_that_generates_nothing_stays_closed(engine: Engine, tmp_path: Path) -> None:
    engine.tokens_given = False
    done = ready(tmp_path)
    assert done.returncode == 1
    assert "answered a request for one token with none" in done.stderr
    assert mode(tmp_path / "api.sock") & 0o077 == 0


def announced(path: Path) -> list[str]:
    """The sockets that the gateway would send requests to."""
    (resource,) = json.loads(path.read_text())["resources"]
    assert resource["cluster_name"] == "vllm"
    return [
        one["endpoint"]["address"]["pipe"]["path"] for place in resource["endpoints"] for one in place["lb_endpoints"]
    ]


def test_publish_and_withdraw_replace_the_endpoint_file(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    assert helper("publish", "--socket", "/run/a.sock", "--endpoint-file", str(file)).returncode == 0
    assert announced(file) == ["/run/a.sock"]
    assert mode(file) == 0o644
    first = file.stat().st_ino
    assert helper("withdraw", "--endpoint-file", str(file)).returncode == 0
    assert announced(file) == []
    assert file.stat().st_ino != first, "the gateway notices a rename, not a write"
    assert list(tmp_path.iterdir()) == [file]


def test_withdraw_waits_only_when_the_engine_was_announced(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    helper("publish", "--socket", "/run/a.sock", "--endpoint-file", str(file))
    for announced_before, at_least, at_most in ((True, 1.0, 5.0), (False, 0.0, 1.0)):
        started = time.monotonic()
        helper("withdraw", "--settle", "1", "--endpoint-file", str(file))
        assert at_least <= time.monotonic() - started <= at_most, announced_before


@pytest.mark.parametrize("socket", ["/run/bedplate-vllm/api.sock", None])
def test_the_gateway_reads_the_file_as_it_would_write_it(tmp_path: Path, socket: str | None) -> None:
    file = tmp_path / "vllm.yaml"
    if socket:
        helper("publish", "--socket", socket, "--endpoint-file", str(file))
    else:
        helper("withdraw", "--endpoint-file", str(file))
    assert json.loads(file.read_text())["resources"] == envoy.endpoints([socket] if socket else [])["resources"]


def test_a_directory_that_is_missing_is_said(tmp_path: Path) -> None:
    done = helper("withdraw", "--endpoint-file", str(tmp_path / "none/vllm.yaml"))
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
