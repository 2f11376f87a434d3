# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.model_plan`: all of it, since the catalogue and the model's files are here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets, plan_question, planner
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.plan_checks import checks
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import (
    ASKED_PRECISIONS,
    KV_DTYPES,
    OBJECTIVES,
    PROFILE_INPUT,
    PROFILE_OUTPUT,
    UTILIZATION,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import (
    PlanError,
    Profile,
    tokens,
)

_PROFILE = {
    "input_tokens": {"type": "int", "default": PROFILE_INPUT},
    "output_tokens": {"type": "int", "default": PROFILE_OUTPUT},
    "rate": {"type": "float"},
    "ttft_ms": {"type": "float"},
    "tpot_ms": {"type": "float"},
}
ARGUMENTS = {
    "model": {"type": "str", "required": True},
    "gpus": {"type": "str"},
    "gpu_facts": {"type": "dict"},
    "objective": {"type": "str", "choices": list(OBJECTIVES), "default": "latency"},
    "profile": {"type": "dict", "options": _PROFILE},
    "max_model_len": {"type": "str", "default": "auto"},
    "precision": {"type": "str", "choices": list(ASKED_PRECISIONS), "default": "auto"},
    "kv_dtype": {"type": "str", "choices": list(KV_DTYPES), "default": "auto"},
    "gpu_memory_utilization": {"type": "float", "default": UTILIZATION},
    "tensor_parallel": {"type": "int"},
    "pipeline_parallel": {"type": "int"},
    "data_parallel": {"type": "int"},
    "catalogue": {"type": "path"},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Answer the question; fail only when it has no answer."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given = self.validate_argument_spec(
            ARGUMENTS, mutually_exclusive=[("gpus", "gpu_facts")], required_one_of=[("gpus", "gpu_facts")]
        )[1]
        try:
            answer = planner.plan(_question(given))
        except (PlanError, ModelError, gpu_sets.GpuSetError) as error:
            raise AnsibleActionFail(f"model_plan: {error}") from error
        result.update(changed=False, plan=answer.as_dict(), checks=as_dicts(checks(answer)))
        return dict(result)


def _question(given: dict[str, Any]) -> Any:
    gpus = gpu_sets.from_facts(given["gpu_facts"]) if given["gpu_facts"] else gpu_sets.parse(given["gpus"])
    return replace(
        plan_question.question(given["model"], gpus, given["catalogue"]),
        objective=given["objective"],
        profile=Profile(**(given["profile"] or {})),
        max_model_len=tokens(given["max_model_len"]),
        precision=given["precision"],
        kv_dtype=given["kv_dtype"],
        utilization=given["gpu_memory_utilization"],
        tensor=given["tensor_parallel"],
        pipeline=given["pipeline_parallel"],
        data=given["data_parallel"],
    )
