"""The OpenAI client against a small server that says what a gateway can say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bedplate.ask import AskError, ask
from bedplate.describe import Service


@contextlib.contextmanager
def gateway(status: int = 200, wait: float = 0) -> Iterator[tuple[str, list]]:
    """An OpenAI-compatible server; yields its URL and the list of (path, headers, body) that it was asked."""
    asked: list = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers, body))
            threading.Event().wait(wait)
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(streamed() if body.get("stream") else whole())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def answer(key: str, value: dict) -> dict:
    choice = {"index": 0, key: value, "finish_reason": None}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}


def whole() -> bytes:
    return json.dumps(answer("message", {"role": "assistant", "content": "An iron base."})).encode()


def streamed() -> bytes:
    deltas = [{"reasoning": "Hm. "}, {"content": "An iron"}, {"content": " base."}, {}]
    events = [f"data: {json.dumps(answer('delta', delta))}\n\n" for delta in deltas]
    return ("".join(events) + "data: [DONE]\n\n").encode()


def pieces(url: str, *, stream: bool = True, timeout: float = 10, authority: str = "") -> list[str]:
    service = Service(url, authority, True, "issuer", ("bedplate",), "tiny")
    return list(ask(service, "the-token", "What is it?", max_tokens=7, stream=stream, timeout=timeout))


def test_a_streamed_answer_comes_in_pieces_thoughts_included():
    with gateway() as (url, asked):
        assert pieces(url) == ["Hm. ", "An iron", " base."]
    [(path, headers, body)] = asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer the-token"
    assert (body["model"], body["max_tokens"], body["stream"]) == ("tiny", 7, True)


def test_an_answer_that_is_not_streamed_comes_in_one_piece():
    with gateway() as (url, _):
        assert pieces(url, stream=False) == ["An iron base."]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "refuses the token"),
        (404, "does not know this path or model"),
        (503, "no engine is ready"),
        (418, "answered with status 418"),
    ],
)
def test_a_refusal_is_a_sentence_and_is_not_tried_again(status, says):
    with gateway(status) as (url, asked), pytest.raises(AskError, match=says):
        pieces(url)
    assert len(asked) == 1


def test_nobody_there_is_a_sentence():
    with gateway() as (url, _):
        pass
    with pytest.raises(AskError, match=r"cannot be reached: .*refused"):
        pieces(url)


def test_a_gateway_that_keeps_silent_is_given_up():
    with gateway(wait=1.0) as (url, _), pytest.raises(AskError, match="did not answer within"):
        pieces(url, timeout=0.2)


def test_an_authority_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AskError, match=r"ca\.crt does not exist on this machine; roll the site out"):
        pieces("https://127.0.0.1:1", authority=str(tmp_path / "ca.crt"))


def test_an_authority_that_is_no_certificate_is_named(tmp_path):
    (tmp_path / "ca.crt").write_text("hello", encoding="utf-8")
    with pytest.raises(AskError, match="is not a certificate in PEM"):
        pieces("https://127.0.0.1:1", authority=str(tmp_path / "ca.crt"))


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with gateway() as (url, _):
        assert pieces(url, stream=False) == ["An iron base."]
