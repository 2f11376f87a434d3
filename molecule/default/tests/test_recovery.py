"""Nobody helps: the service is back by itself after its engine was killed, and after the machine was restarted.

Runs last (by its name): everything else sees the machine as the rollout left it.
"""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request

PATIENCE = 400  # seconds; the engine needs 70 to 150 to start on two busy cores


def answers(site) -> bool:
    request = urllib.request.Request(
        f"{site.url}/v1/completions",
        data=(b'{"model": "%s", "prompt": "Hi", "max_tokens": 2}' % site.model.encode()),
        headers={"Authorization": f"Bearer {site.token()}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(site.ca))
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(2)


def test_the_engine_is_back_after_sigkill(server, site):
    assert answers(site)
    before = server.check_output("systemctl show --property MainPID --value bedplate-vllm.service")
    server.check_output(f"sudo kill -KILL {before}")
    wait_until(lambda: not answers(site), 30)
    wait_until(lambda: answers(site))
    assert server.check_output("systemctl show --property MainPID --value bedplate-vllm.service") != before


def test_everything_is_back_after_a_reboot(server, site):
    started = server.check_output("stat --format %Y /proc/1")
    server.run("sudo systemctl reboot")
    time.sleep(2)

    def rebooted() -> bool:
        done = server.run("stat --format %Y /proc/1")
        return done.rc == 0 and done.stdout.strip() != started

    wait_until(rebooted, 90)
    wait_until(lambda: answers(site))
    for unit in ("bedplate-firewall", "bedplate-gateway", "bedplate-vllm"):
        assert server.service(f"{unit}.service").is_running
    assert "policy drop" in server.check_output("sudo nft list table inet bedplate")
