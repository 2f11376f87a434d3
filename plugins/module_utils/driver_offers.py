# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the package sources offer, asked without changing the host.

apt gets folders of its own for the lists that it downloads, with the sources and preferences that would be written: so
even a host that was never touched, in check mode, is told what it can have and what it would cost.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Callable, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import driver_parse as parse
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Offers
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import Repository
from ansible_collections.bedplate.llm.plugins.module_utils.driver_transaction import apt_install, words

# Exit status, standard output, standard error.
Command = Callable[[Sequence[str]], Tuple[int, str, str]]

# Even a question makes apt write its cache of packages.
NO_CACHE = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")


class OfferError(Exception):
    """The sources cannot be asked; the message is one sentence."""


class AptOffers:
    """A view of apt's sources as they are, but for the files that a role would write; use it as a context.

    instead: by path below /etc/apt, the text that a file would have; nothing when it would not be there.
    """

    def __init__(self, root: Path, command: Command, instead: Mapping[str, str]) -> None:
        self._root, self._command, self._instead = root, command, instead

    def __enter__(self) -> AptOffers:
        self._folder = Path(tempfile.mkdtemp(prefix="bedplate-apt-"))
        # apt's own user fetches the lists, and has to find its way to them.
        self._folder.chmod(0o755)
        for name in ("sources.list.d", "preferences.d"):
            (self._folder / name).mkdir()
            for path in sorted((self._root / "etc/apt" / name).glob("*")):
                if f"{name}/{path.name}" not in self._instead:
                    shutil.copy(path, self._folder / name / path.name)
        for path_below, content in self._instead.items():
            if content:
                (self._folder / path_below).write_text(content, encoding="utf-8")
        (self._folder / "lists").mkdir()
        self._options = [
            *("-o", f"Dir::Etc::sourceparts={self._folder}/sources.list.d"),
            *("-o", f"Dir::Etc::preferencesparts={self._folder}/preferences.d"),
            *("-o", f"Dir::State::lists={self._folder}/lists"),
            *NO_CACHE,
            *("-o", "Acquire::Languages=none"),
        ]
        self._update()
        return self

    def _update(self) -> None:
        code, _out, err = self._command(["apt-get", *self._options, "--quiet=2", "update"])
        if code:
            self.__exit__()
            said = " ".join(line.strip() for line in err.splitlines() if line.startswith("E:"))[:400]
            raise OfferError(f"The package sources of this host cannot be read: {said or 'apt-get update failed'}")

    def repositories(self) -> List[Repository]:
        """The lists that the host's sources have; apt knows them only once they are there."""
        _code, out, _err = self._command(["apt-get", *self._options, "indextargets"])
        found: List[Repository] = parse.parse_index_targets(out)
        return found

    def add(self, path_below: str, sources: str) -> None:
        """One more file, as it would be written, where what it says follows from the lists."""
        if sources:
            (self._folder / path_below).write_text(sources, encoding="utf-8")
            self._update()

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def versions(self, names: Sequence[str]) -> Offers:
        _code, out, _err = self._command(["apt-cache", *self._options, "madison", *names])
        return Offers(parse.parse_madison(out))

    def simulate(self, packages: Sequence[Tuple[str, str]], drops: Sequence[str]) -> Offers:
        """What installing exactly these would do."""
        argv = [*apt_install(), *self._options, "--simulate", *words("apt", packages, drops)]
        code, out, err = self._command(argv)
        error = parse.resolver_error(out + err) if code else ""
        return Offers({}, () if code else parse.parse_simulation(out), error)


def dnf_versions(command: Command, names: Sequence[str]) -> Offers:
    """Asked of the sources as the host has them."""
    query = ["dnf", "--quiet", "repoquery", "--disable-modular-filtering", "--qf", "%{name}\\t%{evr}\\n"]
    code, out, err = command([*query, *names])
    if code:
        said = " ".join(line.strip() for line in err.splitlines() if line.startswith("Error"))[:400]
        raise OfferError(f"The package sources of this host cannot be read: {said or 'dnf repoquery failed'}")
    return Offers(parse.parse_repoquery(out))
