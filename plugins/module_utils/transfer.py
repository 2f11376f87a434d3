# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to send to a host so that it holds the files of a bundle's part: the decision half of `bundle_push`."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping

MIB = 1024 * 1024
CHUNK = 32 * MIB
# A file below this size travels in an archive with others: a round trip costs as much as sending a megabyte.
SMALL = 4 * MIB
PART = ".part"


class TransferError(ValueError):
    """The request is not sound; the message is one sentence for the user."""


@dataclass(frozen=True)
class File:
    """A file of the part: path relative to its folder, size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Stream:
    """A large file sent in chunks, from `offset`, where an earlier attempt ended."""

    file: File
    offset: int


@dataclass(frozen=True)
class Plan:
    """`archives` are groups of small files, each at most CHUNK bytes together."""

    archives: List[List[File]]
    streams: List[Stream]

    @property
    def files(self) -> List[File]:
        return [file for archive in self.archives for file in archive] + [stream.file for stream in self.streams]

    @property
    def bytes(self) -> int:
        whole = sum(file.size for archive in self.archives for file in archive)
        return whole + sum(stream.file.size - stream.offset for stream in self.streams)


def parse(artefacts: Iterable[Mapping[str, Any]]) -> List[File]:
    files = [File(str(item["path"]), str(item["sha256"]), int(item["size"])) for item in artefacts]
    for file in files:
        if posixpath.isabs(file.path) or posixpath.normpath(file.path) != file.path or file.path.startswith(".."):
            raise TransferError(f"artefact paths stay within their folder, found {file.path!r}.")
    return files


def plan(files: Iterable[File], present: Iterable[str], partial: Mapping[str, int]) -> Plan:
    """present: paths whose content is right on the host; partial: bytes that an interrupted transfer left, by path."""
    there = set(present)
    archives: List[List[File]] = []
    streams: List[Stream] = []
    filling = 0
    for file in files:
        if file.path in there:
            continue
        if file.size >= SMALL:
            left = partial.get(file.path, 0)
            # More than the file holds is no beginning of it.
            streams.append(Stream(file, left if left <= file.size else 0))
            continue
        if not archives or filling + file.size > CHUNK:
            archives.append([])
            filling = 0
        archives[-1].append(file)
        filling += file.size
    return Plan(archives, streams)


def progress(sent: int, total: int, seconds: float) -> str:
    rate = f", {sent / MIB / seconds:.0f} MiB/s" if seconds > 0 and sent else ""
    return f"{sent / MIB:.1f} of {total / MIB:.1f} MiB{rate}"


def verified(index: Mapping[str, Any], path: str, sha256: str, stamp: Dict[str, int]) -> bool:
    """Whether this very file was hashed before: same digest, size, time of change and inode."""
    return index.get(path) == {"sha256": sha256, **stamp}
