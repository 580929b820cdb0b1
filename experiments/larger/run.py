"""What do a larger backbone and larger images add? Runs the study and prints its tables.

    python -m experiments.larger.run runs/larger

One seed. "2400": with the length and the fusion of before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.shared import EQUAL_FUSION, measure, tables

BEFORE = ["model.steps=2400", *EQUAL_FUSION]
ARMS = {
    "lite2": ["backbone=lite2"],
    "lite2 2400": ["backbone=lite2", *BEFORE],
    "320 px 2400": ["dataset.image_size=320", *BEFORE],
    "memory lite2": ["model=memory", "backbone=lite2"],
}

if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/larger").absolute()
    print(tables(measure(ARMS, root, Path(__file__).with_name("results.csv"), jobs=2)))
