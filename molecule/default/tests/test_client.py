"""From another machine, with other people's clients: the service answers who may ask, and nobody else."""

from __future__ import annotations

import json
import shlex

import pytest

OPENAI = """
import os, sys
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1] + "/v1", timeout=60, max_retries=0)
print("models", [model.id for model in client.models.list().data])
ask = {"model": sys.argv[2], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
answer = client.chat.completions.create(**ask)
print("tokens", answer.usage.completion_tokens)
chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
print("streamed", chunks[-1].usage.completion_tokens, "chunks", len(chunks))
"""


def with_token(site, ca: str, token: str) -> str:
    """The token goes through the environment: an argument would be readable by every user of the machine."""
    return f"env OPENAI_API_KEY={shlex.quote(token)} SSL_CERT_FILE={ca}"


def curl(client, site, ca: str, path: str, token: str | None, *options: str) -> tuple[int, str]:
    header = f"-H {shlex.quote('Authorization: Bearer ' + token)}" if token else ""
    done = client.run(
        f"curl --silent --max-time 60 --path-as-is --cacert {ca} -w '\\n%{{http_code}}' {header} "
        f"{' '.join(shlex.quote(option) for option in options)} {site.url}{path}"
    )
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


def test_the_openai_client_lists_asks_and_streams(client, site, engine_python, client_ca):
    script = shlex.quote(OPENAI)
    said = client.check_output(
        f"{with_token(site, client_ca, site.token())} {engine_python} -c {script} {site.url} {site.model}"
    )
    assert f"models ['{site.model}']" in said
    assert "tokens 16" in said
    assert "streamed 16" in said


def test_curl_gets_a_completion_with_usage(client, site, client_ca):
    body = json.dumps({"model": site.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
    code, answer = curl(
        client,
        site,
        client_ca,
        "/v1/chat/completions",
        site.token(),
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    )
    assert code == 200, answer
    assert json.loads(answer)["usage"]["completion_tokens"] == 4


def test_vllm_bench_serve_measures_through_the_gateway(client, site, engine_python, client_ca):
    model = client.check_output(f"ls -d /var/lib/bedplate/models/{site.model}/*/")
    done = client.run(
        f"{with_token(site, client_ca, site.token(lifetime=600))} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 "
        f"{engine_python} -m vllm.entrypoints.cli.main bench serve --backend openai-chat --base-url {site.url} "
        f"--endpoint /v1/chat/completions --model {site.model} --tokenizer {model} --dataset-name random "
        "--random-input-len 16 --random-output-len 8 --num-prompts 4 --max-concurrency 2 --ready-check-timeout-sec 0"
    )
    assert done.rc == 0, done.stdout + done.stderr
    assert "Successful requests:                     4" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("name", "token", "expected"),
    [
        ("none", None, 401),
        ("not a token", "abc.def.ghi", 401),
        ("expired", {"lifetime": 1}, 401),
        ("other audience", {"audience": "somebody-else"}, 403),
        ("other issuer", {"issuer": "https://elsewhere.example"}, 401),
    ],
)
def test_a_wrong_token_is_refused_in_the_clients_own_error_shape(client, site, client_ca, name, token, expected):
    if isinstance(token, dict):
        token = site.token(**token)
        if name == "expired":
            client.run("sleep 8")  # one second of life and the allowed clock skew
    code, body = curl(client, site, client_ca, "/v1/models", token)
    assert code == expected, body
    assert set(json.loads(body)["error"]) >= {"message", "type", "code"}


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/tokenize",
        "/invocations",
        "/pause",
        "/health",
        "/docs",
        "/v1/load_lora_adapter",
        "/v1/../metrics",
        "//metrics",
    ],
)
def test_every_other_path_does_not_exist_even_with_a_good_token(client, site, client_ca, path):
    code, body = curl(client, site, client_ca, path, site.token())
    assert code == 404, body


def test_health_needs_no_token(client, site, client_ca):
    assert curl(client, site, client_ca, "/healthz", None)[0] == 200
