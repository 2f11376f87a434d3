# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's API over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Mapping, Optional


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """timeout: for each answer, in seconds."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path, self._timeout = path, timeout

    def text(self, method: str, url: str, body: Optional[Mapping[str, Any]] = None) -> str:
        """What the engine answers; OSError with the reason when it gives no answer that can be used."""
        connection = _Connection(self._path, self._timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, url, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(f"{url} breaks off: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"{url} answers {response.status}: {content[:200]}")
        return content

    def json(self, method: str, url: str, body: Optional[Mapping[str, Any]] = None) -> Any:
        """The same, of an answer in JSON; ValueError when it is none."""
        return json.loads(self.text(method, url, body))
