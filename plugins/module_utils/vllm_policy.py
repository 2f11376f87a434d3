# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What this collection allows of vLLM: the version floor, and the flags and variables that are not the user's to set.

Data with reasons, and the few functions that read it.  The reasons are shown to the user as they stand here.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple


class Floor(NamedTuple):
    """The oldest engine that may serve on a device, and why."""

    version: str
    reason: str


FLOORS: Dict[str, Floor] = {
    "cuda": Floor(
        "0.33.0",
        "0.33.0 is the first release with the fix of security advisory GHSA-5r3c-5x4v-8gjh, and vLLM fixes security"
        " faults in its newest release line only",
    ),
    # The CPU builds trail the CUDA ones.  They serve labs, not production, so the newest one that exists is allowed
    # although it lacks the fix named above.
    "cpu": Floor("0.32.0", "0.32.0 is the newest CPU build and the one that this collection is tested with"),
}

# Flags that the role renders itself -> what to use instead.
OWNED_FLAGS: Dict[str, str] = {
    "--model": "set vllm_model",
    "--served-model-name": "set vllm_served_model_name",
    "--uds": "the engine listens on a Unix socket only, behind the gateway",
    "--host": "the engine listens on a Unix socket only, behind the gateway",
    "--port": "the engine listens on a Unix socket only; the port of the service is gateway_port",
    "--api-key": "the gateway checks tokens; the engine's own key guards only a part of its paths",
    "--ssl-keyfile": "the gateway ends TLS",
    "--ssl-certfile": "the gateway ends TLS",
    "--ssl-ca-certs": "the gateway ends TLS",
    "--ssl-cert-reqs": "the gateway ends TLS",
    "--ssl-ciphers": "the gateway ends TLS",
    "--enable-ssl-refresh": "the gateway ends TLS",
    "--config": "every setting is on the command line, since the engine drops false values of a config file silently",
    "--load-format": "only safetensors are loaded; other formats can carry code",
    "--disable-fastapi-docs": "the role always disables the engine's documentation pages",
    "--disable-uvicorn-access-log": "the gateway writes the access log",
    "--fail-on-environ-validation": "the role always asks for it",
    "--max-model-len": "set vllm_max_model_len",
    "--dtype": "set vllm_dtype",
    "--kv-cache-memory-bytes": "set vllm_kv_cache_memory_bytes",
    "--gpu-memory-utilization": "set vllm_gpu_memory_utilization",
    "--device-memory-utilization": "set vllm_gpu_memory_utilization",
    "--tensor-parallel-size": "set vllm_tensor_parallel_size",
    "--reasoning-parser": "set vllm_reasoning_parser",
    "--enforce-eager": "set vllm_enforce_eager",
    "--max-num-seqs": "set vllm_max_num_seqs",
    "--shutdown-timeout": "set vllm_shutdown_timeout",
}

_FOREIGN_CODE = "it loads Python code that is not part of the bundle"
_BUNDLE_ONLY = "everything that is served comes from the bundle, as local files with known digests"
_ONE_HOST = "this role serves from one host"
_READABLE = "every user of the host can read a command line, so no secret may stand there"

# Flags that are refused by policy -> the reason.  Their negative form (`false`) is harmless and allowed.
REFUSED_FLAGS: Dict[str, str] = {
    "--trust-remote-code": "it runs Python code out of a model folder",
    "--middleware": _FOREIGN_CODE,
    "--tool-parser-plugin": _FOREIGN_CODE,
    "--reasoning-parser-plugin": _FOREIGN_CODE,
    "--io-processor-plugin": _FOREIGN_CODE,
    "--logits-processors": _FOREIGN_CODE,
    "--worker-cls": _FOREIGN_CODE,
    "--worker-extension-cls": _FOREIGN_CODE,
    "--scheduler-cls": _FOREIGN_CODE,
    "--model-class-overrides": _FOREIGN_CODE,
    "--enable-prompt-embeds": "it deserialises tensors that clients send, which has led to code execution",
    "--enable-mm-embeds": "it deserialises tensors that clients send, which has led to code execution",
    "--trust-request-chat-template": "clients could run their own templates in the engine",
    "--trust-request-mm-kwargs": "clients could pass their own arguments to the engine's processors",
    "--allowed-local-media-path": "clients could read files of the host",
    "--tool-server": "the engine would call other servers on behalf of clients",
    "--enable-log-requests": "prompts would stand in the system's log",
    "--enable-log-outputs": "answers would stand in the system's log",
    "--enable-log-deltas": "answers would stand in the system's log",
    "--hf-token": _READABLE,
    "--watermark-config": _READABLE + ", and its value holds the watermark's key",
    "--tokenizer": _BUNDLE_ONLY,
    "--hf-config-path": _BUNDLE_ONLY,
    "--download-dir": _BUNDLE_ONLY,
    "--revision": _BUNDLE_ONLY,
    "--code-revision": _BUNDLE_ONLY,
    "--tokenizer-revision": _BUNDLE_ONLY,
    "--lora-modules": _BUNDLE_ONLY,
    "--weight-transfer-config": _BUNDLE_ONLY,
    "--grpc": "it opens a server without authentication beside the socket",
    "--grpc-port": "it opens a server without authentication beside the socket",
    "--data-parallel-multi-port-external-lb": "it opens TCP ports without authentication and cannot use a socket",
    "--headless": _ONE_HOST,
    "--nnodes": _ONE_HOST,
    "--node-rank": _ONE_HOST,
    "--master-addr": _ONE_HOST,
}

