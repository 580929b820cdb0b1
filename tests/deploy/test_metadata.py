"""The description of an exported file: each entry is checked, whatever is in its place."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squad_lit.deploy.metadata import FORMAT, read_metadata
from squad_lit.deploy.predictor import Predictor
from squad_lit.image.roi import encode

WHOLE: dict[str, Any] = {
    "format": FORMAT,
    "squad_lit": "0.1.0",
    "image_size": [64, 96],
    "tile": {"side": 32, "overlap": 0.25},
    "top": 0.001,
    "intensity_range": [0, 4095.0],
    "false_alarm_rate": 0.01,
    "normal_scores": [1.5, 2],
    "normal_maxima": [3.0, 4.5],
    "defective_scores": [],
    "roi": "",
    "chosen_threshold": None,
    "input": {"name": "image", "type": "uint8"},
}
# Each kind of value, among them one that fits.
VALUES: list[Any] = [None, True, -1, 0, 7, 1e30, 10**12, float("nan"), float("inf"), "text", [], [1], [1, 2], [2, 1]]
VALUES += [
    [float("nan"), 1.0],
    ["a"],
    [[1]],
    [None, None],
    {},
    {"side": 8},
    {"type": "int8"},
    {"side": "a", "overlap": 1},
]
VALUES += [encode(np.ones((2, 2), bool)), [0, 10**9], {"side": 4, "overlap": 0.5}, {"type": "float32"}, 0.5, 1.0]
FIT: dict[str, list[Any]] = {
    "squad_lit": ["text", encode(np.ones((2, 2), bool))],
    "image_size": [],  # smaller than a tile
    "tile": [None, {"side": 4, "overlap": 0.5}],
    "top": [0.5, 1.0],
    "intensity_range": [None, [1, 2], [0, 10**9]],
    "false_alarm_rate": [None, 0.5],
    "normal_scores": [[1, 2], [2, 1], [0, 10**9]],
    "normal_maxima": [[1, 2], [2, 1], [0, 10**9]],
    "defective_scores": [[], [1], [1, 2], [2, 1], [0, 10**9]],
    "chosen_threshold": [v for v in VALUES if v is None or (type(v) in (int, float) and math.isfinite(v))],
    "roi": [encode(np.ones((2, 2), bool))],
    "input": [{"type": "float32"}],
}


class Nothing:
    """A runtime that is never run."""

    device, batch = "cpu", 1

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata


def test_a_whole_one_is_read() -> None:
    assert read_metadata(Path("a.onnx"), json.dumps(WHOLE)) == WHOLE


@pytest.mark.parametrize("key", FIT)
def test_values_of_every_kind_are_used_or_named(key: str) -> None:
    for value in VALUES:
        found = copy.deepcopy(WHOLE) | {key: value}
        if any(value is fit or (type(value) is type(fit) and value == fit) for fit in FIT[key]):
            predictor = Predictor(Nothing(read_metadata(Path("a.onnx"), json.dumps(found))))  # type: ignore[arg-type]
            assert predictor.threshold.images == 2
        else:
            with pytest.raises(ValueError, match=r"^a\.onnx (is damaged, or not of squad_lit\.export|has image)"):
                read_metadata(Path("a.onnx"), json.dumps(found))
    with pytest.raises(ValueError, match="is not whole"):
        read_metadata(Path("a.onnx"), json.dumps({k: v for k, v in WHOLE.items() if k != key}))


@pytest.mark.parametrize(
    "text", [b"\xff", "[" * 100_000, "nul", "{}", "[]", "3", ["{}"], {"a": 1}, json.dumps([WHOLE])]
)
def test_what_is_no_description_is_refused(text: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^a\.onnx is damaged, or not of squad_lit\.export: its metadata 'squad_lit' is"
    ):
        read_metadata(Path("a.onnx"), text)


def test_the_entry_is_named() -> None:
    with pytest.raises(ValueError, match=r"is not whole: normal_scores is \[1\.5, nan\]$"):
        read_metadata(Path("a.onnx"), json.dumps(WHOLE | {"normal_scores": [1.5, float("nan")]}))
    with pytest.raises(ValueError, match="normal_scores and normal_maxima differ in number"):
        read_metadata(Path("a.onnx"), json.dumps(WHOLE | {"normal_maxima": [1.0]}))
    with pytest.raises(ValueError, match="a tile is larger than the image"):
        read_metadata(Path("a.onnx"), json.dumps(WHOLE | {"image_size": [16, 96]}))
