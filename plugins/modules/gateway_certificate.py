#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_certificate
short_description: The server certificate of the gateway, with a key that never leaves the host
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Says whether the certificate in use will do, makes a private key and a request for a new one, and puts the signed
    certificate into use together with its key by replacing one symbolic link, which Envoy follows without a restart.
  - The certificate before the present one is kept beside it; older ones are removed.
options:
  state:
    description:
      - V(query) changes nothing and says whether a certificate has to be requested or shipped.
      - V(requested) makes a private key, unless an earlier run left one, and returns a request for it.
      - V(installed) puts O(certificate) into use, with O(private_key) or with the key of the request.
    type: str
    choices: [query, requested, installed]
    default: query
  directory:
    description: Where the certificates are kept; C(current) in it is the link.
    type: path
    default: /etc/bedplate/gateway/tls
  group:
    description: Group that may read the private key. It has to exist unless the state is V(query).
    type: str
    default: bedplate-gateway
  names:
    description: Host names and addresses that the certificate is for.
    type: list
    elements: str
    default: []
  issuer_key_id:
    description: Identifier of the key of the authority that has to have signed it, hexadecimal.
    type: str
    default: ''
  chain_sha256:
    description:
      - Digest of the certificate file that should be in use, for a certificate that comes from elsewhere.
      - With it, names, issuer and lifetime are the operator's affair and are not looked at.
    type: str
    default: ''
  certificate:
    description: The certificate in PEM, followed by the intermediate ones.
    type: str
  private_key:
    description: Its private key in PEM, for a certificate that comes from elsewhere.
    type: str
attributes:
  check_mode:
    description: Says what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows no differences, since one half is secret and the other unreadable.
    support: none
  platform:
    description: Linux hosts with the C(openssl) command, 1.1.1 or later.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Ask whether the certificate will do
  bedplate.llm.gateway_certificate:
    names: [llm1.example.org, 192.0.2.11]
    issuer_key_id: "{{ identity.authority_key_id }}"
  register: certificate

- name: Make a key and a request for it
  bedplate.llm.gateway_certificate:
    state: requested
    names: [llm1.example.org, 192.0.2.11]
  register: requested

- name: Use the certificate that the authority signed
  bedplate.llm.gateway_certificate:
    state: installed
    certificate: "{{ signed.certificate }}"
"""

RETURN = r"""
needed:
  description: Why a certificate has to be requested or shipped, empty when the one in use will do.
  returned: when state is query
  type: str
  sample: less than a third of its lifetime is left (29 days)
group_exists:
  description: Whether the host has O(group).
  returned: when state is query
  type: bool
certificate:
  description: What the certificate in use says; empty when there is none. Times are seconds since the epoch.
  returned: when state is query or installed
  type: dict
request:
  description: The certificate request in PEM; empty in check mode.
  returned: when state is requested
  type: str
