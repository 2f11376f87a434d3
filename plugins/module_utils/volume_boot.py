# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a volume comes up at boot: lines of crypttab and fstab, and what keeps services off the bare mount point.

A volume that cannot be unlocked must not keep the host from booting (nofail), and must not be replaced by an empty
folder of the root disk (RequiresMountsFor, ConditionPathIsMountPoint; the folder itself is made immutable).
Other people's lines are left as they are.
"""

from __future__ import annotations

from typing import Callable, List, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import TPM2, Volume

CRYPTTAB, FSTAB = "/etc/crypttab", "/etc/fstab"
UNITS = "/etc/systemd/system"
# How long a boot waits for the device, and for an answer to its question for the key, in seconds.  The question is what
# clevis answers, as soon as its servers can be reached, so that the network need not be waited for (_netdev): a TPM
# would wait with it.  ssh does not wait for the answer; targets that want the volume's services do.
DEVICE_SECONDS, ANSWER_SECONDS = 60, 180


class BootLineError(Exception):
    """Somebody else's line that ours would clash with, as one sentence."""


def crypttab_line(volume: Volume, uuid: str, discard: bool = False) -> str:
    options = ["luks", "nofail", f"x-systemd.device-timeout={DEVICE_SECONDS}s", f"timeout={ANSWER_SECONDS}s"]
    if TPM2 in volume.unlock:
        # The PCRs are in the volume's token; crypttab only says that there is a TPM to ask.
        options.append("tpm2-device=auto")
    if discard:
        options.append("discard")
    return f"{volume.name} UUID={uuid} none {','.join(options)}"


def mount_options(volume: Volume) -> List[str]:
    options = ["nofail", "nodev", "nosuid", f"x-systemd.requires=systemd-cryptsetup@{unit_name(volume.name)}.service"]
    # Longer than an answer may take: a mount that gave up before is not tried again when the volume opens after all.
    options.append(f"x-systemd.device-timeout={DEVICE_SECONDS + ANSWER_SECONDS}s")
    return options + [option for option in volume.options if option not in options]


def fstab_line(volume: Volume) -> str:
    # xfs checks itself at mount and has an fsck that does nothing.
    check = 2 if volume.filesystem == "ext4" else 0
    return f"{volume.mapper} {volume.mount} {volume.filesystem} {','.join(mount_options(volume))} 0 {check}"


def unit_name(name: str) -> str:
    """As systemd escapes a name; ours have nothing else to escape."""
    return name.replace("-", "\\x2d")


def mount_unit(mount: str) -> str:
    parts = [unit_name(part) for part in mount.strip("/").split("/")]
    return f"{'-'.join(parts)}.mount"


def drop_in_paths(volume: Volume) -> List[str]:
    return [f"{UNITS}/{service}.d/volume-{volume.name}.conf" for service in volume.services]


def drop_in(volume: Volume) -> str:
    return (
        "# Written by bedplate (role luks_volume): without the volume these services do not run, rather than write"
        " on the\n"
        "# root disk what belongs on an encrypted one.\n"
        f"[Unit]\nRequiresMountsFor={volume.mount}\nConditionPathIsMountPoint={volume.mount}\n"
    )


def set_crypttab(text: str, volume: Volume, line: str, former: Sequence[str] = ()) -> str:
    """crypttab with our line for the volume's name.  former: UUIDs of this host's volumes, whose lines are ours too."""
    uuid = line.split()[1]
    ours = {uuid, *(f"UUID={known}" for known in former)}

    def clash(fields: List[str]) -> str:
        device = fields[1] if len(fields) > 1 else "nothing"
        theirs = device not in ours if fields[0] == volume.name else device == uuid
        return f"names {device} as {fields[0]}" if theirs else ""

    return _set(text, line, CRYPTTAB, lambda fields: fields[0] == volume.name, clash)


def set_fstab(text: str, volume: Volume, line: str) -> str:
    """fstab with our line for the mount point; another device at that mount point is somebody else's."""

    def clash(fields: List[str]) -> str:
        if len(fields) > 1 and fields[1] == volume.mount and fields[0] != volume.mapper:
            return f"mounts {fields[0]} at {volume.mount}"
        return ""

    return _set(text, line, FSTAB, lambda fields: fields[0] == volume.mapper, clash)


def without(text: str, first_field: str) -> str:
    """The text without the lines that begin with a field."""
    kept = [line for line in text.splitlines() if line.split()[:1] != [first_field]]
    return "\n".join(kept) + "\n" if kept else ""


def _set(
    text: str, line: str, path: str, is_ours: Callable[[List[str]], bool], clash: Callable[[List[str]], str]
) -> str:
    kept, done = [], False
    for number, present in enumerate(text.splitlines(), 1):
        fields = present.split()
        if not fields or fields[0].startswith("#"):
            kept.append(present)
            continue
        said = clash(fields)
        if said:
            raise BootLineError(f"{path}, line {number}, {said}: {present.strip()!r}; take that line out first")
        if not is_ours(fields):
            kept.append(present)
        elif not done:
            kept.append(line)
            done = True
    if not done:
        kept.append(line)
    return "\n".join(kept) + "\n"
