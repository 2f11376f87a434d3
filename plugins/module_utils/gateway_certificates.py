# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a certificate says, read from the openssl command's own words, and whether it has to be replaced."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import asdict, dataclass
from typing import Any, Sequence

# What `openssl x509 -noout` is asked for; -ext needs OpenSSL 1.1.1, the oldest that has TLS 1.3.
X509_ARGUMENTS = (
    "-noout",
    "-serial",
    "-startdate",
    "-enddate",
    "-pubkey",
    "-ext",
    "subjectAltName,authorityKeyIdentifier",
)


class CertificateError(ValueError):
    """The text is not what openssl prints for a certificate; the message is one sentence."""


@dataclass(frozen=True)
class Certificate:
    """names: sorted, addresses in their shortest form. issuer_key_id: lower-case hex, empty when there is none.
    Times are seconds since the epoch."""

    serial: str
    names: tuple[str, ...]
    issuer_key_id: str
    not_before: int
    not_after: int
    public_key: str

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "names": list(self.names)}


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    if not found:
        raise CertificateError(f"openssl said nothing about {name} of the certificate.")
    return found.group(1).strip()


def _extension(text: str, title: str) -> str:
    found = re.search(rf"X509v3 {title}:[^\n]*\n((?:[ \t]+[^\n]*\n?)+)", text)
    return found.group(1) if found else ""


def normal_name(name: str) -> str:
    """Host names in lower case, addresses in their shortest form, where openssl prints FD87:B3D0:0:0:0:0:0:1."""
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return name.lower()


def parse(text: str) -> Certificate:
    """The certificate from what openssl prints for X509_ARGUMENTS."""
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", _extension(text, "Subject Alternative Name"))
    key_id = re.search(r"((?:[0-9A-F]{2}:){5,}[0-9A-F]{2})", _extension(text, "Authority Key Identifier"))
    public_key = re.search(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", text, re.DOTALL)
    if not public_key:
        raise CertificateError("openssl showed no public key of the certificate.")
    return Certificate(
        serial=_field(text, "serial").lower(),
        names=tuple(sorted({normal_name(name) for name in names})),
        issuer_key_id=key_id.group(1).replace(":", "").lower() if key_id else "",
        not_before=ssl.cert_time_to_seconds(_field(text, "notBefore")),
        not_after=ssl.cert_time_to_seconds(_field(text, "notAfter")),
        public_key="".join(public_key.group(1).split()),
    )


def why_replace(found: Certificate | None, names: Sequence[str], issuer_key_id: str, now: float) -> str:
    """One clause saying why a new certificate is needed, empty when the one in use will do."""
    if found is None:
        return "there is none"
    wanted = sorted({normal_name(name) for name in names})
    if list(found.names) != wanted:
        return f"it is for {', '.join(found.names) or 'no name'}, wanted is {', '.join(wanted)}"
    if issuer_key_id and found.issuer_key_id != issuer_key_id.lower():
        return "it was issued by another authority than the site's"
    left = found.not_after - now
    if left <= 0:
        return "it has expired"
    if left < (found.not_after - found.not_before) / 3:
        return f"less than a third of its lifetime is left ({int(left // 86400)} days)"
    return ""


def subject_alternative_name(names: Sequence[str]) -> str:
    """As `openssl req -addext` takes it."""
    parts = []
    for name in names:
        try:
            parts.append(f"IP:{ipaddress.ip_address(name).compressed}")
        except ValueError:
            parts.append(f"DNS:{name.lower()}")
    return "subjectAltName=" + ",".join(parts)
