"""`bedplate plan`: how a model goes onto GPUs, before anything is loaded, bought or changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import (
    ASKED_PRECISIONS,
    KV_DTYPES,
    OBJECTIVES,
    PROFILE_INPUT,
    PROFILE_OUTPUT,
    UTILIZATION,
)

from bedplate import options
from bedplate.errors import FAILED, OK, UserError

# The planner itself is imported when it is asked: no other command should wait for it.
if TYPE_CHECKING:
    from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
    from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Plan, Question


def plan(
    model: Annotated[str, typer.Option("--model", "-m", help="A model of the catalogue, or a folder with its files.")],
    gpus: Annotated[str, typer.Option("--gpus", "-g", help="[HOSTSx]GPUSxNAME: 8xH200, 2x8xH100, 1xRTX4090.")] = "",
    site: Annotated[str, typer.Option("--site", "-s", help="Or a site: the GPUs that its hosts have.")] = "",
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
    limit: options.Limit = "",
    objective: Annotated[str, typer.Option("--objective", help="latency or throughput.")] = "latency",
    ttft: Annotated[float | None, typer.Option("--ttft", help="Target: ms to the first token, p99.")] = None,
    tpot: Annotated[float | None, typer.Option("--tpot", help="Target: ms per token, p99.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second.")] = None,
    tokens_in: Annotated[int, typer.Option("--input", help="Tokens of a mean prompt.")] = PROFILE_INPUT,
    tokens_out: Annotated[int, typer.Option("--output", help="Tokens of a mean answer.")] = PROFILE_OUTPUT,
    max_model_len: Annotated[
        str, typer.Option("--max-model-len", help="Longest request: 32768, 32k or auto.")
    ] = "auto",
    precision: Annotated[str, typer.Option("--precision", help=", ".join(ASKED_PRECISIONS))] = "auto",
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", help=", ".join(KV_DTYPES))] = "auto",
    utilization: Annotated[
        float, typer.Option("--gpu-memory-utilization", help="Share of each GPU's memory for the engine.")
    ] = UTILIZATION,
    tensor: Annotated[int | None, typer.Option("--tensor-parallel", help="Only this many tensor ranks.", min=1)] = None,
    pipeline: Annotated[int | None, typer.Option("--pipeline-parallel", help="Only so many stages.", min=1)] = None,
    data: Annotated[int | None, typer.Option("--data-parallel", help="Only so many data ranks.", min=1)] = None,
    catalogue: Annotated[Path | None, typer.Option("--catalogue", help="Folder with further models.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also where the memory goes, and why not otherwise.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: the plan as one JSON object.")] = False,
) -> None:
    """Place a model on GPUs: precision, parallelism, context, room, speed, and the exact flags of the engine.

    With --gpus it needs no GPU, no network and no model files. Exit code: 0 it fits (and keeps the targets), 1 it does
    not, 2 the question has no answer.
    """
    from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets, plan_question, planner
    from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError
    from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import PlanError, Profile, tokens

    _one_of("--objective", objective, OBJECTIVES)
    _one_of("--precision", precision, ASKED_PRECISIONS)
    _one_of("--kv-dtype", kv_dtype, KV_DTYPES)
    try:
        asked = replace(
            plan_question.question(model, _gpus(gpus, site, inventories, limit), str(catalogue) if catalogue else None),
            objective=objective,
            profile=Profile(tokens_in, tokens_out, rate, ttft, tpot),
            max_model_len=tokens(max_model_len),
            precision=precision,
            kv_dtype=kv_dtype,
            utilization=utilization,
            tensor=tensor,
            pipeline=pipeline,
            data=data,
        )
        answer = planner.plan(asked)
    except (PlanError, ModelError, gpu_sets.GpuSetError) as error:
        raise UserError(f"plan: {error}") from error
    _tell(asked, answer, explain, as_json)
    kept = answer.slo is None or answer.slo["met"]
    raise typer.Exit(OK if answer.fits and kept else FAILED)


def _gpus(named: str, site: str, inventories: Path, limit: str) -> GpuSet:
    if bool(named) == bool(site):
        raise UserError("plan: say what to plan for: GPUs by name (--gpus 8xH200) or those of a site (--site NAME).")
    if named:
        if limit:
            raise UserError(f"plan: --limit {limit} is for hosts of a --site, and --gpus names none; leave it out.")
        from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import parse

        return parse(named)
    from bedplate.site_gpus import gpus_of
    from bedplate.sites import find_site

    return gpus_of(find_site(site, inventories), limit)


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"plan: {option} is {value!r}; choose one of {', '.join(choices)}.")


def _tell(asked: Question, answer: Plan, explain: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer.as_dict(), indent=1))
        return
    from bedplate.plan_report import print_plan

    print_plan(asked.arch.max_positions, answer, explain)
