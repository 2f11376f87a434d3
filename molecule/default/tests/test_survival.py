"""Nobody helps: the service is back by itself after its engine was killed, and after the machine was restarted.

Runs last (by this file's name): everything else sees the machine as the rollout left it.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

from scenario import wait_until

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


def started(machine) -> str | None:
    """When the machine's first process began; None while nobody can log in."""
    try:
        return machine.check_output("stat --format %Y /proc/1")
    except (AssertionError, ValueError):  # what testinfra makes of a machine that is not reachable
        return None


def test_the_engine_is_back_after_sigkill(server, site):
    assert answers(site)
    before = server.check_output("systemctl show --property MainPID --value bedplate-vllm.service")
    server.check_output(f"sudo kill -KILL {before}")
    wait_until(lambda: not answers(site), 30)
    wait_until(lambda: answers(site), PATIENCE)
    assert server.check_output("systemctl show --property MainPID --value bedplate-vllm.service") != before


def test_everything_is_back_after_a_reboot(server, site):
    before = started(server)
    server.check_output("sudo systemd-run --on-active=1 systemctl reboot")  # after the answer is here
    wait_until(lambda: started(server) not in (None, before), 90)
    wait_until(lambda: answers(site), PATIENCE)
    for unit in ("bedplate-firewall", "bedplate-gateway", "bedplate-vllm"):
        assert server.service(f"{unit}.service").is_running
    assert "policy drop" in server.check_output("sudo nft list table inet bedplate")
