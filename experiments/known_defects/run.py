"""What known defects bring: trains without any, with some and with more, and tests on what none of them has seen.

    python experiments/known_defects/run.py runs/known_defects CATEGORY [OPTION=VALUE ...]

The data are looked for as by ``squad_lit.train`` (``SQUAD_LIT_DATA``, else ``data``). From the anomalous test images of
a category, the first ones of each kind in turn become known defects. Those of the largest arm leave the test set of
all arms. A run whose figures are in its folder is not run again. Further options are those of the training.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import chain, zip_longest
from pathlib import Path

from experiments.shared import DATASETS, read

import squad_lit
from squad_lit.system.table import write_rows

HERE = Path(__file__).parent
ARMS = (0, 20, 5)
KEPT = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_aupimo", "image_recall")


def split(source: Path, place: Path) -> None:
    """Link a category without its known defects into ``data``, and those of each arm into ``known_N``."""
    kinds = [sorted(kind.iterdir()) for kind in sorted((source / "test").iterdir()) if kind.name != "good"]
    known = [path for path in chain(*zip_longest(*kinds)) if path is not None][: max(ARMS)]
    for path in sorted(source.rglob("*.*")):
        part = path.relative_to(source)
        if path not in known:
            _link(path, place / "data" / source.name / part)
    for arm in ARMS[1:]:
        for path in known[:arm]:
            kind = path.parent.name
            _link(path, place / f"known_{arm}" / kind / path.name)
            mask = source / "ground_truth" / kind / f"{path.stem}_mask{path.suffix}"
            _link(mask, place / f"known_{arm}" / "ground_truth" / kind / mask.name)


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(path.absolute())


def main() -> None:
    """Train what is missing, and print the table."""
    root, category, options = Path(sys.argv[1]).absolute(), sys.argv[2], sys.argv[3:]
    source = Path(os.environ.get("SQUAD_LIT_DATA", "data")) / DATASETS[category] / category
    split(source, root / category)
    table, rows = HERE / "results.csv", read(HERE / "results.csv")
    for arm in ARMS:
        folder = root / category / f"run_{arm}"
        if not (folder / "metrics.json").exists():
            given = [f"dataset.known_defects={root / category / f'known_{arm}'}"] if arm else []
            given += ["callback.panels=null", "callback.curves=null", *options]
            squad_lit.fit("folder", root=root / category / "data" / category, output=folder, overrides=given)
        figures = json.loads((folder / "metrics.json").read_text())
        key = {"category": category, "known": arm, "options": " ".join(options)}
        rows = [row for row in rows if (row["category"], row["known"]) != (category, arm)]
        rows.append(key | {name: round(100 * figures[name], 1) for name in KEPT})
        write_rows(table, rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
