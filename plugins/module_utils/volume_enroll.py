# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Adds ways of unlocking to a volume, proves them and takes them out, with systemd-cryptenroll and clevis.

A way is proved by the key that it gives out opening its own key slot; that it was added proves nothing.

`clevis luks bind` is not used, only `clevis encrypt` and `clevis decrypt`: bind takes another key slot's way when the
passphrase is wrong and says that all is well, and writes a backup of the header to the disk meanwhile (clevis 19).
The key slot and the token that it makes are the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cryptsetup, CryptsetupError, Run
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Header
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import TPM2
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import (
    CLEVIS,
    ORPHAN,
    RECOVERY,
    SYSTEMD_TPM2,
    Settings,
    Way,
    clevis_config,
    ways,
)

_KEY_BYTES = 32
# A JWE's parts in its compact form, in order (RFC 7516, section 7.1).
_PARTS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


class EnrollError(Exception):
    """What a tool said, as one sentence."""


def add(run: Run, device: str, header: Header, method: str, settings: Settings, passphrase: str) -> None:
    """Add a way, after taking out what a run that was cut off left of one."""
    for way in ways(header):
        if way.method == ORPHAN:
            remove(run, device, way, passphrase)
    if method == TPM2:
        _add_tpm2(run, device, header, settings, passphrase)
        return
    pin, config = clevis_config(method, settings)
    key = secrets.token_urlsafe(_KEY_BYTES)
    # -y: the server's keys are pinned by the configuration, so there is nobody to ask.
    jwe = _do(run, ["clevis", "encrypt", pin, json.dumps(config), "-y"], key.encode())
    cryptsetup = Cryptsetup(run, device)
    slot = cryptsetup.add_key(passphrase, key)
    cryptsetup.import_token({"type": CLEVIS, "keyslots": [str(slot)], "jwe": as_json(jwe)})


def _add_tpm2(run: Run, device: str, header: Header, settings: Settings, passphrase: str) -> None:
    """systemd-cryptenroll does nothing, and says that all is well, where a token with the same registers is there.  So
    it is not shown what is there; the former way has its token again before the new one is relied on."""
    cryptsetup = Cryptsetup(run, device)
    former = [token for token in header.tokens if token.type == SYSTEMD_TPM2]
    for token in former:
        cryptsetup.remove_token(token.number)
    refusal = None
    with _secret_file(passphrase) as path:
        argv = ["systemd-cryptenroll", f"--unlock-key-file={path}", "--tpm2-device=auto"]
        argv += [f"--tpm2-pcrs={'+'.join(map(str, settings.pcrs))}", device]
        try:
            _do(run, argv, None, (int(path.rsplit("/", 1)[1]),))
        except EnrollError as error:
            refusal = error
    for token in former:
        cryptsetup.import_token(token.content)
    if refusal:
        raise refusal


def problem(run: Run, device: str, header: Header, way: Way) -> str:
    """Why a way does not open the volume now; empty when it does.  Opens nothing and changes nothing."""
    try:
        return _problem(run, device, header, way)
    except (CryptsetupError, EnrollError) as error:
        return str(error)


def _problem(run: Run, device: str, header: Header, way: Way) -> str:
    if way.method in (RECOVERY, ORPHAN):
        return "a passphrase is proved by whoever has it"
    if way.method == TPM2:
        argv = ["cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--token-only"]
        argv += ["--token-id", str(way.token), device]
        code, output, said = _ask(run, argv, None)
        return "" if code == 0 else _sentence(argv, code, said or output)
    content = next(token.content for token in header.tokens if token.number == way.token)
    code, key, said = _ask(run, ["clevis", "decrypt"], compact(content.get("jwe", {})).encode())
    if code:
        return _sentence(["clevis", "decrypt"], code, said)
    if Cryptsetup(run, device).opens(key, way.keyslot):
        return ""
    return f"what clevis gives out for key slot {way.keyslot} of {device} does not open it"


def remove(run: Run, device: str, way: Way, passphrase: str) -> None:
    """Take a way out, by a passphrase of another key slot; the token goes with its slot."""
    cryptsetup = Cryptsetup(run, device)
    cryptsetup.remove_slot(way.keyslot, passphrase)
    if way.token >= 0:
        cryptsetup.remove_token(way.token)


def as_json(jwe: str) -> Dict[str, str]:
    """A JWE's compact form as the flattened JSON that a token holds."""
    parts = jwe.strip().split(".")
    if len(parts) != len(_PARTS):
        raise EnrollError(f"clevis gave out {len(parts)} parts, where a JWE has {len(_PARTS)}")
    return dict(zip(_PARTS, parts))


def compact(jwe: Mapping[str, Any]) -> str:
    return ".".join(str(jwe.get(part, "")) for part in _PARTS)


@contextlib.contextmanager
def _secret_file(secret: str) -> Iterator[str]:
    """A file in memory without a name, for a tool that cannot read its key from a pipe; gone with its last user."""
    descriptor = os.memfd_create("key")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secret.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _ask(run: Run, argv: Sequence[str], secret: Optional[bytes], inherited: Sequence[int] = ()) -> Tuple[int, str, str]:
    try:
        code, output, said = run(argv, secret, inherited)
    except FileNotFoundError as error:
        raise EnrollError(f"{argv[0]} is missing on this host") from error
    return code, output, said


def _do(run: Run, argv: Sequence[str], secret: Optional[bytes], inherited: Sequence[int] = ()) -> str:
    code, output, said = _ask(run, argv, secret, inherited)
    if code:
        raise EnrollError(_sentence(argv, code, said or output))
    return str(output)


def _sentence(argv: Sequence[str], code: int, said: str) -> str:
    shown: List[str] = [word for word in argv if not word.startswith(("{", "--unlock-key-file"))]
    return f"`{' '.join(shown)}` ended with {code}: {' '.join(said.split())[-600:] or 'and said nothing'}"
