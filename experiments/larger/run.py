"""What do a larger backbone and larger images add? Runs the study and prints its table.

    python -m experiments.larger.run runs/larger

The default length, one seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.study import DATASETS, Job, markdown, run

ARMS = {
    "lite2": ["backbone=lite2"],
    "320 px": ["dataset.image_size=320"],
    "memory lite2": ["model=memory", "backbone=lite2"],
}

if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/larger").absolute()
    jobs = [Job(category, arm, options) for arm, options in ARMS.items() for category in DATASETS]
    print(markdown(run(jobs, root, Path(__file__).with_name("results.csv"), workers=2), {"seconds": "seconds/train"}))
