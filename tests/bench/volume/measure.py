"""What encryption costs a volume: ciphers in memory, and a safetensors file read through it and from the bare device.

    python3 measure.py DEVICE SERIAL RESULT [GIB]     # root, on the machine to be measured; Python 3.11, nothing else

THE DEVICE IS OVERWRITTEN: SERIAL has to be its serial number, and nothing of it may be in use.  RESULT: where the
figures go.  GIB: size of the file, 4 when it is not given.

Each variant is the same file in a new ext4, written once, then read ROUNDS times, each time from a cold page cache, by
one stream and by STREAMS at once, as the workers of an engine do.  Rates are MB/s (10^6 bytes), the median of the
rounds; processor seconds are those of all processors, busy for whatever reason.  Ratio: against the bare device with
the same number of streams.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME, MOUNT = "bedplate-bench", Path("/run/bedplate-bench")
FILE = MOUNT / "model.safetensors"
KEY = b"not a secret: it protects random bytes for some minutes"
ROUNDS, CHUNK, STREAMS = 3, 4 << 20, 4
CIPHERS = {"aes-xts": ("aes-xts-plain64", 512), "sm4-xts": ("sm4-xts-plain64", 256)}
QUEUES = ["--perf-no_read_workqueue", "--perf-no_write_workqueue"]


def run(*argv: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if check and done.returncode:
        sys.exit(f"measure: `{' '.join(argv)}` ended with {done.returncode}: {done.stderr.decode()[-800:]}")
    return done


def require_ours(device: str, serial: str) -> None:
    """No measurement is worth somebody's data."""
    shown = json.loads(run("lsblk", "--json", "--output", "PATH,SERIAL,MOUNTPOINTS", device).stdout)["blockdevices"]
    found = (shown[0]["serial"] or "").strip()
    if found != serial:
        sys.exit(f"measure: {device} has the serial number {found or 'none'}, not {serial}; nothing was written.")
    if len(shown) > 1 or shown[0].get("children") or any(shown[0]["mountpoints"]):
        sys.exit(f"measure: {device} is in use (partitions, mappings or mounts); nothing was written.")


# --- in memory ------------------------------------------------------------------------------------------------------


def in_memory(cipher: str, bits: int) -> dict[str, float] | None:
    """What `cryptsetup benchmark` says, in MB/s; None where the kernel does not have the cipher."""
    done = run("cryptsetup", "benchmark", "--cipher", cipher, "--key-size", str(bits), check=False)
    match = re.search(rf"{cipher}\s+\d+b\s+([\d.]+) MiB/s\s+([\d.]+) MiB/s", done.stdout.decode())
    if not match:
        return None
    return {"encrypt": round(float(match[1]) * 1.048576, 1), "decrypt": round(float(match[2]) * 1.048576, 1)}


# --- on the device --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def volume(device: str, cipher: str, sector: int, bypass: bool) -> Iterator[str]:
    """The mapping of a new volume; an empty cipher is the device itself."""
    if not cipher:
        yield device
        return
    name, bits = CIPHERS[cipher]
    cost = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    form = ["--type", "luks2", "--cipher", name, "--key-size", str(bits), "--sector-size", str(sector), *cost]
    run("cryptsetup", "luksFormat", "--batch-mode", "--key-file", "-", *form, device, stdin=KEY)
    run("cryptsetup", "open", "--key-file", "-", *(QUEUES if bypass else []), device, NAME, stdin=KEY)
    try:
        yield f"/dev/mapper/{NAME}"
    finally:
        run("cryptsetup", "close", NAME)


@contextlib.contextmanager
def mounted(block: str) -> Iterator[None]:
    run("wipefs", "--all", "--quiet", block)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", block)
    MOUNT.mkdir(exist_ok=True)
    run("mount", block, str(MOUNT))
    try:
        yield
    finally:
        run("umount", str(MOUNT))
        MOUNT.rmdir()


def write_file(size: int) -> float:
    """A safetensors file with one tensor of random bytes; MB/s until all of it is on the device."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = os.urandom(CHUNK)
    began = time.monotonic()
    with FILE.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _chunk in range(size // CHUNK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return size / 1e6 / (time.monotonic() - began)


def busy() -> float:
    """Processor seconds since the start, of all processors, that were not idle."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def read_part(start: int, end: int) -> None:
    with FILE.open("rb", buffering=0) as file:
        file.seek(start)
        at = start
        while at < end:
            at += len(file.read(min(CHUNK, end - at)))


def read_file(streams: int) -> tuple[float, float]:
    """MB/s and processor seconds for each GB, from a cold page cache."""
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    size = FILE.stat().st_size
    part = -(-size // streams)
    before, began = busy(), time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(lambda index: read_part(index * part, min(size, (index + 1) * part)), range(streams)))
    seconds = time.monotonic() - began
    return size / 1e6 / seconds, (busy() - before) / (size / 1e9)


def measure(device: str, size: int, cipher: str, sector: int, bypass: bool) -> dict[str, Any]:
    with volume(device, cipher, sector, bypass) as block, mounted(block):
        row: dict[str, Any] = {
            "cipher": cipher or "none",
            "sector": sector if cipher else None,
            "around_work_queues": bypass if cipher else None,
            "write_mb_s": round(write_file(size), 1),
        }
        for streams in (1, STREAMS):
            rounds = [read_file(streams) for _round in range(ROUNDS)]
            row[f"read_mb_s_{streams}"] = round(statistics.median(rate for rate, _spent in rounds), 1)
            row[f"processor_s_per_gb_{streams}"] = round(statistics.median(spent for _rate, spent in rounds), 2)
    return row


def machine() -> dict[str, Any]:
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    vendor = Path("/sys/class/dmi/id/sys_vendor")
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "processors": os.cpu_count(),
        "instructions": sorted(flags & {"aes", "avx", "avx2", "vaes", "gfni"}),
        "kernel": platform.release(),
        "vendor": vendor.read_text().strip() if vendor.exists() else "",
        "virtual": run("systemd-detect-virt", check=False).stdout.decode().strip(),
        "cryptsetup": run("cryptsetup", "--version").stdout.decode().split()[1],
    }


def main() -> int:
    if len(sys.argv) < 4 or os.geteuid() != 0:
        sys.exit(__doc__)
    device, serial, result = sys.argv[1:4]
    size = int(float(sys.argv[4] if len(sys.argv) > 4 else 4) * 2**30) // CHUNK * CHUNK
    require_ours(device, serial)
    memory = {name: in_memory(name, bits) for name, (_cipher, bits) in CIPHERS.items()}
    rows = [measure(device, size, "", 0, False)]
    for cipher, speed in memory.items():
        if speed:
            rows += [
                measure(device, size, cipher, sector, bypass) for sector in (512, 4096) for bypass in (False, True)
            ]
    for row in rows:
        for streams in (1, STREAMS):
            row[f"ratio_{streams}"] = round(row[f"read_mb_s_{streams}"] / rows[0][f"read_mb_s_{streams}"], 3)
    run("wipefs", "--all", "--quiet", device)
    found = {
        "command": f"python3 tests/bench/volume/measure.py DEVICE SERIAL RESULT {size / 2**30:g}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "file_bytes": size,
        "rounds": ROUNDS,
        "in_memory_mb_s": memory,
        "rows": rows,
    }
    Path(result).write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
