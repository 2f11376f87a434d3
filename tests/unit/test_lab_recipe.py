"""Which image is built from which sources, and when it counts as another image."""

import dataclasses

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_recipe as recipes
from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import os_release
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm"}


def target(release="bookworm", codename=None, **changes):
    return {
        "Created-By": "Packages",
        "Repo-URI": "http://mirror.example/debian/",
        "Release": release,
        "Codename": codename or release,
        "Component": "main",
        "Architecture": "amd64",
        "Origin": "Debian",
        **changes,
    }


def test_index_targets_are_paragraphs_of_fields():
    text = "Release: bookworm\nURI: http://mirror.example/a: b\n\nRelease: trixie\n\n"
    assert recipes.parse_index_targets(text) == [
        {"Release": "bookworm", "URI": "http://mirror.example/a: b"},
        {"Release": "trixie"},
    ]


def test_only_the_distributions_own_release_and_its_updates_are_taken():
    chosen = recipes.choose_sources(
        [
            target(),
            target(Component="contrib"),
            target("bookworm-updates"),
            target("bookworm-security", **{"Repo-URI": "http://mirror.example/security/"}),
            target("bookworm-backports"),
            target("trixie"),
            target(Origin="Vendor", **{"Repo-URI": "http://vendor.example/"}),
            target(Architecture="i386", Component="non-free"),
            target(**{"Created-By": "Translations", "Component": "non-free"}),
        ],
        "Debian",
        "bookworm",
        "amd64",
    )
    assert [source.line for source in chosen] == [
        "deb http://mirror.example/debian/ bookworm main contrib",
        "deb http://mirror.example/debian/ bookworm-updates main",
        "deb http://mirror.example/security/ bookworm-security main",
    ]


def test_ubuntu_pockets_share_the_codename_of_their_release():
    chosen = recipes.choose_sources(
        [target("noble", Origin="Ubuntu"), target("noble-security", "noble", Origin="Ubuntu")],
        "Ubuntu",
        "noble",
        "amd64",
    )
    assert [source.suite for source in chosen] == ["noble", "noble-security"]


def test_a_third_partys_repository_with_the_same_release_name_stays_out():
    vendor = target(Origin="Vendor", **{"Repo-URI": "http://vendor.example/"})
    chosen = recipes.choose_sources([vendor, target()], "Debian", "bookworm", "amd64")
    assert [source.uri for source in chosen] == ["http://mirror.example/debian/"]


def test_without_package_lists_the_operator_is_told_to_fetch_them():
    with pytest.raises(LabError, match="apt-get update"):
        recipes.choose_sources([], "Debian", "bookworm", "amd64")


def make(kind="container", targets=None, packages=()):
    return recipes.make_recipe(kind, DEBIAN, "amd64", targets or [target()], packages)


def test_the_image_is_the_same_from_another_mirror():
    assert make().name == make(targets=[target(**{"Repo-URI": "http://other.example/"})]).name


@pytest.mark.parametrize(
    "other",
    [
        make(packages=["gcc"]),
        make(kind="vm"),
        make(targets=[target(), target("bookworm-security")]),
        dataclasses.replace(make(), architecture="arm64"),
        dataclasses.replace(make(), codename="trixie"),
    ],
)
def test_anything_that_changes_the_image_changes_its_name(other):
    assert other.digest != make().digest


def test_the_order_and_repetition_of_packages_is_no_other_image():
    assert make(packages=["gcc", "make"]).name == make(packages=["make", "gcc", "curl", "gcc"]).name


@pytest.mark.parametrize(
    ("distribution", "kernel"), [("debian", "linux-image-cloud-amd64"), ("ubuntu", "linux-image-virtual")]
)
def test_only_a_virtual_machine_brings_a_kernel(distribution, kernel):
    release = {"ID": distribution, "VERSION_CODENAME": "bookworm"}
    targets = [target(Origin=recipes.ORIGINS[distribution])]
    assert kernel in recipes.make_recipe("vm", release, "amd64", targets, []).packages
    assert kernel not in recipes.make_recipe("container", release, "amd64", targets, []).packages


@pytest.mark.parametrize("release", [{"ID": "fedora", "VERSION_CODENAME": "x"}, {"ID": "debian"}])
def test_another_distribution_is_refused(release):
    with pytest.raises(LabError, match="needs Debian or Ubuntu"):
        recipes.make_recipe("container", release, "amd64", [target()], [])


def test_quotes_in_os_release_are_not_part_of_the_value():
    assert os_release("ID=debian\nPRETTY_NAME=\"Debian 12\"\n# x\nVERSION_CODENAME='a'\n") == {
        "ID": "debian",
        "PRETTY_NAME": "Debian 12",
        "VERSION_CODENAME": "a",
    }
