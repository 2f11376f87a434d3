# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn role variables into the documents that Envoy reads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils import envoy, envoy_model


def envoy_resources(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The gateway's settings as Envoy's documents: files, validation, versions."""
    try:
        return asdict(envoy.render(envoy_model.parse(settings)))
    except envoy_model.ConfigError as error:
        raise AnsibleFilterError(str(error)) from error


def envoy_endpoints(sockets: Sequence[str]) -> str:
    """The content of the endpoint file on one line: the sockets that may get requests, or none."""
    return str(envoy.endpoints_line(sockets))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"envoy_resources": envoy_resources, "envoy_endpoints": envoy_endpoints}