"""

import contextlib
import grp
import hashlib
import os
import shutil
import stat
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_certificates import (
    X509_ARGUMENTS,
    CertificateError,
    parse,
    subject_alternative_name,
    why_replace,
)

KEY = "server.key"
CHAIN = "server.crt"


class Certificates:
    def __init__(self, module):
        self.module = module
        self.directory = module.params["directory"]
        self.current = os.path.join(self.directory, "current")
        self.pending = os.path.join(self.directory, "pending")

    def openssl(self, *arguments):
        code, out, err = self.module.run_command(["openssl", *arguments], environ_update={"LC_ALL": "C"})
        if code:
            raise CertificateError(f"openssl {arguments[0]} failed: {(err.strip() or out.strip())[-400:]}.")
        return out

    def read(self, directory):
        """What the certificate in that directory says, or nothing."""
        path = os.path.join(directory, CHAIN)
        if not os.path.exists(path):
            return None
        return parse(self.openssl("x509", "-in", path, *X509_ARGUMENTS))

    def give(self, path, mode):
        os.chown(path, -1, self.group_id())
        os.chmod(path, mode)

    def group_id(self):
        name = self.module.params["group"]
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            raise CertificateError(
                f"group {name} does not exist on this host; make it before the certificate."
            ) from None

    def make_directory(self, path):
        os.makedirs(path, exist_ok=True)
        self.give(path, 0o750)

    def write(self, path, text, mode):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        self.give(path, mode)


def group_exists(name):
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def key_is_exposed(certificates):
    try:
        return bool(os.stat(os.path.join(certificates.current, KEY)).st_mode & stat.S_IRWXO)
    except FileNotFoundError:
        return False


def query(certificates):
    parameters = certificates.module.params
    found = certificates.read(certificates.current)
    if key_is_exposed(certificates):
        needed = "every user of the host could read its private key"
    elif parameters["chain_sha256"]:
        needed = ""
        if found is None:
            needed = "there is none"
        else:
            with open(os.path.join(certificates.current, CHAIN), "rb") as handle:
                if hashlib.sha256(handle.read()).hexdigest() != parameters["chain_sha256"]:
                    needed = "another one is in use"
    else:
        needed = why_replace(found, parameters["names"], parameters["issuer_key_id"], time.time())
    return {
        "changed": False,
        "needed": needed,
        "certificate": found.as_dict() if found else {},
        "group_exists": group_exists(parameters["group"]),
    }


def requested(certificates):
    module = certificates.module
    names = module.params["names"]
    if not names:
        raise CertificateError("names is empty, but a certificate has to be for at least one name.")
    if module.check_mode:
        return {"changed": True, "request": ""}
    certificates.make_directory(certificates.directory)
    certificates.make_directory(certificates.pending)
    key = os.path.join(certificates.pending, KEY)
    if not os.path.exists(key):
        made = key + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        # openssl itself writes private keys with mode 0600.
        certificates.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", made)
        os.rename(made, key)
    subject = ["-subj", f"/CN={names[0][:64]}", "-addext", subject_alternative_name(names)]
    return {"changed": True, "request": certificates.openssl("req", "-new", "-sha256", "-key", key, *subject)}


def staged_generation(certificates):
    """A directory beside the others that holds the new certificate and its key, known to belong together."""
    parameters = certificates.module.params
    staged = tempfile.mkdtemp(prefix=".new-", dir=certificates.directory)
    try:
        key = parameters["private_key"]
        if not key:
            try:
                with open(os.path.join(certificates.pending, KEY)) as handle:
                    key = handle.read()
            except FileNotFoundError:
                raise CertificateError("no request is pending, so there is no key for the certificate.") from None
        certificates.write(os.path.join(staged, KEY), key, 0o640)
        certificates.write(os.path.join(staged, CHAIN), parameters["certificate"], 0o644)
        found = certificates.read(staged)
        public = certificates.openssl("pkey", "-in", os.path.join(staged, KEY), "-pubout")
        if found.public_key not in "".join(public.split()):
            raise CertificateError("the certificate and the private key do not belong together.")
        certificates.give(staged, 0o750)
    except BaseException:
        shutil.rmtree(staged)
        raise
    return staged, found


def use(certificates, name):
    """Point `current` at that generation, and forget all but the one before."""
    link = certificates.current + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    previous = os.readlink(certificates.current) if os.path.islink(certificates.current) else ""
    os.symlink(name, link)
    os.replace(link, certificates.current)
    for entry in os.listdir(certificates.directory):
        path = os.path.join(certificates.directory, entry)
        if entry not in (name, previous) and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)


def installed(certificates):
    parameters = certificates.module.params
    if certificates.module.check_mode:
        return {"changed": True, "certificate": {}}
    if not parameters["certificate"]:
        raise CertificateError("certificate is missing.")
    certificates.make_directory(certificates.directory)
    staged, found = staged_generation(certificates)
    digest = hashlib.sha256(parameters["certificate"].encode("utf-8")).hexdigest()[:12]
    name = time.strftime("%Y%m%d", time.gmtime(found.not_after)) + "-" + digest
    generation = os.path.join(certificates.directory, name)
    # It may be there from an interrupted run, or readable by everybody, which is why it is replaced.
    if os.path.isdir(generation):
        os.rename(generation, generation + ".old")
    os.rename(staged, generation)
    use(certificates, name)
    return {"changed": True, "certificate": found.as_dict()}


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["query", "requested", "installed"], "default": "query"},
            "directory": {"type": "path", "default": "/etc/bedplate/gateway/tls"},
            "group": {"type": "str", "default": "bedplate-gateway"},
            "names": {"type": "list", "elements": "str", "default": []},
            "issuer_key_id": {"type": "str", "default": "", "no_log": False},
            "chain_sha256": {"type": "str", "default": ""},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    act = {"query": query, "requested": requested, "installed": installed}[module.params["state"]]
    try:
        result = act(Certificates(module))
    except CertificateError as error:
        module.fail_json(msg=f"gateway_certificate: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
