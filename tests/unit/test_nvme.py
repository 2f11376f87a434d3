"""What an NVMe device is asked to forget by itself, and why not."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.nvme import format_argv, refusal, secure_erase

ONE, TWO = "[   0]:0x1\n", "[   0]:0x1\n[   1]:0x2\n"
FORMATS = {"oacs": 0x1F, "fna": 0}


@pytest.mark.parametrize(
    ("controller", "namespaces", "words"),
    [
        (FORMATS, 1, ""),
        (FORMATS, 4, ""),
        ({"oacs": 0x1D, "fna": 0}, 1, "does not support it"),
        ({}, 1, "does not support it"),
        # One format, or one secure erase, is that of all namespaces.
        ({"oacs": 2, "fna": 1}, 1, ""),
        ({"oacs": 2, "fna": 1}, 2, "all 2 namespaces"),
        ({"oacs": 2, "fna": 2}, 2, "all 2 namespaces"),
        ({"oacs": 2, "fna": 4}, 2, ""),
        ({"oacs": 2}, 2, "all 2 namespaces"),
        ({"oacs": 2, "fna": 1}, 0, "all of its namespaces"),
    ],
)
def test_a_namespace_is_erased_only_where_no_other_one_goes_with_it(controller, namespaces, words):
    assert (words in refusal(controller, namespaces)) if words else refusal(controller, namespaces) == ""


@pytest.mark.parametrize(("flbas", "lbaf"), [(0, 0), (0x01, 1), (0x12, 2), (0x23, 19)])
def test_the_sectors_stay_as_they_are(flbas, lbaf):
    assert format_argv("/dev/nvme0n1", {"flbas": flbas})[3:] == ["--ses=1", f"--lbaf={lbaf}", "--force"]


class Device:
    def __init__(self, **answers: tuple[int, str]) -> None:
        self.asked: list[Sequence[str]] = []
        self._answers = {
            "id-ctrl": (0, json.dumps(FORMATS)),
            "list-ns": (0, ONE),
            "id-ns": (0, json.dumps({"flbas": 1})),
            "format": (0, "Success formatting namespace:1\n"),
            **{name.replace("_", "-"): answer for name, answer in answers.items()},
        }

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.asked.append(argv)
        return self._answers[argv[1]]


def test_a_device_of_its_own_erases_its_namespace():
    device = Device()
    said = "the device erased the namespace (`nvme format /dev/nvme1n1 --ses=1 --lbaf=1 --force`)"
    assert secure_erase("/dev/nvme1n1", device) == said
    assert device.asked[0] == ["nvme", "id-ctrl", "/dev/nvme1", "--output-format=json"]


@pytest.mark.parametrize(
    ("path", "answers", "words"),
    [
        ("/dev/sdb", {}, "/dev/sdb is not the namespace of an NVMe device"),
        # A format is that of the whole namespace, with the other partitions.
        ("/dev/nvme0n1p2", {}, "/dev/nvme0n1p2 is not the namespace"),
        ("/dev/md127", {}, "/dev/md127 is not the namespace"),
        ("/dev/nvme0n1", {"id_ctrl": (-1, "")}, "nvme-cli is not installed"),
        ("/dev/nvme0n1", {"id_ctrl": (1, "")}, "it does not answer"),
        ("/dev/nvme0n1", {"id_ctrl": (0, "no JSON")}, "not its JSON"),
        ("/dev/nvme0n1", {"id_ctrl": (0, '{"oacs": 2, "fna": 1}'), "list_ns": (0, TWO)}, "all 2 namespaces"),
        ("/dev/nvme0n1", {"id_ns": (1, "")}, "it does not tell its sectors"),
    ],
)
def test_what_the_device_cannot_do_for_this_namespace_alone_is_not_asked_of_it(path, answers, words):
    device = Device(**answers)
    said = secure_erase(path, device)
    assert said.startswith("no secure erase by the device itself: ")
    assert words in said
    assert "format" not in [argv[1] for argv in device.asked]


def test_a_format_that_fails_is_told():
    assert "--force` ended with 3" in secure_erase("/dev/nvme0n1", Device(format=(3, "")))
