"""The engine's container: what it is given, that it keeps it, and that it is given nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import CONTAINER, LAB, NAME, SPEC, engine_pid
from scenario import PROJECT, wait_until

sys.path.append(str(PROJECT / "tests/unit"))

import image_harness

# Opens a device in a container of its own, which is given the file and not the device.
OPEN = 'import os; os.open("/dev/nvidia0", os.O_RDWR)'


def content(answer: str) -> str:
    said: str = json.loads(answer)["choices"][0]["message"]["content"]
    return said


@pytest.fixture(scope="module")
def image(machine) -> str:
    return str(machine.check_output("sudo podman container inspect --format '{{.Image}}' " + CONTAINER))


def test_a_client_gets_an_answer_that_the_gpus_had_a_part_in(ask):
    assert content(ask("good morning")) == "good morning on nvidia0 nvidia1"


def test_its_gpus_are_the_hosts_and_it_has_no_other_device_of_the_host(machine):
    pid = engine_pid(machine)
    inside = set(machine.check_output(f"sudo ls /proc/{pid}/root/dev").split())
    assert {"nvidia0", "nvidia1"} <= inside
    assert not {"vda", "kmsg", "mem", "fuse", "kvm", "loop-control"} & inside


def test_a_daemon_reload_takes_no_gpu_from_it(machine, ask):
    pid = engine_pid(machine)
    for _again in range(3):
        machine.check_output("sudo systemctl daemon-reload")
        assert content(ask("still there")) == "still there on nvidia0 nvidia1"
    assert engine_pid(machine) == pid


def test_a_container_that_is_not_given_the_gpu_cannot_open_it(machine, image):
    """Without this, that the engine can open it would show nothing."""
    run = f"sudo podman run --rm --pull=never --network=none {{}} --entrypoint python3 {image} -c '{OPEN}'"
    refused = machine.run(run.format("--volume /dev/nvidia0:/dev/nvidia0"))
    assert refused.rc == 1, refused.stderr
    assert "Operation not permitted" in refused.stderr
    assert machine.run(run.format("--device nvidia.com/gpu=all")).rc == 0


def test_it_cannot_leave_its_place(machine):
    enter = f"sudo podman exec {CONTAINER} python3 -c"
    assert "Read-only file system" in machine.run(f'{enter} \'open("/usr/x", "w")\'').stderr
    model = machine.check_output("ls -d /var/lib/bedplate/models/*/*/")
    assert "Read-only file system" in machine.run(f'{enter} \'open("{model}x", "w")\'').stderr
    assert (
        "unreachable"
        in machine.run(f"{enter} 'import socket; socket.create_connection((\"10.93.0.1\", 22), 3)'").stderr
    )
    assert machine.check_output(f"sudo podman port {CONTAINER}") == ""


def test_a_change_of_mig_is_described_anew_by_itself(machine):
    before = machine.file(SPEC).content_string
    machine.check_output("sudo mkdir -p /dev/nvidia-caps && sudo mknod /dev/nvidia-caps/nvidia-cap3 c 10 229")
    try:
        wait_until(lambda: "/dev/nvidia-caps/nvidia-cap3" in machine.file(SPEC).content_string, 60)
    finally:
        machine.check_output("sudo rm -r /dev/nvidia-caps")
    wait_until(lambda: machine.file(SPEC).content_string == before, 60)


def test_the_engine_never_starts_with_the_description_of_another_driver(machine, ask):
    before = machine.file(SPEC).content_string
    machine.check_output(f"sudo sed -i 's/so\\.[0-9.]*\"/so.550.54.14\"/; s,/dev/nvidia1,/dev/nothing,' {SPEC}")
    assert machine.file(SPEC).content_string != before
    machine.check_output("sudo systemctl restart bedplate-vllm")
    assert machine.file(SPEC).content_string == before
    wait_until(lambda: "nvidia0 nvidia1" in ask("once more"), 60)


def test_an_engine_that_dies_is_started_again(machine, ask):
    pid = engine_pid(machine)
    machine.check_output(f"sudo kill -KILL {pid}")
    wait_until(lambda: machine.run("systemctl is-active --quiet bedplate-vllm").rc != 0, 60)
    wait_until(lambda: machine.run("systemctl is-active --quiet bedplate-vllm").rc == 0, 180)
    assert engine_pid(machine) != pid
    wait_until(lambda: "nvidia0 nvidia1" in ask("once more"), 60)


def test_another_image_than_the_bundles_is_not_taken(machine, access, tmp_path):
    layers = [image_harness.layer({"usr/local/bin/vllm": b"another"})]
    archive = tmp_path / "image.tar"
    image_harness.write(archive, image_harness.oci_files(layers, image_harness.config(layers)))
    before = machine.check_output("sudo podman images --quiet --no-trunc")
    machine.check_output("mkdir -p /tmp/incoming")
    for module, arguments in (
        ("ansible.builtin.copy", {"src": str(archive), "dest": "/tmp/incoming/image.tar"}),
        (
            "bedplate.llm.vllm_image",
            {
                "id": "f" * 64,
                "user": "bedplate-vllm",
                "incoming": "/tmp/incoming",
                "sysusers": "/none",
                "install": True,
            },
        ),
    ):
        done = subprocess.run(
            [
                f"{sys.prefix}/bin/ansible",
                NAME,
                "-i",
                str(LAB.inventory),
                "-b",
                "-m",
                module,
                "-a",
                json.dumps(arguments),
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert f"and the bundle's is {'f' * 64}, so it was not taken" in done.stdout
    assert machine.check_output("sudo podman images --quiet --no-trunc") == before
