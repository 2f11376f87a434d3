# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cipher profiles of encrypted volumes, and whether the kernel that runs can do one.

The kernel is asked to encrypt two blocks whose result is known, through its socket for that (AF_ALG): no device, no
volume and no tool takes part.  It may load modules for it, as it would for the volume; nothing else changes.  Where the
kernel has no such socket, its list of algorithms says what there is, after `modprobe` was asked for the modules.
"""

from __future__ import annotations

import errno
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.preflight import parse_os_release

# Exit status and standard output of a command.
Ask = Callable[[Sequence[str]], Tuple[int, str]]


@dataclass(frozen=True)
class Profile:
    """One set of cryptography for a volume.

    cipher, key_bits and hash are what cryptsetup is told; in XTS the key is two keys, one half each.  The hash is that
    of the header (key derivation and anti-forensic splitting), which cryptsetup computes itself: the kernel needs none.
    algorithm and block are the kernel's names for the mode and for the cipher below it; modules bring them.
    expected is what KNOWN_TEXT becomes under a key of the bytes 0, 1, 2, … and the sector number 1.
    """

    name: str
    cipher: str
    key_bits: int
    hash: str
    algorithm: str
    block: str
    modules: Tuple[str, ...]
    expected: str

    @property
    def benchmark(self) -> str:
        """What `cryptsetup benchmark --cipher` calls it."""
        return self.cipher.rpartition("-")[0]


# Two blocks: the step between them is where IEEE 1619, which Linux does for every cipher, and GB/T 17964 part.
KNOWN_TEXT = b"what is on disk, what is not...."

INTERNATIONAL = Profile(
    name="international",
    cipher="aes-xts-plain64",
    key_bits=512,
    hash="sha256",
    algorithm="xts(aes)",
    block="aes",
    modules=("xts", "aes"),
    expected="341b50e05d1a63d7cf173620aa46d9bfd425b62e8c582db66ca5810db45a2a51",
)
GUOMI = Profile(
    name="guomi",
    cipher="sm4-xts-plain64",
    key_bits=256,
    hash="sm3",
    algorithm="xts(sm4)",
    block="sm4",
    modules=("xts", "sm4_generic"),
    expected="afb1e4001d0b5114afdb9ae66f843257950f6c5c839774deb875cb771d8ae7f5",
)
DEFAULT = INTERNATIONAL.name
PROFILES: Dict[str, Profile] = {profile.name: profile for profile in (INTERNATIONAL, GUOMI)}

# How a distribution comes by SM4; {release} is the kernel's.
_SM4 = {
    "debian": "Debian builds its kernels without SM4; run the role sm4_module on this host, which builds the module"
    " from Debian's own source of that kernel",
    "ubuntu": "Ubuntu has it in the package linux-modules-{release}; install that package, or boot one of Ubuntu's own"
    " kernels",
    "openeuler": "openEuler's own kernels have it as the module sm4_generic; boot one of them",
    "anolis": "Anolis OS's own kernels have it as the module sm4_generic; boot one of them",
}
_ELSEWHERE = "boot a kernel with CONFIG_CRYPTO_SM4_GENERIC and CONFIG_CRYPTO_XTS"

# What the kernel answered: the known result, another one, that it does not know the algorithm, or nothing at all.
RIGHT, WRONG, ABSENT, UNASKED = "right", "wrong", "absent", "unasked"


@dataclass(frozen=True)
class Host:
    """The kernel that runs, and whose it is by ID and PRETTY_NAME of os-release."""

    release: str
    distribution: str = ""
    label: str = ""


def parse_crypto(text: str) -> FrozenSet[str]:
    """Names of the algorithms in /proc/crypto: single ciphers, and modes of them that were in use since the boot."""
    pairs = (line.partition(":") for line in text.splitlines())
    return frozenset(value.strip() for key, _colon, value in pairs if key.strip() == "name")


def remedy(profile: Profile, host: Host) -> str:
    """What brings the algorithm to a kernel without it."""
    if profile.block != "sm4":
        return f"boot a kernel of the distribution, which has {profile.algorithm}"
    step = _SM4.get(host.distribution, _ELSEWHERE).format(release=host.release)
    return f"{step}, or choose the cipher profile {DEFAULT}"


def decide(profile: Profile, answer: str, names: FrozenSet[str], host: Host) -> Optional[str]:
    """None where the kernel can do the profile, else why not and what to do, as one sentence.

    names: what /proc/crypto lists; it counts only where the kernel could not be asked.
    """
    where = f"kernel {host.release} of {host.label or 'this host'}"
    if answer == RIGHT or (answer == UNASKED and (profile.algorithm in names or profile.block in names)):
        return None
    if answer == WRONG:
        return (
            f"The {where} encrypts with {profile.algorithm} to something else than the standard says, and the cipher"
            f" profile {profile.name} needs it: nothing may be written with it; boot another kernel."
        )
    return (
        f"The {where} cannot encrypt with {profile.algorithm}, which the cipher profile {profile.name} needs:"
        f" {remedy(profile, host)}."
    )


# --- asking the kernel ----------------------------------------------------------------------------------------------


def _encrypt(algorithm: str, key: bytes, sector: int, text: bytes) -> bytes:
    """By the kernel's socket; OSError where it has no such socket, or does not know the algorithm."""
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as listener:
        listener.bind(("skcipher", algorithm))
        listener.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, key)
        operation, _address = listener.accept()
        with operation:
            operation.sendmsg_afalg([text], op=socket.ALG_OP_ENCRYPT, iv=sector.to_bytes(16, "little"))
            return operation.recv(len(text))


def _result(profile: Profile) -> bytes:
    return _encrypt(profile.algorithm, bytes(range(profile.key_bits // 8)), 1, KNOWN_TEXT)


def ask(profile: Profile, result: Callable[[Profile], bytes] = _result) -> str:
    try:
        return RIGHT if result(profile).hex() == profile.expected else WRONG
    except (AttributeError, PermissionError):  # a Python without AF_ALG; a policy that forbids it
        return UNASKED
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELIBBAD):
            return UNASKED
    # Either it does not know the algorithm, or it lacks the part that answers: then it does not know AES either.
    try:
        result(INTERNATIONAL)
    except OSError:
        return UNASKED
    return ABSENT


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def this_host(root: Path = Path("/")) -> Host:
    release = parse_os_release(_text(root / "etc/os-release") or _text(root / "usr/lib/os-release"))
    return Host(platform.release(), release.get("ID", "").lower(), release.get("PRETTY_NAME", ""))


def probe(name: str, run: Ask, root: Path = Path("/"), result: Callable[[Profile], bytes] = _result) -> Optional[str]:
    """None where the kernel that runs can do the profile of that name, else the sentence that refuses it."""
    profile = PROFILES[name]
    answer = ask(profile, result)
    names: FrozenSet[str] = frozenset()
    if answer == UNASKED:
        for module in profile.modules:
            run(["modprobe", "--quiet", module])
        names = parse_crypto(_text(root / "proc/crypto"))
    return decide(profile, answer, names, this_host(root))
