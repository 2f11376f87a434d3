#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tang_probe
short_description: Prove from another machine that a tang server is the one it should be, and unlocks
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Fetches the advertisement of a tang server as a client does, compares its keys with those that the host has,
    and has the server use each exchange key, hidden ones included.
  - No secret is involved. The server is asked to apply its key to a public point whose answer is known.
  - Never fails because a check does not hold; use M(bedplate.llm.assert_checks) for that.
options:
  url:
    description: Where the server is.
    type: str
    required: true
  keys:
    description: The keys of the host, as M(bedplate.llm.tang_server_info) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      use:
        description: What the key is for.
        type: str
        choices: [signing, exchange]
        required: true
      thumbprint:
        description: Its thumbprint.
        type: str
        required: true
      hidden:
        description: Whether it is not advertised.
        type: bool
        required: true
      public:
        description: Its public part, as a JSON Web Key.
        type: dict
        required: true
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 10
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Any machine that reaches the server.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Ask the tang server from the operator's machine
  bedplate.llm.tang_probe:
    url: http://192.0.2.5:7654
    keys: "{{ __tang_server_verify.keys }}"
  delegate_to: localhost
  register: __tang_server_outside
"""

RETURN = r"""
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: tang_server.answers, ok: true, reason: "http://192.0.2.5:7654 answers."}]
"""

import http.client
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.tang import Key
from ansible_collections.bedplate.llm.plugins.module_utils.tang_checks import Answer, outside

LONGEST = 1 << 20


def asker(url, timeout):
    # A tang server is on the site's own network: no proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path, body):
        request = urllib.request.Request(url + path, data=body.encode("utf-8") or None)  # noqa: S310
        request.add_header("Content-Type", "application/jwk+json")
        try:
            with opener.open(request, timeout=timeout) as response:
                return Answer(response.status, response.read(LONGEST).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            return Answer(error.code, "")
        except urllib.error.URLError as error:
            return Answer(0, str(error.reason))
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, f"{type(error).__name__} {error}".strip())

    return ask


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "keys": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "use": {"type": "str", "choices": ["signing", "exchange"], "required": True},
                    "thumbprint": {"type": "str", "required": True},
                    "hidden": {"type": "bool", "required": True},
                    "public": {"type": "dict", "required": True},
                },
            },
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    given = module.params
    url = given["url"].rstrip("/")
    if not url.startswith("http://"):
        module.fail_json(
            msg=f"tang_probe: url must be http://ADDRESS:PORT, as tang speaks no TLS, found {given['url']}."
        )
    # Whether a key is hidden is all that its file says here.
    keys = [
        Key(one["use"], one["thumbprint"], one["public"], ".hidden.jwk" if one["hidden"] else "shown.jwk")
        for one in given["keys"]
    ]
    checks = outside(url, keys, asker(url, given["timeout"]))
    module.exit_json(changed=False, checks=as_dicts(checks))


if __name__ == "__main__":
    main()
