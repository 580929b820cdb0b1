"""Runs this experiment and prints its table.

python -m experiments.three_categories.run runs/three_categories
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.study import DATASETS, Job, markdown, run

ARMS = {
    "memory": (["model=memory"], [0]),
    "memory coreset": (["model=memory", "model.selection=coreset"], [0]),
    "squad": ([], [0, 1, 2]),
}

if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/three_categories").absolute()
    # One seed of each arm first, so that there is something to read early.
    jobs = [
        Job(category, arm, options, seed)
        for seed in range(3)
        for arm, (options, seeds) in ARMS.items()
        for category in DATASETS
        if seed in seeds
    ]
    print(markdown(run(jobs, root, Path(__file__).with_name("results.csv")), {"seconds": "seconds/train"}))