_WORLD_READABLE = "a unit file is readable by every user of the host, so no secret may stand there"

# Variables that are refused -> the reason.  A name that ends with * stands for all that begin so.
REFUSED_ENVIRONMENT: Dict[str, str] = {
    "PYTHON*": "it changes what code the interpreter runs, and PYTHONOPTIMIZE switches off the engine's own checks",
    "LD_*": "it changes what code is loaded into the engine",
    "VLLM_SERVER_DEV_MODE": "it opens paths through which a client can run code",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "it lets the engine unpickle what it receives",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "clients could load weights from any folder",
    "VLLM_USE_RUST_FRONTEND": "it is another server, on which the settings of this role were not proved",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "the service would stay up without an engine instead of being started again",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "answers would stand in the system's log",
    "VLLM_REQUEST_BODY_LOG_LEVEL": "prompts would stand in the system's log",
    "VLLM_API_KEY": _WORLD_READABLE,
    "HF_TOKEN": _WORLD_READABLE,
    "HUGGING_FACE_HUB_TOKEN": _WORLD_READABLE,
}


def refused_variable(name: str) -> Optional[str]:
    """Why this environment variable may not be set for the engine; None when it may."""
    for pattern, reason in REFUSED_ENVIRONMENT.items():
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
            return reason
    return None


_VERSION = re.compile(r"^(\d+)\.(\d+)(?:\.(\d+))?((?:a|b|rc|\.dev)\d*)?(?:\.post\d+)?(?:\+[0-9A-Za-z.]+)?$")


def version_key(version: str) -> Tuple[int, int, int, int]:
    """Sort key of a release number; a pre-release sorts before its release.  ValueError when it is not one."""
    match = _VERSION.match(version)
    if not match:
        raise ValueError(f"{version!r} is not a version number such as 0.33.0")
    major, minor, patch, pre = match.groups()
    return int(major), int(minor), int(patch or 0), 0 if pre else 1


def version_problem(version: str, device: str, higher_floor: str = "") -> Optional[str]:
    """One sentence when an engine of this version may not serve on this device; a site may raise the floor only."""
    floor = FLOORS[device]
    try:
        if higher_floor and version_key(higher_floor) < version_key(floor.version):
            return (
                f"vllm_version_floor is {higher_floor}, below the collection's own floor {floor.version} for device"
                f" {device}; set it to {floor.version} or higher, or leave it out."
            )
        if higher_floor and version_key(version) < version_key(higher_floor):
            return (
                f"the bundle's engine is vLLM {version}, older than vllm_version_floor {higher_floor};"
                " build the bundle with a newer engine."
            )
        if version_key(version) < version_key(floor.version):
            return (
                f"the bundle's engine is vLLM {version}, older than {floor.version}, which device {device} requires:"
                f" {floor.reason}; build the bundle with a newer engine."
            )
    except ValueError as error:
        return f"the engine's version cannot be compared with the floor: {error}."
    return None


def environment_problems(
    environment: Mapping[str, object], owned: Mapping[str, object], known: Optional[List[str]]
) -> List[str]:
    """What is wrong with vllm_environment; `known` lists the engine's own VLLM_* variables, None if not at hand."""
    problems = []
    for name, value in environment.items():
        reason = refused_variable(name)
        if not re.match(r"^[A-Za-z_][A-Za-z0-9_]*$", name):
            problems.append(
                f"{name!r} is not the name of an environment variable; use letters, digits and underscores."
            )
        elif name in owned:
            problems.append(f"{name} is set by the role itself (to {owned[name]!r}); remove it.")
        elif reason:
            problems.append(f"{name} is refused: {reason}; remove it.")
        elif value is None or str(value) == "":
            problems.append(f"{name} is empty, which crashes the engine; give a value or remove it.")
        elif isinstance(value, (bool, dict, list)):
            problems.append(f"{name} is {value!r}; write the text that the engine should see, such as '1' or '0'.")
        elif "\n" in str(value):
            problems.append(f"{name} has more than one line; a unit file cannot carry that.")
        elif name.startswith("VLLM_") and known is not None and name not in known:
            problems.append(f"{name} is not a variable of this engine; check its spelling.")
    return [f"vllm_environment: {problem}" for problem in problems]
