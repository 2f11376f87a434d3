"""The controller's half of luks_volume with a host from `volume_lab`: nothing of ours is played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.action import luks_volume as action_plugin
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import thumbprint
from ansible_collections.bedplate.llm.plugins.modules import luks_volume
from ansible_collections.bedplate.llm.plugins.plugin_utils import volume_escrow
from module_runner import ModuleFailedError, run
from volume_lab import SIGNING_KEY, SIZE, Lab, play
from volume_samples import DECLARED

PASSWORD = "a password that is long enough"
TANG_SERVERS = [{"url": "http://tang1:7654", "thumbprint": thumbprint(SIGNING_KEY)}]


class QuickVault:
    """Instead of ansible-vault, whose stretching of the password would take most of the time of these tests."""

    def __init__(self, _secrets: object) -> None:
        pass

    def encrypt(self, content: bytes) -> bytes:
        return b"vault;" + content[::-1].hex().encode()

    def decrypt(self, content: bytes) -> bytes:
        return bytes.fromhex(content[6:].decode())[::-1]


class Controller:
    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        play(lab, monkeypatch)
        self.lab, self.escrow_dir = lab, lab.folder / "escrow"
        self.steps: list[str] = []
        self.arguments: list[dict[str, Any]] = []
        self.extra_vars: dict[str, str] = {}
        self.pipelined = True
        self.host = "gpu1"
        (lab.folder / "password").write_text(PASSWORD)
        monkeypatch.setattr(volume_escrow, "VaultLib", QuickVault)
        monkeypatch.setattr(action_plugin, "load_extra_vars", lambda _loader: self.extra_vars)

    @property
    def store(self) -> volume_escrow.Store:
        return volume_escrow.Store(self.escrow_dir, str(self.lab.folder / "password"))

    def run(self, *, check_mode: bool = False, volume: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        declared = {**DECLARED, "size": SIZE, "unlock": ["tpm2", "tang"], **(volume or {})}
        given = {
            "volume": {name: value for name, value in declared.items() if value is not None},
            "escrow_dir": str(self.escrow_dir),
            "escrow_password_file": str(self.lab.folder / "password"),
            "tang_servers": TANG_SERVERS,
            **options,
        }
        task = SimpleNamespace(
            args={name: value for name, value in given.items() if value is not None},
            check_mode=check_mode,
            async_val=0,
            action="bedplate.llm.luks_volume",
        )
        connection = SimpleNamespace(
            is_pipelining_enabled=lambda _wrap: self.pipelined, _shell=SimpleNamespace(tmpdir="unused")
        )
        plugin = action_plugin.ActionModule(task, connection, None, None, None, None)
        plugin._execute_module = self._execute
        result: dict[str, Any] = plugin.run(None, {"inventory_hostname": self.host})
        return result

    def _execute(self, module_name: str, module_args: dict[str, Any], task_vars: object) -> dict[str, Any]:
        assert module_name == "bedplate.llm.luks_volume"
        self.steps.append(module_args["step"])
        self.lab.power.events.append(f"step {module_args['step']}")
        self.arguments.append(module_args)
        try:
            answer = run(luks_volume, **module_args)
            assert "path" not in answer, "Ansible would overwrite size and state"
            return answer
        except ModuleFailedError as error:
            return {"failed": True, "msg": str(error)}

    def secrets(self) -> set[str]:
        """All passphrases and keys that there are."""
        escrow = self.store.read(self.lab.serial)
        kept = [self.store.passphrase(escrow, back) for back in range(1, len(escrow.passphrases) + 1)] if escrow else []
        return {*kept, *(key.decode() for key in self.lab.keys.values())}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
