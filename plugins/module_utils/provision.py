# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run of the provisioning does with one host, from what was found on it."""

from __future__ import annotations

from typing import Iterable

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check, failing

LEAVE = "leave"  # nothing to change: it goes on serving
ADMIT = "admit"  # all done by an earlier run that was cut off before the service was back
WAIT = "wait"  # everything else comes after a reboot that is not allowed
FLIP = "flip"  # drain, change, restart when it takes that, prove, readmit


def step(checks: Iterable[Check], own: bool, distribution: bool, drained: bool, allowed: bool) -> str:
    """
    checks: of the roles that provision.
    own, distribution: whether a role of ours, or the distribution, waits for a reboot.
    drained: whether an earlier run left a service taken out.
    allowed: whether hosts may be restarted.
    """
    if own and not allowed:
        # A second run would find the same again, and drain the host for nothing.
        return WAIT
    if failing(checks) or own or (distribution and allowed):
        return FLIP
    return ADMIT if drained else LEAVE
