# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
name: bundle
short_description: One part of a bundle
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Reads the manifest of a bundle on the controller and returns one of its parts with the digests of its files.
options:
  _terms:
    description: The bundle's folder.
    required: true
  part:
    description: Id of the part, such as V(engine) or V(gateway).
    type: str
  kind:
    description: Kind of the part, instead of its id.
    type: str
    choices: [engine, image, gateway, model]
  name:
    description: Name of the part, with O(kind).
    type: str
"""

EXAMPLES = r"""
- name: Say which engine the bundle brings
  ansible.builtin.debug:
    msg: "{{ lookup('bedplate.llm.bundle', bedplate_bundle_dir, part='engine').version }}"
"""

RETURN = r"""
_raw:
  description:
    - A dictionary with the keys C(name), C(version), C(device), C(digest), C(digest12) (its first 12 characters),
      C(path) (absolute), C(image) (the id of a container image), C(target) and C(artefacts), a list of C(path),
      C(sha256) and C(size).
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.bedplate.llm.plugins.module_utils.bundle import BundleError, find_part, load


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._describe(str(term)) for term in terms]

    def _describe(self, directory: str) -> dict[str, Any]:
        try:
            bundle = load(directory)
            part = find_part(bundle, self.get_option("part"), self.get_option("kind"), self.get_option("name"))
        except BundleError as error:
            raise AnsibleLookupError(f"bundle: {error}") from error
        return {
            "name": part.name,
            "version": part.version,
            "device": part.device,
            "image": part.image,
            "digest": part.digest,
            "digest12": part.digest[:12],
            "path": str(Path(directory).resolve() / part.path),
            "target": bundle.target,
            "artefacts": [
                {"path": artefact.path, "sha256": artefact.sha256, "size": artefact.size}
                for artefact in bundle.of(part.id)
            ],
        }
