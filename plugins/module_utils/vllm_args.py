# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's command line: rendered from typed settings, and checked by exact name against the engine's own list.

Everything is on the command line, nothing in a YAML file: `vllm serve --config` drops false values without a word and
is itself ignored when written with an equals sign.  And the engine's parser accepts abbreviations, so a misspelt flag
can mean another one; here only exact names pass.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.vllm_policy import OWNED_FLAGS, REFUSED_FLAGS


@dataclass(frozen=True)
class Flag:
    """One flag as the engine's parser describes it (roles/vllm/files/record_flags.py).

    takes: none, one, many (values follow one another) or optional.
    type: name of the parser's conversion; only plain numbers are checked here, the engine checks the rest.
    """

    takes: str
    type: str = ""
    choices: Tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True)
class Settings:
    """What the role's variables say about the engine; None and the empty string leave the engine's own default."""

    executable: str
    model_path: str
    served_model_name: str
    socket: str
    shutdown_timeout: int
    tensor_parallel_size: int = 1
    max_model_len: str = ""
    dtype: str = ""
    kv_cache_memory_bytes: str = ""
    gpu_memory_utilization: Optional[float] = None
    reasoning_parser: str = ""
    enforce_eager: bool = False
    max_num_seqs: Optional[int] = None
    extra_args: Optional[Mapping[str, Any]] = None


def parse_flags(record: Mapping[str, Any]) -> Dict[str, Flag]:
    """The flags of a recorded list; ValueError in one sentence when the record is not one."""
    if record.get("schema") != 1 or not isinstance(record.get("flags"), dict):
        raise ValueError(f"the list of the engine's flags has schema {record.get('schema')!r}, expected 1")
    return {
        name: Flag(
            str(entry["takes"]), str(entry.get("type", "")), tuple(entry.get("choices", ())), bool(entry.get("repeats"))
        )
        for name, entry in record["flags"].items()
    }


def _text(value: Any) -> str:
    """How a value is written on the command line: JSON for structures, plain text for the rest."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def opposite(name: str) -> str:
    """The flag that switches this one off in engines since 0.33.0, where --enable-x and --disable-x are one setting."""
    for prefix, other in (("--enable-", "--disable-"), ("--disable-", "--enable-")):
        if name.startswith(prefix):
            return other + name[len(prefix) :]
    return ""


def _negative(name: str, known: Optional[Mapping[str, Flag]]) -> str:
    """How this engine writes a switch that is off; without its list the older form, which newer engines take too."""
    other = opposite(name)
    return other if known and name in known and other in known else "--no-" + name[2:]


def _option(name: str, value: str) -> List[str]:
    # A value that begins with a dash would be read as a flag when it stands alone.
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def render_extra(extra: Mapping[str, Any], known: Optional[Mapping[str, Flag]] = None) -> List[str]:
    """The arguments of vllm_extra_args, in its order: true is --flag, false is its negative, structures are JSON."""
    rendered: List[str] = []
    for key, value in extra.items():
        name = "--" + key
        flag = (known or {}).get(name, Flag("many" if isinstance(value, list) else "one"))
        if isinstance(value, bool):
            rendered.append(name if value else _negative(name, known))
        elif isinstance(value, list) and flag.repeats:
            for item in value:
                rendered += _option(name, _text(item))
        elif isinstance(value, list) and flag.takes == "many":
            rendered += [name, *[_text(item) for item in value]]
        else:
            rendered += _option(name, _text(value))
    return rendered


def render(settings: Settings, known: Optional[Mapping[str, Flag]] = None) -> List[str]:
    """The whole command line, executable first."""
    argv = [settings.executable, "serve", settings.model_path]
    argv += ["--served-model-name", settings.served_model_name]
    argv += ["--uds", settings.socket]
    argv += ["--load-format", "safetensors"]
    argv += ["--shutdown-timeout", str(settings.shutdown_timeout)]
    argv += ["--disable-fastapi-docs", "--disable-uvicorn-access-log", "--fail-on-environ-validation"]
    for name, value in (
        ("--tensor-parallel-size", settings.tensor_parallel_size),
        ("--max-model-len", settings.max_model_len),
        ("--dtype", settings.dtype),
        ("--kv-cache-memory-bytes", settings.kv_cache_memory_bytes),
        ("--gpu-memory-utilization", settings.gpu_memory_utilization),
        ("--reasoning-parser", settings.reasoning_parser),
        ("--max-num-seqs", settings.max_num_seqs),
    ):
        if value is not None and value != "":
            argv += _option(name, str(value))
    if settings.enforce_eager:
        argv.append("--enforce-eager")
    return argv + render_extra(settings.extra_args or {}, known)


def _closest(name: str, known: Mapping[str, Flag]) -> str:
    close = difflib.get_close_matches(name, [flag for flag in known if not flag.startswith("--no-")], n=3, cutoff=0.6)
    completed = [flag for flag in sorted(known) if flag.startswith(name) and flag not in close]
    near = (completed + close)[:3]
    return f"did you mean {' or '.join(near)}?" if near else "remove it, or look at what `vllm serve --help=all` lists."


_NAME = r"[A-Za-z0-9][A-Za-z0-9._/:-]*"
_TOKENS = r"(|auto|[1-9][0-9]*(\.[0-9]+)?[kKmMgG]?)"
_BYTES = r"(|[1-9][0-9]*(\.[0-9]+)?[kKmMgGtT]?)"


def settings_problems(settings: Settings, device: str) -> List[str]:
    """What is wrong with the values of the role's own variables, as far as a type cannot express it."""
    share = settings.gpu_memory_utilization
    rules = [
        ("vllm_served_model_name", settings.served_model_name, _NAME, "use letters, digits and . _ / : - only"),
        (
            "vllm_max_model_len",
            settings.max_model_len,
            _TOKENS,
            "give a number of tokens such as 32768 or 32k, or auto",
        ),
        ("vllm_kv_cache_memory_bytes", settings.kv_cache_memory_bytes, _BYTES, "give bytes such as 512M or 8G"),
    ]
    problems = [
        f"{name} is {value!r}; {remedy}." for name, value, rule, remedy in rules if not re.fullmatch(rule, str(value))
    ]
    if share is not None and device == "cpu":
        problems.append(
            "vllm_gpu_memory_utilization is set on device cpu, where it would mean a share of the host's memory; set"
            " vllm_kv_cache_memory_bytes instead."
        )
    elif share is not None and not 0.0 < share <= 1.0:
        problems.append(f"vllm_gpu_memory_utilization is {share}; give a share of the GPU's memory between 0 and 1.")
    for name, number, least in (
        ("vllm_tensor_parallel_size", settings.tensor_parallel_size, 1),
        ("vllm_max_num_seqs", settings.max_num_seqs, 1),
        ("vllm_shutdown_timeout", settings.shutdown_timeout, 0),
    ):
        if number is not None and number < least:
            problems.append(f"{name} is {number}; give {least} or more.")
    return problems


