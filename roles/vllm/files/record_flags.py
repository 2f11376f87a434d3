"""Print what the installed engine accepts, as JSON: every flag of `vllm serve` and every VLLM_* variable.

It asks the engine's own parser, so it runs with the engine's interpreter: `<engine>/bin/python record_flags.py`.
The role runs it once, when it installs an engine, and keeps the answer beside the engine as flags.json.
The lists in engine_flags/ were made the same way; the controller uses them to refuse a wrong flag before any change.

A CUDA engine loads the driver's libraries to know its platform, and one flag's choices depend on that.  0.33.0.json
was recorded without a GPU, with `LD_LIBRARY_PATH` set to the folder of stubs that tools/driver-stub makes: the engine
believes in one GPU, which is enough for its parser, and computes nothing.
"""

from __future__ import annotations

import argparse
import json
import os

TAKES = {None: "one", "?": "optional", "+": "many", "*": "many", 0: "none"}


def describe(action: argparse.Action) -> dict[str, object]:
    entry: dict[str, object] = {"takes": TAKES[action.nargs]}
    if action.nargs != 0:
        entry["type"] = getattr(action.type, "__name__", "str")
        choices = [str(choice) for choice in action.choices or () if choice is not None]
        if choices:
            entry["choices"] = sorted(choices)
    if isinstance(action, argparse._AppendAction):
        entry["repeats"] = True
    return entry


def main() -> None:
    # The engine logs to standard output while it is imported; the answer must stand alone there.
    answer_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from vllm import envs
    from vllm.entrypoints.cli.serve import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.version import __version__

    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    flags = {name: describe(action) for name, action in parser._option_string_actions.items()}
    answer = {
        "schema": 1,
        "engine": __version__,
        "flags": flags,
        "environment": sorted(name for name in envs.environment_variables if name.startswith("VLLM_")),
    }
    with answer_stream as stream:
        json.dump(answer, stream, indent=1, sort_keys=True)
        stream.write("\n")


if __name__ == "__main__":
    main()
