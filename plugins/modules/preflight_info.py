#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: preflight_info
short_description: Find out whether a host can carry what the site asks for
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Collects what matters about a host and compares it with the demands, all of them at once.
  - Never changes anything, and does not fail because a demand is not met.
options:
  supported_systems:
    description:
      - Systems as C(ID VERSION_ID) of C(/etc/os-release), such as C(debian 12).
      - C(rhel 9) stands for everything that says it is like RHEL, of that major version.
    type: list
    elements: str
    required: true
  architectures:
    description: Machine names as C(uname -m) prints them.
    type: list
    elements: str
    required: true
  kernel_minimum:
    description: Oldest kernel.
    type: str
    required: true
  python_minimum:
    description: Oldest Python for the modules.
    type: str
    required: true
  systemd_minimum:
    description: Oldest systemd.
    type: str
    required: true
  memory_minimum_mb:
    description: Least memory in MiB.
    type: int
    required: true
  disk_minimums:
    description: Least room for directories, which need not exist yet.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the directory.
        type: path
        required: true
      free_gb:
        description: Free space in GB (10^9 bytes) while the directory is missing or empty.
        type: float
        required: true
      reserve_gb:
        description: Free space in GB once the directory holds something.
        type: float
        default: 1
  services:
    description: >-
      Ports that must be free or held by a unit named C(bedplate-*): a dictionary from the declaring variable to its
      list of entries with C(name), C(port) and C(protocol), as for the firewall.
    type: dict
    default: {}
  names:
    description: Host names that must resolve on the host.
    type: list
    elements: str
    default: []
  controller_time:
    description: The controller's clock, in seconds since the epoch, at the moment of the call.
    type: float
    required: true
  clock_skew_seconds:
    description: Largest difference between the two clocks.
    type: float
    required: true
  clock_synchronised:
    description: Whether the clock must follow a time source; not asked of containers, which have their machine's clock.
    type: bool
    default: true
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look at the host before anything is changed
  bedplate.llm.preflight_info:
    supported_systems: [debian 12, ubuntu 24.04, rhel 9]
    architectures: [x86_64]
    kernel_minimum: "5.14"
    python_minimum: "3.9"
    systemd_minimum: "249"
    memory_minimum_mb: 2048
    disk_minimums:
      - {path: /var/lib/bedplate, free_gb: 20}
    services:
      gateway_firewall_services: [{name: gateway, port: 8443, protocol: tcp, networks: []}]
    controller_time: "{{ now().timestamp() }}"
    clock_skew_seconds: 30
  register: __preflight_verify
"""

RETURN = r"""
checks:
  description: One statement for each demand, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: preflight.kernel, ok: true, reason: The kernel is 6.1.0., remedy: ''}]
"""

import ctypes
import glob
import os
import platform
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import preflight
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_unit


class Timex(ctypes.Structure):
    """The beginning of struct timex, and room for the rest of it."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_long * 64),
    ]


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def clock_error():
    """The kernel's own bound in seconds, which is what timedatectl goes by; asks only, sets nothing."""
    timex = Timex()
    try:
        if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return timex.maxerror / 1e6


def container(module):
    tool = module.get_bin_path("systemd-detect-virt")
    code, out = module.run_command([tool, "--container"])[:2] if tool else (1, "")
    return "" if code else out.strip()


def systemd_version(module):
    tool = module.get_bin_path("systemctl")
    words = module.run_command([tool, "--version"])[1].split() if tool else []
    return words[1] if len(words) > 1 else ""


def space(path):
    """The nearest directory above that exists tells on which filesystem the path would come to lie."""
    existing = path
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    in_use = existing == path and any(os.scandir(path))
    status = os.statvfs(existing)
    mount = existing
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return preflight.Space(path, mount, status.f_bavail * status.f_frsize, in_use)


