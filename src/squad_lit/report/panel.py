"""Which test images are shown, and as what picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squad_lit.image.picture import Picture, panel

FIRST, FALSE_ALARM, MISS = "first", "false alarm", "miss"


@dataclass
class Panel:
    """A test image and what the model makes of it.

    Args:
        index: Number of the image in the test set.
        image_path: File of the image.
        category: Of the image.
        defect: Kind of defect; ``good`` of a normal image.
        label: 1: anomalous.
        anomaly_score: In deviations from normal.
        tiles: Pictures ``(H, W, 3)`` by caption, the image itself first.
        choice: Why it is shown: ``first`` of its kind, ``false alarm``, ``miss``.
        name: Of its file, without a folder; see :func:`name_all`.
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

    def picture(self) -> Picture:
        """The tiles side by side, the score above the fused map."""
        score = f"fused, score {self.anomaly_score:.1f}"
        return panel({score if caption == "fused" else caption: tile for caption, tile in self.tiles.items()})

    def row(self) -> dict[str, Any]:
        """What ``panels.csv`` says of it."""
        keys = ("image_path", "category", "defect", "label", "anomaly_score")
        return {"panel": self.name, "choice": ", ".join(self.choice)} | {key: getattr(self, key) for key in keys}


def choose(panels: Iterable[Panel], *, per_defect: int, worst: int) -> list[Panel]:
    """Those to show, with the reason; of a part of a test set all that are chosen from the whole.

    Args:
        panels: In any order.
        per_defect: The first ones of each kind of defect of each category: the same in every run.
        worst: Of each category the normal images of the highest scores (the worst false alarms, if they are alarms at
            all) and the anomalous ones of the lowest (misses).
    """
    ordered = sorted(panels, key=lambda p: p.index)
    kinds: dict[tuple[Any, ...], list[Panel]] = {}
    for p in ordered:
        kinds.setdefault((FIRST, p.category, p.defect), []).append(p)
        kinds.setdefault((MISS if p.label else FALSE_ALARM, p.category), []).append(p)
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
    """Give each a name of its own, of category, defect and file: ``000.png`` and ``000.jpg`` may lie side by side."""
    for p in panels:
        file = Path(p.image_path).name
        p.name = "_".join([p.category, p.defect, file if file.endswith(".png") else f"{file}.png"])
    count = Counter(p.name for p in panels)
    for p in panels:
        if count[p.name] > 1:  # of files in folders of their own, or a_b + c and a + b_c
            p.name = f"{p.name.removesuffix('.png')}_{p.index}.png"
