"""Prints the table of a test."""

import math
from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "Pixel AP": "pixel_ap",
    "AUPRO": "pixel_aupro",
}
_DECISIONS = {"F1": "image_f1", "precision": "image_precision", "recall": "image_recall"}
_DECISIONS |= {"false alarms": "image_false_alarm_rate"}
# Figures that stand below the table.
REST = ("copy_ratio", "codebook_usage", "perplexity", "psnr", "ssim", "seconds", "images_per_second")


def table(figures: Mapping[str, Any]) -> str:
    """Figures as text, with metrics in percent and their intervals if there are any.

    Args:
        figures: Content of ``metrics.json``. Several categories have one line each, and a line for their mean. A single
            category has one line per kind of defect (against all normal images), and a line for all kinds.
    """
    rows = dict(figures.get("per_category", {}))
    if rows:
        rows[f"mean of {len(rows)}"] = figures
    else:
        rows = {name: row for name, row in figures.get("per_defect", {}).items() if len(figures["per_defect"]) > 1}
        rows["all kinds" if "all" in rows else "all"] = figures
    if not any(key in row for row in rows.values() for key in COLUMNS.values()):
        rows = {}  # nothing was tested
    cells = {name: [_cell(row, key) for key in COLUMNS.values()] for name, row in rows.items()}
    first = max(map(len, cells), default=0)
    width = 2 + max(len(text) for line in [list(COLUMNS), *cells.values()] for text in line)
    lines = [
        name.ljust(first) + "".join(text.rjust(width) for text in line)
        for name, line in {"%": list(COLUMNS), **cells}.items()
    ]
    if "image_recall" in figures:  # decided as a prediction decides
        decided = ", ".join(f"{name} {_cell(figures, key)}" for name, key in _DECISIONS.items())
        lines += ["", f"images above the threshold (%): {decided}"]
    rest = [key for key, value in figures.items() if key.split("/")[0] in REST and isinstance(value, float)]
    return "\n".join([*(lines if rows else []), "", *(f"{key:<26}{figures[key]:10.3f}" for key in rest)])


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A metric in percent, with its interval. A mean says how many categories it is over if some are undefined."""
    text = f"{100 * row.get(key, math.nan):.1f}"
    if key in row.get("interval", {}):
        text += " [{:.1f}, {:.1f}]".format(*(100 * end for end in row["interval"][key]))
    averaged = row.get("categories_averaged", {}).get(key)
    return text if averaged in (None, len(row.get("per_category", {}))) else f"{text} (of {averaged})"
