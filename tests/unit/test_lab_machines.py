"""How machines are started, which tools that needs, and how keys and locks behave."""

import multiprocessing

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_container, lab_host, lab_keys, lab_tools, lab_vm
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import parse_lab, parse_machine

LAB = parse_lab("bedplate", "10.87.0.0/24", "fd87:b3d0::/64")
STORE = parse_machine(
    LAB,
    {
        "name": "store1",
        "kind": "vm",
        "address": "10.87.0.31",
        "memory": "2G",
        "cpus": 2,
        "tpm": True,
        "disks": [{"serial": "data_0", "size": "1G"}, {"serial": "data-0", "size": "1G"}],
    },
)


def qemu(machine, tmp_path, accelerator="tcg"):
    return " ".join(lab_vm.qemu_argv(LAB, machine, tmp_path, tmp_path, accelerator))


def test_every_disk_is_there_under_its_serial_number(tmp_path):
    line = qemu(STORE, tmp_path)
    for serial in ("root", "data_0", "data-0"):
        assert f"virtio-blk-pci,drive=disk-{serial},serial={serial}" in line


def test_a_tpm_is_there_only_when_it_is_declared(tmp_path):
    plain = parse_machine(LAB, {"name": "store1", "kind": "vm", "address": "10.87.0.31"})
    assert "tpm-crb" in qemu(STORE, tmp_path)
    assert "tpm" not in qemu(plain, tmp_path).replace(str(tmp_path), "")


@pytest.mark.parametrize(("accelerator", "processor"), [("kvm", "-cpu host"), ("tcg", "-cpu Westmere")])
def test_the_processor_is_what_the_accelerator_can_give(accelerator, processor, tmp_path):
    line = qemu(STORE, tmp_path, accelerator)
    assert f"-accel {accelerator} {processor}" in line
    assert "-smp 2 -m 2048" in line


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_boot_is_told_on_the_console(accelerator, tmp_path):
    words = qemu(STORE, tmp_path, accelerator).split()
    assert "loglevel=5" in words
    assert "quiet" not in words


def test_an_emulated_kernel_relies_on_no_timer_that_it_would_have_to_watch(tmp_path):
    clock = {"no_timer_check", "tsc=unstable"}
    assert clock <= set(qemu(STORE, tmp_path, "tcg").split())
    assert not clock & set(qemu(STORE, tmp_path, "kvm").split())


def test_a_container_is_named_after_its_lab_too_since_its_interface_is(tmp_path):
    machine = parse_machine(LAB, {"name": "llm1", "address": "10.87.0.11"})
    argv = lab_container.nspawn_argv(LAB, machine, tmp_path)
    assert "--machine=bedplate-llm1" in argv
    assert "--hostname=llm1" in argv
    assert "--network-bridge=bp-bedplate" in argv


MOUNTS = """\
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
proc /proc proc rw 0 0
"""


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (MOUNTS, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]),
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", ["/sys/fs/cgroup"]),
    ],
)
def test_a_machine_is_held_in_every_hierarchy_that_takes_processes(mounts, expected):
    assert [str(root) for root in lab_host.cgroup_roots(mounts)] == expected


@pytest.mark.parametrize(
    ("kind", "tpm", "there", "expected"),
    [
        ("container", False, ("apt-get", "ip", "mmdebstrap", "nft", "setpriv", "ssh", "systemd-nspawn", "useradd"), []),
        (
            "container",
            False,
            ("apt-get", "ip", "nft", "setpriv", "ssh", "useradd"),
            ["mmdebstrap", "systemd-container"],
        ),
        (
            "vm",
            True,
            ("apt-get", "ip", "mmdebstrap", "nft", "setpriv", "ssh", "useradd", "mke2fs"),
            ["qemu-system-x86", "qemu-utils", "swtpm"],
        ),
    ],
)
def test_only_missing_programs_make_packages_to_install(kind, tpm, there, expected):
    assert lab_tools.missing_packages(kind, tpm, lambda program: program in there or None) == expected


@pytest.mark.parametrize(
    ("platform", "user", "missing", "has_apt", "words"),
    [
        ("linux", 0, ["nftables"], True, None),
        ("linux", 1000, ["nftables"], True, "needs root: run it as root. Missing packages: nftables."),
        ("linux", 0, [], False, "no apt-get"),
        ("darwin", 0, [], False, "needs Linux"),
    ],
)
def test_a_machine_that_cannot_carry_a_lab_says_why(platform, user, missing, has_apt, words):
    reason = lab_tools.unable(platform, user, missing, has_apt)
    assert reason is None if words is None else words in reason


def test_pinning_replaces_our_lines_and_keeps_the_others():
    existing = "# ours\n10.87.0.11 ssh-ed25519 OLD\nother.example ssh-ed25519 KEEP\n"
    keys = {"llm1": (("llm1", "10.87.0.11"), "ssh-ed25519 NEW llm1\n")}
    assert lab_keys.known_hosts(existing, keys) == (
        "# ours\nother.example ssh-ed25519 KEEP\nllm1,10.87.0.11 ssh-ed25519 NEW\n"
    )


def test_keys_are_made_once_and_survive(tmp_path):
    names = lab_keys.pinned_names(LAB, {"llm1": "10.87.0.11"})
    secrets = tmp_path / "secrets"
    assert lab_keys.make_keys(secrets, names)
    before = (secrets / lab_keys.KNOWN_HOSTS).read_text()
    assert before.startswith("llm1,10.87.0.11,fd87:b3d0::b ssh-ed25519 ")
    assert not lab_keys.make_keys(secrets, names)
    assert (secrets / lab_keys.KNOWN_HOSTS).read_text() == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / ".gitignore").read_text() == "*\n"


def test_half_a_key_pair_is_made_again(tmp_path):
    names = lab_keys.pinned_names(LAB, {"llm1": "10.87.0.11"})
    lab_keys.make_keys(tmp_path, names)
    (tmp_path / "host_keys" / "llm1.pub").unlink()
    assert lab_keys.make_keys(tmp_path, names)
    assert (tmp_path / "host_keys" / "llm1.pub").exists()


def _count(folder):
    for _ in range(20):
        with lab_host.lock("count", folder=folder):
            path = folder / "number"
            number = int(path.read_text())
            path.write_text(str(number + 1))


def test_a_lock_excludes_and_leaves_no_file_behind(tmp_path):
    (tmp_path / "number").write_text("0")
    workers = [multiprocessing.Process(target=_count, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "number").read_text() == "80"
    assert list(tmp_path.iterdir()) == [tmp_path / "number"]
