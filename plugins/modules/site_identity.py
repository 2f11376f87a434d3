#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_identity
short_description: The keys of a site, made once on the operator's machine
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes what is missing of a site's certificate authority (C(ca.key), C(ca.crt)) and of its token issuer
    (C(token.key), C(jwks.json)) in the site's secrets directory, and signs the certificate request of a host.
  - Runs on the operator's machine, where the private keys stay. Nothing that exists is ever overwritten.
options:
  path:
    description: The site's secrets directory. It is made with mode 0700 and a C(.gitignore) that keeps it out of git.
    type: path
    required: true
  authority:
    description: Whether the site has its own certificate authority.
    type: bool
    default: true
  issuer:
    description: Whether the site issues its own tokens.
    type: bool
    default: true
  request:
    description: A certificate request in PEM, of a key that a host made; needs O(authority).
    type: str
  names:
    description: Host names and addresses of the certificate. What the request says about names is ignored.
    type: list
    elements: str
    default: []
  days:
    description: Lifetime of the certificate in days.
    type: int
    default: 90
requirements:
  - cryptography >= 42
attributes:
  check_mode:
    description: Reports what would be made and writes nothing; keys that it returns then are made up and forgotten.
    support: full
  diff_mode:
    description: Shows no differences, since most of what it makes is secret.
    support: none
  platform:
    description: The operator's machine.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Have an authority and a token issuer
  bedplate.llm.site_identity:
    path: "{{ inventory_dir }}/secrets"
  delegate_to: localhost
  become: false

- name: Sign the request of a host
  bedplate.llm.site_identity:
    path: "{{ inventory_dir }}/secrets"
    request: "{{ requested.request }}"
    names: [llm1.example.org, 192.0.2.11]
  delegate_to: localhost
  become: false
"""

RETURN = r"""
created:
  description: Names of the files that were, or in check mode would be, made.
  returned: always
  type: list
  elements: str
  sample: [ca.key, ca.crt]
authority:
  description: The authority's certificate in PEM, empty without O(authority).
  returned: always
  type: str
authority_key_id:
  description: Identifier of the authority's key in hexadecimal, empty without O(authority).
  returned: always
  type: str
jwks:
  description: The token issuer's public keys as a JSON Web Key Set, empty without O(issuer).
  returned: always
  type: str
certificate:
  description: The host's certificate in PEM, empty without O(request).
  returned: always
  type: str
"""

import contextlib
import datetime
import fcntl
import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_authority, gateway_jwt
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_authority import AuthorityError

KEY_MODE = 0o600
PUBLIC_MODE = 0o644


class Store:
    """The secrets directory; in check mode it remembers what would be written and writes nothing."""

    def __init__(self, path, check_mode):
        self.path = path
        self.check_mode = check_mode
        self.created = []
        self.tightened = []

    @contextlib.contextmanager
    def locked(self):
        """Hosts of one play come here at the same time; the first one makes the keys, the others find them."""
        if self.check_mode:
            yield
            return
        if not os.path.isdir(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, name):
        path = os.path.join(self.path, name)
        try:
            with open(path, "rb") as handle:
                return handle.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AuthorityError(f"{path} cannot be read: {error.strerror}.") from error

    def add(self, name, content, mode):
        self.created.append(name)
        if self.check_mode:
            return
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self.path)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.chmod(temporary, mode)
            # Unlike a rename, a link fails when the name is taken.
            os.link(temporary, os.path.join(self.path, name))
        finally:
            os.unlink(temporary)

    def tighten(self, name):
        path = os.path.join(self.path, name)
        if os.stat(path).st_mode & 0o077:
            self.tightened.append(name)
            if not self.check_mode:
                os.chmod(path, KEY_MODE)

    def key(self, name, make):
        """The private key of that name, made when it is missing."""
        pem = self.read(name)
        if pem is not None:
            self.tighten(name)
            return gateway_authority.load_key(pem, os.path.join(self.path, name))
        key = make()
        self.add(name, gateway_authority.key_pem(key), KEY_MODE)
        return key


def authority(store, now):
    """The authority's certificate. Its key may be kept elsewhere, as long as nothing has to be signed."""
    pem = store.read("ca.crt")
    if pem is not None:
        if store.read("ca.key") is not None:
            store.tighten("ca.key")
        return gateway_authority.load_certificate(pem, os.path.join(store.path, "ca.crt"))
    key = store.key("ca.key", gateway_authority.new_authority_key)
    certificate = gateway_authority.make_authority(key, now)
    store.add("ca.crt", gateway_authority.certificate_pem(certificate), PUBLIC_MODE)
    return certificate


