"""What bundle_push sends: only what is missing, from where the last attempt ended, small files together."""

import hashlib

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.transfer import (
    CHUNK,
    MIB,
    SMALL,
    File,
    Stream,
    TransferError,
    parse,
    plan,
    progress,
    verified,
)
from ansible_collections.bedplate.llm.plugins.modules import bundle_push

BIG = File("wheels/torch.whl", "a" * 64, 200 * MIB)
LITTLE = File("requirements.txt", "b" * 64, 10)


@pytest.mark.parametrize(
    ("present", "partial", "streams", "archives"),
    [
        ([], {}, [Stream(BIG, 0)], [[LITTLE]]),
        ([BIG.path], {}, [], [[LITTLE]]),
        ([LITTLE.path], {BIG.path: 5 * MIB}, [Stream(BIG, 5 * MIB)], []),
        ([LITTLE.path], {BIG.path: BIG.size}, [Stream(BIG, BIG.size)], []),
        ([LITTLE.path], {BIG.path: BIG.size + 1}, [Stream(BIG, 0)], []),
        ([BIG.path, LITTLE.path], {}, [], []),
    ],
)
def test_only_what_is_missing_is_sent_from_where_it_ended(present, partial, streams, archives):
    made = plan([BIG, LITTLE], present, partial)
    assert (made.streams, made.archives) == (streams, archives)


def test_bytes_leave_out_what_an_interrupted_transfer_left():
    assert plan([BIG, LITTLE], [], {BIG.path: 150 * MIB}).bytes == 50 * MIB + 10


def test_small_files_share_archives_that_fit_one_chunk():
    files = [File(f"{number}.whl", "c" * 64, SMALL - 1) for number in range(20)]
    archives = plan(files, [], {}).archives
    assert [file for archive in archives for file in archive] == files
    assert all(sum(file.size for file in archive) <= CHUNK for archive in archives)
    assert len(archives) < len(files) / 4


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "./a"])
def test_a_path_out_of_its_folder_is_refused(path):
    with pytest.raises(TransferError, match="stay within their folder"):
        parse([{"path": path, "sha256": "a", "size": 1}])


def test_progress_names_bytes_and_rate():
    assert progress(50 * MIB, 200 * MIB, 2.0) == "50.0 of 200.0 MiB, 25 MiB/s"


def test_a_file_that_changed_since_it_was_hashed_is_hashed_again():
    stamp = {"size": 1, "mtime_ns": 2, "inode": 3}
    index = {"a": {"sha256": "d", **stamp}}
    assert verified(index, "a", "d", stamp)
    assert not verified(index, "a", "d", {**stamp, "mtime_ns": 4})
    assert not verified(index, "a", "e", stamp)
    assert not verified({}, "a", "d", stamp)


def test_looking_a_second_time_writes_nothing_on_the_host(tmp_path):
    (tmp_path / "wheel").write_bytes(b"content")
    files = [File("wheel", hashlib.sha256(b"content").hexdigest(), 7)]
    assert bundle_push.query(files, str(tmp_path), remember=True) == (["wheel"], {})
    index = tmp_path / bundle_push.INDEX
    before = index.stat()
    assert bundle_push.query(files, str(tmp_path), remember=True) == (["wheel"], {})
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_file_that_somebody_changed_is_not_taken_for_verified(tmp_path):
    path = tmp_path / "wheel"
    path.write_bytes(b"content")
    files = [File("wheel", hashlib.sha256(b"content").hexdigest(), 7)]
    bundle_push.query(files, str(tmp_path), remember=True)
    path.write_bytes(b"CONTENT")
    assert bundle_push.query(files, str(tmp_path), remember=True) == ([], {})
