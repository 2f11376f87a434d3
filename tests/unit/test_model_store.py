"""A model on a host: installed only when every byte is right, read-only afterwards, and never replaced."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import tiny_model
from ansible_collections.bedplate.llm.plugins.module_utils.model_checks import look
from ansible_collections.bedplate.llm.plugins.module_utils.model_tree import (
    Model,
    ModelError,
    declare,
    install,
    installed,
)

OWNER = os.getuid()
DIGEST = "0123456789abcdef" * 4


def described(directory: Path) -> list[dict[str, object]]:
    return [
        {
            "path": str(path.relative_to(directory)),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    tiny_model.write(str(directory))
    return directory


@pytest.fixture
def model(tmp_path: Path, made: Path) -> Model:
    """Pushed and not installed; as the transfer leaves it, with its notes beside the files."""
    incoming = tmp_path / "models" / ".incoming" / "tiny-0123456789ab"
    shutil.copytree(made, incoming)
    declared = declare(str(tmp_path / "models"), "tiny", DIGEST, described(incoming))
    assert declared.incoming == str(incoming)
    (incoming / ".verified.json").write_text("{}")
    return declared


def unlock(path: Path) -> Path:
    path.parent.chmod(0o755)
    if path.exists():
        path.chmod(0o644)
    return path


def failing(model: Model, deep: bool = False) -> dict[str, str]:
    return {check.id: check.reason for check in look(model, deep, OWNER) if not check.ok}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_right_model_is_installed_read_only_and_the_transfer_is_gone(model: Model) -> None:
    assert not installed(model)
    install(model, OWNER)
    assert installed(model)
    assert not Path(model.incoming).exists()
    assert Path(model.path).stat().st_mode & 0o777 == 0o555
    assert {path.stat().st_mode & 0o777 for path in Path(model.path).iterdir()} == {0o444}
    assert [check.id for check in look(model, True, OWNER)] == [
        f"model_store.tiny-{statement}" for statement in ("present", "complete", "policy", "immutable")
    ]
    assert failing(model) == failing(model, deep=True) == {}


def test_the_way_to_the_model_is_open_whatever_the_umask(model: Model) -> None:
    root = Path(model.path).parent.parent
    root.chmod(0o700)
    before = os.umask(0o077)
    try:
        install(model, OWNER)
    finally:
        os.umask(before)
    assert [folder.stat().st_mode & 0o777 for folder in (root, root / "tiny")] == [0o755, 0o755]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda incoming: flip(incoming / "model.safetensors"), r"model\.safetensors has sha256"),
        (lambda incoming: (incoming / "config.json").unlink(), r"config\.json is missing"),
        (lambda incoming: (incoming / "more.json").write_text("{}"), r"more\.json is not in the bundle's manifest"),
        (lambda incoming: (incoming / "config.json").write_text("{}"), r"config\.json has 2 bytes"),
        (lambda incoming: (incoming / "x.pkl").write_text("x"), r"x\.pkl is refused"),
        (lambda incoming: (incoming / "etc").symlink_to("/etc"), "etc is refused: it is a link"),
    ],
    ids=["flipped", "missing", "extra", "size", "pickle", "link"],
)
def test_a_wrong_model_gets_no_name(model: Model, change: Callable[[Path], object], sentence: str) -> None:
    change(Path(model.incoming))
    with pytest.raises(ModelError, match=sentence):
        install(model, OWNER)
    assert not Path(model.path).exists()
    assert not Path(model.record).exists()


def test_a_model_with_code_is_refused_even_when_the_manifest_names_it(tmp_path: Path, model: Model) -> None:
    incoming = Path(model.incoming)
    (incoming / ".verified.json").unlink()
    (incoming / "modeling.py").write_text("print()")
    named = declare(str(tmp_path / "models"), "tiny", DIGEST, described(incoming))
    with pytest.raises(ModelError, match=r"modeling\.py is refused"):
        install(named, OWNER)


def test_what_was_not_pushed_is_said(model: Model) -> None:
    shutil.rmtree(model.incoming)
    with pytest.raises(ModelError, match="push them first"):
        install(model, OWNER)


def test_an_installation_that_was_interrupted_before_its_record_is_finished(model: Model) -> None:
    install(model, OWNER)
    Path(model.record).unlink()
    assert list(failing(model)) == ["model_store.tiny-present"]
    install(model, OWNER)
    assert failing(model, deep=True) == {}


def test_a_folder_with_other_content_is_never_replaced(model: Model) -> None:
    other = Path(model.path) / "config.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    with pytest.raises(ModelError, match="exists with other content and is not replaced"):
        install(model, OWNER)
    assert other.read_text() == "{}"


def test_a_link_in_the_models_place_is_not_followed(model: Model) -> None:
    Path(model.path).parent.mkdir(parents=True)
    Path(model.path).symlink_to(model.incoming)
    with pytest.raises(ModelError, match="it is a link"):
        install(model, OWNER)


def test_a_change_after_the_installation_is_found(model: Model) -> None:
    install(model, OWNER)
    weights = unlock(Path(model.path) / "model.safetensors")
    before = weights.stat()
    flip(weights)
    assert "model.safetensors was changed after it was verified" in failing(model)["model_store.tiny-complete"]
    assert "model.safetensors" in failing(model)["model_store.tiny-immutable"]
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "model_store.tiny-complete" not in failing(model), "size and time cannot tell"
    assert "model.safetensors has sha256" in failing(model, deep=True)["model_store.tiny-complete"]


def test_a_file_that_is_added_later_is_found(model: Model) -> None:
    install(model, OWNER)
    unlock(Path(model.path) / "evil.py").write_text("print()")
    found = failing(model)
    assert "evil.py is not in the bundle's manifest" in found["model_store.tiny-complete"]
    assert "evil.py is refused" in found["model_store.tiny-policy"]


def test_somebody_elses_files_are_not_immutable(model: Model) -> None:
    install(model, OWNER)
    assert [check.id for check in look(model, False, OWNER + 1) if not check.ok] == ["model_store.tiny-immutable"]


def test_a_record_of_another_digest_does_not_count(model: Model) -> None:
    install(model, OWNER)
    record = unlock(Path(model.record))
    record.write_text(json.dumps({**json.loads(record.read_text()), "digest": "0" * 64}))
    assert not installed(model)


@pytest.mark.parametrize(
    ("name", "digest", "path", "sentence"),
    [
        ("../../etc", DIGEST, "config.json", "cannot name a folder"),
        (".incoming", DIGEST, "config.json", "cannot name a folder"),
        ("tiny", "../../../etc", "config.json", "no sha256"),
        ("tiny", DIGEST, "../config.json", "leads out of its folder"),
        ("tiny", DIGEST, "/etc/config.json", "leads out of its folder"),
        ("tiny", DIGEST, "a/../../config.json", "leads out of its folder"),
    ],
)
def test_names_that_lead_out_of_the_store_are_refused(name: str, digest: str, path: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        declare("/models", name, digest, [{"path": path, "sha256": "0" * 64, "size": 1}])
