"""Cipher profiles: what they encrypt to, and what a kernel's answers mean."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import cipher_profiles as profiles
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import (
    ABSENT,
    GUOMI,
    INTERNATIONAL,
    RIGHT,
    UNASKED,
    WRONG,
    Host,
    Profile,
)
from cryptography.hazmat.primitives.ciphers import algorithms
from xts import encrypt

DEBIAN = Host("6.1.0-56-cloud-amd64", "debian", "Debian GNU/Linux 12 (bookworm)")
UBUNTU = Host("6.8.0-50-generic", "ubuntu", "Ubuntu 24.04 LTS")
CRYPTO = """\
name         : aes
driver       : aes-generic
module       : aes_generic
priority     : 100
type         : cipher

name         : xts(aes)
driver       : xts-aes-aesni
type         : skcipher
"""


@pytest.mark.parametrize(("profile", "cipher"), [(INTERNATIONAL, algorithms.AES), (GUOMI, algorithms.SM4)])
def test_the_known_result_is_what_another_implementation_makes_of_it(profile, cipher):
    key = bytes(range(profile.key_bits // 8))
    assert encrypt(cipher, key, 1, profiles.KNOWN_TEXT).hex() == profile.expected


def test_the_profiles_by_their_names():
    assert set(profiles.PROFILES) == {"international", "guomi"}
    assert [profile.benchmark for profile in profiles.PROFILES.values()] == ["aes-xts", "sm4-xts"]


def test_the_names_that_a_kernel_lists():
    assert profiles.parse_crypto(CRYPTO) == {"aes", "xts(aes)"}
    assert profiles.parse_crypto("") == frozenset()


@pytest.mark.parametrize(
    ("profile", "answer", "names", "usable"),
    [
        (GUOMI, RIGHT, set(), True),
        (GUOMI, ABSENT, set(), False),
        # An algorithm in the list counts for nothing where the kernel itself says no, or encrypts wrongly.
        (GUOMI, ABSENT, {"sm4"}, False),
        (GUOMI, WRONG, {"sm4", "xts(sm4)"}, False),
        (GUOMI, UNASKED, {"aes", "xts(aes)"}, False),
        (GUOMI, UNASKED, {"sm4"}, True),
        (GUOMI, UNASKED, {"xts(sm4)"}, True),
        (INTERNATIONAL, UNASKED, {"aes"}, True),
        (INTERNATIONAL, UNASKED, set(), False),
    ],
)
def test_what_an_answer_decides(profile, answer, names, usable):
    assert (profiles.decide(profile, answer, frozenset(names), DEBIAN) is None) is usable


@pytest.mark.parametrize(
    ("profile", "answer", "host", "words"),
    [
        (GUOMI, ABSENT, DEBIAN, ["kernel 6.1.0-56-cloud-amd64 of Debian GNU/Linux 12", "run the role sm4_module"]),
        (GUOMI, ABSENT, UBUNTU, ["xts(sm4)", "package linux-modules-6.8.0-50-generic", "profile international"]),
        (GUOMI, ABSENT, Host("5.10.0", "openeuler"), ["of this host", "openEuler's own kernels have it"]),
        (GUOMI, ABSENT, Host("5.14.0", "rhel"), ["CONFIG_CRYPTO_SM4_GENERIC"]),
        (GUOMI, WRONG, DEBIAN, ["something else than the standard says", "nothing may be written"]),
        (INTERNATIONAL, ABSENT, DEBIAN, ["xts(aes)", "boot a kernel of the distribution"]),
    ],
)
def test_a_refusal_names_the_kernel_and_says_what_to_do(profile, answer, host, words):
    sentence = profiles.decide(profile, answer, frozenset(), host)
    assert sentence is not None
    for word in words:
        assert word in sentence
    assert sentence.endswith(".") and ". " not in sentence


def kernel(**known: bytes | OSError):
    """A kernel's socket, by the name of a profile: a result, or the error that it answers with."""

    def result(profile: Profile) -> bytes:
        answer = known.get(profile.name, OSError(errno.ENOENT, "No such file or directory"))
        if isinstance(answer, OSError):
            raise answer
        return answer

    return result


GOOD = {name: bytes.fromhex(profile.expected) for name, profile in profiles.PROFILES.items()}


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (kernel(**GOOD), RIGHT),
        (kernel(international=GOOD["international"]), ABSENT),
        (kernel(international=GOOD["international"], guomi=OSError(errno.ELIBBAD, "self-test")), ABSENT),
        (kernel(international=GOOD["international"], guomi=bytes(32)), WRONG),
        # Without algif_skcipher it knows no algorithm at all.
        (kernel(), UNASKED),
        (kernel(guomi=OSError(errno.EAFNOSUPPORT, "Address family not supported")), UNASKED),
        (kernel(guomi=PermissionError(errno.EACCES, "denied")), UNASKED),
    ],
)
def test_what_the_kernels_socket_says(result, answer):
    assert profiles.ask(GUOMI, result) == answer


def test_a_kernel_that_cannot_be_asked_loads_the_modules_and_is_looked_at(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/crypto").write_text(CRYPTO)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    asked = []

    def command(argv):
        asked.append(list(argv))
        return 1, ""

    sentence = profiles.probe("guomi", command, tmp_path, kernel())
    assert asked == [["modprobe", "--quiet", "xts"], ["modprobe", "--quiet", "sm4_generic"]]
    assert sentence is not None and "Debian GNU/Linux 12 (bookworm) cannot encrypt with xts(sm4)" in sentence
    assert profiles.probe("international", command, tmp_path, kernel()) is None


def test_a_kernel_that_answers_is_asked_for_nothing_else(tmp_path: Path):
    def command(argv):
        raise AssertionError(argv)

    assert profiles.probe("guomi", command, tmp_path, kernel(**GOOD)) is None
