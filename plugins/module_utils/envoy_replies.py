# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's own answers, in the error shape that every OpenAI client parses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True)
class Reply:
    """One status with what a client reads; `%…%` is filled in by Envoy."""

    status: int
    type: str
    code: str
    message: str
    retry: bool = False


REPLIES = (
    Reply(
        401,
        "authentication_error",
        "invalid_token",
        "Send a valid token as 'Authorization: Bearer TOKEN' (%LOCAL_REPLY_BODY%).",
    ),
    Reply(403, "permission_error", "forbidden", "The token does not allow this request (%LOCAL_REPLY_BODY%)."),
    Reply(404, "invalid_request_error", "unknown_url", "This path and method are not served here."),
    Reply(408, "invalid_request_error", "request_timeout", "The request took too long to arrive."),
    Reply(
        411,
        "invalid_request_error",
        "length_required",
        "Send the request body with a Content-Length header; chunked request bodies are not accepted.",
    ),
    Reply(413, "invalid_request_error", "request_too_large", "The request body is larger than this gateway allows."),
    Reply(421, "invalid_request_error", "unknown_host", "This gateway does not serve the host name of the request."),
    Reply(
        503,
        "service_unavailable",
        "model_unavailable",
        "The model is starting, draining, full or stopped; try again later.",
        retry=True,
    ),
)

# For statuses that no entry above names: Envoy's own refusals of malformed requests, and its own faults.
OTHER_CLIENT = Reply(400, "invalid_request_error", "bad_request", "The request is malformed (%LOCAL_REPLY_BODY%).")
OTHER_SERVER = Reply(500, "server_error", "gateway_error", "The gateway could not complete the request.")


def _body(reply: Reply) -> dict[str, Any]:
    return {"error": {"message": reply.message, "type": reply.type, "param": None, "code": reply.code}}


def _status(operation: str, status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"bedplate.reply.{operation.lower()}.{status}"}
    return {"status_code_filter": {"comparison": {"op": operation, "value": value}}}


def _mapper(operation: str, reply: Reply) -> dict[str, Any]:
    mapper: dict[str, Any] = {
        "filter": _status(operation, reply.status),
        "body_format_override": {"json_format": _body(reply)},
    }
    if reply.retry:
        header = {"key": "retry-after", "value": str(RETRY_AFTER_SECONDS)}
        mapper["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return mapper


def local_reply_config() -> dict[str, Any]:
    """First match wins, so the named statuses stand before the two catch-alls; answers below 400 stay as they are."""
    mappers = [_mapper("EQ", reply) for reply in REPLIES]
    return {"mappers": [*mappers, _mapper("GE", OTHER_SERVER), _mapper("GE", OTHER_CLIENT)]}
