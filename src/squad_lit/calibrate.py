"""New thresholds without training: ``python -m squad_lit.calibrate --checkpoint FILE --output FILE GOOD...``.

The scores of normal images that the model has not seen replace those that its training held out, or join them. With the
scores of a few known defects the threshold is the one that tells the two best. The weights stay as they are. Exit
status: 0 all is well, 2 some images were skipped, 1 it failed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import squad_lit
from squad_lit.console import exit_status
from squad_lit.image_file import find_images
from squad_lit.output import make_place, whole
from squad_lit.threshold import Threshold

if TYPE_CHECKING:
    from squad_lit.predictor import Predictor


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.calibrate``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; nothing was written")


def _run(options: argparse.Namespace) -> int:
    good = find_images(options.inputs)
    bad = find_images(options.defective or [])
    if both := {p.absolute() for p in good} & {p.absolute() for p in bad}:
        raise ValueError(f"{len(both)} images are both good and defective, such as {min(both)}")
    before, after, skipped = calibrate(options.checkpoint, options.output, good, bad, add=options.add, roi=options.roi)
    print(f"threshold before: {before}\nthreshold now:    {after}\n{options.output}")
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    return 2 if skipped else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m squad_lit.calibrate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="last.ckpt of a run")
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint with the new thresholds")
    parser.add_argument("--defective", type=Path, nargs="+", metavar="IMAGE_OR_DIR", help="known defects, if any")
    parser.add_argument("--add", action="store_true", help="keep the normal images and defects that it knows already")
    roi = "image of the region of interest; give predict the same"
    parser.add_argument("--roi", type=Path, metavar="FILE", help=roi)
    good = "good parts that it was not trained on; folders are read recursively"
    parser.add_argument("inputs", nargs="+", type=Path, metavar="GOOD_IMAGE_OR_DIR", help=good)
    return parser.parse_args(arguments)


def calibrate(
    path: Path,
    output: Path,
    good: Sequence[Path],
    bad: Sequence[Path],
    *,
    add: bool = False,
    roi: Path | None = None,
) -> tuple[Threshold, Threshold, list[str]]:
    """Write a copy of a checkpoint with the scores of other normal images, and of defects.

    Args:
        path: Of the checkpoint.
        output: Of the copy, written whole or not at all; may be the same.
        good: Normal images that were not trained on.
        bad: Images with a defect; may be empty.
        add: Add to the scores that are there instead of replacing them.
        roi: Region of interest; see :class:`squad_lit.predictor.Predictor`.

    Returns:
        The thresholds of the score before and after, at the default false-alarm rate where there are no defects, and a
        line for each image that could not be read.

    Raises:
        OSError: No such checkpoint, or a place that cannot be written to.
        ValueError: A file that is no checkpoint, an empty region, scores of another region to add to, or no good
            image, or none of the defective ones, that can be read.
    """
    import torch

    from squad_lit import checkpoint

    content = checkpoint.read(path)
    own = content[checkpoint.KEY]
    make_place(output)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # its thresholds are about to be replaced
        predictor = squad_lit.load(path, roi=roi)
    known = predictor.runtime.metadata
    if add and known["roi"] != predictor.roi_digest:
        raise ValueError("--add: the scores that are there are of another region of interest; give the same --roi")
    skipped: list[str] = []
    scores, maxima = _look(predictor, good, skipped)
    defective, _ = _look(predictor, bad, skipped)
    for name, found, paths in (("good", scores, good), ("defective", defective, bad)):
        if paths and not found:
            raise ValueError(f"none of the {name} images can be read:\n" + "\n".join(skipped))
    if add:
        # The same score to the last bit is the same image, which must not count twice.
        new = [i for i, score in enumerate(scores) if score not in known["normal_scores"]]
        if len(new) < len(scores):
            skipped.append(f"{len(scores) - len(new)} good images that are known already")
        scores = known["normal_scores"] + [scores[i] for i in new]
        maxima = known["normal_maxima"] + [maxima[i] for i in new]
        defective = list(dict.fromkeys(known["defective_scores"] + defective))
    own["normal"], own["defective"] = {"score": scores, "maximum": maxima}, defective
    own["roi"] = predictor.roi_digest
    with whole(output) as part:
        torch.save(content, part)
    return predictor.threshold, squad_lit.load(output, roi=roi).threshold, skipped


def _look(predictor: Predictor, paths: Sequence[Path], skipped: list[str]) -> tuple[list[float], list[float]]:
    """Score of each image that can be read, and the highest pixel of its map."""
    from tqdm import tqdm

    scores, maxima = [], []
    for path in tqdm(paths, unit="image", disable=not paths):
        try:
            result = predictor.predict(path)
        except (OSError, ValueError) as error:
            skipped.append(str(error))
            continue
        scores.append(result.anomaly_score)
        maxima.append(float(np.nanmax(result.anomaly_map)))
    return scores, maxima


if __name__ == "__main__":
    sys.exit(main())
