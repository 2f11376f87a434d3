"""Start an engine exactly as the vllm role's unit would, on a machine with a GPU, and write down what happens.

    python3 start.py engine.json result.json      # engine.json: made by render.yml

What the unit does is done here by hand, with the unit's own helper: start, wait until it generates, announce it to the
gateway, take it out, SIGTERM with a stream under way.  What systemd adds, the sandbox, is not there.
Standard library only.  Seconds are wall time; sizes are as the engine's log or nvidia-smi states them.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELPER = Path(__file__).resolve().parents[3] / "roles/vllm/files/vllm_endpoint.py"
FACTS = {
    "weights": r"Model loading took ([0-9.]+ GiB)",
    "kv_memory": r"Available KV cache memory: ([0-9.]+ GiB)",
    "kv_tokens": r"GPU KV cache size: ([0-9,]+) tokens",
    "graphs": r"Graph capturing finished in [0-9]+ secs, took ([0-9.]+ GiB)",
    "attention": r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend",
    "engine": r"vLLM API server version ([^\s]+)",
}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def stream(plan: dict[str, Any], tokens: int) -> Iterator[str]:
    """The data lines of a streamed chat completion."""
    connection = UnixConnection(plan["socket"])
    ask = {
        "model": plan["model"],
        "messages": [{"role": "user", "content": "What is a bedplate?"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection.request("POST", "/v1/chat/completions", json.dumps(ask), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"start: the engine answers {response.status}: {response.read()[:500]!r}")
    for line in response:
        if line.startswith(b"data: "):
            yield line[6:].decode().strip()


def helper(*arguments: str, engine: subprocess.Popen[bytes] | None = None) -> None:
    """The unit's own helper; like systemd, it is ended when the engine ends first."""
    running = subprocess.Popen([sys.executable, str(HELPER), *arguments])
    while running.poll() is None:
        if engine and engine.poll() is not None:
            running.kill()
            sys.exit(f"start: the engine ended with {engine.returncode} before it was ready")
        time.sleep(0.1)
    if running.returncode:
        sys.exit(f"start: vllm-endpoint {arguments[0]} ended with {running.returncode}")


def environment(plan: dict[str, Any]) -> dict[str, str]:
    """What systemd would give, and where this machine keeps the driver's libraries and the engine's packages."""
    here = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    return {**here, **{name: str(value) for name, value in plan["environment"].items()}}


def gpu() -> dict[str, str]:
    asked = "name,driver_version,memory.total,memory.used"
    out = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True, check=True
    )
    return dict(zip(asked.split(","), out.stdout.strip().split(", "), strict=True))


def measure(plan: dict[str, Any], log: Path) -> dict[str, Any]:
    endpoint = Path(plan["cache"]).with_name("endpoints") / "vllm.yaml"
    for folder in (Path(plan["cache"]), endpoint.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        started = time.monotonic()
        engine = subprocess.Popen(
            plan["argv"], env=environment(plan), cwd=plan["cache"], stdout=out, stderr=out, umask=0o077
        )
    try:
        helper(
            *("ready", "--socket", plan["socket"], "--model", plan["model"], "--timeout", "400"),
            *("--warmup-requests", "2", "--main-pid", str(engine.pid)),
            engine=engine,
        )
        ready = round(time.monotonic() - started, 1)
        mode = oct(Path(plan["socket"]).stat().st_mode & 0o777)
        helper("publish", "--socket", plan["socket"], "--endpoint-file", str(endpoint))
        published = plan["socket"] in endpoint.read_text()
        memory = gpu()

        began = time.monotonic()
        lines = list(stream(plan, 256))
        seconds = time.monotonic() - began
        tokens = json.loads(lines[-2])["usage"]["completion_tokens"]

        # As systemd stops the unit: first out of the gateway, then SIGTERM, while somebody still reads.
        under_way = stream(plan, 1024)
        next(under_way)
        helper("withdraw", "--settle", "1", "--endpoint-file", str(endpoint))
        withdrawn = plan["socket"] not in endpoint.read_text()
        engine.send_signal(signal.SIGTERM)
        stopping = time.monotonic()
        rest = list(under_way)
        finished = rest[-1] == "[DONE]" and json.loads(rest[-2])["usage"]["completion_tokens"] == 1024
        code = engine.wait(timeout=plan["shutdown_timeout"] + 30)
    finally:
        if engine.poll() is None:
            engine.kill()
    said = log.read_text(errors="replace")
    found = {name: match[1] for name, rule in FACTS.items() if (match := re.search(rule, said))}
    return {
        "gpu": memory,
        "arguments": plan["argv"][3:],
        "seconds_to_ready": ready,
        "socket_mode_when_ready": mode,
        "published_when_ready": published,
        "tokens_per_second_of_one_stream": round(tokens / seconds, 1),
        "withdrawn_before_sigterm": withdrawn,
        "stream_under_way_finished_after_sigterm": finished,
        "exit_code": code,
        "seconds_from_sigterm_to_exit": round(time.monotonic() - stopping, 1),
        "said_by_the_engine": found,
    }


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    result = Path(sys.argv[2])
    log = result.with_suffix(".log")
    try:
        found = measure(plan, log)
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-6000:])
        raise
    result.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
