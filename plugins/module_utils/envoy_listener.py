# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The listener that clients talk to: TLS, request normalisation, identity, the path allowlist, the access log."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.bedplate.llm.plugins.module_utils.envoy_model import (
    ENDPOINTS,
    TLS_VERSIONS,
    UPSTREAM,
    Endpoint,
    Gateway,
    is_address,
)
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_replies import local_reply_config

Json = Dict[str, Any]

TYPE = "type.googleapis.com/envoy"
JWT_FILTER = "envoy.filters.http.jwt_authn"
JWT_TYPE = "extensions.filters.http.jwt_authn.v3.JwtAuthentication"
ROUTES = "api"

# Headers with this prefix are ours to set, for the engine's middleware to trust.
IDENTITY_PREFIX = "x-bedplate-"
# Removed from a request on arrival: what only we may say (identity, where it came from), and what steers Envoy.
NOT_FROM_CLIENTS = (IDENTITY_PREFIX, "x-envoy-", "x-forwarded-", "x-real-ip", "x-request-id", "forwarded")
# Never for the engine: credentials, and what OpenAI clients send about their own account.
NOT_FORWARDED = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "openai-organization",
    "openai-project",
    "x-envoy-external-address",
)

# TLS 1.3 suites are fixed in BoringSSL and all sound; these are for sites that must still allow 1.2.
TLS12_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)

# Envoy's guidance for edge proxies: small windows and buffers, so that slow readers cost little memory.
CONNECTION_BUFFER_BYTES = 32 * 1024
CONNECTION_IDLE = "900s"


def seconds(value: int) -> str:
    return f"{value}s"


def socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def file_source(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _tls(gateway: Gateway) -> Json:
    minimum = TLS_VERSIONS[gateway.tls_minimum_version]
    parameters: Json = {"tls_minimum_protocol_version": minimum, "tls_maximum_protocol_version": "TLSv1_3"}
    if minimum == "TLSv1_2":
        parameters["cipher_suites"] = list(TLS12_SUITES)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": parameters,
                "alpn_protocols": ["h2", "http/1.1"],
                # By SDS, not in place: only so does Envoy follow a renewed certificate without touching the listener.
                "tls_certificate_sds_secret_configs": [
                    {"name": "server", "sds_config": file_source(f"{gateway.paths.config}/sds.json")}
                ],
            },
        },
    }


def identity_filter(gateway: Gateway) -> Json:
    provider = {
        "issuer": gateway.jwt_issuer,
        "audiences": list(gateway.jwt_audiences),
        "require_expiration": True,
        "clock_skew_seconds": 5,
        "forward": False,
        "payload_in_metadata": "token",
        # Only the header: a token in the query string would be logged by everything on the way.
        "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
        "claim_to_headers": [{"header_name": f"{IDENTITY_PREFIX}subject", "claim_name": "sub"}],
        # Envoy reads a key file once, when it loads this filter; inline, new keys are a new filter configuration.
        "local_jwks": {"inline_string": gateway.jwks},
    }
    return {
        "name": JWT_FILTER,
        "typed_config": {
            "@type": f"{TYPE}.{JWT_TYPE}",
            "providers": {"issuer": provider},
            # Closed by default: a route that says nothing needs a token; the few open ones say so themselves.
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
        },
    }


def _open_to_all(route: Json) -> Json:
    per_route = {"@type": f"{TYPE}.extensions.filters.http.jwt_authn.v3.PerRouteConfig", "disabled": True}
    return {**route, "typed_per_filter_config": {JWT_FILTER: per_route}}


def _method(endpoint: Endpoint) -> Json:
    return {"name": ":method", "string_match": {"exact": endpoint.method}}


def _answer(match: Json, status: int, body: str = "") -> Json:
    response: Json = {"status": status}
    if body:
        response["body"] = {"inline_string": body}
    return {"match": match, "direct_response": response}


def _forward(gateway: Gateway, match: Json) -> Json:
    return {
        "match": match,
        "route": {
            "cluster": UPSTREAM,
            # A long answer is a normal answer; what ends a stream is silence, not length.
            "timeout": "0s",
            "idle_timeout": seconds(gateway.stream_idle_timeout),
            "host_rewrite_literal": UPSTREAM,
            # Safe for any method: both mean that the engine has not seen the request.
            "retry_policy": {"retry_on": "connect-failure,reset-before-request", "num_retries": 1},
        },
    }