def listeners(ports):
    """Who holds the ports in question; processes are searched only when somebody does."""
    held = []
    for protocol in ("tcp", "udp"):
        for family in ("", "6"):
            for port, inode in preflight.parse_sockets(protocol, read(f"/proc/net/{protocol}{family}")):
                if any(kind == protocol and first <= port <= last for name, kind, first, last in ports):
                    held.append((protocol, port, inode))
    owners = holders({inode for protocol, port, inode in held}) if held else {}
    return tuple(preflight.Listener(protocol, port, *owners.get(inode, ("", ""))) for protocol, port, inode in held)


def holders(inodes):
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found = {}
    for descriptor in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            inode = wanted.get(os.readlink(descriptor))
        except OSError:
            continue  # The process has ended, or closed it, meanwhile.
        if inode:
            process = descriptor.rsplit("/", 2)[0]
            found[inode] = (read(f"{process}/comm").strip(), parse_unit(read(f"{process}/cgroup")))
            if len(found) == len(wanted):
                break
    return found


def unresolved(names):
    failed = {}
    for name in names:
        try:
            socket.getaddrinfo(name, None)
        except (OSError, UnicodeError) as error:
            failed[name] = getattr(error, "strerror", None) or str(error)
    return failed


def demands_of(params):
    return preflight.Demands(
        supported_systems=tuple(params["supported_systems"]),
        architectures=tuple(params["architectures"]),
        kernel_minimum=params["kernel_minimum"],
        python_minimum=params["python_minimum"],
        systemd_minimum=params["systemd_minimum"],
        memory_minimum_mb=params["memory_minimum_mb"],
        disk_minimums=preflight.parse_disk_minimums(params["disk_minimums"]),
        ports=preflight.parse_ports(params["services"]),
        names=tuple(params["names"]),
        clock_skew_seconds=params["clock_skew_seconds"],
        clock_synchronised=params["clock_synchronised"],
    )


def facts_for(module, demands, offset):
    return preflight.Facts(
        os_release=preflight.parse_os_release(read("/etc/os-release") or read("/usr/lib/os-release")),
        architecture=platform.machine(),
        kernel=platform.release(),
        python=platform.python_version(),
        systemd_version=systemd_version(module),
        systemd_running=os.path.isdir("/run/systemd/system"),
        root=os.geteuid() == 0,
        memory_bytes=preflight.parse_memory(read("/proc/meminfo"), read("/sys/fs/cgroup/memory.max")),
        container=container(module),
        clock_error=clock_error(),
        clock_offset=offset,
        spaces=tuple(space(path) for path, free, reserve in demands.disk_minimums),
        listeners=listeners(demands.ports),
        unresolved=unresolved(demands.names),
    )


def main():
    here = time.time()  # First of all, since the controller's value grows old while we work.
    module = AnsibleModule(
        argument_spec={
            "supported_systems": {"type": "list", "elements": "str", "required": True},
            "architectures": {"type": "list", "elements": "str", "required": True},
            "kernel_minimum": {"type": "str", "required": True},
            "python_minimum": {"type": "str", "required": True},
            "systemd_minimum": {"type": "str", "required": True},
            "memory_minimum_mb": {"type": "int", "required": True},
            "disk_minimums": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "free_gb": {"type": "float", "required": True},
                    "reserve_gb": {"type": "float", "default": 1},
                },
            },
            "services": {"type": "dict", "default": {}},
            "names": {"type": "list", "elements": "str", "default": []},
            "controller_time": {"type": "float", "required": True},
            "clock_skew_seconds": {"type": "float", "required": True},
            "clock_synchronised": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    try:
        demands = demands_of(module.params)
    except preflight.DemandError as error:
        module.fail_json(msg=f"preflight_info: {error}")
    facts = facts_for(module, demands, here - module.params["controller_time"])
    module.exit_json(changed=False, checks=as_dicts(preflight.checks(facts, demands)))


if __name__ == "__main__":
    main()
