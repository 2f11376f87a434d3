"""`bedplate bundle build|verify|show`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from ansible_collections.bedplate.llm.plugins.module_utils import bundle as manifests

from bedplate.bundles import DEFAULT_DEVICE
from bedplate.errors import FAILED, UserError

app = typer.Typer(no_args_is_help=True, help="Make and check bundles: what hosts are fed from.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The bundle's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="Name of the bundle, such as that of the site.")],
    directory: Annotated[Path | None, typer.Option("--dir", help="Where; default bundles/NAME.")] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Folder of a model, may be repeated; default the lab's tiny one.")
    ] = None,
    python: Annotated[str | None, typer.Option(help="The hosts' Python, such as 3.11; default this machine's.")] = None,
    device: Annotated[str, typer.Option(help="What the engine computes on; a lab's is cpu.")] = DEFAULT_DEVICE,
    engine_lock: Annotated[
        Path | None, typer.Option(help="Lock file of the engine, instead of this version's for the device.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="File of a container image (podman save, docker save): the engine, not wheels.")
    ] = None,
    image_version: Annotated[str, typer.Option(help="Version of vLLM in the image; default what its label says.")] = "",
) -> None:
    """Download by digest and put everything a site's hosts need into one folder."""
    # Imported late: a second of imports that `verify` and `show` do not need.
    from bedplate.bundles.build import build as make
    from bedplate.bundles.images import EngineImage

    if not manifests.NAME.fullmatch(name):
        raise UserError(f"a bundle's name has letters, digits, '.', '_' and '-', found {name!r}; choose another.")
    make(
        name,
        directory or Path("bundles") / name,
        models=model or [],
        python=python,
        device=device,
        engine_lock=engine_lock,
        image=EngineImage(image, image_version) if image else None,
        progress=typer.echo,
    )


@app.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compare every file with the manifest: exit 0 when all agree, 1 when not."""
    try:
        problems = manifests.verify(str(folder))
    except manifests.BundleError as error:
        raise UserError(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": [asdict(problem) for problem in problems]}))
    else:
        for problem in problems:
            typer.echo(f"{problem.path} {problem.sentence}")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        typer.echo(f"{folder}: {count}" if problems else f"{folder} is what its manifest says")
    if problems:
        raise typer.Exit(FAILED)


@app.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """What is in the bundle: parts, versions, sizes, licences."""
    try:
        loaded = manifests.load(str(folder))
    except manifests.BundleError as error:
        raise UserError(str(error)) from error
    if as_json:
        typer.echo(manifests.to_json(loaded), nl=False)
        return
    typer.echo(f"bundle {loaded.name} for Python {loaded.target['python']} on {loaded.target['architecture']}")
    for part in loaded.parts.values():
        artefacts = loaded.of(part.id)
        size = sum(artefact.size for artefact in artefacts)
        what = " ".join(filter(None, (part.name, part.version, part.device)))
        typer.echo(f"  {part.id}: {what}, {len(artefacts)} files, {size / 1e6:.1f} MB, digest {part.digest[:12]}")
        for licence in sorted({artefact.licence for artefact in artefacts}):
            names = sorted({artefact.name for artefact in artefacts if artefact.licence == licence})
            typer.echo(f"    {licence}: {', '.join(names)}")
