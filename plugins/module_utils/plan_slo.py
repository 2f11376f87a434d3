# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a placement keeps targets for the time to first token and per token, at a rate of requests.

From the roofline's expected times, in three steps: the share of time that prompts take (they and the steps of others
share the GPU), the requests that are then underway (Little's law), and margins for the 99th percentile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List

from ansible_collections.bedplate.llm.plugins.module_utils import roofline
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import work_of
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Option, Question

# 99th percentile over median.  Per token 1.03 to 1.5, to first token 1.3 to 2.0 at rates below saturation in
# IOG-Foundation/llm-inference-benchmarks (vLLM 0.8.5, distils on H100 PCIe and RTX 4090).
TPOT_MARGIN = 1.3
TTFT_MARGIN = 2.0
# Beyond this share of the time spent on prompts, or of the KV cache in use, queues grow without bound.
SATURATED = 0.85
_ROUNDS = 30


@dataclass(frozen=True)
class Service:
    """What is to be expected at the asked rate: 99th percentiles in ms, requests underway in all engines."""

    ttft_ms: float
    tpot_ms: float
    concurrency: float
    prompt_share: float
    kv_share: float
    saturated: bool
    misses: List[str]

    @property
    def met(self) -> bool:
        return not self.misses

    def as_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "met": self.met}


def service(question: Question, option: Option) -> Service:
    """The service that the placement gives to the question's profile; without a rate, to one request at a time."""
    profile, gpus = question.profile, question.gpus
    work = work_of(question, option)
    engines = option.parallelism.data
    rate = (profile.rate or 0.0) / engines
    context = profile.input_tokens + profile.output_tokens / 2
    prompt = roofline.prefill_seconds(work, gpus, profile.input_tokens, False)
    share = rate * prompt / roofline.prefill_share(work)
    free = 1.0 - min(share, SATURATED)
    most = min(float(option.max_num_seqs), option.kv_tokens / profile.tokens)
    underway = 1.0
    step = 0.0
    for _round in range(_ROUNDS):
        step = roofline.step_seconds(work, gpus, underway, context, False) / free
        underway = min(most * 2, max(1.0, rate * (prompt / free + profile.output_tokens * step)))
    kv_share = underway / max(1.0, most)
    saturated = share >= SATURATED or kv_share >= SATURATED
    ttft, tpot = TTFT_MARGIN * (prompt / free + step) * 1000, TPOT_MARGIN * step * 1000
    misses = []
    if saturated:
        cause = "prompts take all of its time" if share >= SATURATED else "the KV cache holds too few requests"
        misses.append(f"{profile.rate:g} requests/s are more than it can take: {cause}.")
    if profile.ttft_ms is not None and ttft > profile.ttft_ms:
        misses.append(f"the time to first token is expected at {ttft:,.0f} ms (p99), above {profile.ttft_ms:,.0f} ms.")
    if profile.tpot_ms is not None and tpot > profile.tpot_ms:
        misses.append(f"the time per token is expected at {tpot:.1f} ms (p99), above {profile.tpot_ms:.1f} ms.")
    return Service(ttft, tpot, underway * engines, share, kv_share, saturated, misses)


def slack(question: Question, option: Option) -> float:
    """How far within its targets the service is; below 1 a target is missed.  For choosing between placements."""
    profile, found = question.profile, service(question, option)
    parts = [SATURATED / max(found.prompt_share, found.kv_share, 1e-9)]
    if profile.ttft_ms is not None:
        parts.append(profile.ttft_ms / found.ttft_ms)
    if profile.tpot_ms is not None:
        parts.append(profile.tpot_ms / found.tpot_ms)
    return min(parts)
