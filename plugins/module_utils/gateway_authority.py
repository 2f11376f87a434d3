# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The site's own certificate authority: its certificate, and the certificates that it signs for hosts.

Runs on the operator's machine only, where the key is; needs the cryptography package there.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from typing import Any, Sequence

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

AUTHORITY_DAYS = 3653
# A host's clock may run behind the operator's.
BACKDATED = datetime.timedelta(minutes=5)
_COMMON_NAME_LIMIT = 64


class AuthorityError(ValueError):
    """Nothing can be signed; the message is one sentence for the user."""


def new_authority_key() -> Any:
    return ec.generate_private_key(ec.SECP384R1())


def new_token_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def certificate_pem(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(serialization.Encoding.PEM))


def load_key(pem: bytes, path: str) -> Any:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{path} cannot be read as a private key: {error}.") from None


def load_certificate(pem: bytes, path: str) -> Any:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise AuthorityError(f"{path} cannot be read as a certificate: {error}.") from None


def key_id(certificate: Any) -> str:
    """By which the certificates that it signs name it; lower-case hex."""
    try:
        return str(certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex())
    except x509.ExtensionNotFound:
        raise AuthorityError("the authority's certificate has no subject key identifier; make one that has.") from None


def _usage(*granted: str) -> Any:
    kinds = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{kind: kind in granted for kind in kinds})


def make_authority(key: Any, now: datetime.datetime) -> Any:
    """A self-signed authority that can sign servers but no other authority."""
    # The random part keeps two sites' authorities apart in a client's store.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bedplate site authority {secrets.token_hex(4)}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(identifier.digest, None, None), critical=False)
        .sign(key, hashes.SHA384())
    )


def _general_name(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def _requested_key(request_pem: str) -> Any:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode("ascii"))
        sound = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise AuthorityError(f"the host's certificate request cannot be read: {error}.") from None
    if not sound:
        raise AuthorityError(
            "the host's certificate request is not signed by its own key, so it may have been altered."
        )
    key = request.public_key()
    weak_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048
    if weak_rsa or not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise AuthorityError("the host's key must be on an elliptic curve, or RSA with at least 2048 bits.")
    return key


def sign_request(
    authority: Any, authority_key: Any, request_pem: str, names: Sequence[str], days: int, now: datetime.datetime
) -> Any:
    """A server certificate for the request's key.

    The names are the inventory's, not the request's: a host must not be able to ask for another host's name.
    """
    if authority_key.public_key() != authority.public_key():
        raise AuthorityError("ca.key is not the key of ca.crt; restore the pair from your backup.")
    key = _requested_key(request_pem)
    end = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
    if end <= now:
        raise AuthorityError("the site's authority has expired; move ca.crt and ca.key away and roll out again.")
    identifier = x509.AuthorityKeyIdentifier(bytes.fromhex(key_id(authority)), None, None)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_COMMON_NAME_LIMIT])]))
        .issuer_name(authority.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature", "key_encipherment"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA384())
    )
