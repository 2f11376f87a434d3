"""How long a rollout takes that has nothing to do, on one host and on two, beside a plain parallel-ssh script.

    make bench        # raises a lab of its own, measures, writes result.json beside this file, takes the lab down

Rounds alternate, so that a busy moment of the machine falls on all columns alike.  Seconds are wall time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
INVENTORY = HERE / "inventory"
SECRETS = INVENTORY / ".secrets"
BIN = Path(sys.executable).parent
ROUNDS = 5
DECLARED = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))["lab"]["children"]["gpu_hosts"][
    "hosts"
]
HOSTS = {name: host["ansible_host"] for name, host in DECLARED.items()}


def playbook(name: str, *arguments: str) -> str:
    """What a user types; its output, or an end of the measurement with it."""
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), name, "-i", str(INVENTORY), *arguments],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bench: {name} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return done.stdout


def rollout(hosts: list[str]) -> int:
    """A rollout that must not change anything; the number of its tasks on one host."""
    recap = playbook("bedplate.llm.site", "--limit", ",".join(hosts))
    for host in hosts:
        line = next(line for line in recap.splitlines() if re.match(rf"{host}\s+: ok=", line))
        if "changed=0" not in line:
            sys.exit(f"bench: the rollout had something to do, so this is no second run: {line}")
    return int(re.search(r"ok=(\d+)", line).group(1))


def ssh(host: str, action: str, stdin: str = "") -> str:
    script = (HERE / "same_work.sh").read_text(encoding="utf-8")
    done = subprocess.run(
        [
            *("ssh", "-i", str(SECRETS / "id_ed25519"), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={SECRETS / 'known_hosts'}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *(f"ops@{HOSTS[host]}", f"sudo sh -c {shlex.quote(script)} same_work {action}"),
        ],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bench: same_work.sh {action} on {host} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def script(hosts: list[str], recorded: dict[str, str]) -> None:
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(lambda host: ssh(host, "compare", recorded[host]), hosts))


def timed(action, *arguments) -> float:
    started = time.perf_counter()
    action(*arguments)
    return round(time.perf_counter() - started, 2)


def measure() -> dict[str, object]:
    tasks = rollout(["llm1", "llm2"])
    recorded = {host: ssh(host, "record") for host in HOSTS}
    columns = {"rollout, 1 host": [], "rollout, 2 hosts": [], "script, 1 host": [], "script, 2 hosts": []}
    for _round in range(ROUNDS):
        for count, hosts in ((1, ["llm1"]), (2, ["llm1", "llm2"])):
            plural = "host" if count == 1 else "hosts"
            columns[f"rollout, {count} {plural}"].append(timed(rollout, hosts))
            columns[f"script, {count} {plural}"].append(timed(script, hosts, recorded))
    medians = {name: statistics.median(values) for name, values in columns.items()}
    return {
        "command": "make bench",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, hosts and operator on the same machine",
        "tasks_per_host": tasks,
        "rounds": ROUNDS,
        "median_seconds": medians,
        "two_hosts_cost": round(medians["rollout, 2 hosts"] / medians["rollout, 1 host"], 2),
        "seconds": columns,
    }


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("bench: lab machines need root; run it again with sudo.")
    subprocess.run([str(BIN / "bedplate"), "bundle", "build", "lab", "--device", "cpu"], cwd=PROJECT, check=True)
    try:
        playbook("bedplate.llm.lab_up")
        playbook("bedplate.llm.site")
        result = measure()
    finally:
        playbook("bedplate.llm.lab_down")
    (HERE / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, seconds in result["median_seconds"].items():
        print(f"{name:<18} {seconds:6.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
