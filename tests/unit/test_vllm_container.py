"""The engine in a container: its command is that of the virtual environment, its sandbox what its process shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import vllm_container as container
from ansible_collections.bedplate.llm.plugins.module_utils import vllm_container_health as health
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_process import engine_pid

MODEL, CACHE, SOCKET = "/var/lib/bedplate/models/r1/0a1b", "/var/lib/bedplate/cache/vllm", "/run/bedplate-vllm"
IMAGE = "6d1ef012b5674ad8a127ecfa9b5e6f5178d171b90ee462846974177fd9bdd39f"
ENGINE = ["vllm", "serve", MODEL, "--uds", f"{SOCKET}/api.sock"]
BOX = container.Container(
    name="bedplate-vllm",
    image=IMAGE,
    user_id=997,
    group_id=996,
    shm_size="16g",
    stop_timeout=75,
    read_only=(MODEL,),
    writable=(CACHE, SOCKET),
    device="cuda",
    private_network=True,
)


def test_the_engines_words_come_last_and_unchanged() -> None:
    argv = container.run_argv(BOX, ENGINE, {"HOME": CACHE, "VLLM_PLUGINS": ""})
    image = argv.index(f"sha256:{IMAGE}")
    assert argv[image - 1] == "--entrypoint=vllm"
    assert argv[image + 1 :] == ENGINE[1:]
    assert [word for word in argv[:image] if word.startswith("--env=")] == [
        f"--env=HOME={CACHE}",
        "--env=VLLM_PLUGINS=",
        "--env=BEDPLATE_RELEASE",
    ]


@pytest.mark.parametrize(
    "word",
    [
        "--pull=never",
        "--cgroups=split",
        "--network=none",
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--user=997:996",
        "--umask=0077",
        "--shm-size=16g",
        "--ulimit=core=0:0",
        "--stop-timeout=75",
        "--device=nvidia.com/gpu=all",
        f"--mount=type=bind,src={MODEL},dst={MODEL},ro=true",
        f"--mount=type=bind,src={CACHE},dst={CACHE}",
    ],
)
def test_the_container_is_closed(word: str) -> None:
    assert word in container.run_argv(BOX, ENGINE, {})


def test_no_port_is_published_and_nothing_is_privileged() -> None:
    words = " ".join(container.run_argv(BOX, ENGINE, {}))
    for open_door in ("--publish", "-p ", "--privileged", "--pid=", "--ipc=host", "--userns=host", "--cap-add"):
        assert open_door not in words


def test_a_cpu_gets_no_device_and_a_site_may_share_its_network() -> None:
    argv = container.run_argv(replace(BOX, device="cpu", private_network=False), ENGINE, {})
    assert not [word for word in argv if word.startswith("--device")]
    assert "--network=host" in argv
    assert "--network=none" not in argv


@pytest.mark.parametrize(
    ("said", "version"),
    [("podman version 4.3.1", (4, 3, 1)), ("podman version 5.4.2-dev", (5, 4, 2)), ("", ()), ("no such file", ())],
)
def test_podmans_version_is_read(said: str, version: tuple[int, ...]) -> None:
    assert container.podman_version(said) == version


@pytest.mark.parametrize(
    ("version", "cgroup_v2", "said"),
    [
        ((4, 3, 1), True, ""),
        ((5, 4, 2), True, ""),
        ((), True, "has no podman; run the role container_toolkit"),
        ((3, 4, 4), True, "has podman 3.4.4, and the engine's container needs 4.3"),
        ((4, 3, 1), False, "version 1 of control groups"),
    ],
)
def test_a_host_that_cannot_run_it_is_told_why(version: tuple[int, ...], cgroup_v2: bool, said: str) -> None:
    problem = container.host_problem(version, cgroup_v2)
    assert said in problem
    assert bool(problem) == bool(said)


STATUS = """\
Name:\tpython3
Uid:\t997\t997\t997\t997
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""
# Of a real container (podman 4.3), shortened.
MOUNTS = f"""\
257 228 0:40 / / ro,relatime - overlay overlay rw,lowerdir=/var/lib/containers/storage/overlay/l/A,volatile
258 257 0:43 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
259 257 0:44 / /tmp rw,nosuid,nodev,relatime - tmpfs tmpfs rw,inode64
267 262 0:39 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64
268 257 254:0 /var/lib/containers/x/passwd /etc/passwd ro,nosuid - ext4 /dev/vda rw
264 261 0:22 /bedplate-vllm {SOCKET} rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=254008k
272 257 254:0 {CACHE} {CACHE} rw,relatime - ext4 /dev/vda rw
273 257 254:0 {MODEL} {MODEL} ro,relatime - ext4 /dev/vda rw
274 257 254:0 /usr/lib/libnvidia-ml.so.1 /usr/lib/libnvidia-ml.so.580.95.05 ro,nosuid,nodev - ext4 /dev/vda rw
"""
SEEN = health.Seen(
    status=health.parse_status(STATUS),
    mounts=health.parse_mounts(MOUNTS),
    devices=("null", "nvidia0", "nvidia1", "nvidiactl"),
    host_devices=("null", "nvidia0", "nvidia1", "nvidia-uvm", "vda"),
    image=IMAGE,
)
WANTED = health.Wanted(IMAGE, 997, (MODEL,), (CACHE, SOCKET), 64 * 1024 * 1024, "cuda")


