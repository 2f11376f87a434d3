"""The module that makes, hides and deletes keys, on a folder of its own, cut off at each of its steps."""

from __future__ import annotations

import grp
import json
import os
import pwd
import secrets
from pathlib import Path

import module_runner
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.tang import base64url
from ansible_collections.bedplate.llm.plugins.modules import tang_keys

USER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.tang = True

    def run(self, _module, argv, **_):
        """As systemd, ss and jose answer."""
        if argv[0] == "jose":
            use = json.loads(argv[-1])["alg"]
            point = {name: base64url(secrets.token_bytes(66)) for name in ("x", "y", "d")}
            return 0, json.dumps({"alg": use, "kty": "EC", "crv": "P-521", **point}), ""
        if argv[:2] == ["systemctl", "show"] and self.tang:
            start = f"{{ path=/usr/libexec/tangd ; argv[]=/usr/libexec/tangd {self.path} ; ignore_errors=no }}"
            return 0, f"LoadState=loaded\nUser={USER}\nGroup={GROUP}\nExecStart={start}\n", ""
        return 0, "LoadState=not-found\n", ""

    def files(self) -> dict[str, tuple[str, int]]:
        return {path.name: (path.read_text(), path.stat().st_mode & 0o7777) for path in self.path.iterdir()}

    def uses(self, hidden: bool = False) -> list[str]:
        paths = [path for path in self.path.glob("*.jwk") if path.name.startswith(".") == hidden]
        return sorted(json.loads(path.read_text())["alg"] for path in paths)

    def signing(self) -> list[str]:
        return [
            path.stem
            for path in self.path.glob("*.jwk")
            if not path.name.startswith(".") and json.loads(path.read_text())["alg"] == "ES512"
        ]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    path = tmp_path / "tang"
    path.mkdir(mode=0o750)
    path.chmod(0o750)
    folder = Folder(path)
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *args, **more: folder.run(*args, **more))
    return folder


def keys(state: str = "present", *names: str, check: bool = False):
    return module_runner.run(tang_keys, state=state, thumbprints=list(names), _ansible_check_mode=check)


def refused(folder: Folder, *arguments: str) -> str:
    before = folder.files()
    with pytest.raises(module_runner.ModuleFailedError) as caught:
        keys(*arguments)
    assert folder.files() == before
    return str(caught.value)


def test_keys_are_made_once_and_for_tang_alone(folder):
    made = keys()
    assert made["changed"]
    assert len(made["made"]) == 2
    assert folder.uses() == ["ECMR", "ES512"]
    assert {mode for _text, mode in folder.files().values()} == {0o440}
    assert "made" in made and not any(json.loads(text)["d"] in repr(made) for text, _mode in folder.files().values())
    before = folder.files()
    assert not keys()["changed"]
    assert folder.files() == before


def test_only_what_is_missing_is_made(folder):
    keys()
    [signing] = folder.signing()
    kept = folder.files()[f"{signing}.jwk"]
    next(path for path in folder.path.glob("*.jwk") if path.stem != signing).unlink()
    assert len(keys()["made"]) == 1
    assert folder.uses() == ["ECMR", "ES512"]
    assert folder.files()[f"{signing}.jwk"] == kept


def test_check_mode_writes_nothing(folder):
    assert keys(check=True)["changed"]
    assert folder.files() == {}
    keys()
    before = folder.files()
    [signing] = folder.signing()
    assert keys("rotated", signing, check=True)["hidden"]
    assert folder.files() == before
    keys("rotated", signing)
    before = folder.files()
    assert keys("forgotten", signing, check=True)["forgotten"] == [signing]
    assert folder.files() == before


def test_check_mode_on_a_host_that_has_no_tang_says_that_keys_would_be_made(folder):
    folder.tang = False
    assert keys(check=True)["changed"]
    assert "this host has no tang" in refused(folder)
    assert "this host has no tang" in refused(folder, "rotated", "A" * 43)


def test_a_damaged_key_is_not_replaced(folder):
    keys()
    [signing] = folder.signing()
    path = folder.path / f"{signing}.jwk"
    path.chmod(0o640)
    path.write_text(path.read_text()[:-1])
    message = refused(folder)
    assert f"nothing was changed: {path} is no key (JSONDecodeError)" in message
    assert "it may be the signing key" in message


