"""How long `bedplate plan` takes from the command line to its answer, Python's start included.

    python tests/bench/planner/speed.py     # writes speed.json beside this file

For each DeepSeek of the catalogue and each set of GPUs the best of five runs, since it is the command that is measured
and not the machine's other work: wall time and processor time in seconds.  No network, no GPU.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue

SETS = ("8xH100", "8xH200", "2x8xH100", "4xA100-40G", "1xRTX4090")
ROUNDS = 5


def spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def one(model: str, gpus: str) -> tuple[float, float, int]:
    """(wall, processor, exit code) of one run."""
    before, began = spent(), time.monotonic()
    program = Path(sys.executable).with_name("bedplate")
    done = subprocess.run(
        [str(program), "plan", "--json", "--model", model, "--gpus", gpus], capture_output=True, check=False
    )
    return time.monotonic() - began, spent() - before, done.returncode


def main() -> int:
    rows = []
    for model in sorted(entry.name for entry in model_catalogue.load() if entry.name.startswith("deepseek-")):
        for gpus in SETS:
            runs = [one(model, gpus) for _round in range(ROUNDS)]
            rows.append(
                {
                    "model": model,
                    "gpus": gpus,
                    "exit_code": runs[0][2],
                    "wall_seconds": round(min(run[0] for run in runs), 3),
                    "processor_seconds": round(min(run[1] for run in runs), 3),
                }
            )
    slowest = max(rows, key=lambda row: float(str(row["wall_seconds"])))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python tests/bench/planner/speed.py",
        "python": platform.python_version(),
        "slowest": slowest,
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    Path(__file__).with_name("speed.json").write_text(text + "\n")
    print(json.dumps(slowest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