def failing(seen: health.Seen, wanted: health.Wanted = WANTED) -> dict[str, str]:
    return {check.id: check.reason for check in health.evaluate(seen, wanted) if not check.ok}


def test_a_container_that_is_right_has_no_failing_check() -> None:
    assert failing(SEEN) == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("Uid", "0\t0\t0\t0", "runs as user"),
        ("CapEff", "00000000a80425fb", "has capabilities (CapEff"),
        ("CapBnd", "00000000a80425fb", "has capabilities (CapBnd"),
        ("NoNewPrivs", "0", "may gain privileges"),
        ("Seccomp", "0", "has no filter"),
    ],
)
def test_what_the_process_may_is_what_the_kernel_says(name: str, value: str, said: str) -> None:
    seen = replace(SEEN, status={**SEEN.status, name: value})
    assert said in failing(seen)["vllm.container-privileges"]


def mounted(line: str, instead_of: str = "") -> health.Seen:
    kept = [old for old in MOUNTS.splitlines() if not instead_of or f" {instead_of} " not in old]
    return replace(SEEN, mounts=health.parse_mounts("\n".join([*kept, line])))


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (mounted("1 1 0:40 / / rw,relatime - overlay overlay rw", "/"), "its root file system is writable"),
        (mounted(f"1 1 254:0 {MODEL} {MODEL} rw - ext4 /dev/vda rw", MODEL), f"{MODEL} is not there read-only"),
        (mounted("1 1 254:0 / /host ro - ext4 /dev/vda rw"), "sees more of the host: /host"),
        (mounted("1 1 254:0 /etc /usr/local/etc rw - ext4 /dev/vda rw"), "sees more of the host: /usr/local/etc"),
        (mounted("1 1 254:0 /x /a\\040b ro - ext4 /dev/vda rw"), "sees more of the host: /a b"),
    ],
)
def test_what_it_sees_of_the_host_is_what_the_kernel_mounted(seen: health.Seen, said: str) -> None:
    assert said in failing(seen)["vllm.container-mounts"]


@pytest.mark.parametrize(
    ("seen", "check", "said"),
    [
        (replace(SEEN, image="ff" * 32), "vllm.image", "runs from image ffffffffffff"),
        (replace(SEEN, devices=("null", "nvidia0")), "vllm.container-gpus", "has nvidia0, the host nvidia0, nvidia1"),
        (replace(SEEN, devices=(), host_devices=()), "vllm.container-gpus", "has no GPU, the host none"),
        (replace(SEEN, mounts=()), "vllm.container-shm", "may grow to 0 bytes, vllm_shm_size is 67108864"),
        (health.Seen({}, error="it does not run"), "vllm.container-privileges", "cannot be looked at: it does not"),
    ],
)
def test_another_image_other_gpus_or_no_container_is_found(seen: health.Seen, check: str, said: str) -> None:
    assert said in failing(seen)[check]


def test_a_container_without_a_gpu_is_not_asked_for_one() -> None:
    assert failing(replace(SEEN, devices=(), host_devices=()), replace(WANTED, device="cpu")) == {}


def test_a_container_is_looked_at_where_its_process_is(tmp_path: Path) -> None:
    own, devices = tmp_path / "proc/7", tmp_path / "dev"
    for folder in (own / "root/dev", devices):
        folder.mkdir(parents=True)
        (folder / "nvidia0").touch()
    (own / "status").write_text(STATUS)
    (own / "mountinfo").write_text(MOUNTS)
    seen = health.look(7, IMAGE, tmp_path / "proc", devices)
    assert failing(seen) == {}
    assert health.look(0, IMAGE).error == "it does not run"
    assert "No such file" in health.look(8, IMAGE, tmp_path / "proc", devices).error


def process(proc: Path, pid: int, name: str, children: str) -> None:
    (proc / f"{pid}/task/{pid}").mkdir(parents=True)
    (proc / f"{pid}/comm").write_text(name + "\n")
    (proc / f"{pid}/task/{pid}/children").write_text(children)


def test_the_engine_is_the_main_process_or_the_watchers_child(tmp_path: Path) -> None:
    process(tmp_path, 10, "conmon", "12 ")
    process(tmp_path, 11, "vllm", "13 ")
    process(tmp_path, 14, "conmon", "")
    assert [engine_pid(pid, tmp_path) for pid in (10, 11, 14, 15, 0)] == [12, 11, 0, 0, 0]
