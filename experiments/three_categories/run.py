"""Runs this experiment and prints its table.

python -m experiments.three_categories.run runs/three_categories
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.study import each, markdown, run

ARMS = {
    "memory": (["model=memory"], [0, 1, 2]),
    "memory random": (["model=memory", "model.memory.selection=random"], [0, 1, 2]),
    "squad": ([], [0, 1, 2]),
    "hybrid": (["model=hybrid"], [0, 1, 2]),
}

if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/three_categories").absolute()
    print(markdown(run(each(ARMS), root, Path(__file__).with_name("results.csv")), {"seconds": "seconds/train"}))
