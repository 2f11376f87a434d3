#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vllm_info
short_description: Prove that the engine of a host serves as configured
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at the engine's unit, process, socket and network, asks the engine for its models and for one token, and
    compares what it finds with what the inventory says.
  - A check that does not hold is a result and not a failure of the module.
options:
  unit:
    description: Name of the unit.
    type: str
    default: bedplate-vllm.service
  socket:
    description: The engine's socket.
    type: path
    required: true
  endpoint_file:
    description: The file that announces the engine to the gateway.
    type: path
    required: true
  engine:
    description: Directory of the engine.
    type: path
    required: true
  release:
    description: Digest of the wanted unit.
    type: str
    required: true
  arguments:
    description: The engine's wanted command line, executable first.
    type: list
    elements: str
    required: true
  environment:
    description: The engine's wanted environment variables.
    type: dict
    required: true
  served_model_name:
    description: The name under which the model is to be listed.
    type: str
    required: true
  device:
    description: The device on which the engine runs; it decides on the version floor.
    type: str
    choices: [cpu, cuda]
    required: true
  user:
    description: The engine's user, whose group of the same name owns the socket.
    type: str
    required: true
  private_network:
    description: Whether the engine is to see no network but its own loopback.
    type: bool
    default: true
  version_floor:
    description: A floor above the one of the collection.
    type: str
    default: ''
  recorded_flags:
    description: The flags that the collection has recorded for this engine; left out, they are not compared.
    type: dict
  container:
    description: What the engine's container is to be; left out, the engine is no container.
    type: dict
    suboptions:
      name:
        description: Name of the container.
        type: str
        required: true
      image:
        description: Id of its image, in hexadecimal.
        type: str
        required: true
      read_only:
        description: Folders of the host that it reads.
        type: list
        elements: path
        required: true
      writable:
        description: Folders of the host that it writes.
        type: list
        elements: path
        required: true
      shm_bytes:
        description: How large its C(/dev/shm) may grow, in bytes.
        type: int
        required: true
  plan:
    description:
      - The plan that the engine was started by, as P(bedplate.llm.model_plan#module) returns it. Room, weights and
        concurrency that the engine reports are compared with it.
    type: dict
    default: {}
  plan_departures:
    description: What the site changes of the plan's flags, in sentences; the engine is then not held to the plan.
    type: list
    elements: str
    default: []
  gpus:
    description: Names of the host's GPUs, for the record.
    type: list
    elements: str
    default: []
  record:
    description:
      - File that may hold the record of an earlier look at the same release, as RV(measured.record). It keeps what the
        journal loses in time, and a second look at the same start gives the same record.
    type: path
  timeout:
    description: How long the engine may take for each answer, in seconds.
    type: int
    default: 30
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Prove the engine
  bedplate.llm.vllm_info:
    socket: /run/bedplate-vllm/api.sock
    endpoint_file: /run/bedplate-endpoints/vllm.yaml
    engine: /var/lib/bedplate/engines/0.32.0-1b4f0e985197
    release: 5f70bf18a086
    arguments: [/var/lib/bedplate/engines/0.32.0-1b4f0e985197/bin/vllm, serve, /var/lib/bedplate/models/r1/0a1b2c3d4e5f]
    environment: {HF_HUB_OFFLINE: '1'}
    served_model_name: r1
    device: cpu
    user: bedplate-vllm
  register: __vllm_verify
"""

RETURN = r"""
checks:
  description: What holds and what does not.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Name of the check.
      type: str
      sample: vllm.model-listed
    ok:
      description: Whether it holds.
      type: bool
    reason:
      description: What was found.
      type: str
    remedy:
      description: What to do when it does not hold.
      type: str
measured:
  description: What the engine reports of its memory, and how far that is from its plan.
  returned: always
  type: dict
  contains:
    record:
      description:
        - Release, engine, GPUs, the plan's figures, the reported ones, their relative errors and when they were read.
        - Empty when the engine does not answer or serves another release.
      type: dict
    metrics:
      description: The same for Prometheus, as text for a C(.prom) file of its textfile collector.
      type: str
"""

import grp
import json
import os
import pwd
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import (
    plan_compared,
    plan_record,
    plan_reported,
    vllm_container_health,
    vllm_journal,
)
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_client import Api
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_health import (
    Expected,
    Observed,
    evaluate,
    parse_exposure,
    parse_interfaces,
    parse_listeners,
)
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_install import FLAGS
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_process import engine_pid

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
PROPERTIES = "ActiveState,UnitFileState,NeedDaemonReload,MainPID,InvocationID"


def engine_of(given):
    return Api(given["socket"], given["timeout"])


def show_unit(module):
    command = ["systemctl", "show", module.params["unit"], "-p", PROPERTIES]
    return parse_show(module.run_command(command, check_rc=True, environ_update=C_LOCALE)[1])


def observe_unit(shown):
    return {
        "active_state": shown.get("ActiveState", ""),
        "unit_file_state": shown.get("UnitFileState", ""),
        "needs_reload": shown.get("NeedDaemonReload") == "yes",
        "main_pid": engine_pid(int(shown.get("MainPID") or 0)),
    }


def observe_process(pid, user):
    """Arguments, environment and network of the engine's main process, seen from its own network namespace."""

    def read(name):
        with open(f"/proc/{pid}/{name}", "rb") as handle:
            return handle.read().decode("utf-8", "replace")

    if not pid:
        raise OSError("the unit has no main process")
    variables = dict(item.split("=", 1) for item in read("environ").split("\0") if "=" in item)
    user_id = pwd.getpwnam(user).pw_uid
    return {
        "arguments": tuple(read("cmdline").rstrip("\0").split("\0")),
        "environment": variables,
        "running_release": variables.get("BEDPLATE_RELEASE", ""),
        "interfaces": tuple(parse_interfaces(read("net/dev"))),
        "listeners": tuple(parse_listeners(read("net/tcp"), user_id) + parse_listeners(read("net/tcp6"), user_id)),
    }


def observe_socket(path):
    status, parent = os.stat(path), os.stat(os.path.dirname(path))
    owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    return {
        "socket_mode": stat.S_IMODE(status.st_mode),
        "socket_owner": f"{owner}:{group}",
        "directory_mode": stat.S_IMODE(parent.st_mode),
    }


def observe_api(given):
    api = engine_of(given)
    models = api.json("GET", "/v1/models").get("data", [])
    return {
        "models": tuple(str(model.get("id")) for model in models),
        "version": str(api.json("GET", "/version").get("version", "")),
    }


def observe_token(given):
    request = {"model": given["served_model_name"], "prompt": "Hello", "max_tokens": 1}
    usage = engine_of(given).json("POST", "/v1/completions", request).get("usage") or {}
    return {"generated_tokens": int(usage.get("completion_tokens") or 0)}


def observe_endpoint(given):
    with open(given["endpoint_file"], encoding="utf-8") as handle:
        announced = handle.read()
    json.loads(announced)
    return {"endpoint_published": json.dumps(given["socket"]) in announced}


def observe_exposure(module):
    # --no-pager and a plain table: the JSON form needs systemd 250 and lacks the overall score.
    code, out, err = module.run_command(
        ["systemd-analyze", "security", "--no-pager", module.params["unit"]], environ_update=C_LOCALE
    )
    if code and not out:
        raise OSError(err.strip()[-200:])
    return {"exposure": parse_exposure(out)}


def observe_flags(engine):
    with open(f"{engine}/{FLAGS}", encoding="utf-8") as handle:
        return {"installed_flags": json.load(handle)["flags"]}


def run(module, *command):
    return module.run_command(list(command), environ_update=C_LOCALE)[1]


def container_checks(module, pid):
    given = module.params["container"]
    wanted = vllm_container_health.Wanted(
        image=given["image"],
        user_id=pwd.getpwnam(module.params["user"]).pw_uid,
        read_only=tuple(given["read_only"]),
        writable=tuple(given["writable"]),
        shm_bytes=given["shm_bytes"],
        device=module.params["device"],
    )
    image = run(module, "podman", "container", "inspect", "--format", "{{.Image}}", given["name"]).strip()
    return vllm_container_health.evaluate(vllm_container_health.look(pid, image), wanted)


def without_the_images(module, environment):
    """The engine's environment without what its image brings, such as CUDA's LD_LIBRARY_PATH, which is not ours."""
    image = module.params["container"]["image"]
    brought = json.loads(run(module, "podman", "image", "inspect", "--format", "{{json .Config.Env}}", image) or "[]")
    return {
        name: value
        for name, value in environment.items()
        if name in module.params["environment"] or f"{name}={value}" not in (brought or [])
    }


def earlier_record(path, release):
    try:
        with open(path, encoding="utf-8") as handle:
            return plan_record.usable(json.load(handle), release)
    except (OSError, ValueError):
        return {}


def compare(given, seen, invocation):
    """The engine's figures against the plan's: checks, and what is kept of them.

    Nothing is kept of an engine that serves another release or does not answer.
    """
    try:
        metrics = engine_of(given).text("GET", "/metrics")
    except OSError:
        metrics = ""  # Each check says then that the engine does not tell.
    earlier = earlier_record(given["record"], given["release"]) if given["record"] else {}
    said = plan_reported.reported(metrics, vllm_journal.since_start(invocation), invocation, earlier)
    figures = plan_compared.compare(given["plan"], given["plan_departures"], said)
    found = plan_compared.checks(figures, said)
    if not metrics or seen.running_release != given["release"]:
        return found, {}, ""
    kept = plan_record.record(
        given["release"], seen.version, invocation, given["gpus"], given["plan"], figures, said, earlier, time.time()
    )
    return found, kept, plan_record.metrics(kept)


def observe(module, shown):
    given = module.params
    found, errors = observe_unit(shown), {}
    # Each of these can fail alone; what it would have seen then stays unknown, and the reason goes into the check.
    for topic, look in (
        ("process", lambda: observe_process(found["main_pid"], given["user"])),
        ("socket", lambda: observe_socket(given["socket"])),
        ("api", lambda: observe_api(given)),
        ("generate", lambda: observe_token(given)),
        ("endpoint", lambda: observe_endpoint(given)),
        ("exposure", lambda: observe_exposure(module)),
        ("flags", lambda: observe_flags(given["engine"])),
    ):
        try:
            found.update(look())
        except (OSError, ValueError, KeyError) as error:
            errors[topic] = str(error)
    if given["container"] and found.get("environment"):
        found["environment"] = without_the_images(module, found["environment"])
    return Observed(errors=errors, **found)


def main():
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "bedplate-vllm.service"},
            "socket": {"type": "path", "required": True},
            "endpoint_file": {"type": "path", "required": True},
            "engine": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "arguments": {"type": "list", "elements": "str", "required": True},
            "environment": {"type": "dict", "required": True},
            "served_model_name": {"type": "str", "required": True},
            "device": {"type": "str", "choices": ["cpu", "cuda"], "required": True},
            "user": {"type": "str", "required": True},
            "private_network": {"type": "bool", "default": True},
            "version_floor": {"type": "str", "default": ""},
            "recorded_flags": {"type": "dict"},
            "container": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "image": {"type": "str", "required": True},
                    "read_only": {"type": "list", "elements": "path", "required": True},
                    "writable": {"type": "list", "elements": "path", "required": True},
                    "shm_bytes": {"type": "int", "required": True},
                },
            },
            "plan": {"type": "dict", "default": {}},
            "plan_departures": {"type": "list", "elements": "str", "default": []},
            "gpus": {"type": "list", "elements": "str", "default": []},
            "record": {"type": "path"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    given = module.params
    wanted = Expected(
        release=given["release"],
        arguments=tuple(given["arguments"]),
        environment={name: str(value) for name, value in given["environment"].items()},
        served_model_name=given["served_model_name"],
        device=given["device"],
        user=given["user"],
        group=given["user"],
        private_network=given["private_network"],
        version_floor=given["version_floor"],
        recorded_flags=given["recorded_flags"],
        container=bool(given["container"]),
    )
    shown = show_unit(module)
    seen = observe(module, shown)
    compared, record, metrics = compare(given, seen, shown.get("InvocationID", ""))
    contained = container_checks(module, seen.main_pid) if given["container"] else []
    module.exit_json(
        changed=False,
        checks=as_dicts(evaluate(seen, wanted) + contained + compared),
        measured={"record": record, "metrics": metrics},
    )


if __name__ == "__main__":
    main()
