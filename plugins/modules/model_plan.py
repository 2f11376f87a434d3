#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model_plan
short_description: Decide how a model goes onto GPUs
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Computes precision, parallelism, context, room in the KV cache, expected speed and the engine's exact flags for a
    model on given GPUs, and why each other placement is not taken. When the model does not fit, by how much, and what
    would make it fit.
  - Runs on the controller only. It needs no GPU, no network, and of the model nothing but its name in the catalogue.
  - A model that does not fit is no failure; C(checks) says so, for P(bedplate.llm.assert_checks#module).
options:
  model:
    description: Name of a model in the catalogue, or a folder on the controller with a C(config.json).
    type: str
    required: true
  gpus:
    description: GPUs by name, as V([HOSTSx]GPUSxNAME). Give this or O(gpu_facts).
    type: str
  gpu_facts:
    description: The fact C(bedplate_gpus) of each host that is to serve, by the host's name. Give this or O(gpus).
    type: dict
  objective:
    description: What to be best at, where no targets are given in O(profile).
    type: str
    choices: [latency, throughput]
    default: latency
  profile:
    description: What requests look like, and the targets for them.
    type: dict
    suboptions:
      input_tokens:
        description: Tokens of a mean prompt.
        type: int
        default: 1024
      output_tokens:
        description: Tokens of a mean answer.
        type: int
        default: 1024
      rate:
        description: Requests per second.
        type: float
      ttft_ms:
        description: Target for the time to the first token in ms, 99th percentile.
        type: float
      tpot_ms:
        description: Target for the time per token after it in ms, 99th percentile.
        type: float
  max_model_len:
    description: Longest request in tokens, such as V(32768) or V(32k). V(auto) is the longest that fits.
    type: str
    default: auto
  precision:
    description: Number format of the weights. V(auto) is that of the files, or fp8 where bf16 leaves too little room.
    type: str
    choices: [auto, checkpoint, bf16, fp8, fp8_block, awq_int4, gptq_int4, nvfp4]
    default: auto
  kv_dtype:
    description: Number format of the KV cache. V(auto) is that of the activations.
    type: str
    choices: [auto, bfloat16, float16, fp8, fp8_e4m3, fp8_e5m2, fp8_ds_mla, nvfp4_ds_mla]
    default: auto
  gpu_memory_utilization:
    description: Part of each GPU's memory that the engine may take.
    type: float
    default: 0.92
  tensor_parallel:
    description: Plan with this number of tensor ranks only.
    type: int
  pipeline_parallel:
    description: Plan with this number of pipeline stages only.
    type: int
  data_parallel:
    description: Plan with this number of data ranks only.
    type: int
  catalogue:
    description: Folder on the controller with further models; their names win.
    type: path
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Any, since it runs on the controller.
    support: full
    platforms: all
"""

EXAMPLES = r"""
- name: Plan a model for GPUs that are not there yet
  bedplate.llm.model_plan:
    model: deepseek-r1
    gpus: 8xH200
  register: plan

- name: Plan for the GPUs of this host
  bedplate.llm.model_plan:
    model: deepseek-r1-distill-qwen-7b
    gpu_facts: "{{ {inventory_hostname: bedplate_gpus} }}"
    profile: {rate: 8, input_tokens: 512, output_tokens: 256, ttft_ms: 500, tpot_ms: 50}
  register: plan

- name: Stop when it does not fit
  bedplate.llm.assert_checks:
    checks: "{{ plan.checks }}"
"""

RETURN = r"""
plan:
  description: The plan, as C(bedplate plan --json) prints it. Bytes and tokens are those of one GPU and one engine.
  returned: always
  type: dict
  contains:
    fits:
      description: Whether the memory holds it.
      type: bool
      returned: always
    shortfall_bytes:
      description: Bytes that each GPU lacks.
      type: int
      returned: always
    tensor_parallel:
      description: Tensor ranks.
      type: int
      returned: always
    pipeline_parallel:
      description: Pipeline stages.
      type: int
      returned: always
    data_parallel:
      description: Data ranks, engines of their own for a dense model.
      type: int
      returned: always
    expert_parallel:
      description: Whether experts are spread over the ranks.
      type: bool
      returned: always
    engines:
      description: Services of their own, one for each host; the parallel sizes are those of one of them.
      type: int
      returned: always
    calibrated:
      description: Whether the memory model is held to measured starts of this kind of model.
      type: bool
      returned: always
    precision:
      description: Number format of the weights.
      type: str
      returned: always
    weight_bytes_per_gpu:
      description: Bytes of tensors on the fullest GPU.
      type: int
      returned: always
    kv_bytes_per_token_per_gpu:
      description: Bytes of the KV cache that one token takes.
      type: int
      returned: always
    kv_bytes_per_request_per_gpu:
      description: Bytes that a request takes besides at its worst moment; 0 where no layer keeps a window.
      type: int
      returned: always
    kv_cache_tokens:
      description: Tokens that the KV cache of one engine holds, as it reports them.
      type: int
      returned: always
    max_model_len:
      description: Longest request in tokens.
      type: int
      returned: always
    max_concurrency:
      description: Longest requests that one engine holds at the same time.
      type: float
      returned: always
    memory_per_gpu:
      description: Where the memory of a GPU goes, in bytes.
      type: dict
      returned: always
    speed:
      description: Bounds and expectations in tokens per second; null when it does not fit.
      type: dict
      returned: always
    flags:
      description: Arguments of C(vllm serve) by name without dashes; V(true) is a switch.
      type: dict
      returned: always
      sample: {tensor-parallel-size: 8, max-model-len: 163840, gpu-memory-utilization: 0.92}
    environment:
      description: Variables of the engine.
      type: dict
      returned: always
    warnings:
      description: What to know, in sentences.
      type: list
      elements: str
      returned: always
    rejected:
      description: Every other placement and precision (C(option)) with the C(reason) why it is not taken.
      type: list
      elements: dict
      returned: always
    changes:
      description: When it does not fit, what would make it fit (C(what)) and how to ask again (C(ask)).
      type: list
      elements: dict
      returned: always
    simulated:
      description: Whether the GPUs are only named, or a lab's, so that no card was looked at.
      type: bool
      returned: always
checks:
  description: Whether it fits, and whether the targets are kept, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: plan.fits, ok: true, reason: 'deepseek-r1 fits on 8xH200 with TP 8.', remedy: ''}]
"""
