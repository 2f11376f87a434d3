"""A plan, for people."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.bedplate.llm.plugins.module_utils.plan_precision import title
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, Plan, argv
from rich.console import Console
from rich.table import Table
from rich.text import Text

# What the parts of a GPU's memory are called, in the order in which they are taken.
_MEMORY = (
    ("reserved_by_driver", "the driver's own"),
    ("outside", "left to others (gpu-memory-utilization)"),
    ("weights", "weights"),
    ("beside_weights", "loaded beside them"),
    ("activations", "buffers of a step"),
    ("graphs", "CUDA graphs"),
    ("communication", "communication between GPUs"),
    ("base", "context and libraries"),
    ("kv", "KV cache"),
)


def print_plan(longest: int, plan: Plan, explain: bool) -> None:
    """The plan on stdout: a verdict, a table, what to know, the command line; with `explain` the reasons."""
    console = Console(highlight=False)
    for line in _verdict(plan):
        console.print(line, soft_wrap=True)
    console.print(_figures(longest, plan))
    for heading, sentences in (("To know", plan.warnings), ("Why", plan.reasons if explain else ())):
        if sentences:
            console.print(Text(heading, style="bold"))
            for sentence in sentences:
                console.print(Text(f"  - {sentence}"), soft_wrap=True)
    if plan.changes:
        wanted = "keep the targets" if plan.fits else "make it fit"
        console.print(Text(f"What would {wanted}, the cheapest first", style="bold"))
        for number, change in enumerate(plan.changes, 1):
            console.print(Text(f"  {number}. {change.what}\n     {change.ask}"), soft_wrap=True)
    if explain:
        console.print(Text("Memory of each GPU", style="bold"))
        console.print(_memory(plan))
        console.print(Text("Not taken", style="bold"))
        for rejection in plan.rejected:
            console.print(Text(f"  - {rejection.option}: {rejection.reason}"), soft_wrap=True)
    if plan.fits:
        console.print(Text("Engine", style="bold"))
        for name, value in plan.environment.items():
            console.print(Text(f"  {name}={value}"), soft_wrap=True)
        console.print(Text(f"  vllm serve MODEL {' '.join(argv(plan.flags))}"), soft_wrap=True)
    if not explain:
        console.print(
            Text(f"Other ways that were looked at: {len(plan.rejected)}; --explain says why not.", style="dim")
        )


def placement(plan: Plan) -> str:
    """TP 4 x DP 2, in words that say what it means for the GPUs."""
    parts = [
        f"{number} {word}"
        for number, word in (
            (plan.tensor_parallel, "tensor ranks (TP)"),
            (plan.pipeline_parallel, "pipeline stages (PP)"),
            (plan.data_parallel, "data ranks (DP)"),
        )
        if number > 1
    ]
    text = " x ".join(parts) or "one GPU"
    return text + (", experts spread (EP)" if plan.expert_parallel else "")


def _verdict(plan: Plan) -> Iterator[Text]:
    line = Text()
    if not plan.fits:
        line.append("DOES NOT FIT  ", style="bold red")
        line.append(f"{plan.model} on {plan.gpus}: {plan.shortfall_bytes / GIB:,.1f} GiB short on each GPU")
    elif plan.slo is not None and not plan.slo["met"]:
        line.append("TOO SLOW  ", style="bold red")
        line.append(f"{plan.model} fits on {plan.gpus}, and misses the targets")
    else:
        line.append("FITS  ", style="bold green")
        line.append(f"{plan.model} on {plan.gpus}")
    if plan.simulated:
        line.append("  (simulated: no card was looked at)", style="dim")
    yield line


def _figures(longest: int, plan: Plan) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _rows(longest, plan):
        table.add_row(name, value)
    return table


def _rows(longest: int, plan: Plan) -> Iterator[tuple[str, str]]:
    kv = "" if plan.kv_cache_dtype == "auto" else f", KV cache {plan.kv_cache_dtype}"
    hosts = f", on each of {plan.engines} hosts" if plan.engines > 1 else ""
    yield "precision", f"{title(plan.precision)}{kv}"
    used = f": {plan.gpus_used} GPUs" if plan.gpus_used > 1 else ""
    yield "placement", f"{placement(plan)}{hosts}{used}"
    total = plan.memory_per_gpu["total"] / GIB
    yield "weights", f"{plan.weight_bytes_per_gpu / GIB:,.1f} GiB of each GPU's {total:,.1f} GiB"
    if not plan.fits:
        return
    kv_bytes = plan.memory_per_gpu["kv"] / GIB
    engines = plan.kv_cache_tokens_total // max(1, plan.kv_cache_tokens)
    each = f" in each of {engines} engines" if engines > 1 else ""
    request = plan.kv_bytes_per_request_per_gpu / GIB
    besides = f" and at most {request:,.1f} GiB a request" if request else ""
    yield "KV cache", f"{kv_bytes:,.1f} GiB a GPU, {plan.kv_bytes_per_token_per_gpu:,} bytes a token{besides}"
    yield "room", f"{plan.kv_cache_tokens:,} tokens{each}"
    note = "" if plan.max_model_len >= longest else f" (the model could {longest:,})"
    yield "context", f"{plan.max_model_len:,} tokens a request{note}"
    lengths = f"{plan.profile['input_tokens']:,} in + {plan.profile['output_tokens']:,} out"
    yield "at a time", f"{plan.concurrent_requests:,} requests of {lengths}"
    speed = plan.speed
    if speed is None:
        return
    yield (
        "one stream",
        f"about {speed['stream_tokens_per_second_expected']:,.0f} tokens/s"
        f" (bound {speed['stream_tokens_per_second_bound']:,.0f})",
    )
    yield (
        "all together",
        f"about {speed['output_tokens_per_second_expected']:,.0f} tokens/s with {speed['at_concurrency']:,} requests"
        f" (bound {speed['decode_tokens_per_second_bound']:,.0f} without prompts)",
    )
    yield (
        "prompts",
        f"at most {speed['prefill_tokens_per_second_bound']:,.0f} tokens/s; first token of a prompt alone not before"
        f" {speed['ttft_ms_bound']:,.0f} ms",
    )
    if plan.slo is not None:
        yield (
            "at that rate",
            f"first token {plan.slo['ttft_ms']:,.0f} ms, each further {plan.slo['tpot_ms']:.1f} ms (p99, expected);"
            f" {plan.slo['concurrency']:,.0f} requests underway",
        )


def _memory(plan: Plan) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, title_ in _MEMORY:
        table.add_row(f"{plan.memory_per_gpu[name] / GIB:,.2f} GiB", title_)
    table.add_row(f"{plan.memory_per_gpu['total'] / GIB:,.2f} GiB", "in all")
    return table
