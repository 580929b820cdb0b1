"""Arrivals: what is returned by looks at a folder that changes in between."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from squad_lit.deploy.watch.arrival import Arrival, Arrivals


class Clock:
    """The time, which a test moves on."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("squad_lit.deploy.watch.arrival.time", clock)
    return clock


@pytest.fixture
def judged() -> set[Arrival]:
    return set()


@pytest.fixture
def look(tmp_path: Path, clock: Clock, judged: set[Arrival]) -> Callable[[], list[str]]:
    """Looks after a second, and returns names; what is found counts as judged."""
    arrivals = Arrivals(tmp_path, [tmp_path / "out" / "map"], judged.__contains__, settle=0.5)

    def look() -> list[str]:
        clock.now += 1
        found = arrivals.look()
        judged.update(found)
        return [arrival.path.relative_to(tmp_path).as_posix() for arrival in found]

    return look


def write(path: Path, content: bytes = b"1", time: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if time is not None:
        os.utime(path, (time, time))


def test_a_file_is_returned_once_when_it_no_longer_changes(tmp_path: Path, look: Callable[[], list[str]]) -> None:
    write(tmp_path / "a.png", b"1", 1)
    assert look() == []
    write(tmp_path / "a.png", b"12", 2)
    assert look() == []
    assert look() == ["a.png"]
    assert look() == []
    write(tmp_path / "a.png", b"34", 3)  # another image in its place
    assert [look(), look(), look()] == [[], ["a.png"], []]


def test_only_images_count_and_the_oldest_come_first(tmp_path: Path, look: Callable[[], list[str]]) -> None:
    for time, name in enumerate(["z.PNG", "day/b.jpg", "a.tiff", "text.txt", ".hidden.png", ".snapshot/a.png"]):
        write(tmp_path / name, time=time)
    write(tmp_path / "out" / "map" / "a.png")
    write(tmp_path / "out" / "other" / "c.png", time=9)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "again").symlink_to(tmp_path / "day", target_is_directory=True)
    look()
    assert look() == ["z.PNG", "day/b.jpg", "a.tiff", "out/other/c.png"]


def test_of_many_some_are_returned_at_a_time(tmp_path: Path, look: Callable[[], list[str]]) -> None:
    for number in range(300):
        write(tmp_path / f"{number}.png", time=number)
    look()
    assert look() == [f"{number}.png" for number in range(256)]
    assert look() == [f"{number}.png" for number in range(256, 300)]


def test_a_folder_that_vanishes_comes_back(tmp_path: Path, clock: Clock, judged: set[Arrival]) -> None:
    folder = tmp_path / "share"
    write(folder / "a.png")
    arrivals = Arrivals(folder, [], judged.__contains__, settle=0.5)
    arrivals.look()
    clock.now += 1
    judged.update(arrivals.look())
    folder.rename(tmp_path / "away")
    assert arrivals.look() == []
    assert arrivals.trouble == f"cannot read the folder {folder}: No such file or directory"
    assert arrivals.is_empty
    (tmp_path / "away").rename(folder)
    write(folder / "b.png")
    arrivals.look()
    clock.now += 1
    assert [arrival.path.name for arrival in arrivals.look()] == ["b.png"]
    assert arrivals.trouble == ""
    assert all(map(arrivals.is_there, judged))


def test_a_file_is_given_up_after_a_while_but_not_for_the_fault_of_the_system(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "a.png")
    arrivals = Arrivals(tmp_path, [], lambda arrival: False, settle=0.5)
    arrivals.look()
    clock.now += 1
    (found,) = arrivals.look()
    half, network = OSError("cannot read image a.png: truncated"), OSError("cannot read image a.png: stale")
    network.__cause__ = OSError(116, "Stale file handle")
    assert not arrivals.is_hopeless(found, half)
    clock.now += 11
    assert arrivals.look() == [found]
    assert not arrivals.is_hopeless(found, network)
    assert arrivals.is_hopeless(found, half)
    write(tmp_path / "a.png", b"12", 5)  # it goes on to be written
    arrivals.look()
    clock.now += 1
    (changed,) = arrivals.look()
    assert not arrivals.is_hopeless(changed, half)
