"""Files that stand for more than they look like, or for less."""

import os
import time
from pathlib import Path

import pytest

from squad_lit.run.config import compose
from squad_lit.run.reader import read_config
from squad_lit.system.figures import read_figures


def bomb(levels: int) -> str:
    """Each level has the one before twice: 2 ** levels values in a few lines."""
    lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels))]
    return "\n".join(lines)


def test_aliases_of_aliases_are_counted_and_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(bomb(5))
    assert read_config(tmp_path / "config.yaml")["a4"][1][1][1][1][1] == 1
    started = time.perf_counter()
    (tmp_path / "config.yaml").write_text(bomb(40))
    with pytest.raises(ValueError, match=r"config\.yaml is no configuration: with its aliases it has more than 100000"):
        read_config(tmp_path / "config.yaml")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "config.yaml").rename(tmp_path / "dataset" / "own.yaml")
    with pytest.raises(ValueError, match=r"own\.yaml is no configuration: with its aliases"):
        compose(["dataset=own"], config_dir=tmp_path)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no configuration: expected keys with values, got an empty file"),
        (b"- 1\n- 2", "is no configuration: expected keys with values, got "),
        (b"5", "is damaged: Invalid loaded object type: int"),
        (b"a: &a [*a]", "is damaged: "),
        (b"a: \xff\xfe", "is damaged: "),
        (b"a: !!python/object/apply:os.system [true]", "is damaged: could not determine a constructor"),
        (b"a: " + b"x" * 1_100_000, "is no configuration: it has more than 1 MB"),
    ],
)
def test_what_is_no_configuration_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_config(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def test_a_named_pipe_is_read_by_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(OSError, match=r"config\.yaml is no regular file"):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(OSError, match=r"metrics\.json is no regular file"):
        read_figures(tmp_path)