def extra_problems(extra: Mapping[str, Any]) -> List[str]:
    """What is wrong with vllm_extra_args whatever the engine says: shape, ownership and policy."""
    problems = []
    for key, value in extra.items():
        name = "--" + key
        if not isinstance(key, str) or not key or key.startswith("-") or "=" in key or " " in key:
            problems.append(
                f"{key!r} is not the name of a flag; write it without dashes before it and without a value."
            )
        elif key.startswith("no-"):
            problems.append(f"{key} is a negation; write {key[3:]}: false instead.")
        elif "_" in key or "." in key:
            hint = key.split(".")[0].replace("_", "-")
            problems.append(
                f"{key} must be the flag's exact name with dashes; write {hint}, with a mapping as its value."
            )
        elif name in OWNED_FLAGS:
            problems.append(f"{key} belongs to the role: {OWNED_FLAGS[name]}.")
        elif opposite(name) in OWNED_FLAGS:
            problems.append(f"{key} belongs to the role: {OWNED_FLAGS[opposite(name)]}.")
        elif name in REFUSED_FLAGS and value is not False:
            problems.append(f"{key} is refused: {REFUSED_FLAGS[name]}; remove it.")
        elif opposite(name) in REFUSED_FLAGS and value is not True:
            problems.append(f"{key} is refused when it is not true: {REFUSED_FLAGS[opposite(name)]}; remove it.")
        elif value is None or value == "" or value == []:
            problems.append(f"{key} has no value; give one, or true or false for a switch, or remove it.")
        elif isinstance(value, list) and any(_text(item).startswith("-") for item in value):
            problems.append(f"{key} has a value that begins with a dash, which the engine would read as a flag.")
        elif any(ord(character) < 32 for character in _text(value)):
            problems.append(f"{key} has a control character in its value; a unit file cannot carry that.")
    return [f"vllm_extra_args: {problem}" for problem in problems]


def _split(argv: Sequence[str]) -> List[Tuple[str, List[str]]]:
    """Pairs of a flag and its values.  Sound for what `render` makes, which never writes a lone value with a dash."""
    pairs: List[Tuple[str, List[str]]] = []
    for item in argv:
        if item.startswith("-"):
            name, equals, value = item.partition("=")
            pairs.append((name, [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(item)
    return pairs


def _value_problem(name: str, flag: Flag, values: Sequence[str]) -> Optional[str]:
    if flag.takes == "none" and values:
        return f"{name} is a switch and takes no value, found {values[0]!r}; use true or false."
    if flag.takes in ("one", "many") and not values:
        return f"{name} needs a value and got none; it is not a switch."
    if flag.takes in ("one", "optional") and len(values) > 1:
        return f"{name} takes one value, found {len(values)}: {' '.join(values)}."
    for value in values:
        if flag.choices and value not in flag.choices:
            return f"{name} is {value!r}; the engine accepts {', '.join(flag.choices)}."
        if flag.type in ("int", "float"):
            try:
                int(value) if flag.type == "int" else float(value)
            except ValueError:
                return f"{name} is {value!r}; the engine expects {'a whole' if flag.type == 'int' else 'a'} number."
    return None


def check_flags(argv: Sequence[str], known: Mapping[str, Flag], engine: str) -> List[str]:
    """One sentence for each argument that this engine does not take as it stands; abbreviations do not pass."""
    problems = []
    seen: Dict[str, int] = {}
    for name, values in _split(argv):
        flag = known.get(name)
        if flag is None and name.startswith("--no-") and "--" + name[5:] in known:
            problems.append(
                f"vLLM {engine} cannot switch {'--' + name[5:]} off; remove it instead of setting it false."
            )
        elif flag is None:
            problems.append(f"vLLM {engine} has no flag {name}; {_closest(name, known)}")
        else:
            problem = _value_problem(name, flag, values)
            if problem:
                problems.append(f"vLLM {engine}: {problem}")
            seen[name] = seen.get(name, 0) + 1
            if seen[name] == 2 and not flag.repeats:
                problems.append(f"vLLM {engine}: {name} is given twice; the engine would take the last one.")
    return problems
