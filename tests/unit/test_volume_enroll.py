"""Ways of unlocking are proved by what they give out, and no key is seen anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import volume_enroll
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cryptsetup, CryptsetupError
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import BOTH, TANG, TPM2
from ansible_collections.bedplate.llm.plugins.module_utils.volume_enroll import EnrollError, as_json, compact
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import (
    ORPHAN,
    RECOVERY,
    Settings,
    TangServer,
    Way,
    fits,
    missing,
    thumbprint,
    ways,
)
from volume_lab import SIGNING_KEY, Lab, Power
from volume_samples import both_copies, header, metadata

PASSPHRASE = "the-recovery-passphrase"
SETTINGS = Settings((7,), (TangServer("http://tang1:7654", thumbprint(SIGNING_KEY)),), 1)


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "lab", Power())
    made.write(both_copies(metadata()))
    made.keys = {0: PASSPHRASE.encode()}
    return made


def add(lab: Lab, method: str, settings: Settings = SETTINGS) -> Way:
    volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, method, settings, PASSPHRASE)
    (added,) = (way for way in ways(current(lab)) if way.method != RECOVERY)
    return added


def current(lab: Lab):
    found = lab.scan.header
    assert found
    return found


def problem(lab: Lab, way: Way) -> str:
    said: str = volume_enroll.problem(lab.run, str(lab.disk), current(lab), way)
    return said


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (TPM2, SETTINGS),
        (TPM2, replace(SETTINGS, pcrs=(7, 11))),
        (TPM2, replace(SETTINGS, pcrs=())),
        (TANG, SETTINGS),
    ],
)
def test_a_way_that_was_added_is_in_the_header_and_opens_its_key_slot(method, settings, lab):
    way = add(lab, method, settings)
    assert (way.method, way.keyslot) == (method, 1)
    assert fits(way, method, settings)
    assert missing(current(lab), [method], settings) == []
    assert problem(lab, way) == ""


def test_a_tang_key_is_of_full_strength_and_nobody_sees_it(lab):
    add(lab, TANG)
    key = lab.keys[1].decode()
    assert len(key) >= 43
    shown = [word for argv in lab.argvs for word in argv]
    assert not any(key in word or PASSPHRASE in word for word in shown)
    assert ["clevis", "encrypt", "tang"] in [list(argv[:3]) for argv in lab.argvs]
    assert not any(argv[:2] == ["clevis", "luks"] for argv in lab.argvs)


def test_the_tpm_is_bound_to_the_declared_registers(lab):
    add(lab, TPM2, replace(SETTINGS, pcrs=(7, 11)))
    (argv,) = (argv for argv in lab.argvs if argv[0] == "systemd-cryptenroll")
    assert argv[2:] == ["--tpm2-device=auto", "--tpm2-pcrs=7+11", str(lab.disk)]
    assert argv[1].startswith("--unlock-key-file=/proc/self/fd/")


def test_both_together_are_one_binding(lab):
    volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, BOTH, SETTINGS, PASSPHRASE)
    (argv,) = (argv for argv in lab.argvs if argv[:2] == ["clevis", "encrypt"])
    assert argv[2] == "sss"
    assert '"t": 2' in argv[3]


@pytest.mark.parametrize(
    ("method", "command", "words"),
    [
        (TPM2, "systemd-cryptenroll", "`systemd-cryptenroll --tpm2-device=auto --tpm2-pcrs=7 .*` ended with 1: it is"),
        (TANG, "clevis encrypt", "`clevis encrypt tang -y` ended with 1: it is broken"),
    ],
)
def test_a_way_that_cannot_be_made_leaves_the_header_as_it_was(method, command, words, lab):
    before = lab.disk.read_bytes()
    lab.broken.add(command)
    with pytest.raises(EnrollError, match=words) as error:
        volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, method, SETTINGS, PASSPHRASE)
    assert "unlock-key-file" not in str(error.value)
    assert PASSPHRASE not in str(error.value)
    assert lab.disk.read_bytes() == before


def test_a_wrong_passphrase_adds_nothing(lab):
    for method in (TPM2, TANG):
        with pytest.raises((EnrollError, CryptsetupError)):
            volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, method, SETTINGS, "wrong")
    assert current(lab).keyslots == (0,)


def test_a_tpm_that_gives_nothing_out_is_a_problem(lab):
    way = add(lab, TPM2)
    lab.tpm.clear()
    assert "--token-only --token-id 0" in problem(lab, way)


def test_a_server_that_does_not_answer_is_a_problem(lab):
    way = add(lab, TANG)
    lab.broken.add("clevis decrypt")
    assert problem(lab, way) == "`clevis decrypt` ended with 1: it is broken"


@pytest.mark.parametrize(("method", "command"), [(TPM2, "systemd-cryptenroll"), (TANG, "clevis")])
def test_a_tool_that_the_host_does_not_have_is_one_sentence(method, command, lab):
    lab.missing.add(command)
    with pytest.raises(EnrollError, match=f"{command} is missing on this host"):
        volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, method, SETTINGS, PASSPHRASE)


@pytest.mark.parametrize(("method", "command"), [(TPM2, "cryptsetup"), (TANG, "clevis"), (TANG, "cryptsetup")])
def test_a_way_whose_tool_went_away_is_a_problem_and_no_crash(method, command, lab):
    way = add(lab, method)
    lab.missing.add(command)
    assert problem(lab, way) == f"{command} is missing on this host"


def test_a_device_that_does_not_answer_is_a_problem_and_no_crash(lab):
    way = add(lab, TANG)
    lab.codes["cryptsetup open"] = 4
    assert "ended with 4" in problem(lab, way)


def test_a_key_that_opens_another_slot_only_is_a_problem(lab):
    way = add(lab, TANG)
    for jwe in lab.jwes:
        lab.jwes[jwe] = PASSPHRASE.encode()
    assert "does not open it" in problem(lab, way)


def test_a_passphrase_is_nothing_that_a_host_can_prove(lab):
    assert problem(lab, Way(RECOVERY, 0)) == "a passphrase is proved by whoever has it"


@pytest.mark.parametrize("method", [TPM2, TANG])
def test_a_way_is_taken_out_with_its_token_by_another_ones_passphrase(method, lab):
    way = add(lab, method)
    volume_enroll.remove(lab.run, str(lab.disk), way, PASSPHRASE)
    assert (current(lab).keyslots, current(lab).tokens) == ((0,), ())
    assert Cryptsetup(lab.run, str(lab.disk)).opens(PASSPHRASE)


def test_a_binding_has_five_parts():
    jwe = as_json("a.b.c.d.e\n")
    assert jwe == {"protected": "a", "encrypted_key": "b", "iv": "c", "ciphertext": "d", "tag": "e"}
    assert compact(jwe) == "a.b.c.d.e"
    with pytest.raises(EnrollError, match="gave out 1 parts, where a JWE has 5"):
        as_json("")


def test_the_key_file_is_in_memory_only_and_gone_afterwards():
    with volume_enroll._secret_file(PASSPHRASE) as path:
        assert Path(path).read_text() == PASSPHRASE
    assert not Path(path).exists()


def test_a_header_of_passphrases_only_has_no_other_way():
    assert [way.method for way in ways(header(metadata((0, 3))))] == [RECOVERY, RECOVERY]


def test_a_key_slot_that_a_run_left_when_it_was_cut_off_goes_before_the_next_is_added(lab):
    cryptsetup = Cryptsetup(lab.run, str(lab.disk))
    left = cryptsetup.add_key(PASSPHRASE, "a key that nobody has")
    assert [way.method for way in ways(lab.scan.header) if way.keyslot == left] == [ORPHAN]
    volume_enroll.add(lab.run, str(lab.disk), lab.scan.header, TPM2, SETTINGS, PASSPHRASE)
    assert sorted(way.method for way in ways(lab.scan.header)) == [RECOVERY, TPM2]
