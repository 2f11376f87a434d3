# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn the vllm role's variables into the engine's command line and unit, and say what is wrong."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils import (
    plan_use,
    vllm_args,
    vllm_container,
    vllm_policy,
    vllm_unit,
)


def _known(record: Mapping[str, Any] | None) -> dict[str, vllm_args.Flag] | None:
    return vllm_args.parse_flags(record) if record else None


def _settings(settings: Mapping[str, Any]) -> vllm_args.Settings:
    try:
        return vllm_args.Settings(**settings)
    except TypeError as error:
        raise AnsibleFilterError(f"the settings of the engine are not complete: {error}") from error


def vllm_argv(settings: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> list[str]:
    """The engine's whole command line."""
    return vllm_args.render(_settings(settings), _known(record))


def vllm_problems(settings: Mapping[str, Any], record: Mapping[str, Any] | None = None, **context: Any) -> list[str]:
    """One sentence for each setting that the engine, or this collection, would refuse."""
    device, engine_device = context["device"], context["engine_device"]
    problems = vllm_args.settings_problems(_settings(settings), device)
    problems += vllm_args.extra_problems(settings.get("extra_args") or {})
    if not problems and record:
        known = _known(record) or {}
        extra = vllm_args.render_extra(settings.get("extra_args") or {}, known)
        own = vllm_argv({**settings, "extra_args": {}})[3:]
        problems += vllm_args.check_flags(own, known, record["engine"])
        problems += [f"vllm_extra_args: {said}" for said in vllm_args.check_flags(extra, known, record["engine"])]
    problems += vllm_policy.environment_problems(
        context.get("environment", {}), context.get("owned_environment", {}), record["environment"] if record else None
    )
    if device != engine_device:
        problems.append(
            f"vllm_device is {device}, but the bundle's engine is built for {engine_device}; change the variable or"
            " build the bundle with an engine for that device."
        )
    version = vllm_policy.version_problem(context["version"], device, context.get("version_floor", ""))
    return problems + ([version] if version else [])


def vllm_exec_line(argv: Sequence[str]) -> str:
    """The value of ExecStart= for exactly these arguments."""
    try:
        return vllm_unit.exec_line(argv)
    except ValueError as error:
        raise AnsibleFilterError(f"vllm_exec_line: {error}") from error


def vllm_environment_line(value: Any, name: str) -> str:
    """The value of Environment= for one variable."""
    try:
        return vllm_unit.environment_line(name, str(value))
    except ValueError as error:
        raise AnsibleFilterError(f"vllm_environment_line: {error}") from error


def vllm_container_argv(
    engine: Sequence[str], container: Mapping[str, Any], environment: Mapping[str, Any]
) -> list[str]:
    """The command that runs this command line of the engine in a container."""
    described = {name: tuple(value) if isinstance(value, list) else value for name, value in container.items()}
    try:
        return vllm_container.run_argv(vllm_container.Container(**described), engine, environment)
    except TypeError as error:
        raise AnsibleFilterError(f"the engine's container is not described completely: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "vllm_argv": vllm_argv,
            "vllm_problems": vllm_problems,
            "vllm_exec_line": vllm_exec_line,
            "vllm_environment_line": vllm_environment_line,
            "vllm_release": vllm_unit.release_of,
            "vllm_container_argv": vllm_container_argv,
            "vllm_planned": plan_use.planned,
            "vllm_departures": plan_use.departures,
            "vllm_plan_problems": plan_use.problems,
        }
