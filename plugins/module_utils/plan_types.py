# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of the planner and what it answers."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_catalogue import Recipe
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import PROFILE_INPUT, PROFILE_OUTPUT, UTILIZATION

GIB = 1024**3


class PlanError(ValueError):
    """The question has no answer; the message is one sentence for the user."""


@dataclass(frozen=True)
class Profile:
    """Requests: mean tokens in and out; rate in requests/s; targets for the 99th percentile, ms; None asks nothing."""

    input_tokens: int = PROFILE_INPUT
    output_tokens: int = PROFILE_OUTPUT
    rate: Optional[float] = None
    ttft_ms: Optional[float] = None
    tpot_ms: Optional[float] = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def has_targets(self) -> bool:
        return self.rate is not None or self.ttft_ms is not None or self.tpot_ms is not None


@dataclass(frozen=True)
class Question:
    """max_model_len, tensor, pipeline, data: None leaves the choice to the planner.

    precision: of plan_terms.ASKED_PRECISIONS; kv_dtype: of plan_terms.KV_DTYPES.
    reserve_bytes: memory of each GPU that others use.
    """

    model: str
    arch: Architecture
    gpus: GpuSet
    objective: str = "latency"
    profile: Profile = Profile()
    max_model_len: Optional[int] = None
    precision: str = "auto"
    kv_dtype: str = "auto"
    utilization: float = UTILIZATION
    tensor: Optional[int] = None
    pipeline: Optional[int] = None
    data: Optional[int] = None
    recipes: Tuple[Recipe, ...] = ()
    engine_minimum: str = ""
    reasoning_parser: str = ""


@dataclass(frozen=True)
class Budget:
    """Where the memory of one GPU goes, bytes.  kv is what is left, negative when the rest does not fit.

    outside: what --gpu-memory-utilization leaves to others; beside_weights: what the engine puts beside the weights
    while it loads them, which its log counts as weights.
    """

    total: int
    reserved_by_driver: int
    outside: int
    weights: int
    beside_weights: int
    activations: int
    graphs: int
    communication: int
    base: int

    @property
    def requested(self) -> int:
        return self.total - self.reserved_by_driver - self.outside

    @property
    def kv(self) -> int:
        rest = self.activations + self.graphs + self.communication + self.base
        return self.requested - self.weights - self.beside_weights - rest

    def as_dict(self) -> Dict[str, int]:
        return {**asdict(self), "kv": self.kv}


@dataclass(frozen=True)
class Speed:
    """Tokens/s and ms.  Bounds are what no engine can pass; expected ones have the stated margins."""

    stream_tokens_per_second_bound: float
    decode_tokens_per_second_bound: float
    prefill_tokens_per_second_bound: float
    ttft_ms_bound: float
    stream_tokens_per_second_expected: float
    output_tokens_per_second_expected: float
    at_concurrency: int


@dataclass(frozen=True)
class Option:
    """One way to place the model, and what comes of it."""

    parallelism: Parallelism
    precision: str
    kv_dtype: str
    budget: Budget
    kv_bytes_per_token: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    max_model_len: int
    shortfall: int
    speed: Optional[Speed] = None

    @property
    def fits(self) -> bool:
        return self.shortfall == 0

    @property
    def gpus(self) -> int:
        return int(self.parallelism.tensor * self.parallelism.pipeline * self.parallelism.data)

    @property
    def name(self) -> str:
        return describe(self.parallelism)


def describe(parallelism: Parallelism) -> str:
    """How an option is called: TP 8, DP 8 + EP, TP 4 x DP 2."""
    parts = [
        f"{word} {number}"
        for word, number in (("TP", parallelism.tensor), ("PP", parallelism.pipeline), ("DP", parallelism.data))
        if number > 1
    ]
    return (" x ".join(parts) or "one GPU") + (" + EP" if parallelism.expert else "")


@dataclass(frozen=True)
class Rejection:
    option: str
    reason: str


@dataclass(frozen=True)
class Change:
    """Something that would make the model fit: what to do, and how to ask for it again."""

    what: str
    ask: str


@dataclass(frozen=True)
class Plan:
    """The answer.  Bytes and tokens are those of one GPU and one engine unless a name says total.

    kv_cache_tokens, max_concurrency: as one engine reports them at max_model_len (with DP there are several engines).
    engines: services of their own, one for each host; the parallel sizes are those of one of them.
    concurrent_requests: at the profile's lengths, all engines together.
    kv_bytes_per_request_per_gpu: beside those of its tokens, at its worst moment, where layers keep windows.
    calibrated: whether the memory model is held to measured starts of this kind of model.
    flags: arguments of `vllm serve` after the model, a value or True for a switch; shortfall_bytes: of each GPU.
    """

    model: str
    gpus: str
    simulated: bool
    calibrated: bool
    fits: bool
    shortfall_bytes: int
    objective: str
    precision: str
    kv_cache_dtype: str
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    expert_parallel: bool
    engines: int
    gpus_used: int
    weight_bytes_per_gpu: int
    kv_bytes_per_token_per_gpu: int
    kv_cache_tokens: int
    kv_cache_tokens_total: int
    max_model_len: int
    max_concurrency: float
    concurrent_requests: int
    memory_per_gpu: Mapping[str, int]
    speed: Optional[Mapping[str, Any]]
    slo: Optional[Mapping[str, Any]]
    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    warnings: Tuple[str, ...]
    reasons: Tuple[str, ...]
    rejected: Tuple[Rejection, ...]
    changes: Tuple[Change, ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)
    engine_minimum: str = ""
    kv_bytes_per_request_per_gpu: int = 0
    schema: int = 1

    def as_dict(self) -> Dict[str, Any]:
        """For JSON: with `argv`, the flags as they are typed."""
        value = asdict(self)
        value["argv"] = argv(self.flags)
        return value


def argv(flags: Mapping[str, Any]) -> Tuple[str, ...]:
    """The arguments of `vllm serve` after the model, from names without dashes."""
    words = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return tuple(words)


_LENGTH = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[kKmM]?)")
# As the engine reads them: lower-case units are 1000-based, upper-case ones 1024-based.
_UNITS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}


def tokens(text: str) -> Optional[int]:
    """A number of tokens as `vllm serve` reads it: 32768, 32k (32,000), 32K (32,768); None for "" and "auto"."""
    if text.strip() in ("", "auto"):
        return None
    match = _LENGTH.fullmatch(text.strip())
    if match is None:
        raise PlanError(f"the context is {text!r}; give a number of tokens such as 32768, 32k or auto.")
    return int(float(match["number"]) * _UNITS[match["unit"]])
