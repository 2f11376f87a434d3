# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Docker's configuration, which belongs to somebody else: what is missing is added, and nothing else is touched."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

PATH = "/etc/docker/daemon.json"
# The first Docker that reads CDI specifications.
FLOOR = 25


class DaemonError(ValueError):
    """The configuration cannot be changed safely; the message is one sentence for the user."""


def merge(have: Any, want: Mapping[str, Any], path: str = "") -> Dict[str, Any]:
    """What is there, with the wanted keys added or set; DaemonError where another kind of value stands in the way."""
    if not isinstance(have, dict):
        where = f"its key {path}" if path else "it"
        raise DaemonError(f"{PATH}: {where} is {json.dumps(have)} where an object is expected; put that right first.")
    merged = dict(have)
    for key, value in want.items():
        inner = f"{path}.{key}" if path else key
        merged[key] = merge(merged.get(key, {}), value, inner) if isinstance(value, dict) else value
    return merged


def parse(text: Optional[str]) -> Dict[str, Any]:
    """The configuration that is there; an absent or empty file is an empty one."""
    if text is None or not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_no_key_twice)
    except ValueError as error:
        raise DaemonError(
            f"{PATH} is not valid JSON ({error}), so nothing was changed; put that right first."
        ) from error
    return merge(found, {})


def _no_key_twice(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Of a key that stands there twice, one value would be lost without a word."""
    seen: Dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} stands there twice")
        seen[key] = value
    return seen


def render(configuration: Mapping[str, Any]) -> str:
    """In the order in which it was written."""
    return json.dumps(configuration, indent=4, ensure_ascii=False) + "\n"


def flags(exec_start: str) -> Dict[str, str]:
    """The options of dockerd's command line out of `systemctl show -p ExecStart`."""
    _before, found, rest = exec_start.partition("argv[]=")
    words = shlex.split(rest.partition(" ; ")[0]) if found else []
    options: Dict[str, str] = {}
    for position, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = words[position + 1] if position + 1 < len(words) else ""
            options[name] = value if equals else "" if following.startswith("-") else following
    return options


def conflicts(options: Mapping[str, str], want: Mapping[str, Any]) -> List[str]:
    """dockerd does not start with a setting in both places, and reads another file when it is told to."""
    problems = []
    if options.get("config-file", PATH) != PATH:
        problems.append(
            f"docker.service starts dockerd with --config-file={options['config-file']}, so it does not read {PATH};"
            " take the option out of the unit's drop-in."
        )
    for key in want:
        name = key[:-1] if key.endswith("s") and key[:-1] in options else key
        if name in options:
            problems.append(
                f"docker.service starts dockerd with --{name}, and dockerd does not start when {PATH} has {key} too;"
                " take the option out of the unit's drop-in, and write it to the file."
            )
    return problems


@dataclass(frozen=True)
class Running:
    """dockerd: whether it runs, reads CDI specifications, how many containers it has, and whether our engine serves."""

    active: bool
    reads_cdi: bool
    containers: int
    engine_serves: bool


def restart_decision(changed: bool, now: Running) -> Tuple[bool, str]:
    """Whether to restart dockerd, and why that has to wait, if it has to."""
    if not now.active or (now.reads_cdi and not changed):
        return False, ""
    if now.engine_serves:
        return False, "the engine serves; restart Docker when it is drained: `systemctl restart docker`."
    if now.containers:
        count = "1 container runs" if now.containers == 1 else f"{now.containers} containers run"
        return False, f"{count} in Docker; restart it when they may end: `systemctl restart docker`."
    return True, ""


def server_problem(version: str, cdi_folders: Optional[Sequence[str]], error: str) -> str:
    """Why containers of this Docker cannot be given GPUs, or nothing."""
    major = version.split(".", 1)[0]
    if not major.isdigit():
        return f"Docker does not answer{f': {error[-200:]}' if error else ''}; install and start it first."
    if int(major) < FLOOR:
        return f"Docker {version} does not read descriptions of GPUs; install {FLOOR}.0 or newer, or use podman."
    if not cdi_folders:
        return f"Docker {version} runs without reading descriptions of GPUs; restart it: `systemctl restart docker`."
    return ""
