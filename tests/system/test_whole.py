"""Files that are written whole: the truths are the content before and what an operating system does."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squad_lit.system.file import digest, fitting, temporary_folder, whole, whole_beside
from squad_lit.system.lock import in_use, remove_abandoned


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


def test_two_that_write_one_file_do_not_share_a_part(tmp_path: Path) -> None:
    with whole(tmp_path / "a.txt") as mine:
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


_WRITER = """
import pathlib, sys
from squad_lit.system import file
with getattr(file, sys.argv[1])(pathlib.Path(sys.argv[2])) as part:
    (part / "half" if part.is_dir() else part).write_text("half")
    print(flush=True)
    input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing says there who has a file")
def test_what_a_killed_process_has_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    names = {"whole": "a.txt", "whole_beside": "a.onnx", "temporary_folder": ""}
    mine = tmp_path / "film.1.part"  # of a browser
    mine.write_text("mine")

    def start(kind: str) -> subprocess.Popen[bytes]:
        made = subprocess.Popen([sys.executable, "-c", _WRITER, kind, str(tmp_path / names[kind])], stdin=-1, stdout=-1)
        assert made.stdout is not None
        made.stdout.readline()
        return made

    killed = [start(kind) for kind in names]
    left = set(tmp_path.iterdir()) - {mine}
    assert len(left) == 3
    for process in killed:
        process.kill()
        process.communicate()
    writing = [start(kind) for kind in names]  # the first of these removes what is left
    kept = set(tmp_path.iterdir())
    assert not kept & left
    assert len(kept) == 4
    subprocess.run([sys.executable, "-c", _WRITER, "whole", str(tmp_path / "b")], input=b"\n", check=True)
    assert set(tmp_path.iterdir()) == kept | {tmp_path / "b"}
    for process in writing:
        process.communicate(b"\n")
        assert process.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"film.1.part", "a.txt", "b", "half"}
    assert (tmp_path / "half").read_text() == (tmp_path / "a.txt").read_text() == "half"


@pytest.mark.parametrize("make", [whole_beside, temporary_folder])
def test_a_temporary_folder_is_removed_after_an_error(tmp_path: Path, make: Callable[..., Any]) -> None:
    place = tmp_path if make is temporary_folder else tmp_path / "a"
    with pytest.raises(FileExistsError), make(place) as made:  # noqa: PT012
        (made / "half").mkdir()
        (made / "half").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path / f"{len(made)}.part")
        made[-1].touch()
        if len(made) < 3:
            remove_abandoned(made[-1])  # of another process, which is faster
        return made[-1]

    with in_use(make) as part:
        assert part == tmp_path / "2.part"
        remove_abandoned(part)
        assert [path.name for path in tmp_path.iterdir()] == ["2.part"]
    remove_abandoned(part)
    assert not part.exists()
