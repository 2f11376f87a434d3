# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that render firewall rules on the controller, so that a wrong value fails before any host is touched."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils.nftables import RulesetError, parse_policy, render


def nft_ruleset(policy: Mapping[str, Any]) -> str:
    try:
        return render(parse_policy(policy))
    except RulesetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nft_ruleset": nft_ruleset}