def test_owner_and_permissions_are_put_right(folder):
    keys()
    [signing] = folder.signing()
    (folder.path / f"{signing}.jwk").chmod(0o644)
    folder.path.chmod(0o755)
    assert keys()["corrected"] == [f"{folder.path}/{signing}.jwk", f"{folder.path}/"]
    assert {mode for _text, mode in folder.files().values()} == {0o440}
    assert folder.path.stat().st_mode & 0o7777 == 0o750
    assert not keys()["changed"]


def test_a_link_is_not_followed(folder, tmp_path):
    """tangd's user may write to the folder, and the module is root."""
    keys()
    [signing] = folder.signing()
    foreign = tmp_path / "foreign"
    foreign.write_text((folder.path / f"{signing}.jwk").read_text())
    foreign.chmod(0o644)
    (folder.path / "link.jwk").symlink_to(foreign)
    assert not keys()["changed"]
    assert foreign.stat().st_mode & 0o7777 == 0o644


def test_nothing_happens_without_names(folder):
    keys()
    for state in ("rotated", "forgotten"):
        assert "no thumbprint is given" in refused(folder, state)
        assert "'*' is no thumbprint" in refused(folder, state, "*")


def test_a_rotation_is_done_once(folder):
    keys()
    [old] = folder.signing()
    before = folder.files()
    done = keys("rotated", old)
    assert old in done["hidden"]
    assert folder.uses() == folder.uses(hidden=True) == ["ECMR", "ES512"]
    assert {text for text, _mode in before.values()} <= {text for text, _mode in folder.files().values()}
    before = folder.files()
    assert not keys("rotated", old)["changed"]
    assert folder.files() == before


@pytest.mark.parametrize("step", range(4))
def test_a_rotation_that_is_cut_off_leaves_a_server_that_works_and_is_completed(folder, monkeypatch, step):
    """Two new keys are put in place, then two old ones are hidden: four renames, any of which may be the last."""
    keys()
    [old] = folder.signing()
    before = {text for text, _mode in folder.files().values()}
    rename, renames = os.rename, []

    class PowerCutError(BaseException):
        pass

    def cut(*names):
        if len(renames) == step:
            raise PowerCutError
        renames.append(names)
        rename(*names)

    monkeypatch.setattr(os, "rename", cut)
    with pytest.raises(PowerCutError):
        keys("rotated", old)
    monkeypatch.setattr(os, "rename", rename)

    assert {"ECMR", "ES512"} <= set(folder.uses())
    assert old in folder.signing()
    assert before <= {text for text, _mode in folder.files().values()}

    keys("rotated", old)
    assert folder.uses() == ["ECMR", "ES512"]
    assert old not in folder.signing()
    assert before <= {text for text, _mode in folder.files().values()}
    assert not any(name.startswith(tang_keys.UNFINISHED) for name in folder.files())


def test_two_keys_of_one_name_do_not_become_one(folder):
    """Somebody called a key sig.jwk, rotated it by hand, and called the next one sig.jwk too."""
    keys()
    [first] = folder.signing()
    (folder.path / f"{first}.jwk").rename(folder.path / ".sig.jwk")
    keys()
    [second] = folder.signing()
    (folder.path / f"{second}.jwk").rename(folder.path / "sig.jwk")
    before = {text for text, _mode in folder.files().values()}
    keys("rotated", second)
    assert before <= {text for text, _mode in folder.files().values()}


def test_hidden_keys_are_deleted_by_name_and_advertised_ones_never(folder):
    keys()
    [old] = folder.signing()
    hidden = keys("rotated", old)["hidden"]
    [new] = folder.signing()
    assert f"the signing key {new} is advertised" in refused(folder, "forgotten", *hidden, new)
    assert keys("forgotten", old)["forgotten"] == [old]
    assert folder.uses(hidden=True) == ["ECMR"]
    assert not keys("forgotten", old)["changed"]
    assert keys("forgotten", *hidden)["changed"]
    assert folder.uses(hidden=True) == []
    assert folder.uses() == ["ECMR", "ES512"]
