"""Whether two models, or two files of one, say the same: ``python -m squad_lit.validate A B --images DIR``.

Scores, labels and maps of each image are compared, and the time of each model is split into its stages. The command
exits with 0 if all images are within the tolerance, 3 if not, 2 if the others are but some images were skipped, and 1
on failure.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.deploy import model_option
from squad_lit.image.file import find_images
from squad_lit.system.console import exit_status, say
from squad_lit.system.file import make_place
from squad_lit.system.progress import bar_of
from squad_lit.system.table import write_rows

if TYPE_CHECKING:
    from squad_lit.deploy.comparison import Agreement

TOLERANCE = 0.01
"""Default tolerance: a hundredth of the threshold."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.validate``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    from squad_lit.deploy.comparison import compare
    from squad_lit.deploy.timing import measure, table

    images = find_images(options.images)
    if options.output:
        make_place(options.output)
    models = {}
    for name, path in (("A", options.a), ("B", options.b)):
        models[name] = model = model_option.load(path, options)
        say(f"{name}: {path}, device {model.runtime.device}\n   threshold {model.threshold}")
    found, skipped = [], []
    for path in bar_of(images, desc="images", unit="image"):
        try:
            pixels = [model.read(path) for model in models.values()]
        except (OSError, ValueError) as error:
            skipped.append(str(error))  # it names the file
            continue
        found.append(compare(models["A"], models["B"], path, pixels, options.tolerance))
    for line in skipped:
        say(f"skipped: {line}", to=sys.stderr)
    if not found:
        raise ValueError(f"none of {len(images)} images can be read")
    if options.output:
        write_rows(options.output, [row._asdict() for row in found])
    say(_summary(found))
    say(table({name: measure(model, [row.image_path for row in found]) for name, model in models.items()}))
    beyond = sum(row.exceeds(options.tolerance) for row in found)
    print(f"{beyond} of {len(found)} images beyond the tolerance of {100 * options.tolerance:g} % of the threshold")
    return 3 if beyond else 2 if skipped else 0


def _summary(found: Sequence[Agreement]) -> str:
    """Lines about scores, labels, maps and masks, each with the image that is furthest apart."""
    differ = [row for row in found if row.label_a != row.label_b]

    def share(name: str, value: Callable[[Agreement], float]) -> str:
        worst = max(found, key=value)
        middle = statistics.median(map(value, found))
        return (
            f"{name}: apart by {_percent(middle)} of the threshold in the middle, {_percent(value(worst))} at most"
            + (f" ({worst.image_path})" if value(worst) else "")
        )

    flips = "".join(f"\n  {row.image_path}: {row.score_a:.4g} and {row.score_b:.4g}" for row in differ[:5])
    overlap = min(found, key=lambda row: row.mask_overlap)
    return "\n".join(
        [
            share("scores", lambda row: row.score_difference),
            f"labels: {len(differ)} of {len(found)} differ{':' if differ else ''}{flips}",
            share("maps, mean per image", lambda row: row.map_difference),
            f"masks: overlap (IoU) {statistics.median(row.mask_overlap for row in found):.3f} in the middle, "
            f"{overlap.mask_overlap:.3f} at least",
        ]
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit validate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "a", type=Path, metavar="A", help="a checkpoint or an exported file; its thresholds are the scale"
    )
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    images = "images to judge; folders are searched at any depth"
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="IMAGE_OR_DIR", help=images)
    tolerance = f"largest difference of scores and maps, as a share of the threshold (default: {TOLERANCE})"
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="SHARE", help=tolerance)
    parser.add_argument("--output", type=Path, metavar="FILE", help="table of all images, CSV")
    model_option.add(parser)
    options = parser.parse_args(arguments)
    if not options.tolerance >= 0:
        parser.error(f"--tolerance: expected a share of at least 0, got {options.tolerance}")
    return options


if __name__ == "__main__":
    sys.exit(main())
