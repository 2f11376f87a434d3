"""docs/volumes.md: every test that it names is there, every refusal that it explains is one, and its commands work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import Store
from volume_samples import COPY, SERIAL, UUID, both_copies, metadata

PROJECT = Path(__file__).resolve().parents[2]
GUIDE = (PROJECT / "docs/volumes.md").read_text(encoding="utf-8")
PROOFS = sorted(set(re.findall(r"`((?:molecule|tests)/[\w/]+\.py)(?:::(\w+))?`", GUIDE)))
REFUSALS = GUIDE.partition("## What a refusal means")[2].partition("\n## ")[0]
PHRASES = sorted(
    phrase
    for row in REFUSALS.splitlines()
    if row.startswith("| `")
    for cell in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    for phrase in re.split(r"\s*…\s*", cell)
    if phrase
)


def sentences() -> str:
    """All that the plugins can say, with ` … ` for what is filled in."""
    said = []
    for path in [*PROJECT.glob("plugins/*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                said.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return "\n".join(said)


SAID = sentences()


def test_the_guide_names_a_proof_for_what_it_says():
    assert len(PROOFS) > 15
    assert len(PHRASES) > 15


@pytest.mark.parametrize(("file", "name"), PROOFS)
def test_every_test_that_the_guide_names_is_there(file, name):
    names = {
        node.name for node in ast.walk(ast.parse((PROJECT / file).read_text())) if isinstance(node, ast.FunctionDef)
    }
    assert not name or name in names


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_refusal_that_the_guide_explains_is_one(phrase):
    # What the guide fills in by way of an example.
    pattern = re.escape(phrase).replace("gpu2", "…").replace("gpu1", "…").replace("ext4", "…").replace(r"\ ", r"\s+")
    assert re.search(pattern, SAID), phrase


def vault(*words: str) -> bytes:
    program = Path(sys.executable).with_name("ansible-vault")
    return subprocess.run([str(program), *words], capture_output=True, check=True).stdout


def test_ansible_vault_alone_gives_out_the_passphrase_and_the_header(tmp_path):
    password = tmp_path / "password"
    password.write_text("a password that is long enough\n")
    store = Store(tmp_path / "escrow", str(password))
    header = both_copies(metadata())
    escrow = store.keep_backup(store.begin(SERIAL, "models", "gpu1", UUID), header)
    folder, given = store.folder(SERIAL), ("--vault-password-file", str(password))
    shown = vault("view", *given, str(folder / escrow.passphrases[0]))
    assert shown.strip().decode() == store.passphrase(escrow)
    folded = subprocess.run(["fold", "-w", "8"], input=shown, capture_output=True, check=True).stdout.decode().split()
    assert [len(group) for group in folded] == [8] * 8
    vault("decrypt", *given, "--output", str(tmp_path / "header.bin"), str(folder / escrow.backups[0].file))
    assert (tmp_path / "header.bin").read_bytes() == header
    assert len(header) == 2 * COPY
