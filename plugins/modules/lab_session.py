#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_session
short_description: Record which playbook is changing a lab
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - One playbook at a time changes a lab. A second one is refused as long as the first lives.
  - M(bedplate.llm.lab_teardown) ends the recorded playbook before it cleans, so that a C(down) works in the middle of
    an C(up).
options:
  lab:
    description: Name of the lab.
    type: str
    required: true
  state:
    description: Whether the playbook that this runs in is changing the lab.
    type: str
    choices: [open, closed]
    default: open
attributes:
  check_mode:
    description: Refuses as it would, and records nothing.
    support: full
  diff_mode:
    description: Nothing here is text that a reader would compare.
    support: none
  platform:
    description: Runs on the operator's own machine, which is Debian or Ubuntu.
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Announce that this playbook changes the lab
  bedplate.llm.lab_session:
    lab: bedplate
"""

RETURN = r"""
process:
  description: The process number of the playbook.
  returned: success
  type: int
  sample: 4711
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import (
    is_alive,
    lock,
    name_process,
    parents,
    read_session,
    write,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import STATE_ROOT, LabError
from ansible_collections.bedplate.llm.plugins.module_utils.lab_session import other_session, playbook_process


def main():
    module = AnsibleModule(
        argument_spec={
            "lab": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["open", "closed"], "default": "open"},
        },
        supports_check_mode=True,
    )
    lab = module.params["lab"]
    path = STATE_ROOT / lab / "session.json"
    chain = parents(os.getpid())
    process = playbook_process(chain) or os.getpid()
    try:
        with lock(lab):
            record = read_session(path.parent)
            other = other_session(record, is_alive(record), [number for number, _command in chain])
            if other is not None:
                raise LabError(
                    f"Process {other} is changing the lab {lab} now: wait for it, or end it with lab_down.yml."
                )
            if module.check_mode:
                pass
            elif module.params["state"] == "closed":
                path.unlink(missing_ok=True)
            else:
                STATE_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
                write(path, json.dumps(name_process(process)), 0o600)
    except LabError as error:
        module.fail_json(msg=str(error))
    # A note about who is at work is not a change of the lab.
    module.exit_json(changed=False, process=process)


if __name__ == "__main__":
    main()
