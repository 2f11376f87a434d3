#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which version a machine has loaded, as a check: the look of the role stand_in."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "foresees_reboot": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    loaded = path.read_text().strip() if path.is_file() else "none"
    check = {
        "id": "stand_in.loaded",
        "ok": loaded == module.params["version"],
        "reason": f"Version {loaded} is loaded and {module.params['version']} is wanted.",
        "remedy": "install it, and restart the host.",
    }
    ahead = [] if check["ok"] or not module.params["foresees_reboot"] else [f"version {loaded} is at work"]
    module.exit_json(changed=False, checks=[check], reboot_ahead=ahead)


if __name__ == "__main__":
    main()
