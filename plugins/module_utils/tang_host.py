# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host's own systemd, sockets and folder of keys say about its tang server."""

from __future__ import annotations

import grp
import json
import pwd
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.tang import MODE, Key, TangError, parse_key

SOCKET = "tangd.socket"
# An instance that nobody has: what it would be made of is what each connection gets.
SERVICE = "tangd@bedplate.service"
_SOCKET_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,Listen"
_SERVICE_PROPERTIES = "LoadState,NeedDaemonReload,User,Group,ExecStart,NoNewPrivileges,PrivateNetwork,ProtectSystem"
_LISTEN = re.compile(r"^Listen=(\S+) \(Stream\)$", re.MULTILINE)

# (exit code, standard output, standard error) of a command.
Run = Callable[[Sequence[str]], Tuple[int, str, str]]


@dataclass(frozen=True)
class Folder:
    """Where the keys lie; owner is empty when the folder is not there."""

    path: str
    owner: str = ""
    group: str = ""
    mode: int = 0


@dataclass(frozen=True)
class Server:
    """folder: None without tang. user, group: as whom tangd runs. broken: files that are no keys, and why.

    configured, listening: addresses with ports, as systemd has them in mind, and as the kernel has them.
    """

    folder: Optional[Folder] = None
    user: str = ""
    group: str = ""
    keys: Tuple[Key, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    socket: Mapping[str, str] = field(default_factory=dict)
    service: Mapping[str, str] = field(default_factory=dict)
    configured: FrozenSet[str] = frozenset()
    listening: FrozenSet[str] = frozenset()


def exposed_keys(server: Server) -> Tuple[Key, ...]:
    """Those that others than tangd can read, or that it cannot."""
    owners = (server.user, server.group)
    return tuple(
        key for key in server.keys if (key.owner, key.group) != owners or key.mode & ~MODE or not key.mode & 0o400
    )


def is_exposed(server: Server) -> bool:
    """Whether others than tangd and root can look into the folder of keys, or change what is in it."""
    folder = server.folder
    if folder is None or not folder.owner:
        return False
    return folder.owner not in (server.user, "root") or folder.group != server.group or bool(folder.mode & 0o7027)


def key_folder(exec_start: str) -> str:
    """The last word of tangd's command line, out of `systemctl show -p ExecStart`; the distributions differ."""
    words = shlex.split(exec_start.partition("argv[]=")[2].partition(" ; ")[0])
    if len(words) < 2 or not words[-1].startswith("/"):
        raise TangError(f"{SERVICE} does not say where the keys are, its ExecStart is: {exec_start or 'empty'}")
    return str(words[-1])


def parse_listeners(text: str) -> FrozenSet[str]:
    """The local addresses out of `ss -H -ltn`."""
    return frozenset(words[3] for words in map(str.split, text.splitlines()) if len(words) > 3)


def _name(database: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(database(number)[0])
    except KeyError:
        return str(number)


def _access(path: Path) -> Tuple[str, str, int]:
    status = path.lstat()
    return _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid), status.st_mode & 0o7777


def read_keys(folder: Path) -> Tuple[Tuple[Key, ...], Dict[str, str]]:
    """The keys, and of files that are called like keys and are none the reason."""
    keys, broken = [], {}
    for path in sorted(folder.glob("*.jwk")) if folder.is_dir() else []:
        try:
            # tangd's own user may write here: what it links to is not ours to read, or to give away.
            if path.is_symlink() or not path.is_file():
                raise TangError("it is no regular file")
            keys.append(parse_key(json.loads(path.read_text(encoding="utf-8")), path.name, *_access(path)))
        except (TangError, OSError, ValueError) as error:
            # Of what the file holds nothing is said: it may be a private key that lacks a bracket.
            broken[path.name] = str(error) if isinstance(error, TangError) else type(error).__name__
    return tuple(keys), broken


def look(run: Run, root: Path = Path("/")) -> Server:
    socket_text = run(["systemctl", "show", SOCKET, "-p", _SOCKET_PROPERTIES])[1]
    service = parse_show(run(["systemctl", "show", SERVICE, "-p", _SERVICE_PROPERTIES])[1])
    if service.get("LoadState") != "loaded":
        return Server()
    path = key_folder(service.get("ExecStart", ""))
    place = root / path.lstrip("/")
    keys, broken = read_keys(place)
    return Server(
        folder=Folder(path, *_access(place)) if place.is_dir() else Folder(path),
        user=service.get("User") or "root",
        group=service.get("Group") or service.get("User") or "root",
        keys=keys,
        broken=broken,
        socket=parse_show(socket_text),
        service=service,
        configured=frozenset(_LISTEN.findall(socket_text)),
        listening=parse_listeners(run(["ss", "-H", "-ltn"])[1]),
    )
