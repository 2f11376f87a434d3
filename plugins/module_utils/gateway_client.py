# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""An HTTPS client that connects to one address and speaks to one name, as the gateway's probe needs it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping


@dataclass(frozen=True)
class Target:
    """authority: PEM text by which to trust the gateway; empty means the system's own store. Times in seconds."""

    address: str
    port: int
    server_name: str
    authority: str = ""
    timeout: float = 5.0

    @property
    def host_header(self) -> str:
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"{name}:{self.port}"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON, or nothing when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def tls_context(target: Target) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=target.authority or None)


class Connection(http.client.HTTPSConnection):
    """To the target's address, but asking for, and verifying, the target's name."""

    def __init__(self, target: Target, context: ssl.SSLContext, timeout: float | None = None) -> None:
        super().__init__(target.address, target.port, timeout=timeout or target.timeout, context=context)
        self.target = target
        self.tls = context

    def connect(self) -> None:
        self.handshake()

    def handshake(self) -> ssl.SSLSocket:
        """Connect, and return the socket for a look at its certificate."""
        plain = socket.create_connection((self.target.address, self.target.port), self.timeout)
        try:
            secured = self.tls.wrap_socket(plain, server_hostname=self.target.server_name)
        except BaseException:
            plain.close()
            raise
        self.sock = secured
        return secured


def send(connection: Connection, method: str, path: str, token: str = "", body: Any = None) -> http.client.HTTPResponse:
    headers = {"Host": connection.target.host_header}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None
    if body is not None:
        data = json.dumps(body).encode("utf-8")
        headers["Content-Type"] = "application/json"
    connection.request(method, path, body=data, headers=headers)
    return connection.getresponse()


def ask(connection: Connection, method: str, path: str, token: str = "", body: Any = None) -> Answer:
    response = send(connection, method, path, token, body)
    headers = {key.lower(): value for key, value in response.getheaders()}
    return Answer(response.status, response.read(), headers)


def events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The data of each server-sent event, as it arrives."""
    for line in response:
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("data:"):
            yield text[len("data:") :].strip()