def _endpoint_routes(gateway: Gateway, endpoint: Endpoint) -> list[Json]:
    """A body is bounded by the length it declares, so that nothing has to be buffered to know its size."""
    match: Json = {"path": endpoint.path, "headers": [_method(endpoint)]}
    if endpoint.method == "GET":
        return [_forward(gateway, match)]
    declared = {"name": "content-length", "present_match": True}
    small = {"name": "content-length", "range_match": {"start": 0, "end": gateway.request_body_max_bytes + 1}}
    return [
        _forward(gateway, {**match, "headers": [_method(endpoint), small]}),
        _answer({**match, "headers": [_method(endpoint), declared]}, 413),
        _answer(match, 411),
    ]


def domains(gateway: Gateway) -> list[str]:
    """What a client may write in its Host header: every server name, with and without the port."""
    hosts = [f"[{name}]" if is_address(name) and ":" in name else name for name in gateway.server_names]
    return [item for host in hosts for item in (host, f"{host}:{gateway.port}")]


def route_config(gateway: Gateway) -> Json:
    everything = {"prefix": "/"}
    served = {
        "name": "served",
        "domains": domains(gateway),
        "routes": [
            _open_to_all(_answer({"path": "/healthz"}, 200, "ok\n")),
            *(route for endpoint in ENDPOINTS for route in _endpoint_routes(gateway, endpoint)),
            _open_to_all(_answer(everything, 404)),
        ],
        "request_headers_to_remove": list(NOT_FORWARDED),
    }
    foreign = {"name": "foreign", "domains": ["*"], "routes": [_open_to_all(_answer(everything, 421))]}
    security = {
        "strict-transport-security": "max-age=31536000",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [served, foreign],
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in security.items()
        ],
    }


def _access_log() -> Json:
    """Who, what, how it ended, how long it took; no body, no query string, no header that could carry a secret."""
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "subject": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:token:sub)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:ORIG_OR_PATH)%",
        "protocol": "%PROTOCOL%",
        "tls": "%DOWNSTREAM_TLS_VERSION%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "milliseconds": "%DURATION%",
        "milliseconds_to_first_byte": "%RESPONSE_DURATION%",
    }
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{TYPE}.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": fields},
        },
    }


def _strip_untrusted_headers() -> Json:
    patterns = [{"prefix": name} if name.endswith("-") else {"exact": name} for name in NOT_FROM_CLIENTS]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove_on_match": {"key_matcher": pattern}} for pattern in patterns],
        },
    }


def _followed(gateway: Gateway, name: str, kind: str) -> Json:
    """A filter whose configuration Envoy follows in a file: a change counts for the next request on every connection,
    where a change of the listener would have to drain the connections that it was made with."""
    source = file_source(f"{gateway.paths.config}/ecds.json")
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [f"{TYPE}.{kind}"]}}


def http_filters(gateway: Gateway) -> list[Json]:
    """In the order in which a request passes them; the router is always last."""
    router = {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return [
        _followed(gateway, JWT_FILTER, JWT_TYPE),
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


def connection_manager(gateway: Gateway) -> Json:
    return {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "api",
        "codec_type": "AUTO",
        "server_name": "bedplate",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": CONNECTION_IDLE,
            "max_headers_count": 100,
        },
        "max_request_headers_kb": 32,
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 64 * 1024,
            "initial_connection_window_size": 1024 * 1024,
        },
        "stream_idle_timeout": seconds(gateway.stream_idle_timeout),
        "request_headers_timeout": "10s",
        "request_timeout": seconds(gateway.request_timeout),
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_strip_untrusted_headers()],
        "access_log": [_access_log()],
        "local_reply_config": local_reply_config(),
        "rds": {"route_config_name": ROUTES, "config_source": file_source(f"{gateway.paths.config}/rds.json")},
        "http_filters": http_filters(gateway),
    }


def api_listener(gateway: Gateway) -> Json:
    first, *others = gateway.listen_addresses
    return {
        "@type": f"{TYPE}.config.listener.v3.Listener",
        "name": "api",
        "address": socket_address(first, gateway.port),
        "additional_addresses": [{"address": socket_address(address, gateway.port)} for address in others],
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "filter_chains": [
            {
                "transport_socket": _tls(gateway),
                "transport_socket_connect_timeout": "10s",
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager(gateway),
                    }
                ],
            }
        ],
    }
