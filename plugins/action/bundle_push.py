# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.bundle_push`: decides with the host's answer, streams, and shows how far it is."""

from __future__ import annotations

import io
import posixpath
import shlex
import tarfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bedplate.llm.plugins.module_utils.transfer import (
    CHUNK,
    PART,
    File,
    Plan,
    Stream,
    TransferError,
    parse,
    plan,
    progress,
)

SECONDS_BETWEEN_LINES = 2.0


class Meter:
    """Says how much was sent, not more often than a person can read."""

    def __init__(self, display: Any, host: str, label: str, total: int) -> None:
        self._display, self._prefix, self._total = display, f"{host}: {label}:", total
        self._sent, self._started, self._shown = 0, time.monotonic(), 0.0
        display.display(f"{self._prefix} sending {progress(0, total, 0).split(' of ')[1]}")

    def add(self, count: int) -> None:
        self._sent += count
        now = time.monotonic()
        if now - self._shown >= SECONDS_BETWEEN_LINES or self._sent == self._total:
            self._shown = now
            self._display.display(f"{self._prefix} {progress(self._sent, self._total, now - self._started)}")


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        src, dest = Path(arguments["src"]), str(arguments["dest"])
        try:
            files = parse(arguments["artefacts"])
        except (TransferError, KeyError) as error:
            raise AnsibleActionFail(f"bundle_push: {error}") from error
        answer = self._remote("query", arguments, task_vars)
        todo = plan(files, answer["present"], answer["partial"])
        result.update(changed=bool(todo.files), sent=[file.path for file in todo.files], bytes=todo.bytes)
        if not todo.files or self._task.check_mode:
            return result
        self._require(src, todo)
        names = [file.path for file in todo.files]
        self._remote("prepare", {**arguments, "names": names}, task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "host"))
        meter = Meter(self._display, host, src.name, todo.bytes)
        for archive in todo.archives:
            self._send_archive(src, dest, archive)
            meter.add(sum(file.size for file in archive))
        for stream in todo.streams:
            self._send_stream(src, dest, stream, meter)
        self._remote("commit", {**arguments, "names": names}, task_vars)
        return result

    def _remote(self, phase: str, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="bedplate.llm.bundle_push", module_args={**arguments, "phase": phase}, task_vars=task_vars
        )
        if answer.get("failed"):
            raise AnsibleActionFail(str(answer.get("msg", answer)), result=answer)
        return answer

    def _require(self, src: Path, todo: Plan) -> None:
        for file in todo.files:
            path = src / file.path
            size = path.stat().st_size if path.is_file() else -1
            if size != file.size:
                found = f"has {size} bytes" if size >= 0 else "is missing"
                raise AnsibleActionFail(
                    f"bundle_push: {path} {found} where the manifest says {file.size} bytes; build the bundle again."
                )

    def _append(self, command: str, data: bytes) -> None:
        done = self._low_level_execute_command(command, in_data=data, sudoable=True)
        if done["rc"]:
            said = (done.get("stderr") or done.get("stdout") or "no message").strip()
            raise AnsibleActionFail(f"bundle_push: the host did not take the data (`{command}`): {said}")

    def _send_archive(self, src: Path, dest: str, files: list[File]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in files:
                entry = tarfile.TarInfo(file.path + PART)
                entry.size = file.size
                with (src / file.path).open("rb") as content:
                    archive.addfile(entry, content)
        # As root, tar would give the files the archive's owner.
        self._append(f"tar --extract --file=- --no-same-owner --directory={shlex.quote(dest)}", packed.getvalue())

    def _send_stream(self, src: Path, dest: str, stream: Stream, meter: Meter) -> None:
        target = shlex.quote(posixpath.join(dest, stream.file.path + PART))
        offset = stream.offset
        with (src / stream.file.path).open("rb") as content:
            content.seek(offset)
            while chunk := content.read(CHUNK):
                # Written at its place, not appended: a chunk whose answer was lost can be sent again.
                self._append(
                    f"dd of={target} bs=1M iflag=fullblock oflag=seek_bytes seek={offset} conv=notrunc status=none",
                    chunk,
                )
                offset += len(chunk)
                meter.add(len(chunk))
        if offset == 0:
            self._append(f"touch {target}", b"\n")
