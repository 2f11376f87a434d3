"""Make a home folder for ansible-test, in which its own environments can be installed on this machine.

ansible-test hands hardly any environment variable to the pip of its environments, and fetches pip itself from a host of
its own.  So this machine's settings of pip go into a file of that home, and the pip that runs this installs pip there.

    python tools/sanity_home.py FOLDER
"""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

# In the place of the script that ansible-test would download.  It runs in the environment that still has no pip.
BOOTSTRAP = """\
import subprocess
import sys

arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([{python!r}, "-m", "pip", "--python", sys.executable, "install", *arguments]).returncode)
"""
# What pip's network library reads from the environment, by pip's own name for it.
ENVIRONMENT = {
    "proxy": ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
    "cert": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
}


def pip(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def pip_settings(listed: str, environment: dict[str, str], cache: str) -> configparser.RawConfigParser:
    """The settings of `pip config list`, as one file; what the environment says wins, as it does for pip."""
    settings = configparser.RawConfigParser()
    settings.add_section("global")
    from_environment = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section == ":env:":
            from_environment[key] = ast.literal_eval(value)
        else:
            if not settings.has_section(section):
                settings.add_section(section)
            settings.set(section, key, ast.literal_eval(value))
    for key, value in from_environment.items():
        for section in settings.sections():
            settings.remove_option(section, key)
        settings.set("global", key, value)
    for key, variables in ENVIRONMENT.items():
        found = [environment[variable] for variable in variables if environment.get(variable)]
        if found and not settings.has_option("global", key):
            settings.set("global", key, found[0])
    if not settings.has_option("global", "cache-dir"):
        settings.set("global", "cache-dir", cache)
    # Errors are shown.
    settings.set("global", "quiet", "2")
    return settings


def bootstrap_name() -> str:
    """The name under which this ansible-test looks for the script that installs pip."""
    source = Path(
        str(metadata.distribution("ansible-core").locate_file("ansible_test/_internal/python_requirements.py"))
    )
    found = re.search(r"default_packages = dict\(\s*pip='([0-9.]+)'", source.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"sanity: {source} says no more which pip ansible-test installs; adapt {__file__} to it.")
    return f"get_pip_{found[1].replace('.', '_')}.py"


def main(home: Path) -> None:
    # An index may ask for a password, which then stands in this file.
    os.umask(0o077)
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / bootstrap_name()).write_text(BOOTSTRAP.format(python=sys.executable), encoding="utf-8")
    configuration = home / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    with configuration.open("w", encoding="utf-8") as file:
        pip_settings(pip("config", "list"), dict(os.environ), pip("cache", "dir").strip()).write(file)
    passwords = Path.home() / ".netrc"
    if passwords.is_file() and not (home / ".netrc").exists():
        (home / ".netrc").symlink_to(passwords)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
