# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every document that Envoy reads, rendered from one model.

Envoy reads `bootstrap` at its start and follows the others by file watch, so that a new route, certificate, key set or
endpoint needs no restart.  Each discovery document carries the digest of its content as its version: whoever asks Envoy
which version runs knows whether it took the new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Iterable

from ansible_collections.bedplate.llm.plugins.module_utils.envoy_bootstrap import bootstrap, upstream_cluster
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_listener import (
    JWT_FILTER,
    ROUTES,
    TYPE,
    Json,
    api_listener,
    file_source,
    identity_filter,
    route_config,
)
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_model import UPSTREAM, Gateway


@dataclass(frozen=True)
class Rendered:
    """File contents by path, the document for Envoy's own checker, and the versions that a running Envoy reports."""

    files: dict[str, str]
    validation: str
    versions: dict[str, str]


def _text(document: Any) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _version(resources: Iterable[Json]) -> str:
    return hashlib.sha256(_text(list(resources)).encode("utf-8")).hexdigest()[:12]


def _discovery(*resources: Json) -> Json:
    return {"version_info": _version(resources), "resources": list(resources)}


def server_secret(gateway: Gateway) -> Json:
    """`current` is a link to the certificate in use; renewal replaces the link, which is what Envoy watches for."""
    directory = gateway.paths.certificates
    return {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.Secret",
        "name": "server",
        "tls_certificate": {
            "certificate_chain": {"filename": f"{directory}/current/server.crt"},
            "private_key": {"filename": f"{directory}/current/server.key"},
            "watched_directory": {"path": directory},
        },
    }


def endpoints(sockets: Iterable[str]) -> Json:
    """The endpoint file's content: the engine's sockets that may get requests now; none while it drains or is down."""
    hosts = [{"endpoint": {"address": {"pipe": {"path": path}}}} for path in sockets]
    assignment = {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": UPSTREAM,
        "endpoints": [{"lb_endpoints": hosts}] if hosts else [],
    }
    return _discovery(assignment)


def endpoints_line(sockets: Iterable[str]) -> str:
    """The same on one line, for files that hold one line."""
    return json.dumps(endpoints(sockets), sort_keys=True)


def extension(filter_config: Json) -> Json:
    """A filter's configuration as a resource of its own."""
    return {
        "@type": f"{TYPE}.config.core.v3.TypedExtensionConfig",
        "name": filter_config["name"],
        "typed_config": filter_config["typed_config"],
    }


def _untagged(resource: Json) -> Json:
    """As a static resource, whose place says what it is."""
    return {key: value for key, value in resource.items() if key != "@type"}


def _validation(gateway: Gateway) -> str:
    """One static document: Envoy's checker does not follow discovery files, so what they hold is put in place.

    Paths begin with `{staged}`, which `config_files` replaces by the directory that holds the new set.
    """
    staged = replace(gateway, paths=replace(gateway.paths, config="{staged}" + gateway.paths.config))
    listener = api_listener(staged)
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = _untagged(route_config(staged))
    identity = identity_filter(staged)
    manager["http_filters"] = [
        identity if item["name"] == identity["name"] else item for item in manager["http_filters"]
    ]
    cluster = upstream_cluster(staged)
    # The checker wants a file there and does not read it; the endpoint file is made when the service starts.
    cluster["eds_cluster_config"]["eds_config"] = file_source(f"{staged.paths.config}/cds.json")
    document = bootstrap(staged)
    del document["dynamic_resources"]
    static = document["static_resources"]
    static["listeners"] = [*static["listeners"], _untagged(listener)]
    static["clusters"] = [*static["clusters"], _untagged(cluster)]
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def render(gateway: Gateway) -> Rendered:
    # By the name of the statistic in which Envoy reports the version that it runs.
    followed = {
        "listener_manager.lds": ("lds.json", api_listener(gateway)),
        "cluster_manager.cds": ("cds.json", upstream_cluster(gateway)),
        f"http.api.rds.{ROUTES}": ("rds.json", route_config(gateway)),
        f"extension_config_discovery.http_filter.{JWT_FILTER}": ("ecds.json", extension(identity_filter(gateway))),
        "sds.server": ("sds.json", server_secret(gateway)),
    }
    documents = {name: _discovery(resource) for name, resource in followed.values()}
    versions = {statistic: documents[name]["version_info"] for statistic, (name, resource) in followed.items()}
    documents["bootstrap.json"] = bootstrap(gateway)
    return Rendered(
        files={f"{gateway.paths.config}/{name}": _text(item) for name, item in documents.items()},
        validation=_validation(gateway),
        versions=versions,
    )
