"""The table as a log: what is appended, also after a kill in the middle, and what is removed."""

from pathlib import Path

import pytest

from squad_lit.deploy.output_folder import HEADER, files
from squad_lit.deploy.watch.row_log import RowLog


def row(name: str, stamp: str = "1") -> dict[str, str]:
    return dict.fromkeys(HEADER, "0") | {"image_path": f"/in/{name}", "name": name, "file": stamp}


def names(log: RowLog) -> list[str]:
    return [found["name"] for found in log.rows()]


@pytest.mark.parametrize("left", [0, 1, 30, -1, None])
def test_rows_are_there_once_however_much_of_them_a_kill_left(tmp_path: Path, left: int | None) -> None:
    log = RowLog(tmp_path)
    log.append([row("a")], log.size)
    place = log.size
    rows = [row("b,\n"), row("ü")]
    log.append(rows, place)
    table = tmp_path / "predictions.csv"
    content = table.read_bytes()
    table.write_bytes(content[:place] + content[place:][:left])
    log = RowLog(tmp_path)
    log.append(rows, place)
    assert table.read_bytes() == content
    assert names(log) == ["a", "b,\n", "ü"]


def test_rows_of_others_are_left_alone(tmp_path: Path) -> None:
    log = RowLog(tmp_path)
    place = log.size
    log.append([row("a")], place)
    log.append([row("b")], place)  # meanwhile another command has rewritten the table
    assert names(log) == ["a", "b"]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("image_path,label\na,1\n")
    with pytest.raises(ValueError, match="has other columns"):
        RowLog(tmp_path)


def test_the_oldest_are_removed_with_their_files(tmp_path: Path) -> None:
    log = RowLog(tmp_path, keep=10)
    for i in range(10):
        log.append([row(f"{i // 5}/{i}")], log.size)
        for file in files(tmp_path, f"{i // 5}/{i}").values():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    log.rotate(lambda found: False)
    assert len(names(log)) == 10
    log = RowLog(tmp_path, keep=4)
    log.rotate(lambda found: found["name"] == "1/5")  # its files are of a later row
    assert names(log) == ["1/6", "1/7", "1/8", "1/9"]
    assert sorted(path.name for path in (tmp_path / "map").rglob("*.tiff")) == [f"{i}.tiff" for i in range(5, 10)]
    assert not (tmp_path / "mask" / "0").exists()
    log.append([row("last")], log.size)
    log.rotate(lambda found: False)
    assert names(log) == ["1/7", "1/8", "1/9", "last"]
