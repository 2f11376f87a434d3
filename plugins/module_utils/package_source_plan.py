# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to change on a host so that it has exactly the sources that a role wants, and what of it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import openpgp
from ansible_collections.bedplate.llm.plugins.module_utils import package_source as sources
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import APT, LAYOUTS, Source, SourceError

ASIDE = ".disabled"


@dataclass(frozen=True)
class Wish:
    """What a role wants. owner: its name; proxy: for the hosts of its sources, empty for none."""

    owner: str
    sources: Tuple[Source, ...]
    proxy: str = ""
    take_over: bool = False


@dataclass(frozen=True)
class State:
    """What there is. files: every source list and key of the package manager, by path, as it stands.

    indexed: names of sources whose list of packages is there; fresh: those where it is not older than asked.
    """

    manager: str
    architecture: str
    files: Mapping[str, bytes]
    indexed: Tuple[str, ...] = ()
    fresh: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One repository that a file names."""

    path: str
    repository: Tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """write: new contents by path. remove: files of ours. aside: foreign files to rename. update: indexes to fetch."""

    write: Mapping[str, bytes] = field(default_factory=dict)
    remove: Tuple[str, ...] = ()
    aside: Tuple[str, ...] = ()
    update: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        return bool(self.write or self.remove or self.aside)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


# --- what other files say -------------------------------------------------------------------------------------------


def entries(path: str, content: bytes) -> List[Entry]:
    """The repositories that a file names and does not switch off."""
    if path.endswith(".repo"):
        pairs = _yum(_text(content))
    elif path.endswith(".sources"):
        pairs = _deb822(_text(content))
    else:
        pairs = _one_line(_text(content))
    return [Entry(path, (sources.same_url(url), sources.same_suite(suite))) for url, suite in pairs]


def _one_line(text: str) -> List[Tuple[str, str]]:
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            found.append((match.group(1), match.group(2)))
    return found


def _deb822(text: str) -> List[Tuple[str, str]]:
    found = []
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields: Dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _colon, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "off", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        found += [(url, suite) for url in fields.get("uris", "").split() for suite in fields.get("suites", "").split()]
    return found


def _yum(text: str) -> List[Tuple[str, str]]:
    found = []
    for section in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        values = {
            name.strip(): value.strip()
            for name, equals, value in (line.partition("=") for line in section.splitlines())
            if equals
        }
        if values.get("baseurl") and values.get("enabled", "1") in ("1", "true", "yes"):
            found += [(url, "/") for url in values["baseurl"].split()]
    return found


def _lists(state: State) -> List[str]:
    """The files that name repositories; keys and settings are among the others."""
    folder = LAYOUTS[state.manager].folder + "/"
    ends = (".list", ".sources") if state.manager == APT else (".repo",)
    return [
        path
        for path in sorted(state.files)
        if path == "/etc/apt/sources.list" or (path.startswith(folder) and path.endswith(ends))
    ]


def _foreign(source: Source, state: State) -> List[str]:
    """Files beside the source's own that name the same repository."""
    own = LAYOUTS[state.manager].source_path(source.name)
    return [
        path
        for path in _lists(state)
        if path != own and source.repository in [entry.repository for entry in entries(path, state.files[path])]
    ]


def _trusted_everywhere(source: Source, state: State) -> List[str]:
    """Keyrings with the source's key that let it sign for any repository, as apt-key wrote them."""
    found = []
    for path, content in sorted(state.files.items()):
        if not path.startswith("/etc/apt/trusted.gpg"):
            continue
        try:
            keys = openpgp.certificates(content)
        except openpgp.OpenPgpError:
            continue  # apt itself cannot read it either
        if source.fingerprint in [key.fingerprint for key in keys]:
            found.append(path)
    return found


# --- the decision ---------------------------------------------------------------------------------------------------


def decide(wish: Wish, state: State) -> Plan:
    """What to do; SourceError when something of somebody else's is in the way."""
    wanted: Dict[str, bytes] = {}
    aside: List[str] = []
    for source in wish.sources:
        if state.manager != APT and source.suite != "/":
            raise SourceError(
                f"package_source_sources, {source.name}: the suite is {source.suite!r}, and a source of RPM packages"
                " has none; leave suite and components out."
            )
        aside += [path for path in _in_the_way(wish, source, state) if path not in aside]
        path = LAYOUTS[state.manager].source_path(source.name)
        owners = {*sources.owners_of(_text(state.files.get(path, b""))), wish.owner}
        wanted.update(sources.files(state.manager, source, sorted(owners), state.architecture, wish.proxy))
    write = {path: content for path, content in wanted.items() if state.files.get(path) != content}
    remove = _stale(wish, state, wanted, write)
    layout = LAYOUTS[state.manager]
    touched = {layout.name_of(path) for path in [*write, *remove]}
    return Plan(
        write=write,
        remove=tuple(remove),
        aside=tuple(aside),
        update=tuple(
            source.name for source in wish.sources if source.name in touched or source.name not in state.fresh
        ),
        warnings=tuple(
            f"{path} lets the key of {source.name} sign for every repository (apt-key, obsolete); remove it from there."
            for source in wish.sources
            for path in _trusted_everywhere(source, state)
        ),
    )


