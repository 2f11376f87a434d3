# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Envoy reads once at its start: administration, metrics, overload limits; and the clusters it forwards to."""

from __future__ import annotations

from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.envoy_listener import (
    CONNECTION_BUFFER_BYTES,
    TYPE,
    Json,
    file_source,
    socket_address,
)
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_model import UPSTREAM, Gateway

ADMIN_CLUSTER = "admin"
METRICS_PATH = "/stats/prometheus"


def upstream_cluster(gateway: Gateway) -> Json:
    """The engine behind its socket; where it is, and whether it may be used, is in the endpoint file."""
    limits = {
        # HTTP/1.1 to the engine: one connection a request.
        "max_connections": gateway.max_requests,
        "max_pending_requests": gateway.max_requests,
        "max_requests": gateway.max_requests,
        "max_retries": 16,
    }
    options = {
        "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Below the 5 s after which the engine's own server closes an idle connection: otherwise a request may be sent
        # into a connection that is just being closed.
        "common_http_protocol_options": {"idle_timeout": "4s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": UPSTREAM,
        "type": "EDS",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER_BYTES,
        "eds_cluster_config": {"eds_config": file_source(gateway.paths.endpoint_file)},
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _admin_cluster(gateway: Gateway) -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": gateway.paths.admin_socket}}}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _metrics_listener(gateway: Gateway) -> Json:
    """One path of the administration interface, for a collector on this host; the rest stays behind the socket."""
    route = {"match": {"path": METRICS_PATH}, "route": {"cluster": ADMIN_CLUSTER}}
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "metrics",
        "route_config": {"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": "metrics",
        "address": socket_address("127.0.0.1", gateway.metrics_port),
        # Metrics are most wanted when the gateway is full.
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _overload_manager(gateway: Gateway) -> Json:
    """Shed load before the kernel kills the process, and with it every stream."""

    def monitor(name: str, kind: str, **config: Any) -> Json:
        kind = f"{TYPE}.extensions.resource_monitors.{kind}"
        return {"name": f"envoy.resource_monitors.{name}", "typed_config": {"@type": kind, **config}}

    def action(name: str, threshold: float) -> Json:
        trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}
        return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            monitor(
                "fixed_heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=gateway.memory_max_mib * 1024 * 1024
            ),
            monitor(
                "global_downstream_max_connections",
                "downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=gateway.max_connections,
            ),
        ],
        "actions": [action("shrink_heap", 0.9), action("stop_accepting_requests", 0.95)],
    }


def bootstrap(gateway: Gateway) -> Json:
    config = gateway.paths.config
    return {
        "node": {"id": gateway.node_id, "cluster": "gateway"},
        "admin": {"address": {"pipe": {"path": gateway.paths.admin_socket, "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": file_source(f"{config}/lds.json"),
            "cds_config": file_source(f"{config}/cds.json"),
        },
        "static_resources": {"listeners": [_metrics_listener(gateway)], "clusters": [_admin_cluster(gateway)]},
        "overload_manager": _overload_manager(gateway),
        # Deprecated fields are next release's breakage: refuse them while the old configuration still runs.
        "layered_runtime": {
            "layers": [
                {"name": "static", "static_layer": {"envoy.features.fail_on_any_deprecated_feature": True}},
            ]
        },
    }
