"""What is taken for the figures of a run: the truth is what a run writes, and what would break a table."""

import json
from pathlib import Path
from typing import Any

import pytest

from squad_lit.system.figures import read_figures

WHOLE: dict[str, Any] = {
    "image_auroc": 0.5,
    "pixel_ap": None,
    "level_histogram/low": [[0.5, 0.5], [1]],
    "categories_averaged": {"image_auroc": 2},
    "per_category": {"cap": {"image_auroc": 1, "interval": {"image_auroc": [0.1, None]}}},
    "interval": {"image_auroc": [0.1, 0.9]},
    "threshold": {"anomaly_score": 1.5, "images": 2},
    "own": {"of": ["a user"]},
    "run": {"command": "python", "ended_early": "after 1 of 2 steps"},
}
WRONG = [
    ("image_auroc", "high"),
    ("image_auroc", [0.5]),
    ("image_auroc", True),
    ("image_auroc", float("inf")),
    ("pixel_aupro_0.05", {}),
    ("level_histogram/low", [0.5]),
    ("categories_averaged", {"image_auroc": "2"}),
    ("per_category", []),
    ("per_category", {"cap": 5}),
    ("per_category", {"cap": {"image_auroc": "high"}}),
    ("interval", {"image_auroc": 0.5}),
    ("run", {"command": 5}),
    ("run", {"ended_early": ["x"]}),
]


def test_figures_as_a_run_writes_them_are_read(tmp_path: Path) -> None:
    assert read_figures(tmp_path) is None
    (tmp_path / "metrics.json").write_text(json.dumps(WHOLE))
    assert read_figures(tmp_path) == WHOLE


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_entry_of_a_wrong_kind_is_named_with_its_file(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(WHOLE | {key: value}))
    with pytest.raises(ValueError, match=rf"{tmp_path}/metrics\.json is damaged: {key}") as caught:
        read_figures(tmp_path)
    assert "\n" not in str(caught.value)
