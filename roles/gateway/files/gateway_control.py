# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What systemd asks of the gateway: to be told when it serves, and to be let finish what it serves.

gateway_control.py ready SOCKET SECONDS    wait until Envoy accepts connections; fail with its reason otherwise
gateway_control.py drain SOCKET SECONDS    take no new connections, wait for the requests that are under way
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import time

POLL_SECONDS = 0.1


class Admin(http.client.HTTPConnection):
    """Envoy's administration interface on its Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def say(sentence: str) -> None:
    """Into the journal."""
    sys.stderr.write(f"gateway-control: {sentence}\n")


def ask(path: str, method: str, url: str) -> str:
    """The answer's text, empty when nobody answers."""
    connection = Admin(path)
    try:
        connection.request(method, url)
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def number(statistics: str, name: str) -> int:
    found = re.search(rf"^{re.escape(name)}: (\d+)$", statistics, re.MULTILINE)
    return int(found.group(1)) if found else 0


def refused(path: str) -> str:
    """Why Envoy took no listener, in its own words."""
    try:
        listeners = json.loads(ask(path, "GET", "/config_dump?resource=dynamic_listeners")).get("configs", [])
    except ValueError:
        return ""
    found = {item.get("error_state", {}).get("details", "") for item in listeners}
    return "; ".join(sorted(found - {""}))


def ready(path: str, seconds: float) -> str:
    """Empty when it serves, otherwise why not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ask(path, "GET", "/ready").startswith("LIVE") and serves(path):
            return ""
        time.sleep(POLL_SECONDS)
    return refused(path) or f"Envoy does not serve after {seconds:.0f} s"


def serves(path: str) -> bool:
    """Live alone says nothing: without its listener Envoy lives as well. The first one is the metrics listener."""
    statistics = ask(path, "GET", "/stats?filter=^listener_manager.total_listeners_active$")
    return number(statistics, "listener_manager.total_listeners_active") > 1


def drain(path: str, seconds: float) -> str:
    """Never fails: what has not ended by then is ended by systemd."""
    deadline = time.monotonic() + seconds
    ask(path, "POST", "/drain_listeners")
    while time.monotonic() < deadline:
        statistics = ask(path, "GET", "/stats?filter=^http.api.downstream_rq_active$")
        if number(statistics, "http.api.downstream_rq_active") == 0:
            return ""
        time.sleep(POLL_SECONDS)
    say("the drain time is over, the remaining requests are cut off")
    return ""


def main() -> int:
    action = {"ready": ready, "drain": drain}[sys.argv[1]]
    problem = action(sys.argv[2], float(sys.argv[3]))
    if problem:
        say(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
