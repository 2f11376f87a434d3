"""mdadm's configuration gets a line for each array, and keeps what others wrote."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_boot import BootLineError, merged
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_host import ArrayError, Boot
from md_samples import ARRAY, OTHER, UUID

PATH = "/etc/mdadm/mdadm.conf"
OURS = f"ARRAY /dev/md/bedplate-weights metadata=1.2 UUID={UUID}\n"
DEBIAN = "# mdadm.conf\n\nHOMEHOST <system>\nMAILADDR root\nPROGRAM /usr/local/bin/page-me\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "MAILADDR root\n" + OURS),
        (DEBIAN, DEBIAN + OURS),
        (DEBIAN.rstrip("\n"), DEBIAN + OURS),
        (DEBIAN + OURS, DEBIAN + OURS),
        (OURS + DEBIAN, OURS + DEBIAN),
        # Somebody's line for the same array, as `mdadm --detail --scan` or the package writes it, is as good.
        (f"ARRAY /dev/md/weights UUID={UUID.upper()}\n", f"ARRAY /dev/md/weights UUID={UUID.upper()}\n"),
        (f"ARRAY /dev/md0\n  name=x:0\n  UUID={UUID}\n", f"ARRAY /dev/md0\n  name=x:0\n  UUID={UUID}\n"),
        # Of an array that was given up; the line that continues it goes as well.
        (f"ARRAY /dev/md/bedplate-weights\n\tUUID={OTHER}\nMAILADDR x\n", "MAILADDR x\n" + OURS),
        # Other arrays, also such that only look like ours.
        (f"ARRAY /dev/md0 UUID={OTHER}\n", f"ARRAY /dev/md0 UUID={OTHER}\n" + OURS),
        (f"# {OURS}", f"# {OURS}{OURS}"),
        ("ARRAY /dev/md/bedplate-weights2 name=y\n", "ARRAY /dev/md/bedplate-weights2 name=y\n" + OURS),
    ],
)
def test_the_line_is_there_once_and_the_others_stay(text: str, wanted: str):
    assert merged(text, ARRAY, UUID, PATH) == wanted
    assert merged(wanted, ARRAY, UUID, PATH) == wanted


def test_an_array_that_somebody_wants_ignored_is_told():
    with pytest.raises(BootLineError, match=r"says that array 0f8f6c1e.* is to be ignored: 'ARRAY <ignore> UUID="):
        merged(f"ARRAY <ignore> UUID={UUID}\n", ARRAY, UUID, PATH)


@pytest.mark.parametrize(
    ("there", "preferred", "used"),
    [
        ([], "/etc/mdadm/mdadm.conf", "/etc/mdadm/mdadm.conf"),
        ([], "/etc/mdadm.conf", "/etc/mdadm.conf"),
        (["etc/mdadm.conf"], "/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"),
        (["etc/mdadm.conf", "etc/mdadm/mdadm.conf"], "/etc/mdadm/mdadm.conf", "/etc/mdadm/mdadm.conf"),
    ],
)
def test_the_file_that_mdadm_reads_is_the_one(tmp_path, there, preferred, used):
    for path in there:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(DEBIAN)
    boot = Boot(preferred, tmp_path)
    assert boot.path == used
    boot.write(boot.wanted(ARRAY, UUID))
    assert (tmp_path / used.lstrip("/")).read_text().endswith(OURS)
    assert (tmp_path / used.lstrip("/")).stat().st_mode & 0o777 == 0o644
    assert Boot(preferred, tmp_path).wanted(ARRAY, UUID) == ""


def test_a_clash_is_one_sentence(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/mdadm.conf").write_text(f"ARRAY <ignore> UUID={UUID}\n")
    with pytest.raises(ArrayError, match=r"/etc/mdadm\.conf says that array"):
        Boot("/etc/mdadm.conf", tmp_path).wanted(ARRAY, UUID)
