#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

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
        description: Its files.
        type: list
        elements: dict
        required: true
        suboptions:
          path:
            description: Path relative to the model's folder.
            type: str
            required: true
          sha256:
            description: Digest of the content, in hexadecimal.
            type: str
            required: true
          size:
            description: Size in bytes.
            type: int
            required: true
  install:
    description:
      - Install the models that are absent, from the folders that RV(incoming) named before. M(bedplate.llm.bundle_push)
        brings the files there.
      - Otherwise the models are only looked at.
    type: bool
    default: false
  deep:
    description: Hash every file again instead of comparing size and time of change with the record of the installation.
    type: bool
    default: false
attributes:
  check_mode:
    description: Looks only, and reports whether something would be installed.
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
incoming:
  description: For each model whose files are needed, by its name, the folder to push them to.
  returned: always
  type: dict
paths:
  description: The folder of each model, by its name, whether it is there or not.
  returned: always
  type: dict
checks:
  description: For each model whether it is there, complete, of allowed files only, and immutable.
  returned: always
  type: list
  elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.model_checks import look
from ansible_collections.bedplate.llm.plugins.module_utils.model_tree import ModelError, declare, install, installed

FILE = {
    "path": {"type": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "size": {"type": "int", "required": True},
}
MODEL = {
    "name": {"type": "str", "required": True},
    "digest": {"type": "str", "required": True},
    "artefacts": {"type": "list", "elements": "dict", "required": True, "options": FILE},
}


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/var/lib/bedplate/models"},
            "models": {"type": "list", "elements": "dict", "required": True, "options": MODEL},
            "install": {"type": "bool", "default": False},
            "deep": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    root = module.params["root"]
    try:
        models = [declare(root, item["name"], item["digest"], item["artefacts"]) for item in module.params["models"]]
        wanted = [model for model in models if not installed(model)] if module.params["install"] else []
        if not module.check_mode:
            for model in wanted:
                install(model)
    except ModelError as error:
        module.fail_json(msg=f"model_store: {error}")
    absent = [model for model in models if not installed(model)]
    checks = [check for model in models for check in look(model, module.params["deep"])]
    module.exit_json(
        changed=bool(wanted),
        absent=[model.name for model in absent],
        # A folder without a record is complete or an error; either way its files need not be sent.
        incoming={model.name: model.incoming for model in absent if not os.path.lexists(model.path)},
        paths={model.name: model.path for model in models},
        checks=as_dicts(checks),
    )


if __name__ == "__main__":
    main()
