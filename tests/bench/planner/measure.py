"""What the engine itself says of its memory, for the cases of cases.json, on a machine with NVIDIA GPUs.

    python3 measure.py CASES TOKENIZERS RESULT [SECONDS]

CASES: cases.json, a list of {name, config (as config.json), tokenizer, flags, gpus}; TOKENIZERS: a folder with a folder
for each tokenizer named there; RESULT: where the figures go after each case; SECONDS: no case is begun later than this.
Weights are dummies: their sizes count, not their values.  One case on each GPU at a time; cases of several GPUs
(`gpus`, with the flags that spread the model) come last, one by one.  The engine is
`python3 -m vllm.entrypoints.cli.main`, and its debug messages say what the memory is for.  Standard library only;
`measured.json` is what was found so far.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

FIGURES = {
    "weights_gib": r"Model loading took ([0-9.]+) GiB",
    "kv_gib": r"Available KV cache memory: ([0-9.]+) GiB",
    "kv_tokens": r"GPU KV cache size: ([0-9,]+) tokens",
    "concurrency": r"Maximum concurrency for [0-9,]+ tokens per request: ([0-9.]+)x",
    "graphs_estimated_gib": r"Estimated CUDA graph memory: ([0-9.]+) GiB",
    "piecewise_first_mib": r"Estimated PIECEWISE CUDA graph memory: ([0-9.]+) MiB",
    "piecewise_each_mib": r"Estimated PIECEWISE CUDA graph memory: .* × ([0-9.]+) MiB per-graph",
    "full_first_mib": r"Estimated FULL CUDA graph memory: ([0-9.]+) MiB",
    "full_each_mib": r"Estimated FULL CUDA graph memory: .* × ([0-9.]+) MiB per-graph",
    "free_at_start_gib": r"Initial free memory: ([0-9.]+) GiB",
    "requested_gib": r"Requested memory: [0-9.]+ \(util\), ([0-9.]+) GiB",
    "not_cache_gib": r"Total non KV cache memory: ([0-9.]+)GiB",
    "torch_peak_gib": r"torch peak memory increase: ([0-9.]+)GiB",
    "kept_gib": r"total consumed \(from mem_get_info\): ([0-9.]+)GiB",
    "graphs_gib": r"Graph capturing finished in [0-9]+ secs, took ([0-9.]+) GiB",
}
PATIENCE = 240.0  # seconds for one start
LAST = "concurrency"  # the engine says this last: graphs are captured on trial before the cache is sized


def figures(log: str) -> dict[str, float]:
    found = {name: re.search(rule, log) for name, rule in FIGURES.items()}
    return {name: float(match[1].replace(",", "")) for name, match in found.items() if match}


def start(case: dict[str, Any], tokenizers: Path, gpus: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="planner-") as scratch:
        model, log = Path(scratch) / "model", Path(scratch) / "log"
        shutil.copytree(tokenizers / case["tokenizer"], model)
        (model / "config.json").write_text(json.dumps(case["config"]))
        argv = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--load-format", "dummy"]
        argv += ["--uds", f"{scratch}/api.sock", "--served-model-name", "m"]
        for name, value in case["flags"].items():
            argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        began = time.monotonic()
        with log.open("w") as out:
            engine = subprocess.Popen(
                argv,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={
                    **os.environ,
                    "CUDA_VISIBLE_DEVICES": gpus,
                    "VLLM_CACHE_ROOT": f"{scratch}/cache",
                    "VLLM_LOGGING_LEVEL": "DEBUG",
                },
            )
        said: dict[str, float] = {}
        while engine.poll() is None and LAST not in said and time.monotonic() - began < PATIENCE:
            time.sleep(0.5)
            said = figures(log.read_text(errors="replace"))
        ended = engine.poll()
        if ended is None:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
        text = log.read_text(errors="replace")
        errors = [line for line in text.splitlines() if "Error" in line]
        return {
            "name": case["name"],
            "flags": case["flags"],
            "seconds": round(time.monotonic() - began, 1),
            **figures(text),
            **({"error": errors[-1][-400:] if errors else text[-400:]} if LAST not in said else {}),
        }


def gpus() -> list[dict[str, str]]:
    asked = "name,driver_version,memory.total"
    out = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True, check=True
    ).stdout
    return [dict(zip(asked.split(","), line.split(", "), strict=True)) for line in out.strip().splitlines()]


def main() -> int:
    every = json.loads(Path(sys.argv[1]).read_text())
    cases, wide = ([case for case in every if (case.get("gpus", 1) > 1) is many] for many in (False, True))
    tokenizers, result = Path(sys.argv[2]), Path(sys.argv[3])
    end = time.monotonic() + float(sys.argv[4] if len(sys.argv) > 4 else 1e9)
    found: dict[str, Any] = {"gpus": gpus(), "measured": []}
    lock = threading.Lock()

    def measure(case: dict[str, Any], numbers: str) -> None:
        measured = start(case, tokenizers, numbers)
        with lock:
            found["measured"].append(measured)
            result.write_text(json.dumps(found, indent=1) + "\n")
            print(json.dumps(measured), flush=True)

    def work(gpu: int) -> None:
        while True:
            with lock:
                if not cases or time.monotonic() > end:
                    return
                case = cases.pop(0)
            measure(case, str(gpu))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(found["gpus"]))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for case in wide:
        if case["gpus"] <= len(found["gpus"]) and time.monotonic() < end:
            measure(case, ",".join(map(str, range(case["gpus"]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
