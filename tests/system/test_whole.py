"""Files that are written whole: the truths are the content before and what an operating system does."""

import errno
import os
from pathlib import Path

import pytest

from squad_lit.system.file import digest, fitting, whole


def test_a_file_is_replaced_at_the_end_and_kept_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for flush in (False, True):
        path.write_text("before")
        with pytest.raises(UnicodeEncodeError), whole(path, flush=flush) as part:
            part.write_text("half\ud800", encoding="utf-8")
        assert path.read_text() == "before"
        with whole(path, flush=flush) as part:
            part.write_text("after")
            assert path.read_text() == "before"
        assert path.read_text() == "after"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_names_the_file(tmp_path: Path, named: bool) -> None:
    with pytest.raises(OSError, match="No space left") as caught, whole(tmp_path / "a.txt") as part:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(part)] if named else []))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    with pytest.raises(FileNotFoundError, match="another"), whole(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert not list(tmp_path.iterdir())


def test_two_processes_that_write_one_file_do_not_share_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with whole(tmp_path / "a.txt") as mine:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole(tmp_path / "a.txt") as other:
            assert mine != other
            mine.write_text("mine")
            other.write_text("other")
        assert (tmp_path / "a.txt").read_text() == "other"
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_digest_is_the_start_of_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-4
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea"


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, b"\xff".decode("utf-8", "surrogateescape") * 255, "日" * 85])
def test_a_name_as_long_as_can_be_is_written_whole(tmp_path: Path, name: str) -> None:
    with whole(tmp_path / name) as part:
        part.write_text("after")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    shorter = fitting(name, 20)
    assert len(os.fsencode(shorter)) <= 235
    assert shorter != fitting(f"{name[:-1]}b", 20)  # another name is told from it
    assert fitting(f"{name}/{'b' * 235}", 20) == f"{name}/{'b' * 235}"  # a folder needs no room
