"""Do thresholds from held-out normal images keep the false-alarm rate that they promise?

    python -m experiments.threshold.run RUN [RUN ...]

Each RUN is the folder of a training on one category. The scores of its test images are those of its predictions.csv;
the thresholds come from the normal images that its training held out. Nothing is chosen by the test set.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from squad_lit.deploy.threshold import from_normals
from squad_lit.training import checkpoint

RATES = (0.01, 0.05, 0.1, 0.2)


def main(runs: list[Path]) -> None:
    """A table in Markdown, in percent."""
    head = ["run", "normal images", "asked", "expected", "95 % interval", "false alarms", "defects found"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for run in runs:
        normal = checkpoint.load(run / "last.ckpt").state.normal_scores
        with (run / "predictions.csv").open(newline="") as file:
            rows = [(int(row["label"]), float(row["anomaly_score"])) for row in csv.DictReader(file)]
        good, bad = ([score for label, score in rows if label == wanted] for wanted in (0, 1))
        for rate in RATES:
            limit = from_normals(normal, rate)
            low, high = limit.interval
            cells = [run.name, str(limit.images), f"{100 * rate:.0f}", f"{100 * limit.false_alarm_rate:.1f}"]
            cells += [f"{100 * low:.1f} to {100 * high:.1f}"]
            for scores in (good, bad):
                above = sum(score > limit.value for score in scores)
                cells.append(f"{100 * above / len(scores):.0f} ({above} of {len(scores)})")
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
