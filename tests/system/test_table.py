"""Tables: the truths are the text that went in, and a reader that knows nothing of this one."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squad_lit.system.table import append_row, read_rows, write_rows

ODD = ["carriage\rreturn.png", "line\nfeed.png", "both\r\n.png", "=1+1|cmd.png", "@sum.png", 'comma, "quote".png']
ODD += ["-dash.png", "+.png", "\tat.png", "a;=1+1.png", "'=x", "''", " trailing ", os.fsdecode(b"\xff.png"), "ü.png"]
ODD += ["\uff1d1+1.png", "", "'"]


def test_names_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [{"name": name, "score": f"{-1.5 * i:g}", "label": i} for i, name in enumerate(ODD)]
    write_rows(path, rows)
    expected = [{key: str(value) for key, value in row.items()} for row in rows]
    assert read_rows(path) == expected
    append_row(path, ["\r=1", "-2", 3])
    assert read_rows(path) == [*expected, {"name": "\r=1", "score": "-2", "label": "3"}]


def test_another_reader_sees_as_many_rows_and_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_rows(path, [{"name": name, "score": -2.5, "text": "-1e-07", "defect": name} for name in ODD])
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "score", "text", "defect"]
    assert len(rows) == len(ODD)
    for row, name in zip(rows, ODD, strict=True):
        assert row[1:3] == ["-2.5", "-1e-07"]  # numbers stay numbers
        assert row[0] == row[3] in (name, f"'{name}")
        assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert b'\n"a;=1+1.png",' in path.read_bytes()  # in one cell also where a semicolon parts the cells


# What Python makes of any name of a file: text, or bytes that are none. A half of a pair alone is neither.
NAMES = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary().map(lambda name: name.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
)


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.lists(NAMES, min_size=2, max_size=2)))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write_rows(path, [dict(zip("ab", row, strict=True)) for row in rows], ["a", "b"])
    assert [[row["a"], row["b"]] for row in read_rows(path)] == rows


def test_what_a_spreadsheet_has_saved_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffname,score\r\nü,1\r\n".encode())
    assert read_rows(tmp_path / "a.csv") == [{"name": "ü", "score": "1"}]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.timeout(20)
def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(OSError, match=r"a\.csv is no regular file"):
        read_rows(tmp_path / "a.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_row_for_which_there_is_no_room_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_rows(path, [{"name": "a", "score": 1}])
    before = path.read_bytes()
    code = """
import resource, sys
from pathlib import Path
from squad_lit.system.table import append_row
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    append_row(Path(sys.argv[1]), ["b" * 100, 2])
except OSError as error:
    print(error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}\n"
    assert path.read_bytes() == before
