# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The words and defaults of a question to the planner, apart from what answers it.

Imports nothing: the command line shows them in its help without loading the planner.
"""

from __future__ import annotations

OBJECTIVES = ("latency", "throughput")
# vLLM's default of --gpu-memory-utilization (since 0.17).
UTILIZATION = 0.92
# Mean lengths that speed and concurrency are told for, unless a profile is given: the usual 1k/1k of public benchmarks.
PROFILE_INPUT, PROFILE_OUTPUT = 1024, 1024
# Of weights: the files' own, and those that a question may name.
PRECISIONS = ("checkpoint", "bf16", "fp8", "fp8_block", "awq_int4", "gptq_int4", "nvfp4", "mxfp4")
ASKED_PRECISIONS = ("auto", *PRECISIONS)
# Of the KV cache, as --kv-cache-dtype names them.
KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "nvfp4_ds_mla")
