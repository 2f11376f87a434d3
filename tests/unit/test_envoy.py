"""The rendered documents: what Envoy's own checker says of them, and what their versions promise."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter.envoy import envoy_resources
from ansible_collections.bedplate.llm.plugins.module_utils import envoy
from ansible_collections.bedplate.llm.plugins.module_utils.envoy_model import ENDPOINTS, parse
from envoy_harness import ENVOY, Site

SETTINGS: dict[str, Any] = {
    "node_id": "llm1",
    "port": 8443,
    "listen_addresses": ["0.0.0.0", "::"],
    "server_names": ["llm1.example.org", "192.0.2.1", "fd87:b3d0::11"],
    "jwt_issuer": "urn:test",
    "jwt_audiences": ["test"],
    "jwks": Site().jwks(),
}
CONFIG = "/etc/bedplate/gateway"
PLACEHOLDER = "{staged}"


def render(**changes: Any) -> envoy.Rendered:
    return envoy.render(parse({**SETTINGS, **changes}))


def validate(rendered: envoy.Rendered, staged: Path) -> subprocess.CompletedProcess[str]:
    """As config_files does: the whole wanted set in a directory, and the checker's argument pointing into it."""
    for path, text in rendered.files.items():
        copy = staged / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    document = rendered.validation.replace(PLACEHOLDER, str(staged))
    command = [ENVOY, "--mode", "validate", "--log-level", "error", "--config-yaml", document]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tls_minimum_version": "1.2", "listen_addresses": ["192.0.2.1"], "memory_max_mib": 128}],
    ids=["defaults", "the other way"],
)
def test_envoy_accepts_the_configuration(changes: dict[str, Any], tmp_path: Path) -> None:
    checked = validate(render(**changes), tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"normalize_path"', '"normalise_path"'),
        ('"require_expiration"', '"require_expiry"'),
        ('"tls_params"', '"tls_parameters"'),
        ('"cluster":"vllm"', '"cluster":"vlm"'),
    ],
)
def test_envoy_refuses_a_mistake_in_any_document(right: str, wrong: str, tmp_path: Path) -> None:
    rendered = render()
    assert right in rendered.validation
    broken = envoy.Rendered(rendered.files, rendered.validation.replace(right, wrong), rendered.versions)
    assert validate(broken, tmp_path).returncode == 1


def test_every_document_but_the_bootstrap_has_a_version_that_envoy_will_report() -> None:
    rendered = render()
    stated = {json.loads(text).get("version_info") for text in rendered.files.values()} - {None}
    assert set(rendered.versions.values()) == stated
    assert len(stated) == len(rendered.files) - 1


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, set()),
        ({"server_names": ["other"]}, {"rds.json"}),
        ({"jwt_audiences": ["other"]}, {"ecds.json"}),
        ({"jwks": Site().jwks()}, {"ecds.json"}),
        ({"max_requests": 3}, {"cds.json"}),
        ({"request_body_max_bytes": 4096}, {"rds.json"}),
        ({"tls_minimum_version": "1.2"}, {"lds.json"}),
        ({"metrics_port": 9902}, {"bootstrap.json"}),
    ],
)
def test_a_change_touches_only_what_it_has_to(changes: dict[str, Any], changed: set[str]) -> None:
    before, after = render().files, render(**changes).files
    assert {Path(path).name for path in before if before[path] != after[path]} == changed


def test_only_the_listed_endpoints_are_routed_to_the_engine() -> None:
    (routes,) = json.loads(render().files[f"{CONFIG}/rds.json"])["resources"]
    forwarded = {
        (route["match"]["path"], route["match"]["headers"][0]["string_match"]["exact"])
        for host in routes["virtual_hosts"]
        for route in host["routes"]
        if "route" in route
    }
    assert forwarded == {(endpoint.path, endpoint.method) for endpoint in ENDPOINTS}


def test_routes_that_need_no_token_answer_without_the_engine() -> None:
    (routes,) = json.loads(render().files[f"{CONFIG}/rds.json"])["resources"]
    everything = [route for host in routes["virtual_hosts"] for route in host["routes"]]
    unprotected = [route for route in everything if "typed_per_filter_config" in route]
    assert unprotected
    assert all("direct_response" in route for route in unprotected)


def test_addresses_in_host_headers_have_brackets_where_they_need_them() -> None:
    (routes,) = json.loads(render().files[f"{CONFIG}/rds.json"])["resources"]
    assert {"[fd87:b3d0::11]:8443", "192.0.2.1:8443", "llm1.example.org"} <= set(routes["virtual_hosts"][0]["domains"])


def test_administration_is_behind_a_socket_and_metrics_on_loopback() -> None:
    document = json.loads(render().files[f"{CONFIG}/bootstrap.json"])
    assert document["admin"]["address"] == {"pipe": {"path": "/run/bedplate-gateway/admin.sock", "mode": 0o600}}
    (listener,) = document["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["address"] == "127.0.0.1"


def test_endpoint_file_of_an_engine_that_is_away_names_no_host() -> None:
    here, away = (json.loads(envoy.endpoints_line(sockets)) for sockets in (["/run/a.sock"], []))
    assert here["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert away["resources"][0]["endpoints"] == []
    assert here["version_info"] != away["version_info"]
    assert "\n" not in envoy.endpoints_line([])


def test_filter_says_what_is_wrong_with_the_variables() -> None:
    with pytest.raises(AnsibleFilterError, match="gateway_port must be a whole number"):
        envoy_resources({**SETTINGS, "port": -1})
