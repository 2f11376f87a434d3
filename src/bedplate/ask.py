"""One request to a site's gateway with the OpenAI client, and each way it can fail as a sentence."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import openai

from bedplate.describe import Service

_REFUSALS = {
    401: "the gateway refuses the token: it is expired, of another issuer or for another audience",
    403: "the gateway refuses the request: the token does not allow it",
    404: "the gateway or the engine does not know this path or model",
    413: "the request is larger than the gateway accepts (gateway_request_body_max_bytes)",
    503: "the gateway answers, but no engine is ready behind it; `bedplate status` says what it is doing",
    504: "the engine did not answer in time",
}


class AskError(Exception):
    """The question could not be answered; the message is one sentence."""


def ask(service: Service, token: str, prompt: str, *, max_tokens: int, stream: bool, timeout: float) -> Iterator[str]:
    """The answer in pieces, as they come; in one piece without `stream`."""
    try:
        with _client(service, token, timeout) as client:
            if stream:
                yield from _streamed(client, service, prompt, max_tokens)
            else:
                answer = client.chat.completions.create(
                    model=service.model, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens
                )
                yield answer.choices[0].message.content or ""
    except openai.APIStatusError as error:
        refusal = _REFUSALS.get(error.status_code, f"{service.gateway} answered with status {error.status_code}")
        raise AskError(f"{refusal} ({service.gateway}, status {error.status_code}).") from error
    except openai.APITimeoutError as error:
        raise AskError(f"{service.gateway} did not answer within {timeout:.0f} s.") from error
    except openai.APIConnectionError as error:
        raise AskError(_connection_sentence(service, error)) from error
    except openai.OpenAIError as error:
        raise AskError(f"{service.gateway}: {error}") from error


def _streamed(client: openai.OpenAI, service: Service, prompt: str, max_tokens: int) -> Iterator[str]:
    chunks = client.chat.completions.create(
        model=service.model, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens, stream=True
    )
    for chunk in chunks:
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        # Reasoning models send what they think beside the answer, under a name that the OpenAI protocol lacks.
        thought = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
        yield from (piece for piece in (thought, delta.content) if piece)


def _client(service: Service, token: str, timeout: float) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=service.api,
        api_key=token,
        timeout=timeout,
        max_retries=0,
        # Not through a proxy of the environment, which could not reach the site and would see the token.
        http_client=openai.DefaultHttpxClient(verify=_trust(service), trust_env=False),
    )


def _trust(service: Service) -> ssl.SSLContext:
    if not service.authority:
        return ssl.create_default_context()
    if not Path(service.authority).is_file():
        raise AskError(
            f"the site's authority {service.authority} does not exist on this machine; "
            "roll the site out once, which makes it, or copy it from the operator who did."
        )
    try:
        return ssl.create_default_context(cafile=service.authority)
    except ssl.SSLError as error:
        raise AskError(f"{service.authority} is not a certificate in PEM: {error}.") from error


def _connection_sentence(service: Service, error: BaseException) -> str:
    reasons = []
    cause: BaseException | None = error
    while cause is not None:
        reasons.append(cause)
        cause = cause.__cause__ or cause.__context__
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return (
                f"{service.gateway} shows a certificate that {service.authority} did not sign: {reason.verify_message}."
            )
    return f"{service.gateway} cannot be reached: {reasons[-1]}."
