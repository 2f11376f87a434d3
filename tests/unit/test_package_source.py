"""Package sources: what a site may declare, which files that makes, and what of a host is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter.package_source import package_source_resolve
from ansible_collections.bedplate.llm.plugins.module_utils import package_source_host as host
from ansible_collections.bedplate.llm.plugins.module_utils import package_source_plan as plans
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import SourceError, files, mirrored, parse
from ansible_collections.bedplate.llm.plugins.module_utils.package_source_plan import State, Wish, checks, decide

KEYS = Path(__file__).with_name("keys")
FIRST, SECOND = (KEYS / "first.asc").read_bytes(), (KEYS / "second.asc").read_bytes()
RSA, ED25519 = "B5E26B1F90B23F235D13564B8F775CC95E61C693", "7F4B9B05C928722973CBEB847C57F9272CBB6487"
ENTRY = {"name": "cuda", "url": "https://example.invalid/cuda/", "key": FIRST, "fingerprint": RSA}
LIST, KEY = "/etc/apt/sources.list.d/bedplate-cuda.sources", "/etc/apt/keyrings/bedplate-cuda.gpg"


def resolved(**changes: Any) -> list[Any]:
    return package_source_resolve([{**ENTRY, "key": str(KEYS / "first.asc"), **changes}])


# --- what a site declares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Cuda"}, "called 'Cuda'"),
        ({"name": "../x"}, "called '../x'"),
        ({"name": None}, "called ''"),
        ({"uri": "x"}, "cuda: uri is not known here; known are name, url"),
        ({"url": ""}, "url is ''; give an address"),
        ({"url": "example.invalid/cuda"}, "url is 'example.invalid/cuda'; give an address"),
        ({"url": "ftp://example.invalid/"}, "url is 'ftp"),
        ({"url": "https://user:secret@example.invalid/"}, "carries a user or password"),
        ({"url": "https://example.invalid/ main\nSigned-By: /x"}, "give an address"),
        ({"url": "http://[::1/"}, "no address"),
        ({"suite": "noble"}, "'noble' needs components"),
        ({"suite": "/", "components": ["main"]}, "has no components; leave main out"),
        ({"suite": "noble", "components": ["main\nTrusted: yes"]}, "is no suite, component or architecture"),
        ({"architectures": ["amd64 [trusted=yes]"]}, "is no suite, component or architecture"),
        ({"fingerprint": ""}, "fingerprint is ''; give all 40"),
        ({"fingerprint": RSA[-16:]}, f"fingerprint is '{RSA[-16:]}'; give all 40"),
        ({"fingerprint": ED25519}, f"stated fingerprint is {ED25519}, and the key found is {RSA}"),
        ({"key": ""}, "key is empty"),
        ({"key": "/nonexistent.asc"}, "the key /nonexistent.asc cannot be read (No such file or directory)"),
        ({"check_metadata": False, "check_packages": False}, "both off"),
    ],
)
def test_a_source_that_cannot_work_is_refused_in_one_sentence(changes, words):
    with pytest.raises(AnsibleFilterError) as refused:
        resolved(**changes)
    assert words in str(refused.value)
    assert str(refused.value).startswith("package_source_sources")
    assert str(refused.value).endswith(".")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"url": "https://example.invalid/other"}, "two sources are called cuda"),
        ({"name": "again"}, "cuda and again are the same repository"),
        ({"name": "again", "url": "HTTPS://Example.invalid/cuda", "suite": "./"}, "cuda and again are the same repo"),
    ],
)
def test_two_sources_that_are_one_are_refused(second, words):
    with pytest.raises(AnsibleFilterError, match=words):
        package_source_resolve([ENTRY | {"key": FIRST.decode()}, {**ENTRY, "key": FIRST.decode(), **second}])


def test_only_the_stated_key_leaves_the_controller(tmp_path):
    both = tmp_path / "both.asc"
    both.write_bytes(FIRST + SECOND)
    (found,) = resolved(key=str(both), fingerprint=f"{ED25519[:20]} {ED25519[20:].lower()}")
    assert found["fingerprint"] == ED25519
    assert parse(found).key == parse({**ENTRY, "key": SECOND, "fingerprint": ED25519}).key


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.invalid/cuda/x/", "http://mirror.invalid/n/cuda/x/"),
        ("https://a.invalid/tools/x/", "file:///srv/tools/x/"),
        ("https://b.invalid/cuda/", "https://b.invalid/cuda/"),
    ],
)
def test_the_longest_beginning_of_an_address_has_its_mirror(url, expected):
    mirrors = {"https://a.invalid/": "http://mirror.invalid/n/", "https://a.invalid/tools/": "file:///srv/tools/"}
    assert mirrored(url, mirrors) == expected
    assert package_source_resolve([{**ENTRY, "key": FIRST.decode(), "url": url}], mirrors)[0]["url"] == expected


def test_a_mirror_that_is_no_address_is_refused():
    with pytest.raises(AnsibleFilterError, match="package_source_mirrors: an address is 'mirror'"):
        package_source_resolve([], {"https://a.invalid/": "mirror"})


# --- the files ------------------------------------------------------------------------------------------------------


def test_the_files_for_apt():
    written = files("apt", parse({**ENTRY, "suite": "noble", "components": ["main", "x"]}), ["b", "a"], "amd64", "")
    assert set(written) == {LIST, KEY}
    assert written[LIST].decode().splitlines()[1:] == [
        "# For: a b",
        "Types: deb",
        "URIs: https://example.invalid/cuda/",
        "Suites: noble",
        "Components: main x",
        "Architectures: amd64",
        f"Signed-By: {KEY}",
    ]


def test_a_proxy_is_set_for_the_sources_host_alone():
    written = files("apt", parse(ENTRY), ["a"], "amd64", "http://proxy.invalid:3128")
    assert written["/etc/apt/apt.conf.d/90bedplate-cuda"].decode().splitlines()[1:] == [
        'Acquire::http::Proxy::example.invalid "http://proxy.invalid:3128";',
        'Acquire::https::Proxy::example.invalid "http://proxy.invalid:3128";',
    ]
    assert len(files("apt", parse({**ENTRY, "url": "file:///srv/cuda"}), ["a"], "amd64", "http://p.invalid")) == 2


def test_the_files_for_dnf():
    written = files("dnf", parse({**ENTRY, "check_packages": False}), ["a"], "", "http://proxy.invalid:3128")
    key = "/etc/pki/rpm-gpg/RPM-GPG-KEY-bedplate-cuda"
    assert set(written) == {"/etc/yum.repos.d/bedplate-cuda.repo", key}
    assert written["/etc/yum.repos.d/bedplate-cuda.repo"].decode().splitlines()[1:] == [
        "# For: a",
        "[bedplate-cuda]",
        "name=bedplate-cuda",
        "baseurl=https://example.invalid/cuda/",
        "enabled=1",
        "gpgcheck=0",
        "repo_gpgcheck=1",
        f"gpgkey=file://{key}",
        "proxy=http://proxy.invalid:3128",
    ]
    assert written[key].startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")


# --- the plan -------------------------------------------------------------------------------------------------------


def wish(*entries: dict[str, Any], owner: str = "driver", **more: Any) -> Wish:
    return Wish(owner, tuple(parse(entry) for entry in entries), **more)


def done(asked: Wish, state: State) -> State:
    """The host after the plan."""
    plan = decide(asked, state)
    after = {path: content for path, content in state.files.items() if path not in {*plan.remove, *plan.aside}}
    after.update({path + plans.ASIDE: state.files[path] for path in plan.aside})
    fetched = tuple({*state.fresh, *plan.update})
    return State(state.manager, state.architecture, {**after, **plan.write}, fetched, fetched)


VIRGIN = State("apt", "amd64", {"/etc/apt/sources.list": b"deb https://deb.invalid/debian bookworm main\n"})


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_a_second_run_changes_and_fetches_nothing(manager):
    state = done(wish(ENTRY), State(manager, "amd64", {}))
    again = decide(wish(ENTRY), state)
    assert (again.changes, again.update) == (False, ())
    assert [check for check in checks(wish(ENTRY), state) if not check.ok] == []


def test_lists_that_are_too_old_are_fetched_again_without_a_change():
    state = done(wish(ENTRY), VIRGIN)
    old = State(state.manager, state.architecture, state.files, indexed=("cuda",))
    assert (decide(wish(ENTRY), old).changes, decide(wish(ENTRY), old).update) == (False, ("cuda",))


def test_another_key_replaces_the_keyring_and_leaves_the_source():
    state = done(wish(ENTRY), VIRGIN)
    plan = decide(wish({**ENTRY, "key": SECOND, "fingerprint": ED25519}), state)
    assert (sorted(plan.write), plan.update) == ([KEY], ("cuda",))


def test_a_source_that_its_role_no_longer_declares_goes_away_and_nothing_else():
    other = {**ENTRY, "name": "other", "url": "https://other.invalid/"}
    foreign = {"/etc/apt/keyrings/docker.gpg": b"", "/etc/apt/sources.list.d/bedplate.list": b"# mine\n"}
    before = State("apt", "amd64", {**VIRGIN.files, **foreign})
    proxied = wish(ENTRY, proxy="http://proxy.invalid")
    state = done(wish(other, owner="toolkit"), done(proxied, before))
    plan = decide(wish(), state)
    assert set(plan.remove) == {LIST, KEY, "/etc/apt/apt.conf.d/90bedplate-cuda"}
    assert plan.write == {}
    after = done(wish(), state)
    assert set(after.files) == {*before.files, LIST.replace("cuda", "other"), KEY.replace("cuda", "other")}


def test_a_proxy_that_is_no_longer_asked_for_goes_away():
    state = done(wish(ENTRY, proxy="http://proxy.invalid"), VIRGIN)
    assert decide(wish(ENTRY), state).remove == ("/etc/apt/apt.conf.d/90bedplate-cuda",)


def test_two_roles_share_a_source_until_the_last_one_leaves():
    state = done(wish(ENTRY, owner="toolkit"), done(wish(ENTRY), VIRGIN))
    assert b"# For: driver toolkit\n" in state.files[LIST]
    # Either one runs again: nothing to do, although it is not the only one.
    assert not decide(wish(ENTRY), state).changes
    assert not decide(wish(ENTRY, owner="toolkit"), state).changes
    left = done(wish(), state)
    assert b"# For: toolkit\n" in left.files[LIST]
    assert KEY in left.files
    assert LIST not in done(wish(owner="toolkit"), left).files


def test_what_an_interrupted_run_left_is_removed():
    assert decide(wish(), State("apt", "amd64", {KEY: FIRST})).remove == (KEY,)


# --- other files with the same repository ---------------------------------------------------------------------------

CUDA_LIST = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"
SAME = b"deb [signed-by=/usr/share/keyrings/cuda.gpg] https://example.invalid/cuda /\n"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (CUDA_LIST, SAME),
        (CUDA_LIST, b"# NVIDIA\n\ndeb https://Example.invalid/cuda/ ./\n"),
        ("/etc/apt/sources.list", b"deb https://deb.invalid/ x main\n" + SAME),
        (
            "/etc/apt/sources.list.d/nvidia.sources",
            b"Types: deb\nURIs: https://deb.invalid\n https://example.invalid/cuda\nSuites: /\n",
        ),
        ("/etc/apt/sources.list.d/n.sources", b"Types: deb\nURIs: x:/\nSuites: y\n\n# z\nTypes: deb deb-src\n" + (
            b"# comment\nURIs: https://example.invalid/cuda/\nSuites: /\nEnabled: yes\n")),
    ],
)  # fmt: skip
def test_a_second_entry_for_the_repository_is_named_and_nothing_is_written(path, content):
    with pytest.raises(SourceError, match=rf"{path} names the same repository .* remove that file, or set"):
        decide(wish(ENTRY), State("apt", "amd64", {path: content}))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (CUDA_LIST, b"# " + SAME),
        (CUDA_LIST, SAME.replace(b"deb ", b"deb-src ")),
        (CUDA_LIST, SAME.replace(b"/cuda /", b"/cuda noble main")),
        (CUDA_LIST + ".disabled", SAME),
        (CUDA_LIST + ".save", SAME),
        (
            "/etc/apt/sources.list.d/n.sources",
            b"Types: deb\nURIs: https://example.invalid/cuda/\nSuites: /\nEnabled: no\n",
        ),
    ],
)
def test_an_entry_that_is_off_or_of_another_repository_is_in_nobodys_way(path, content):
    plan = decide(wish(ENTRY), State("apt", "amd64", {path: content}))
    assert (set(plan.write), plan.remove, plan.aside) == ({LIST, KEY}, (), ())


def test_dnf_reads_the_same_of_its_own_files():
    repo = b"[main]\nbaseurl=https://a.invalid/\n[cuda]\nbaseurl = https://example.invalid/cuda\nenabled=1\n"
    with pytest.raises(SourceError, match=r"cuda-rhel9\.repo names the same repository"):
        decide(wish(ENTRY), State("dnf", "", {"/etc/yum.repos.d/cuda-rhel9.repo": repo}))
    off = repo.replace(b"enabled=1", b"enabled=0")
    assert decide(wish(ENTRY), State("dnf", "", {"/etc/yum.repos.d/cuda-rhel9.repo": off})).changes


def test_a_source_of_rpm_has_no_suite():
    with pytest.raises(SourceError, match="a source of RPM packages has none"):
        decide(wish({**ENTRY, "suite": "noble", "components": ["main"]}), State("dnf", "", {}))


def test_by_leave_the_other_file_is_put_aside():
    plan = decide(wish(ENTRY, take_over=True), State("apt", "amd64", {CUDA_LIST: SAME}))
    assert plan.aside == (CUDA_LIST,)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({CUDA_LIST: SAME + b"deb https://other.invalid/ /\n"}, "among others"),
        ({"/etc/apt/sources.list": SAME}, "among others"),
        ({CUDA_LIST: SAME, CUDA_LIST + ".disabled": b""}, "exists; remove one of them"),
    ],
)
def test_a_file_with_more_in_it_is_not_put_aside(more, words):
    with pytest.raises(SourceError, match=words):
        decide(wish(ENTRY, take_over=True), State("apt", "amd64", more))


def test_one_repository_under_two_of_our_names_is_told_the_one():
    state = done(wish({**ENTRY, "name": "nvidia"}, owner="toolkit"), VIRGIN)
    with pytest.raises(SourceError, match="give both the name nvidia"):
        decide(wish(ENTRY), state)


def test_a_source_that_was_renamed_takes_the_place_of_the_old_one():
    state = done(wish({**ENTRY, "name": "nvidia"}), VIRGIN)
    after = done(wish(ENTRY), state)
    assert set(after.files) == {*VIRGIN.files, LIST, KEY}


def test_a_key_that_may_sign_everything_is_reported():
    state = State("apt", "amd64", {"/etc/apt/trusted.gpg.d/cuda.asc": FIRST, "/etc/apt/trusted.gpg": b"keybox"})
    (warning,) = decide(wish(ENTRY), state).warnings
    assert "/etc/apt/trusted.gpg.d/cuda.asc lets the key of cuda sign for every repository" in warning
    said = {check.id: check.reason for check in checks(wish(ENTRY), done(wish(ENTRY), state))}
    assert warning in said["driver.source-keys"]


# --- the checks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failing", "words"),
    [
        ({LIST: None}, ["source-files"], LIST),
        ({LIST: b"# For: driver\nTypes: deb\n"}, ["source-files"], LIST),
        ({KEY: None}, ["source-files", "source-keys"], "is missing"),
        (
            {KEY: FIRST + SECOND},
            ["source-files", "source-keys"],
            f"{ED25519} (Next mirror <next@test.invalid>), and {RSA}",
        ),
        ({KEY: b"nonsense"}, ["source-files", "source-keys"], "is no keyring"),
        ({CUDA_LIST: SAME}, ["source-single"], CUDA_LIST),
        ({"/etc/apt/keyrings/bedplate-old.gpg": FIRST}, ["source-files"], "bedplate-old.gpg"),
    ],
)
def test_what_differs_from_the_declaration_is_a_failing_check_of_that_role(change, failing, words):
    whole = done(wish(ENTRY), VIRGIN)
    files_now = {path: content for path, content in {**whole.files, **change}.items() if content is not None}
    state = State("apt", "amd64", files_now, whole.indexed, whole.fresh)
    found = [check for check in checks(wish(ENTRY), state) if not check.ok]
    assert [check.id for check in found] == [f"driver.{name}" for name in failing]
    assert any(words in check.reason for check in found)
    assert all(check.remedy for check in found)


def test_a_source_without_a_list_of_packages_is_a_failing_check():
    whole = done(wish(ENTRY), VIRGIN)
    found = checks(wish(ENTRY), State("apt", "amd64", whole.files))
    assert [check.id for check in found if not check.ok] == ["driver.source-index"]


# --- the package manager --------------------------------------------------------------------------------------------


class Manager:
    """Answers one after the other."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers, self.calls = list(answers), 0

    def __call__(self, _argv: list[str]) -> tuple[int, str, str]:
        self.calls += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