def _in_the_way(wish: Wish, source: Source, state: State) -> List[str]:
    """Foreign files to put aside for a source; with two entries of one repository, apt reads none at all."""
    layout = LAYOUTS[state.manager]
    found = _foreign(source, state)
    repositories = {wanted.repository for wanted in wish.sources}
    for path in found:
        other = layout.name_of(path)
        if other is not None:
            if _is_stale(wish, other, state):
                continue
            raise SourceError(
                f"package_source_sources, {source.name}: {path} is the same repository ({source.url} {source.suite});"
                f" give both the name {other}."
            )
        foreign = [entry for entry in entries(path, state.files[path]) if entry.repository not in repositories]
        if not wish.take_over:
            raise SourceError(
                f"package_source_sources, {source.name}: {path} names the same repository ({source.url}"
                f" {source.suite}), with a key that was not checked; remove that file, or set"
                f" package_source_take_over, which renames it to {path}{ASIDE}."
            )
        if foreign or path == "/etc/apt/sources.list":
            raise SourceError(
                f"package_source_sources, {source.name}: {path} names the same repository ({source.url}"
                f" {source.suite}) among others, so it cannot be put aside as a whole; remove that one entry."
            )
        if path + ASIDE in state.files:
            raise SourceError(
                f"package_source_sources, {source.name}: {path} cannot be put aside, since {path}{ASIDE} exists; remove"
                " one of them."
            )
    return [path for path in found if layout.name_of(path) is None]


def _is_stale(wish: Wish, name: str, state: State) -> bool:
    """Whether only this role wanted the source, and does so no longer."""
    path = LAYOUTS[state.manager].source_path(name)
    owners = sources.owners_of(_text(state.files.get(path, b"")))
    return owners == (wish.owner,) and name not in [source.name for source in wish.sources]


def _stale(wish: Wish, state: State, wanted: Mapping[str, bytes], write: Dict[str, bytes]) -> List[str]:
    """Files of ours that nobody wants any more; where another role still does, only the owner is taken out."""
    layout = LAYOUTS[state.manager]
    mine = {source.name for source in wish.sources}
    remove = []
    for path in sorted(state.files):
        name = layout.name_of(path)
        if name is None or path in wanted:
            continue
        source_path = layout.source_path(name)
        owners = sources.owners_of(_text(state.files.get(source_path, b"")))
        if name in mine or not owners or owners == (wish.owner,):
            # Of a source that stays: a setting no longer asked for. Without an owner: what an interrupted run left.
            remove.append(path)
        elif path == source_path and wish.owner in owners:
            left = [owner for owner in owners if owner != wish.owner]
            write[path] = sources.with_owners(_text(state.files[path]), left).encode()
    return remove


# --- the checks -----------------------------------------------------------------------------------------------------


def checks(wish: Wish, state: State) -> List[Check]:
    """Whether the host has exactly what is wanted; the role's name is in the ids, since several roles have sources."""
    names = ", ".join(source.name for source in wish.sources) or "none"
    try:
        plan, refused = decide(wish, state), ""
    except SourceError as error:
        plan, refused = Plan(), str(error)
    differs = sorted({*plan.write, *plan.remove})
    wrong = [said for source in wish.sources for said in _key_problem(source, state)]
    bare = [source.name for source in wish.sources if source.name not in state.indexed]
    again = "Run the role that wants these sources again."

    def check(name: str, ok: bool, holds: str, fails: str, remedy: str) -> Check:
        return Check(f"{wish.owner}.{name}", ok, holds if ok else fails, "" if ok else remedy)

    note = f" {' '.join(plan.warnings)}" if plan.warnings else ""
    return [
        check("source-single", not refused, "No other file names the same repository.", refused, "See the reason."),
        check(
            "source-files",
            bool(refused) or not differs,
            f"The package sources are as declared ({names}).",
            f"Not as declared: {', '.join(differs)}.",
            again,
        ),
        check(
            "source-keys",
            not wrong,
            f"Each source trusts the one key that is declared for it, and no other.{note}",
            " ".join(wrong),
            again,
        ),
        check(
            "source-index",
            not bare,
            "The list of packages of each source is there.",
            f"There is no list of packages of {', '.join(bare)}.",
            again,
        ),
    ]


def _key_problem(source: Source, state: State) -> List[str]:
    path = LAYOUTS[state.manager].key_path(source.name)
    if path not in state.files:
        return [f"{path} is missing."]
    try:
        found = openpgp.certificates(state.files[path])
    except openpgp.OpenPgpError as error:
        return [f"{path} is no keyring: {error}."]
    if [key.fingerprint for key in found] != [source.fingerprint]:
        there = ", ".join(key.label for key in found)
        return [f"{path} holds {there}, and {source.fingerprint} is declared."]
    return []
