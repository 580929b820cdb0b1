"""Runs this experiment and prints its tables.

python -m experiments.three_categories.run runs/three_categories
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.shared import measure, tables

ARMS = {
    "memory": ["model=memory"],
    "memory random": ["model=memory", "model.memory.selection=random"],
    "squad": [],
    "hybrid": ["model=hybrid"],
}

if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/three_categories").absolute()
    print(tables(measure(ARMS, root, Path(__file__).with_name("results.csv"), seeds=(0, 1, 2))))
