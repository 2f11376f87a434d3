# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps that a host takes for the controller's half of `luks_volume`, and what that has to know of each."""

from __future__ import annotations

import base64
from typing import Any, ContextManager, Dict

from ansible_collections.bedplate.llm.plugins.module_utils import (
    volume_enroll,
    volume_erase,
    volume_methods,
    volume_restore,
    volume_rotate,
    volume_services,
)
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cost, CryptsetupError
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import REFUSE
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look, VolumeError, VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError

ERRORS = (BlockDeviceError, CryptsetupError, RecordError, VolumeError, volume_enroll.EnrollError)
# By name; the method of Steps has the same one.
STEPS = (
    *("look", "format", "header", "backed_up", "enroll", "open", "finish", "waiting", "start", "which"),
    *("restore_look", "restore_area", "restore", "add_passphrase", "drop_passphrases", "drop_ways"),
    *("erase_look", "erase_close", "erase_keys", "erase_forget"),
)


class Steps:
    """The host's half: one step, and what the controller has to know of it."""

    def __init__(self, given: Dict[str, Any], host: VolumeHost) -> None:
        self._given, self._host, self._run = given, host, host.run
        self._settings = volume_methods.settings(given)

    def locked(self) -> ContextManager[None]:
        lock: ContextManager[None] = self._host.locked()
        return lock

    def do(self) -> Dict[str, Any]:
        """The device's name is `at`, since Ansible describes the file that a result calls its `path`, and overwrites
        `size` and `state` with that."""
        step = getattr(self, f"_{self._given['step']}")
        result: Dict[str, Any] = step()
        return result

    @property
    def _confirmed(self) -> bool:
        return bool(self._given["confirm_wipe"]) and self._given["confirm_wipe"] == self._host.volume.serial

    def _look(self) -> Dict[str, Any]:
        look = self._host.look(self._confirmed)
        found: Dict[str, Any] = {
            "action": look.decision.action,
            "problems": list(look.decision.problems),
            "recorded": look.record is not None,
            "at": look.device.path,
            "uuid": "",
            "mount_problems": self._host.mount_point_problems() + self._host.boot_problems(look),
        }
        if look.decision.action != REFUSE and look.device.luks.header:
            found.update(self._of_header(look))
        return found

    def _of_header(self, look: Look) -> Dict[str, Any]:
        volume = self._host.volume
        return {
            "uuid": look.header.uuid,
            "sequence": look.header.sequence,
            "open": look.is_open,
            "mounted": any(volume.mount in mapping.mounts for mapping in look.device.mappings),
            "missing": volume_methods.missing(look.header, volume.unlock, self._settings),
            "boot_files": [str(path) for path in self._host.boot_files(look, self._given["discard"])],
        }

    @property
    def _cost(self) -> Cost:
        return Cost(self._given["pbkdf_memory"], self._given["pbkdf_time"], self._given["pbkdf_threads"])

    def _format(self) -> Dict[str, Any]:
        self._host.format(self._given["uuid"], self._given["passphrase"], self._cost, self._confirmed)
        return self._header()

    def _header(self) -> Dict[str, Any]:
        content = self._host.cryptsetup(self._host.existing()).header_backup()
        return {"header": base64.b64encode(content).decode("ascii")}

    def _backed_up(self) -> Dict[str, Any]:
        self._host.adopt()
        self._host.backed_up()
        return {}

    def _enroll(self) -> Dict[str, Any]:
        look = self._host.existing()
        method = self._given["method"]
        # By key slot: tokens may have other numbers afterwards.
        before = {way.keyslot for way in volume_methods.ways(look.header) if way.method == method}
        volume_enroll.add(self._run, look.device.path, look.header, method, self._settings, self._given["passphrase"])
        header = self._host.look().header
        added = [way for way in volume_methods.ways(header) if way.method == method and way.keyslot not in before]
        if not added:
            raise VolumeError(f"{self._host.volume.name}: {method} was added and is not in the header")
        problem = volume_enroll.problem(self._run, look.device.path, header, added[-1])
        if problem:
            volume_enroll.remove(self._run, look.device.path, added[-1], self._given["passphrase"])
            raise VolumeError(
                f"{self._host.volume.name}: {method} does not open the volume, and was taken out: {problem}"
            )
        return {**self._header(), "keyslot": added[-1].keyslot}

    def _open(self) -> Dict[str, Any]:
        return {"changed": self._host.open(self._given["passphrase"], self._given["bypass_workqueues"])}

    def _finish(self) -> Dict[str, Any]:
        done = []
        self._host.adopt()
        if self._host.make_filesystem():
            done.append(f"made {self._host.volume.filesystem} on {self._host.volume.mapper}")
        files = self._host.boot_files(self._host.look(), self._given["discard"])
        self._host.write_boot_files(files)
        done += [f"wrote {path}" for path in files]
        if self._host.mount():
            done.append(f"mounted {self._host.volume.mount}")
        return {"actions": done}

    def _waiting(self) -> Dict[str, Any]:
        return {"services": volume_services.waiting(self._host.volume, self._host.ask)}

    def _start(self) -> Dict[str, Any]:
        """Not waited for: an engine takes minutes, and its own checks say what it is doing."""
        services = self._waiting()["services"]
        if services:
            self._host.do(["systemctl", "start", "--no-block", *services])
        return {"actions": [f"started {service}" for service in services]}

    # --- restore ---

    def _restore_look(self) -> Dict[str, Any]:
        look = self._host.look()
        found = volume_restore.problems(self._host.volume, look.device, look.record, self._host.escrow)
        return {
            "problems": found,
            "at": look.device.path,
            "whole": volume_restore.whole(look.device.luks),
            "proved": volume_restore.proved(look),
        }

    def _restore_area(self) -> Dict[str, Any]:
        content = volume_restore.area(volume_restore.allowed(self._host), self._given["length"])
        return {"header": base64.b64encode(content).decode("ascii")}

    def _restore(self) -> Dict[str, Any]:
        content = base64.b64decode(self._given["header"], validate=True)
        volume_restore.restore(self._host, content, self._given["digest"], self._given["passphrases"])
        return {}

    # --- rotate ---

    def _which(self) -> Dict[str, Any]:
        return {"opens": volume_rotate.which(self._host, self._given["passphrases"])}

    def _add_passphrase(self) -> Dict[str, Any]:
        volume_rotate.add_passphrase(self._host, self._given["passphrases"], self._cost)
        return self._header()

    def _drop_passphrases(self) -> Dict[str, Any]:
        dropped, unknown = volume_rotate.drop_passphrases(self._host, self._given["passphrases"])
        return {**self._header(), "dropped": dropped, "unknown": unknown}

    def _drop_ways(self) -> Dict[str, Any]:
        given = self._given
        dropped = volume_rotate.drop_ways(self._host, given["method"], given["keyslot"], given["passphrase"])
        return {**self._header(), "dropped": dropped}

    # --- erase ---

    def _erase_look(self) -> Dict[str, Any]:
        return dict(volume_erase.look(self._host))

    def _erase_close(self) -> Dict[str, Any]:
        return {"actions": volume_erase.close(self._host)}

    def _erase_keys(self) -> Dict[str, Any]:
        done, proof = volume_erase.destroy(self._host)
        return {"actions": done, "proof": proof}

    def _erase_forget(self) -> Dict[str, Any]:
        return {"actions": volume_erase.forget(self._host)}
