# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Package sources as a site writes them, with their keys read and checked on the operator's machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils import openpgp
from ansible_collections.bedplate.llm.plugins.module_utils import package_source as sources


def _key(name: str, key: str) -> bytes:
    """The key's own text, or what a file on the operator's machine holds, armored or binary."""
    if not key or "-----BEGIN PGP" in key:
        return key.encode()
    path = Path(key).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise sources.SourceError(
            f"package_source_sources, {name}: the key {path} cannot be read ({error.strerror}); give a file on this"
            " computer, or the text of the key."
        ) from None


def _mirrors(mirrors: Mapping[str, str]) -> None:
    for address in [*mirrors, *mirrors.values()]:
        said = sources.url_problem(str(address), "an address")
        if said:
            raise sources.SourceError(f"package_source_mirrors: {said}.")


def package_source_resolve(entries: Sequence[Mapping[str, Any]], mirrors: Mapping[str, str] | None = None) -> list[Any]:
    """What the module takes: of each key file only the one key of the stated fingerprint, as text."""
    try:
        _mirrors(mirrors or {})
        read = [
            {
                **entry,
                "url": sources.mirrored(str(entry.get("url") or ""), mirrors or {}),
                "key": _key(str(entry.get("name") or ""), str(entry.get("key") or "")),
            }
            for entry in entries
        ]
        return [
            {
                "name": source.name,
                "url": source.url,
                "suite": source.suite,
                "components": list(source.components),
                "architectures": list(source.architectures),
                "key": openpgp.armor(source.key),
                "fingerprint": source.fingerprint,
                "check_metadata": source.check_metadata,
                "check_packages": source.check_packages,
            }
            for source in sources.parse_all(read)
        ]
    except sources.SourceError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"package_source_resolve": package_source_resolve}
