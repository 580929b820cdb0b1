"""The journal after each end that a process can have, and what it forgets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from squad_lit.deploy.watch.arrival import Arrival
from squad_lit.deploy.watch.journal import Journal


def arrival(name: str, stamp: str = "1") -> Arrival:
    return Arrival(Path("/in") / name, stamp)


def test_lines_stay_until_they_are_delivered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "watch.db")
    assert journal.unwritten() == (0, [])
    journal.add([(arrival("a"), {"score": 1}), (arrival("b"), {"score": 2})], place=70, post=True)
    journal.close()
    journal = Journal(tmp_path / "watch.db")
    place, lines = journal.unwritten()
    assert place == 70
    assert [json.loads(line.text) for line in lines] == [{"id": 1, "score": 1}, {"id": 2, "score": 2}]
    assert journal.is_judged(arrival("a"))
    assert not journal.is_judged(arrival("a", "2"))
    assert not journal.is_judged(arrival("c"))
    journal.posted(lines[0])
    journal.wrote()
    assert journal.unwritten() == (0, [])
    assert journal.next_to_post() == lines[1]
    assert journal.count_to_post() == 1
    journal.posted(lines[1])
    assert journal.next_to_post() is None
    journal.add([(arrival("a", "2"), {})], place=90, post=False)
    assert journal.next_to_post() is None
    assert journal.unwritten()[1][0].id == 3
    assert (journal.stamp(Path("/in/a")), journal.stamp(Path("/in/c"))) == ("2", None)
    journal.add([(arrival("a", "3"), {})], place=90, post=False)
    assert [line.id for line in journal.unwritten()[1]] == [3, 4]


def test_an_entry_that_was_cut_off_is_none(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from squad_lit.deploy.watch.arrival import Arrival
from squad_lit.deploy.watch.journal import Journal

def many():
    for i in range(20_000):  # more than the data base holds in memory
        yield Arrival(Path(f"/in/{{i}}"), "1"), {{"text": 100 * "x"}}
    os._exit(7)

journal = Journal(Path({str(tmp_path / "watch.db")!r}))
journal.add([(Arrival(Path("/in/first"), "1"), {{}})], place=0, post=True)
journal.add(many(), place=9, post=True)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    assert (tmp_path / "watch.db").stat().st_size > 1_000_000  # half of it is in the file
    journal = Journal(tmp_path / "watch.db")
    assert journal.count_to_post() == 1
    assert journal.is_judged(arrival("first"))
    assert not journal.is_judged(arrival("0"))


def test_only_what_is_gone_and_old_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "watch.db")
    journal.add([(arrival(str(i)), {}) for i in range(10)], place=0, post=False)
    journal.forget(lambda one: one.path.name in "13", remembered=4)
    assert [i for i in range(10) if journal.is_judged(arrival(str(i)))] == [1, 3, 6, 7, 8, 9]
    journal.add([(arrival("new"), {})], place=0, post=False)
    assert journal.unwritten()[1][-1].id == 11


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/in/\xff.png"))
    journal = Journal(tmp_path / "watch.db")
    journal.add([(Arrival(path, "1"), {"image_path": str(path)})], place=0, post=True)
    assert journal.is_judged(Arrival(path, "1"))
    assert json.loads(journal.unwritten()[1][0].text)["image_path"] == str(path)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "watch.db").write_bytes(b"no data base" * 100)
    with pytest.raises(ValueError, match=r"watch\.db is damaged .* remove it"):
        Journal(tmp_path / "watch.db")
    with pytest.raises(OSError, match="cannot open"):
        Journal(tmp_path / "absent" / "watch.db")