def key_set(store):
    """The public keys by which tokens are checked; a site may add keys of its own to the file, to rotate them."""
    text = store.read("jwks.json")
    if text is not None and store.read(gateway_jwt.KEY_FILE) is None:
        return text.decode("utf-8")
    own = gateway_jwt.public_jwk(store.key(gateway_jwt.KEY_FILE, gateway_authority.new_token_key).public_key())
    if text is None:
        made = json.dumps({"keys": [own]}, indent=1, sort_keys=True) + "\n"
        store.add("jwks.json", made.encode("utf-8"), PUBLIC_MODE)
        return made
    path = os.path.join(store.path, "jwks.json")
    try:
        known = [(key.get("x"), key.get("y")) for key in json.loads(text)["keys"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuthorityError(f"{path} is not a JSON Web Key Set; move it away to have it made again.") from None
    if (own["x"], own["y"]) not in known:
        raise AuthorityError(
            f"{path} does not hold the public key of {gateway_jwt.KEY_FILE}, so every token would be refused; "
            "add it, or move the file away to have it made again."
        )
    return text.decode("utf-8")


def sign(store, certificate, parameters, now):
    pem = store.read("ca.key")
    if pem is None:
        raise AuthorityError(
            f"{store.path}/ca.key is not there, so no certificate can be signed; bring it back for this rollout, "
            "or give gateway_tls_certificate_file and gateway_tls_private_key_file."
        )
    key = gateway_authority.load_key(pem, os.path.join(store.path, "ca.key"))
    signed = gateway_authority.sign_request(
        certificate, key, parameters["request"], parameters["names"], parameters["days"], now
    )
    return gateway_authority.certificate_pem(signed).decode("ascii")


def serve(module):
    parameters = module.params
    store = Store(parameters["path"], module.check_mode)
    now = datetime.datetime.now(datetime.UTC)
    result = {"authority": "", "authority_key_id": "", "jwks": "", "certificate": ""}
    with store.locked():
        if store.read(".gitignore") is None:
            store.add(".gitignore", b"*\n", PUBLIC_MODE)
        if parameters["authority"]:
            certificate = authority(store, now)
            result["authority"] = gateway_authority.certificate_pem(certificate).decode("ascii")
            result["authority_key_id"] = gateway_authority.key_id(certificate)
            if parameters["request"] and not module.check_mode:
                result["certificate"] = sign(store, certificate, parameters, now)
        if parameters["issuer"]:
            result["jwks"] = key_set(store)
    changed = bool(store.created or store.tightened or parameters["request"])
    return dict(result, changed=changed, created=store.created)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "authority": {"type": "bool", "default": True},
            "issuer": {"type": "bool", "default": True},
            "request": {"type": "str"},
            "names": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    if not gateway_authority.HAS_CRYPTOGRAPHY:
        module.fail_json(
            msg="site_identity needs the Python package cryptography on the operator's machine; install it there."
        )
    if module.params["request"] and not (module.params["authority"] and module.params["names"]):
        module.fail_json(msg="site_identity: request needs authority: true and at least one entry in names.")
    try:
        module.exit_json(**serve(module))
    except AuthorityError as error:
        module.fail_json(msg=f"site_identity: {error}")


if __name__ == "__main__":
    main()
