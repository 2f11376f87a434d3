"""Package sources as apt itself judges them: one key each, another key's signature refused, all or nothing."""

from __future__ import annotations

KEYRING = "/etc/apt/keyrings/bedplate-tools.gpg"
LIST = "/etc/apt/sources.list.d/bedplate-tools.sources"
FOREIGN = "/etc/apt/sources.list.d/tools-by-hand.list"


def candidate(host) -> str:
    return host.check_output("apt-cache policy proof | sed -n 's/.*Candidate: //p'")


def served(host, command: str) -> None:
    host.check_output(f"sudo systemctl {command} mirror.service")


def test_the_package_manager_takes_packages_from_it(host, converged):
    assert candidate(host) == "1"
    host.check_output("sudo apt-get install -y proof")
    assert host.package("proof").version == "1"


def test_a_wrong_fingerprint_is_refused_with_both_before_anything_is_written(refused, source, mirror):
    said = refused({"package_source_sources": [source(fingerprint=mirror["keys"]["stranger"])]})
    assert f"stated fingerprint is {mirror['keys']['stranger']}" in said
    assert f"the key found is {mirror['keys']['vendor']}" in said


def test_a_repository_that_another_key_has_signed_is_refused_by_apt_and_all_is_put_back(
    host, converged, refused, source
):
    said = refused({"package_source_sources": [source("forged")]})
    assert "the package manager refuses this source" in said
    assert "NO_PUBKEY" in said or "not signed" in said
    assert "The files are as they were before" in said
    assert candidate(host) == "1"


def test_a_new_key_takes_the_place_of_the_old_one(host, sources, source, refused, mirror):
    assert sources(source("rotated", "next")).changed == 1
    assert candidate(host) == "2"
    # The old key is not left beside it: what only that one signed is refused now.
    said = refused({"package_source_sources": [source("tools", "next")]})
    assert "the package manager refuses this source" in said


def test_a_second_run_asks_no_server(host, converged, sources, source):
    served(host, "stop")
    try:
        assert sources(source()).changed == 0
    finally:
        host.check_output(
            "sudo systemd-run --unit=mirror --collect"
            " python3 -m http.server 8099 --bind 127.0.0.1 --directory /srv/mirror"
        )


def test_a_folder_on_the_machine_is_a_mirror_too(host, sources, source):
    assert sources(source(url="file:///srv/mirror/tools")).changed == 1
    assert candidate(host) == "1"
    assert sources(source(url="file:///srv/mirror/tools")).changed == 0


def test_another_entry_for_the_repository_is_named_and_by_leave_put_aside(host, sources, source, refused, mirror):
    sources()
    host.check_output(f"echo 'deb [trusted=yes] {mirror['url']}/tools /' | sudo tee {FOREIGN}")
    try:
        assert FOREIGN in refused({"package_source_sources": [source()]})
        assert not host.file(LIST).exists
        assert sources(source(), package_source_take_over=True).changed == 1
        assert not host.file(FOREIGN).exists
        assert host.file(f"{FOREIGN}.disabled").exists
        # apt is content: not one warning about two entries.
        assert "W:" not in host.check_output("apt-cache policy 2>&1")
    finally:
        host.check_output(f"sudo rm -f {FOREIGN} {FOREIGN}.disabled")


def test_what_is_no_longer_declared_goes_away_and_nothing_else_does(host, converged, sources):
    before = set(host.check_output("sudo find /etc/apt -type f").splitlines())
    assert sources().changed == 1
    assert before - set(host.check_output("sudo find /etc/apt -type f").splitlines()) == {LIST, KEYRING}


def test_another_package_manager_is_waited_for(host, converged, sources, source):
    lock = "import fcntl,time; f=open('/var/lib/apt/lists/lock','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(6)"
    host.check_output(f'sudo systemd-run --unit=locker --collect python3 -c "{lock}"')
    assert sources(source(), package_source_cache_valid_time=0).changed == 0
    assert not host.service("locker").is_running


def test_a_lock_that_stays_is_named_with_who_holds_it(host, converged, refused, source):
    lock = "import fcntl,time; f=open('/var/lib/apt/lists/lock','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(600)"
    host.check_output(f'sudo systemd-run --unit=locker --collect python3 -c "{lock}"')
    try:
        variables = {"package_source_cache_valid_time": 0, "package_source_lock_timeout": 1}
        said = refused({"package_source_sources": [source()], **variables})
    finally:
        host.check_output("sudo systemctl stop locker")
    assert "holds its lock for 1 s already" in said
    assert "python3" in said
