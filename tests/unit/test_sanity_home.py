"""The home of ansible-test (tools/sanity_home.py): this machine's settings of pip, where its pip can see them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("sanity_home", PROJECT / "tools/sanity_home.py")
assert spec and spec.loader
sanity_home = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sanity_home)

QUIET = {"quiet": "2", "cache-dir": "/cache"}


@pytest.mark.parametrize(
    ("listed", "environment", "expected"),
    [
        pytest.param("", {}, {"global": QUIET}, id="nothing set"),
        pytest.param(
            "global.timeout='60'\ninstall.find-links='a\\nb'\n",
            {},
            {"global": {"timeout": "60", **QUIET}, "install": {"find-links": "a\nb"}},
            id="several places of a setting stay several",
        ),
        pytest.param(
            "install.timeout='60'\n:env:.timeout='5'\n",
            {},
            {"global": {"timeout": "5", **QUIET}, "install": {}},
            id="the environment wins over every section",
        ),
        pytest.param(
            "global.cache-dir='/elsewhere'\n",
            {"https_proxy": "http://proxy.example:3128", "SSL_CERT_FILE": "/ca.pem"},
            {
                "global": {
                    "cache-dir": "/elsewhere",
                    "proxy": "http://proxy.example:3128",
                    "cert": "/ca.pem",
                    "quiet": "2",
                }
            },
            id="what only the network library reads is said to pip",
        ),
        pytest.param(
            "global.cert='/mine.pem'\n",
            {"SSL_CERT_FILE": "/ca.pem"},
            {"global": {"cert": "/mine.pem", **QUIET}},
            id="pip's own setting wins over that",
        ),
    ],
)
def test_settings_of_pip_become_one_file(listed, environment, expected):
    settings = sanity_home.pip_settings(listed, environment, "/cache")
    assert {name: dict(settings.items(name)) for name in settings.sections()} == expected


def test_ansible_test_still_looks_for_a_script_that_brings_pip():
    assert sanity_home.bootstrap_name().startswith("get_pip_")
