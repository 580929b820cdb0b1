"""A page to look through the images of a test or a prediction: ``python -m squad_lit.view RUN``.

``RUN`` is the folder of a run or an output folder of ``squad_lit.predict``. A run keeps pictures of few images, so its
checkpoint judges the test images again. The overlays of a prediction are taken as they are. The command exits with 0 on
success, 2 if some images have no pictures and 1 on failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.system.console import exit_status, say
from squad_lit.system.file import make_place

LIMIT = 500  # images with pictures, which take some 12 MB
SIDE = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.view``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    from squad_lit.report.gallery import gather, write

    output: Path = options.output or options.run / "view.html"
    if options.run.is_dir():  # if not, gather says so
        make_place(output)
    gallery = gather(
        options.run,
        options.checkpoint,
        options.false_alarm_rate,
        options.limit,
        options.trust,
        options.device,
        options.side,
    )
    size = write(gallery, output)
    for reason in gallery.failed:
        say(f"no picture: {reason}", to=sys.stderr)
    pictured = sum(bool(row.pictures) for row in gallery.rows)
    say(f"{len(gallery.rows)} images, {pictured} with pictures; {output} ({size / 2**20:.1f} MB)")
    return 2 if gallery.failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="squad-lit view", description="A page to look through the images of a test or a prediction."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or an output folder of predict")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: view.html in the folder")
    rate = "share of normal images above the threshold at the start (default: as predict)"
    parser.add_argument("--false-alarm-rate", type=float, metavar="RATE", help=rate)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: last.ckpt in the folder of the run")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:1 (default: auto)")
    limit = f"how many images get pictures, default {LIMIT}; the others are only counted"
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=limit)
    side = f"longer side of a picture in pixels, default {SIDE}; the page grows with its square"
    parser.add_argument("--side", type=int, default=SIDE, metavar="PIXELS", help=side)
    trust = "package whose classes the checkpoint may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    options = parser.parse_args(arguments)
    if options.limit < 1:
        parser.error(f"--limit: expected a whole number of at least 1, got {options.limit}")
    if not 16 <= options.side <= 4096:
        parser.error(f"--side: expected 16 to 4096 pixels, got {options.side}")
    return options


if __name__ == "__main__":
    sys.exit(main())
