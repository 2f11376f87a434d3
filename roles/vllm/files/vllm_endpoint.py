# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""When the engine gets requests: installed as /usr/local/libexec/bedplate/vllm-endpoint, called by its unit.

  ready     ExecStartPost, as the engine's user: wait until it answers, lists the model and generates; open its socket
  publish   ExecStartPost, as root: announce the socket to the gateway
  withdraw  ExecStop and ExecStopPost, as root: take it back, before the engine is told to stop

The gateway watches the endpoint file and balances over what it names, so an engine that is not in it gets nothing.
Only `ready` talks to the engine, and it has no right to write that file; what runs as root reads nothing.
Standard library only: it runs with the host's own Python.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The engine's socket is 0600 until it has proved that it works: nobody else can connect earlier.
OPEN_MODE = 0o660
POLL = 0.5
# A start takes minutes, so whoever reads the journal meanwhile sees that somebody waits, and for what.
REPORT_EVERY = 30.0


class NotReadyError(Exception):
    """Why the engine gets no requests, as one sentence."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: str, method: str, url: str, body: dict[str, Any] | None = None, timeout: float = 10.0) -> Any:
    """The engine's answer as data, None when it has no body; NotReadyError with what was said otherwise."""
    connection = _UnixConnection(path, timeout)
    try:
        data = None if body is None else json.dumps(body).encode("utf-8")
        connection.request(method, url, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        said = content[:300].decode("utf-8", "replace")
        raise NotReadyError(f"{method} {url} answers {response.status}: {said}")
    try:
        return json.loads(content) if content.strip() else None
    except ValueError:
        return None


def listed_models(path: str) -> Any:
    answer = call(path, "GET", "/v1/models")
    return [model.get("id") for model in (answer or {}).get("data", [])]


def generate(path: str, model: str, prompt: str, max_tokens: int, timeout: float) -> int:
    """How many tokens the engine generated for one request."""
    request = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
    answer = call(path, "POST", "/v1/completions", request, timeout)
    return int(((answer or {}).get("usage") or {}).get("completion_tokens") or 0)


def is_running(pid: int) -> bool:
    """By signal 0 and not by /proc, where the sandbox hides other processes even of the same user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Deadline:
    """One time limit over several steps, each of which reports what it waits for."""

    def __init__(self, seconds: float, main_pid: int, say: Callable[[str], None]) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._main_pid = main_pid
        self._say = say
        self._last_report = time.monotonic()

    def left(self) -> float:
        return max(0.1, self._end - time.monotonic())

    def check(self, waiting_for: str) -> None:
        """NotReadyError when the time is over or the engine's main process is gone."""
        if self._main_pid and not is_running(self._main_pid):
            raise NotReadyError(f"the engine ended while waiting for {waiting_for}; its own lines above say why.")
        now = time.monotonic()
        if now >= self._end:
            raise NotReadyError(
                f"after {self._seconds:.0f} s still waiting for {waiting_for}; if the engine is only slow, raise"
                " vllm_start_timeout."
            )
        if now - self._last_report >= REPORT_EVERY:
            self._last_report = now
            self._say(f"waiting for {waiting_for}, {self._end - now:.0f} s left.")


def wait_until_healthy(path: str, deadline: Deadline) -> None:
    while True:
        deadline.check("the engine's socket to answer")
        try:
            call(path, "GET", "/health", timeout=min(10.0, deadline.left()))
        except (NotReadyError, OSError, http.client.HTTPException):
            time.sleep(POLL)
        else:
            return


def wait_until_listed(path: str, model: str, deadline: Deadline) -> None:
    """The list may lag behind health by a moment, so an empty one is asked for again, another name is an error."""
    while True:
        deadline.check(f"model {model} to be listed")
        models = listed_models(path)
        if model in models:
            return
        if models:
            raise NotReadyError(f"the engine lists {', '.join(map(str, models))} and not {model}.")
        time.sleep(POLL)


def warm_up(path: str, model: str, requests: int, deadline: Deadline) -> int:
    """Send `requests` requests of growing length, so that no client pays for what the first one compiles."""
    tokens = 0
    for number in range(requests):
        deadline.check(f"warm-up request {number + 1} of {requests}")
        tokens += generate(path, model, "warm up " * (1 + 8 * number), 8, deadline.left())
    return tokens


def ready(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    deadline = Deadline(arguments.timeout, arguments.main_pid, say)
    wait_until_healthy(arguments.socket, deadline)
    wait_until_listed(arguments.socket, arguments.model, deadline)
    warm_up(arguments.socket, arguments.model, arguments.warmup_requests, deadline)
    deadline.check("one generated token")
    if generate(arguments.socket, arguments.model, "Hello", 1, deadline.left()) < 1:
        raise NotReadyError(f"model {arguments.model} answered a request for one token with none.")
    Path(arguments.socket).chmod(OPEN_MODE)
    say(f"model {arguments.model} generates, {time.monotonic() - started:.0f} s after the start.")


def discovery(socket_path: str | None) -> dict[str, Any]:
    """Envoy's endpoint discovery response for cluster vllm: one local endpoint, or none."""
    address = {"pipe": {"path": socket_path}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}] if socket_path else []
    resource = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "vllm",
        "endpoints": endpoints,
    }
    version = hashlib.sha256(json.dumps(resource, sort_keys=True).encode("utf-8")).hexdigest()[:12]
    return {"version_info": version, "resources": [resource]}


def write(path: Path, socket_path: str | None) -> bool:
    """Replace the endpoint file by a rename, which is what the gateway watches for; whether that was needed."""
    content = json.dumps(discovery(socket_path), sort_keys=True) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return False
    handle, name = tempfile.mkstemp(prefix=".vllm-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    return True


def withdraw(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    if write(arguments.endpoint_file, None):
        say("the engine is out of the gateway.")
        # Requests that the gateway had already routed reach the engine before it is told to stop.
        time.sleep(arguments.settle)


def publish(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    write(arguments.endpoint_file, arguments.socket)
    say("the engine is in the gateway.")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm-endpoint", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="ready|publish|withdraw")
    one = commands.add_parser("ready", allow_abbrev=False)
    one.set_defaults(run=ready)
    one.add_argument("--socket", required=True)
    one.add_argument("--model", required=True)
    one.add_argument("--warmup-requests", type=int, default=0)
    one.add_argument("--timeout", type=float, required=True, help="seconds for all steps together")
    one.add_argument("--main-pid", type=int, default=0)
    one = commands.add_parser("publish", allow_abbrev=False)
    one.set_defaults(run=publish)
    one.add_argument("--socket", required=True)
    one.add_argument("--endpoint-file", type=Path, required=True)
    one = commands.add_parser("withdraw", allow_abbrev=False)
    one.set_defaults(run=withdraw)
    one.add_argument("--endpoint-file", type=Path, required=True)
    one.add_argument("--settle", type=float, default=0.0, help="seconds to wait when the engine was in the gateway")
    return parser.parse_args(argv)


def main() -> int:
    arguments = parse()

    def say(text: str) -> None:
        sys.stderr.write(f"vllm-endpoint: {text}\n")

    try:
        arguments.run(arguments, say)
    except (NotReadyError, OSError, http.client.HTTPException) as error:
        say(f"not ready: {error or type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
