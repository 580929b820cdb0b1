"""The truth is a clock that is set by hand."""

import re
import sys
from collections.abc import Iterator

import pytest

from squad_lit.system.progress import progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)

    def seconds(self, count: int) -> Iterator[int]:
        for number in range(count):
            self.now += 1
            yield number


def test_a_file_gets_a_whole_line_in_half_a_minute(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress(total=100, desc="memory", unit="image") as bar:
        for _ in clock.seconds(100):
            bar.update()
    shown = capsys.readouterr().err
    assert not re.search(r"[^\n -~]", shown)  # no control character, and no letter beyond ASCII
    times = [line.split("[")[1].split(",")[0] for line in shown.splitlines()]
    assert times == ["00:30<01:10", "01:00<00:40", "01:30<00:10", "01:40<00:00"]
    assert shown.startswith("memory: 30 % 30/100 [00:30<01:10,  1.00image/s]\n")


def test_several_at_a_time_write_lines_too(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress(total=2, desc="outer") as outer:
        for _ in range(2):
            for _ in progress(clock.seconds(40), total=40, desc="inner", leave=False):
                pass
            outer.update()
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert [line.split(":")[0] for line in shown.splitlines()] == ["inner", "outer", "inner", "outer", "outer"]


def test_what_is_short_writes_nothing_into_a_file(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    assert list(progress(clock.seconds(29), desc="short")) == list(range(29))
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_that_moves(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress(clock.seconds(3), total=3, desc="short"):
        pass
    assert capsys.readouterr().err.count("\r") >= 3
