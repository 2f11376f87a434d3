#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_service
short_description: Have the gateway run what its files say, and know that it does
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Enables and starts the gateway's unit, restarts it only when its process was started from other files than the ones
    wanted, and waits until Envoy itself reports that it runs the wanted configuration.
  - A configuration that Envoy refuses leaves the one before in service; the task then fails with Envoy's reason.
options:
  unit:
    description: Name of the systemd unit.
    type: str
    default: bedplate-gateway.service
  release:
    description: Digest of all that a running process cannot follow; the unit sets it as E(BEDPLATE_RELEASE).
    type: str
    required: true
  versions:
    description: The wanted version of each discovery service, by the prefix of Envoy's statistics about it.
    type: dict
    required: true
  admin_socket:
    description: Socket of Envoy's administration interface.
    type: path
    default: /run/bedplate-gateway/admin.sock
  timeout:
    description: How long Envoy may take to run the wanted versions, in seconds.
    type: int
    default: 15
attributes:
  check_mode:
    description: Says what systemctl would be told, tells it nothing, and does not wait.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Run the gateway
  bedplate.llm.gateway_service:
    release: 1b4f0e985197
    versions:
      listener_manager.lds: a4c2766eca47
"""

RETURN = r"""
actions:
  description: What systemctl was, or in check mode would be, told.
  returned: always
  type: list
  elements: str
  sample: [daemon-reload, restart]
versions:
  description: The versions that Envoy runs; empty in check mode.
  returned: always
  type: dict
"""

import http.client
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_running import (
    actions,
    behind,
    listener_errors,
    log_errors,
    unit_from,
    versions_from,
)
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
PROPERTIES = "LoadState,UnitFileState,ActiveState,NeedDaemonReload,MainPID"


class Admin(http.client.HTTPConnection):
    """Envoy's administration interface."""

    def __init__(self, path):
        super().__init__("localhost", timeout=2)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(admin_socket, path):
    """The answer as text; empty while nobody answers."""
    connection = Admin(admin_socket)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def look(module):
    command = ["systemctl", "show", module.params["unit"], "-p", PROPERTIES]
    properties = parse_show(module.run_command(command, check_rc=True, environ_update=C_LOCALE)[1])
    environment = ""
    if properties.get("MainPID", "0") != "0":
        try:
            with open(f"/proc/{properties['MainPID']}/environ") as handle:
                environment = handle.read()
        except OSError:
            # Ended since systemd was asked: then its release is unknown and it is started again.
            environment = ""
    return unit_from(properties, environment)


def what_it_says(module):
    """The unit's own words about why it does not run, on one line."""
    command = ["journalctl", "-u", module.params["unit"], "-n", "60", "--since", "-2min", "-o", "cat", "--no-pager"]
    return " | ".join(log_errors(module.run_command(command, environ_update=C_LOCALE)[1]))


def tell(module, action):
    unit = [] if action == "daemon-reload" else [module.params["unit"]]
    code, out, err = module.run_command(["systemctl", action, *unit], environ_update=C_LOCALE)
    if code:
        said = what_it_says(module) or (err.strip() or out.strip())
        module.fail_json(msg=f"{module.params['unit']} does not start; it says: {said}", rc=code)


def wait(module):
    """The versions that run, and which of the wanted ones are not among them by the end of the time allowed."""
    admin_socket, wanted = module.params["admin_socket"], module.params["versions"]
    deadline = time.monotonic() + module.params["timeout"]
    while True:
        found = versions_from(ask(admin_socket, "/stats?type=TextReadouts"))
        late = behind(wanted, found)
        if not late or time.monotonic() > deadline:
            return found, late
        time.sleep(0.1)


def refuse(module, late):
    errors = listener_errors(ask(module.params["admin_socket"], "/config_dump?resource=dynamic_listeners"))
    said = " | ".join(errors) or what_it_says(module) or "nothing; see journalctl -u " + module.params["unit"]
    module.fail_json(
        msg=f"The gateway does not run the new configuration ({', '.join(late)}) after {module.params['timeout']} s, "
        f"what it ran before goes on; Envoy says: {said}",
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "bedplate-gateway.service"},
            "release": {"type": "str", "required": True},
            "versions": {"type": "dict", "required": True},
            "admin_socket": {"type": "path", "default": "/run/bedplate-gateway/admin.sock"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    wanted = actions(look(module), module.params["release"])
    versions = {}
    if not module.check_mode:
        for action in wanted:
            tell(module, action)
        versions, late = wait(module)
        if late:
            refuse(module, late)
    module.exit_json(changed=bool(wanted), actions=wanted, versions=versions)


if __name__ == "__main__":
    main()
