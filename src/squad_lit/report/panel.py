"""Chooses the test images that are shown, and makes their panels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squad_lit.image.picture import Picture, panel
from squad_lit.system.file import fitting

_ROOM = len("_1234567.png")  # at the end of a name
# Ranks, and no verdicts: with a perfect separation, the highest score of a normal image is no false alarm.
FIRST, HIGHEST_NORMAL, LOWEST_ANOMALOUS = "first", "highest normal", "lowest anomalous"


@dataclass
class Panel:
    """A test image and the maps that the model makes from it.

    Args:
        index: Position of the image in the test set.
        image_path: File of the image.
        category: Category of the image.
        defect: Kind of defect; ``good`` for a normal image.
        label: 0 is normal, 1 is anomalous.
        anomaly_score: Score in standard deviations from normal.
        tiles: Pictures ``(H, W, 3)`` by caption, beginning with the image.
        choice: Reasons why it is shown, of ``first`` (of its kind), ``highest normal`` and ``lowest anomalous``.
        name: File name of the panel; see :func:`name_all`.
        threshold: The threshold of scores that a prediction uses; NaN: there is none.
    """

    index: int
    image_path: str
    category: str
    defect: str
    label: int
    anomaly_score: float
    tiles: Mapping[str, Picture] = field(default_factory=dict)
    choice: Sequence[str] = ()
    name: str = ""
    threshold: float = math.nan

    @property
    def verdict(self) -> str:
        """What a prediction makes of the image: ``detected``, ``missed``, ``false alarm`` or ``passed``."""
        if math.isnan(self.threshold):
            return ""
        if self.anomaly_score > self.threshold:
            return "detected" if self.label else "false alarm"
        return "missed" if self.label else "passed"

    def picture(self) -> Picture:
        """The tiles side by side, with the score above the fused map."""
        score = f"fused, score {self.anomaly_score:.1f}"
        return panel({score if caption == "fused" else caption: tile for caption, tile in self.tiles.items()})

    def caption(self) -> str:
        """Its file, its score and the verdict."""
        return f"{self.name}: score {self.anomaly_score:.1f}" + (f", {self.verdict}" if self.verdict else "")

    def row(self) -> dict[str, Any]:
        """Its row of ``panels.csv``."""
        keys = ("image_path", "category", "defect", "label", "anomaly_score", "verdict")
        return {"panel": self.name, "choice": ", ".join(self.choice)} | {key: getattr(self, key) for key in keys}


def choose(panels: Iterable[Panel], *, per_defect: int, worst: int) -> list[Panel]:
    """Choose the panels to show, and set the reason.

    A part of a test set keeps every panel that the whole test set would keep, so that one can choose batch by batch.

    Args:
        panels: Panels in any order.
        per_defect: Number of panels per category and kind of defect. The first ones are chosen, the same in each run.
        worst: Number of normal images with the highest scores, and of anomalous images with the lowest ones, per
            category.
    """
    ordered = sorted(panels, key=lambda p: p.index)
    kinds: dict[tuple[Any, ...], list[Panel]] = {}
    for p in ordered:
        kinds.setdefault((FIRST, p.category, p.defect), []).append(p)
        kinds.setdefault((LOWEST_ANOMALOUS if p.label else HIGHEST_NORMAL, p.category), []).append(p)
        p.choice = []
    for (reason, *_), own in kinds.items():
        if reason == FIRST:
            taken = own[:per_defect]
        else:
            taken = sorted(own, key=lambda p: p.anomaly_score if p.label else -p.anomaly_score)[:worst]
        for p in taken:
            p.choice = [*p.choice, reason]
    return [p for p in ordered if p.choice]


def name_all(panels: Sequence[Panel]) -> None:
    """Give each panel a unique file name of category, defect and file, because file names repeat across folders."""
    for p in panels:
        file = Path(p.image_path).name
        name = re.sub(r"[/\\]", "_", "_".join([p.category, p.defect, file.removesuffix(".png")]))  # defects of a table
        p.name = f"{fitting(name, _ROOM)}.png"
    count = Counter(p.name for p in panels)
    for p in panels:
        if count[p.name] > 1:  # equal names in other folders, or a_b + c and a + b_c
            p.name = f"{p.name.removesuffix('.png')}_{p.index}.png"
