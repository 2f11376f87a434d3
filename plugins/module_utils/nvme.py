# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an NVMe device does itself to forget its data, where that touches no other namespace.

Sources: NVM Express base specification, "Identify Controller" (OACS bit 1, FNA bits 0 and 1) and "Format NVM"; man
nvme-format.  Nothing of this has run on a real device yet.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, List, Mapping, Sequence, Tuple

Ask = Callable[[Sequence[str]], Tuple[int, str]]
_NAMESPACE = re.compile(r"(/dev/nvme\d+)n\d+")
_FORMATS, _ALL_FORMATTED, _ALL_ERASED = 1 << 1, 1 << 0, 1 << 1


def refusal(controller: Mapping[str, Any], namespaces: int) -> str:
    """Why a namespace may not be formatted by its device; empty when it may."""
    if not int(controller.get("oacs", 0)) & _FORMATS:
        return "the device does not support it"
    if namespaces != 1 and int(controller.get("fna", 3)) & (_ALL_FORMATTED | _ALL_ERASED):
        return f"it would take all {namespaces or 'of its'} namespaces with it"
    return ""


def format_argv(path: str, namespace: Mapping[str, Any]) -> List[str]:
    """User data erase, with the sectors that the namespace has: some versions take the first format otherwise."""
    flbas = int(namespace.get("flbas", 0))
    lbaf = flbas & 0xF | (flbas >> 5 & 3) << 4
    return ["nvme", "format", path, "--ses=1", f"--lbaf={lbaf}", "--force"]


def secure_erase(path: str, ask: Ask) -> str:
    """Have the device erase a namespace; a sentence that says what was done, or why it was not."""
    match = _NAMESPACE.fullmatch(path)
    if not match:
        return f"no secure erase by the device itself: {path} is not the namespace of an NVMe device"
    code, text = ask(["nvme", "id-ctrl", match.group(1), "--output-format=json"])
    if code < 0:
        return "no secure erase by the device itself: nvme-cli is not installed"
    namespaces = len(re.findall(r"\]:0x", ask(["nvme", "list-ns", match.group(1), "--all"])[1]))
    code_namespace, namespace = ask(["nvme", "id-ns", path, "--output-format=json"])
    try:
        why = refusal(json.loads(text), namespaces) if code == 0 else "it does not answer"
        argv = format_argv(path, json.loads(namespace)) if code_namespace == 0 else []
    except ValueError:
        why, argv = "nvme-cli answers what is not its JSON", []
    if why or not argv:
        return f"no secure erase by the device itself: {why or 'it does not tell its sectors'}"
    code, _text = ask(argv)
    said = f"`{' '.join(argv)}`"
    if code:
        return f"no secure erase by the device itself: {said} ended with {code}"
    return f"the device erased the namespace ({said})"