LOCKED = (100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)")


@pytest.fixture(autouse=True)
def stamps(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "STAMPS", str(tmp_path / "stamps"))


def test_another_package_manager_is_waited_for():
    manager, waits = Manager(LOCKED, LOCKED, (0, "", "")), []
    host.update("apt", "cuda", 60, manager, clock=lambda: 0, sleep=waits.append)
    assert (manager.calls, len(waits)) == (3, 2)
    assert Path(host.stamp("cuda")).exists()


def test_a_lock_that_is_never_given_back_is_named_with_who_holds_it():
    times = iter(range(0, 1000, 20))
    with pytest.raises(SourceError, match=r"holds its lock for 60 s already.*process 7"):
        host.update("apt", "cuda", 60, Manager(LOCKED), clock=lambda: next(times), sleep=lambda _seconds: None)
    assert not Path(host.stamp("cuda")).exists()


def test_what_the_package_manager_says_against_a_source_is_passed_on():
    said = "E: The repository 'https://example.invalid/cuda  InRelease' is not signed."
    with pytest.raises(SourceError, match="refuses this source; it says: E: The repository"):
        host.update("apt", "cuda", 60, Manager((100, "Get:1 x", said)), sleep=lambda _seconds: None)


def test_apt_asks_for_one_source_and_takes_no_old_list_for_a_new_one():
    argv = host.update_argv("apt", "cuda")
    assert "-oDir::Etc::sourceparts=/dev/null" in argv
    assert f"-oDir::Etc::sourcelist={LIST}" in argv
    assert "-oAPT::Update::Error-Mode=any" in argv


def test_a_host_without_either_package_manager_is_told_so():
    assert host.find_manager(lambda path: path == "/usr/bin/dnf") == "dnf"
    with pytest.raises(SourceError, match="neither apt-get nor dnf"):
        host.find_manager(lambda _path: False)
