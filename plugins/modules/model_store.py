#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_store
short_description: Keep models on a host, verified and immutable
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Says which of the declared models the host has, as checks, and installs those whose files were pushed beforehand.
  - Every file is hashed and held to the policy (safetensors and data files only) before the model gets its final name.
  - A folder that is already there with other content is reported and never replaced.
options:
  root:
    description: Folder of all models.
    type: path
    default: /var/lib/bedplate/models
  models:
    description: The models, as P(bedplate.llm.bundle#lookup) describes them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the model.
        type: str
        required: true
      digest:
        description: Digest of the bundle's part.
        type: str
        required: true
      artefacts:
        description: Its files, each with C(path), C(sha256) and C(size) in bytes.
        type: list
        elements: dict
        required: true
      incoming:
        description: Folder that holds the pushed files; without it the model is only looked at.
        type: path
  deep:
    description: Hash every file again instead of comparing size and time of change with the record of the installation.
    type: bool
    default: false
attributes:
  check_mode:
    description: Looks only.
    support: full
  diff_mode:
    description: Weights have no readable difference.
    support: none
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look which models are there
  bedplate.llm.model_store:
    models:
      - name: tiny-r1-qwen2
        digest: "{{ model.digest }}"
        artefacts: "{{ model.artefacts }}"
  vars:
    model: "{{ lookup('bedplate.llm.bundle', bedplate_bundle_dir, kind='model', name='tiny-r1-qwen2') }}"
"""

RETURN = r"""
absent:
  description: Names of the models that are not installed.
  returned: always
  type: list
  elements: str
checks:
  description: For each model whether it is there, complete, of allowed files only, and immutable.
  returned: always
  type: list
  elements: dict
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check, as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.model_policy import problems
from ansible_collections.bedplate.llm.plugins.module_utils.model_tree import (
    declare,
    differences,
    make_record,
    read_record,
    writable,
)

AGAIN = "Move the folder away and roll out again; the bundle's copy is brought anew."


def install(module, model, incoming):
    """From the incoming folder to the final name, with nothing unverified in between."""
    if os.path.exists(model.path):
        wrong = differences(model, model.path, deep=True)
        if wrong:
            module.fail_json(
                msg=f"model_store: {model.path} exists with other content and is not replaced: {' '.join(wrong)} {AGAIN}"
            )
    else:
        # What the transfer keeps for itself is no part of the model.
        index = os.path.join(incoming, ".verified.json")
        if os.path.exists(index):
            os.unlink(index)
        wrong = differences(model, incoming, deep=True) or problems(incoming)
        if wrong:
            module.fail_json(msg=f"model_store: the model {model.name} is refused: {' '.join(wrong)}")
        for folder, dummy, files in os.walk(incoming):
            for name in files:
                os.chown(os.path.join(folder, name), 0, 0)
                os.chmod(os.path.join(folder, name), 0o444)
            os.chown(folder, 0, 0)
        os.makedirs(os.path.dirname(model.path), mode=0o755, exist_ok=True)
        os.replace(incoming, model.path)
    for folder, dummy, dummy_files in os.walk(model.path):
        os.chmod(folder, 0o555)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(model.path))
    with os.fdopen(handle, "w", encoding="utf-8") as record:
        record.write(make_record(model))
        record.flush()
        os.fsync(record.fileno())
    os.chmod(temporary, 0o444)
    os.replace(temporary, model.record)
    shutil.rmtree(incoming, ignore_errors=True)


def look(model, deep):
    prefix = f"model_store.{model.name}"
    record = read_record(model)
    if record is None or not os.path.isdir(model.path):
        return [Check(f"{prefix}-present", False, f"{model.path} is not installed.", "Roll the site out.")]
    wrong = differences(model, model.path, deep, record)
    refused = problems(model.path)
    loose = writable(model.path)
    how = "every file's sha256 is" if deep else "every file's size and time of change are"
    return [
        Check(f"{prefix}-present", True, f"{model.path} is installed."),
        Check(f"{prefix}-complete", not wrong, " ".join(wrong) or f"{how} as the bundle's manifest says.", AGAIN),
        Check(f"{prefix}-policy", not refused, " ".join(refused) or "It holds safetensors and data files only.", AGAIN),
        Check(
            f"{prefix}-immutable",
            not loose,
            f"{', '.join(loose)} can be written." if loose else "Nobody but root could change it.",
            AGAIN,
        ),
    ]


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/var/lib/bedplate/models"},
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "digest": {"type": "str", "required": True},
                    "artefacts": {"type": "list", "elements": "dict", "required": True},
                    "incoming": {"type": "path"},
                },
            },
            "deep": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    changed = False
    checks = []
    absent = []
    for item in module.params["models"]:
        model = declare(module.params["root"], item["name"], item["digest"], item["artefacts"])
        there = read_record(model) is not None and os.path.isdir(model.path)
        if not there and item["incoming"]:
            if not module.check_mode:
                install(module, model, item["incoming"])
            changed = True
            there = not module.check_mode
        if not there:
            absent.append(model.name)
        checks += look(model, module.params["deep"])
    module.exit_json(changed=changed, absent=absent, checks=as_dicts(checks))


if __name__ == "__main__":
    main()
