"""Which ways of unlocking are in a header, and whether they are the declared ones."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import BOTH, TANG, TPM2
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import (
    RECOVERY,
    Settings,
    TangServer,
    clevis_config,
    fits,
    missing,
    outdated,
    settings,
    settings_problems,
    thumbprint,
    ways,
)
from volume_samples import header, metadata
from volume_tokens import ALONE, ONE, PAIR, THUMBPRINT, TWO, clevis, sss, systemd, tang, tpm2


def with_token(token: dict[str, Any], slots: tuple[int, ...] = (0, 1)):
    return header(metadata(slots, tokens={"0": token}))


# Token -> method, PCRs, servers, threshold.
@pytest.mark.parametrize(
    ("token", "method", "pcrs", "urls", "threshold"),
    [
        (systemd(7), TPM2, {7}, set(), 0),
        (systemd(), TPM2, set(), set(), 0),
        (clevis(tang()), TANG, set(), {ONE.url}, 1),
        (clevis(sss(2, tang(ONE), tang(TWO))), TANG, set(), {ONE.url, TWO.url}, 2),
        (clevis(sss(2, tpm2(), tang())), BOTH, {7}, {ONE.url}, 1),
        (clevis(sss(2, tpm2("7,11"), sss(1, tang(ONE), tang(TWO)))), BOTH, {7, 11}, {ONE.url, TWO.url}, 1),
        (clevis(sss(2, tpm2([7]), tang())), BOTH, {7}, {ONE.url}, 1),
        # Shamir's sharing of which one part is enough is not both.
        (clevis(sss(1, tpm2(), tang())), "other", {7}, {ONE.url}, 1),
        (clevis(sss(1, tpm2(), sss(2, tang(ONE), tang(TWO)))), "other", {7}, {ONE.url, TWO.url}, 2),
        (clevis(tpm2()), "other", {7}, set(), 0),
        (clevis("not base64 of JSON"), "other", set(), set(), 0),
        ({"type": "systemd-fido2", "keyslots": ["1"]}, "other", set(), set(), 0),
        ({"type": "luks2-keyring", "keyslots": ["1"]}, "other", set(), set(), 0),
    ],
)
def test_a_token_says_how_its_key_slot_is_opened(token, method, pcrs, urls, threshold):
    recovery, way = ways(with_token(token))
    assert (recovery.method, recovery.keyslot, recovery.token) == (RECOVERY, 0, -1)
    assert (way.method, way.keyslot, way.token) == (method, 1, 0)
    assert (way.pcrs, way.urls, way.threshold) == (pcrs, urls, threshold)


def test_a_token_without_a_key_slot_is_no_way():
    tokens = {"0": {"type": "clevis", "keyslots": [], "jwe": {}}}
    assert [way.method for way in ways(header(metadata((0,), tokens=tokens)))] == [RECOVERY]


def test_every_key_slot_of_a_token_is_opened_by_it():
    found = ways(with_token(clevis(tang(), 1, 2), (0, 1, 2)))
    assert [(way.method, way.keyslot) for way in found] == [(RECOVERY, 0), (TANG, 1), (TANG, 2)]


def test_a_tang_way_knows_the_signing_keys_it_was_made_with():
    (_recovery, way) = ways(with_token(clevis(tang())))
    assert way.thumbprints == {THUMBPRINT}
    assert outdated(way, ALONE) == []
    changed = Settings((7,), (TangServer(ONE.url, "another"), TangServer("http://new", "x")), 1)
    assert outdated(way, changed) == [ONE.url]


@pytest.mark.parametrize(
    ("token", "method", "wanted", "does"),
    [
        (systemd(7), TPM2, ALONE, True),
        (systemd(7, 11), TPM2, ALONE, False),
        (systemd(7), TANG, ALONE, False),
        (systemd(), TPM2, ALONE, False),
        (clevis(sss(2, tpm2(""), tang())), BOTH, ALONE, False),
        (systemd(), TPM2, Settings(()), True),
        (clevis(tang()), TANG, ALONE, True),
        (clevis(tang(TWO)), TANG, ALONE, False),
        (clevis(tang()), TANG, PAIR, False),
        (clevis(sss(2, tang(ONE), tang(TWO))), TANG, PAIR, True),
        (clevis(sss(1, tang(ONE), tang(TWO))), TANG, PAIR, False),
        (clevis(sss(2, tpm2(), tang())), BOTH, ALONE, True),
        (clevis(sss(2, tpm2("7,11"), tang())), BOTH, ALONE, False),
        (clevis(sss(2, tpm2(), sss(2, tang(ONE), tang(TWO)))), BOTH, PAIR, True),
    ],
)
def test_a_way_fits_what_the_settings_ask_for(token, method, wanted, does):
    found = with_token(token)
    assert fits(ways(found)[1], method, wanted) is does
    assert missing(found, [method], wanted) == ([] if does else [method])


@pytest.mark.parametrize(
    ("method", "wanted", "expected"),
    [
        (TANG, ALONE, ("tang", {"url": ONE.url, "thp": THUMBPRINT})),
        (
            TANG,
            PAIR,
            (
                "sss",
                {
                    "t": 2,
                    "pins": {"tang": [{"url": ONE.url, "thp": THUMBPRINT}, {"url": TWO.url, "thp": THUMBPRINT}]},
                },
            ),
        ),
        (
            BOTH,
            ALONE,
            (
                "sss",
                {
                    "t": 2,
                    "pins": {
                        "tpm2": {"pcr_bank": "sha256", "pcr_ids": "7"},
                        "tang": {"url": ONE.url, "thp": THUMBPRINT},
                    },
                },
            ),
        ),
        (
            BOTH,
            Settings((), (ONE,)),
            (
                "sss",
                {"t": 2, "pins": {"tpm2": {"pcr_bank": "sha256"}, "tang": {"url": ONE.url, "thp": THUMBPRINT}}},
            ),
        ),
    ],
)
def test_clevis_is_told_the_pinned_servers(method, wanted, expected):
    assert clevis_config(method, wanted) == expected


def test_two_servers_below_a_tpm_keep_their_own_threshold():
    _pin, config = clevis_config(BOTH, Settings((7,), (ONE, TWO), 1))
    assert (config["t"], config["pins"]["sss"]["t"]) == (2, 1)


@pytest.mark.parametrize(
    ("wanted", "methods", "words"),
    [
        (ALONE, [TPM2, TANG], []),
        (Settings(), [TPM2], []),
        (Settings((7, 24)), [TPM2], ["registers are 0 to 23, found 24"]),
        (Settings((7,), (), 1), [TANG], ["name at least one server"]),
        (Settings((7,), (), 1), [BOTH], ["name at least one server"]),
        (Settings((7,), (ONE,), 2), [TANG], ["give 1 to 1, the number of servers, found 2"]),
        (Settings((7,), (ONE,), 0), [TANG], ["found 0"]),
        (Settings((7,), (TangServer("tang1", "x"),)), [TANG], ["url begins with http:// or https://, found 'tang1'"]),
        (Settings((7,), (TangServer("http://tang1", ""),)), [TANG], ["has no thumbprint; without it whoever answers"]),
        # Without a volume that uses them, servers are nobody's concern.
        (Settings((7,), (TangServer("tang1", ""),), 9), [TPM2], []),
    ],
)
def test_settings_that_cannot_work_are_told(wanted, methods, words):
    found = settings_problems(wanted, methods)
    assert len(found) == len(words), found
    assert all(word in problem for word, problem in zip(words, found, strict=True))


def test_settings_come_from_the_options_that_the_modules_share():
    servers = [{"url": ONE.url, "thumbprint": THUMBPRINT}, {"url": TWO.url, "thumbprint": THUMBPRINT}]
    assert settings({"tpm2_pcrs": [7], "tang_servers": servers, "tang_threshold": 2}) == PAIR


def test_a_thumbprint_is_that_of_rfc_7638():
    """The example of its section 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhM"
        "stn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
        "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert thumbprint({"kty": "unknown"}) == ""
