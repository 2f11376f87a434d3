"""What a lab could leave behind on the operator's computer: look before, look after, compare.

`traces.py note LAB FILE` writes down what stands now; `traces.py compare LAB FILE` fails with what is different since,
and with everything that still bears the lab's name.  create.yml and destroy.yml call both: every destroy is a test.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORDS = Path("/var/lib/bedplate-lab")
PROGRAMS = ("qemu-system-x86_64", "swtpm", "systemd-nspawn", "mmdebstrap")
# What a lab that has an outside switches on, and shares with every other lab of this computer.
FORWARDING = re.compile(r"setting \S*(forward|accept_redirects)")


def command(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def names(lab: str) -> re.Pattern[str]:
    """How the things of a lab are called: see `plugins/module_utils/lab_model.py`."""
    return re.compile(rf"(bp-|vb-|bedplate_lab_|bedplate-lab-|bedplate-lab/|bedplate-){re.escape(lab)}(?![a-z0-9])")


def _network() -> Iterator[str]:
    for link in json.loads(command("ip", "-json", "link", "show")):
        yield f"interface {link['ifname']} on {link.get('master', 'no bridge')}"
    for family in ("-4", "-6"):
        for route in json.loads(command("ip", "-json", family, "route", "show", "table", "all")):
            yield f"route {family} {route['dst']} dev {route.get('dev', 'none')} table {route.get('table', 'main')}"
        for rule in json.loads(command("ip", "-json", family, "rule", "show")):
            yield f"routing rule {family} {json.dumps(rule, sort_keys=True)}"
    yield from (f"nft {line}" for line in command("nft", "list", "tables").splitlines())


def _settings() -> Iterator[str]:
    root = Path("/proc/sys/net")
    for path in sorted(root.glob("**/*")):
        where = path.relative_to(root).parts
        # Those of single interfaces come and go with them; netfilter's are counters and its modules' own.
        if "netfilter" in where or ({"conf", "neigh"} & set(where[:-1]) and not {"all", "default"} & set(where)):
            continue
        try:
            yield f"setting {'.'.join(where)} = {path.read_text().strip()}"
        except OSError:
            continue  # a folder, or one that can only be written


def _processes() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = (folder / "cgroup").read_text()
        except OSError:
            continue  # it has ended meanwhile
        line = " ".join(argv).strip()
        if not line:
            continue  # the kernel's own, or one that has ended and waits for init to take note
        if Path(argv[0]).name in PROGRAMS or "bedplate-lab/" in line or "bedplate-lab-" in groups:
            found = re.search(r"bedplate-lab-[a-z0-9]+", groups)
            yield f"process {line[:200]} in {found[0] if found else 'no cgroup of a lab'}"


def _files() -> Iterator[str]:
    yield from (f"record {path}" for path in RECORDS.glob("*/"))
    yield from (f"lock {path}" for path in Path("/run/lock").glob("bedplate-*.lock") if path.stem != "bedplate-host")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line.split()[4]}"
    for mount in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind = mount.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            yield from (f"control group {path}" for path in Path(where).glob("bedplate-lab-*"))


@dataclass(frozen=True)
class Traces:
    lines: frozenset[str]
    labs: frozenset[str]

    def of(self, lab: str) -> list[str]:
        return sorted(line for line in self.lines if names(lab).search(line))


def look() -> Traces:
    lines = frozenset({*_network(), *_settings(), *_processes(), *_files()})
    return Traces(lines, frozenset(path.name for path in RECORDS.glob("*/")))


def differences(before: Traces, after: Traces, lab: str) -> list[str]:
    """What is new, gone or changed, and what bears the lab's name; other labs may have come and gone meanwhile."""
    others = (before.labs | after.labs) - {lab}

    def counts(line: str) -> bool:
        return not any(names(other).search(line) for other in others) and not (others and FORWARDING.match(line))

    left = {f"left behind: {line}" for line in after.lines - before.lines if counts(line)}
    lost = {f"gone: {line}" for line in before.lines - after.lines if counts(line)}
    return sorted(left | lost | {f"left behind: {line}" for line in after.of(lab)})


def main(verb: str, lab: str, file: str) -> int:
    path, now = Path(file), look()
    if verb == "note":
        path.write_text(json.dumps({"lines": sorted(now.lines), "labs": sorted(now.labs)}))
        return 0
    before = now
    if path.exists():
        noted = json.loads(path.read_text())
        before = Traces(frozenset(noted["lines"]), frozenset(noted["labs"]))
        path.unlink()
    found = differences(before, now, lab)
    sys.stdout.write("\n".join(found) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
