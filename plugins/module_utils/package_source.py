# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A package source: what a site says about it, and the files that apt or dnf read.

A file of ours names the roles that want it in its line "# For:".  The last role that no longer does takes it away, so
that two roles may share NVIDIA's one repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ansible_collections.bedplate.llm.plugins.module_utils import openpgp

APT, DNF = "apt", "dnf"
PREFIX = "bedplate-"
HEADER = "# Written by the bedplate.llm collection, role package_source. Changes here are lost.\n"
_FOR = re.compile(r"^# For: (.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+~-]*|\.?/")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_KNOWN = (
    "name",
    "url",
    "suite",
    "components",
    "architectures",
    "key",
    "fingerprint",
    "check_metadata",
    "check_packages",
)


class SourceError(ValueError):
    """A source cannot be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Source:
    """suite: "/" where the packages lie in one folder; without architectures it is for the host's own."""

    name: str
    url: str
    suite: str
    components: Tuple[str, ...]
    architectures: Tuple[str, ...]
    fingerprint: str
    key: bytes
    check_metadata: bool = True
    check_packages: bool = True

    @property
    def repository(self) -> Tuple[str, str]:
        """What makes two entries the same repository to the package manager."""
        return same_url(self.url), same_suite(self.suite)


def same_url(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def same_suite(suite: str) -> str:
    """apt takes "/" and "./" for the same folder."""
    return suite.lstrip(".") if suite.endswith("/") else suite


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """The address on the site's own mirror: the longest beginning that the site names is replaced."""
    for beginning in sorted(mirrors, key=len, reverse=True):
        if url.startswith(beginning):
            return mirrors[beginning] + url[len(beginning) :]
    return url


def url_problem(url: str, what: str = "url") -> Optional[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https", "file") and bool(
            parts.path if parts.scheme == "file" else parts.hostname
        )
    except ValueError:
        return f"{what} is {url!r}, which is no address"
    if parts.username or parts.password:
        return (
            f"{what} carries a user or password, and everybody on the host may read it; use /etc/apt/auth.conf.d, or a"
            " mirror that asks for none"
        )
    if not usable or re.search(r"[\s\"'\\;\[\]{}<>]", url) or not url.isprintable():
        return f"{what} is {url!r}; give an address that begins with https://, http:// or file:///"
    return None


def parse(entry: Mapping[str, Any]) -> Source:
    """A source as a site writes it, its key already read; SourceError for the first thing that is wrong."""
    name = str(entry.get("name") or "")
    if not _NAME.fullmatch(name):
        raise SourceError(
            f"package_source_sources: a source is called {name!r}; name it with small letters, digits, '-' and '.'."
        )

    def refuse(said: str) -> SourceError:
        return SourceError(f"package_source_sources, {name}: {said}.")

    unknown = sorted(set(entry) - set(_KNOWN))
    if unknown:
        raise refuse(f"{', '.join(unknown)} is not known here; known are {', '.join(_KNOWN)}")
    said = url_problem(str(entry.get("url") or ""))
    if said:
        raise refuse(said)
    suite, components = str(entry.get("suite") or "/"), [str(word) for word in entry.get("components") or []]
    architectures = [str(word) for word in entry.get("architectures") or []]
    strange = [word for word in (suite, *components) if not _WORD.fullmatch(word)]
    strange += [word for word in architectures if not _ARCHITECTURE.fullmatch(word)]
    if strange:
        raise refuse(f"{strange[0]!r} is no suite, component or architecture")
    if suite.endswith("/") and components:
        raise refuse(f"the suite {suite!r} is a folder and has no components; leave {', '.join(components)} out")
    if not suite.endswith("/") and not components:
        raise refuse(f"the suite {suite!r} needs components, such as main")
    fingerprint = openpgp.normalised(str(entry.get("fingerprint") or ""))
    if fingerprint is None:
        raise refuse(
            f"fingerprint is {str(entry.get('fingerprint') or '')!r}; give all 40 hexadecimal digits of the key that"
            " signs this source, from a place that you trust"
        )
    key = entry.get("key") or b""
    if not key:
        raise refuse("key is empty; give the text of the public key that signs this source, or a file with it")
    try:
        certificate = openpgp.select(key if isinstance(key, bytes) else str(key).encode(), fingerprint)
    except openpgp.OpenPgpError as error:
        raise refuse(f"the key is not used: {error}") from None
    checks = (bool(entry.get("check_metadata", True)), bool(entry.get("check_packages", True)))
    if not any(checks):
        raise refuse("check_metadata and check_packages are both off, so that anybody could put packages there")
    return Source(
        name,
        str(entry["url"]),
        suite,
        tuple(components),
        tuple(architectures),
        fingerprint,
        certificate.content,
        *checks,
    )


def parse_all(entries: Iterable[Mapping[str, Any]]) -> List[Source]:
    found: List[Source] = []
    for entry in entries:
        source = parse(entry)
        for other in found:
            if other.name == source.name:
                raise SourceError(
                    f"package_source_sources: two sources are called {source.name}; name one differently."
                )
            if other.repository == source.repository:
                raise SourceError(
                    f"package_source_sources: {other.name} and {source.name} are the same repository"
                    f" ({source.url} {source.suite}); leave one out."
                )
        found.append(source)
    return found


# --- the files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a package manager wants its files."""

    manager: str
    folder: str
    suffix: str
    keys: str
    key_prefix: str
    key_suffix: str

    def source_path(self, name: str) -> str:
        return f"{self.folder}/{PREFIX}{name}{self.suffix}"

    def key_path(self, name: str) -> str:
        return f"{self.keys}/{self.key_prefix}{PREFIX}{name}{self.key_suffix}"

    def proxy_path(self, name: str) -> str:
        """apt's setting for the hosts of one source; dnf has it in the source itself."""
        return f"/etc/apt/apt.conf.d/90{PREFIX}{name}" if self.manager == APT else ""

    def name_of(self, path: str) -> Optional[str]:
        """The source that a file belongs to, when it is one of ours."""
        for folder, prefix, suffix in (
            (self.folder, PREFIX, self.suffix),
            (self.keys, self.key_prefix + PREFIX, self.key_suffix),
            ("/etc/apt/apt.conf.d", "90" + PREFIX, ""),
        ):
            start, end = f"{folder}/{prefix}", len(path) - len(suffix)
            if path.startswith(start) and path.endswith(suffix) and _NAME.fullmatch(path[len(start) : end]):
                return path[len(start) : end]
        return None


LAYOUTS: Mapping[str, Layout] = {
    APT: Layout(APT, "/etc/apt/sources.list.d", ".sources", "/etc/apt/keyrings", "", ".gpg"),
    DNF: Layout(DNF, "/etc/yum.repos.d", ".repo", "/etc/pki/rpm-gpg", "RPM-GPG-KEY-", ""),
}


def owners_of(text: str) -> Tuple[str, ...]:
    match = _FOR.search(text)
    return tuple(sorted(set(match.group(1).split()))) if match else ()


def with_owners(text: str, owners: Iterable[str]) -> str:
    return _FOR.sub(f"# For: {' '.join(sorted(set(owners)))}", text, count=1)


def files(manager: str, source: Source, owners: Sequence[str], architecture: str, proxy: str) -> Dict[str, bytes]:
    """All files of a source by their paths."""
    layout = LAYOUTS[manager]
    path, key_path = layout.source_path(source.name), layout.key_path(source.name)
    head = f"{HEADER}# For: {' '.join(sorted(set(owners)))}\n"
    if manager == APT:
        written = {path: (head + _deb822(source, key_path, architecture)).encode(), key_path: source.key}
        if proxy and not source.url.startswith("file:"):
            written[layout.proxy_path(source.name)] = (
                HEADER.replace("#", "//", 1) + _apt_proxy(source, proxy)
            ).encode()
        return written
    text = head + _repo(source, key_path, proxy)
    return {path: text.encode(), key_path: openpgp.armor(source.key).encode()}


def _deb822(source: Source, key_path: str, architecture: str) -> str:
    lines = ["Types: deb", f"URIs: {source.url}", f"Suites: {source.suite}"]
    if source.components:
        lines.append(f"Components: {' '.join(source.components)}")
    lines.append(f"Architectures: {' '.join(source.architectures) or architecture}")
    lines.append(f"Signed-By: {key_path}")
    return "\n".join(lines) + "\n"


def _apt_proxy(source: Source, proxy: str) -> str:
    # For this host only: another source's proxy is somebody else's setting.
    host = urlsplit(source.url).hostname
    return "".join(f'Acquire::{scheme}::Proxy::{host} "{proxy}";\n' for scheme in ("http", "https"))


def _repo(source: Source, key_path: str, proxy: str) -> str:
    lines = [
        f"[{PREFIX}{source.name}]",
        f"name={PREFIX}{source.name}",
        f"baseurl={source.url}",
        "enabled=1",
        f"gpgcheck={int(source.check_packages)}",
        f"repo_gpgcheck={int(source.check_metadata)}",
        f"gpgkey=file://{key_path}",
    ]
    if proxy:
        lines.append(f"proxy={proxy}")
    return "\n".join(lines) + "\n"
