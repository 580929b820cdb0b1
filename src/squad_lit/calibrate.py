"""New thresholds without training: ``python -m squad_lit.calibrate --checkpoint FILE --output FILE GOOD...``.

The scores of new normal images replace those of the images that the training held out, or are added to them. With a few
known defects the threshold becomes the one that separates the two best. The weights stay as they are. ``--remember``
also extends the memory of patches that ``model=hybrid`` and ``model=memory`` have.

The command exits with 0 on success, 2 if some images were skipped and 1 on failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.deploy.model_option import finite
from squad_lit.image.file import find_images
from squad_lit.system.console import exit_status, say
from squad_lit.system.file import make_place
from squad_lit.system.lock import hold


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.calibrate``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    from squad_lit.deploy.rethreshold import rethreshold

    if options.output.suffix != ".ckpt":
        raise ValueError(f"--output {options.output}: expected a checkpoint's name, which ends in .ckpt")
    good = find_images(options.inputs) if options.inputs else []
    bad = find_images(options.defective or [])
    if both := {p.absolute() for p in good} & {p.absolute() for p in bad}:
        raise ValueError(f"images are both good and defective: {len(both)}, such as {min(both)}")
    make_place(options.output)
    with hold(options.output):
        before, after, skipped = rethreshold(
            options.checkpoint,
            options.output,
            good,
            bad,
            add=options.add,
            remember=options.remember,
            threshold=options.threshold,
            roi=options.roi,
            trust=options.trust,
            device=options.device,
        )
    say(f"threshold before: {before}\nthreshold now:    {after}\n{options.output}")
    for line in skipped:
        say(f"skipped: {line}", to=sys.stderr)
    return 2 if skipped else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit calibrate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run")
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint with the new thresholds")
    parser.add_argument("--defective", type=Path, nargs="+", metavar="IMAGE_OR_DIR", help="known defects, if any")
    parser.add_argument("--add", action="store_true", help="keep the scores that the checkpoint has, and add these")
    remember = "the good parts also extend the memory of the model, in seconds; each is judged without its own patches"
    parser.add_argument("--remember", action="store_true", help=remember)
    limit = "scores above it are anomalous from now on, in the place of a rate; alone, it needs no images"
    parser.add_argument("--threshold", type=finite, metavar="X", help=limit)
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:1 (default: auto)")
    roi = "picture of the region of interest, which the checkpoint keeps"
    parser.add_argument("--roi", type=Path, metavar="FILE", help=roi)
    good = "good parts; those that the model was trained on are left out; folders are searched at any depth"
    parser.add_argument("inputs", nargs="*", type=Path, metavar="GOOD_IMAGE_OR_DIR", help=good)
    trust = "package whose classes the checkpoint may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    options = parser.parse_args(arguments)
    if not options.inputs and (options.threshold is None or options.defective or options.remember or options.roi):
        parser.error("name good parts; --threshold alone needs none")
    if options.add and options.remember:
        parser.error(
            "--remember finds all scores anew, so that --add has none to keep: name the good parts of before, too, if "
            "their scores are to count"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
