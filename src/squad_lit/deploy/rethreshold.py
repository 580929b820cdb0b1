"""New thresholds for a trained model, from new normal images and known defects."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from squad_lit.deploy.extension import read_each, remember_more
from squad_lit.deploy.known_image import without, without_masks
from squad_lit.deploy.predictor import Predictor, load
from squad_lit.deploy.threshold import Threshold, separation
from squad_lit.deploy.together import batches, judge_each
from squad_lit.image.roi import decode, encode, identify
from squad_lit.system.progress import progress
from squad_lit.training import checkpoint

# Image AUROC of known defects against normal images: below the first, no threshold is written, below the other one
# with a warning.
_NO_SEPARATION, _GOOD_SEPARATION = 0.7, 0.9


def rethreshold(
    path: Path,
    output: Path,
    good: Sequence[Path],
    bad: Sequence[Path],
    *,
    add: bool = False,
    remember: bool = False,
    threshold: float | None = None,
    roi: Path | None = None,
    trust: Sequence[str] = (),
    device: str = "auto",
) -> tuple[Threshold, Threshold, list[str]]:
    """Write a copy of a checkpoint with the scores of new normal images and of known defects.

    Args:
        path: The checkpoint.
        output: The copy, written whole or not at all; it may be the same file.
        good: Normal images. Those that the model was trained on are left out, and so are those that its memory was
            extended by, unless ``remember`` is set. None, with a threshold alone, leave the scores as they are.
        bad: Images with a defect; may be empty. Masks beside them, or in a folder of masks, are left out.
        add: Whether the scores that the checkpoint has are kept.
        remember: Whether the new normal images extend the memory of the model. The score of each is then found without
            its own patches, as if it had not been remembered, so that the threshold comes from images that the model
            does not know.
        threshold: Scores above it are anomalous from now on, whatever the rate; None: the scores choose the threshold.
        roi: Region of interest; see :class:`squad_lit.deploy.predictor.Predictor`.
        trust: Packages whose classes the checkpoint may name.
        device: Where the model computes; see :func:`squad_lit.load`.

    Returns:
        The threshold of the score before and after, and lines that say which images were left out.

    Raises:
        OSError: There is no such checkpoint, or the copy cannot be written.
        ValueError: The file is no checkpoint, the model has no memory to extend, the region is empty or not that of the
            scores to add to, no new good or no defective image can be read, or the defective ones score hardly higher
            than the good ones.
    """
    content = checkpoint.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about thresholds, which are replaced here
        predictor = load(path, roi=roi, trust=trust, device=device)
    print(f"device {predictor.runtime.device}")
    if add and identify(decode(predictor.runtime.metadata["roi"])) != predictor.roi_digest:
        raise ValueError("--add: the checkpoint has the scores of another region of interest: leave --roi or --add out")
    skipped: list[str] = []
    own: Mapping[Path, int] = {}
    if remember:
        own = remember_more(predictor, content, good, skipped)
        good = list(own)
    state = checkpoint.State.load(content)
    if good and not remember:
        good = list(without(good, {*state.trained_on, *state.remembered}, skipped))
    if good:
        normal = _judge(predictor, "good", good, skipped, own)
        defective, _ = _judge(predictor, "defective", without_masks(bad), skipped)
        _take_scores(state, normal, defective, skipped, add=add)
    state.roi, state.threshold = encode(predictor.roi), threshold
    state.save(content)
    checkpoint.write(content, output)
    return predictor.threshold, load(output, roi=roi, trust=trust, device=device).threshold, skipped


def _take_scores(
    state: checkpoint.State,
    normal: tuple[list[float], list[float]],
    defective: list[float],
    skipped: list[str],
    *,
    add: bool,
) -> None:
    """Put scores and maxima of normal images, and scores of defective ones, in the place of those known or beside."""
    scores, maxima = normal
    if add:
        # A score that is the same to the last bit is of the same image, which must not count twice.
        new = [i for i, score in enumerate(scores) if score not in state.normal_scores]
        if len(new) < len(scores):
            skipped.append(f"{len(scores) - len(new)} good images whose scores the checkpoint has already")
        scores = state.normal_scores + [scores[i] for i in new]
        maxima = state.normal_maxima + [maxima[i] for i in new]
        defective = list(dict.fromkeys(state.defective_scores + defective))
    if defective:
        _check_separation(scores, defective)
    state.normal_scores, state.normal_maxima, state.defective_scores = scores, maxima, defective


def _check_separation(normal: Sequence[float], defective: Sequence[float]) -> None:
    """Refuse defects that no threshold separates from normal images, and warn of those that one barely does."""
    found = separation(normal, defective)
    text = (
        f"the {len(defective)} defective images score {{}} higher than the {len(normal)} good ones (image AUROC "
        f"{found:.2f}, 0.5 is chance); look at both with squad-lit predict and squad-lit view"
    )
    if found < _NO_SEPARATION:
        raise ValueError(text.format("hardly") + ", or leave --defective out; nothing was written")
    if found < _GOOD_SEPARATION:
        warnings.warn(text.format("only a little"), stacklevel=3)


def _judge(
    predictor: Predictor, name: str, paths: Sequence[Path], skipped: list[str], own: Mapping[Path, int] | None = None
) -> tuple[list[float], list[float]]:
    """Score of each image that can be read, and the highest pixel of its map.

    Images with a number of their own in the memory are judged one by one, each without its patches.
    """
    runtime: Any = predictor.runtime
    most = 1 if own else predictor.runtime.batch
    scores: list[float] = []
    maxima: list[float] = []
    images = read_each(predictor, progress(paths, desc="images", unit="image", disable=not paths), skipped)
    try:
        for batch in batches(images, most, lambda one: one[1].size):
            if own:
                runtime.detector.memory.left_out = own[batch[0][0]]
            for (path, _), found in zip(batch, judge_each(predictor, [pixels for _, pixels in batch]), strict=True):
                if isinstance(found, ValueError):
                    raise ValueError(f"{path}: {found}") from found
                if isinstance(found, Exception):
                    raise found
                scores.append(found.anomaly_score)
                maxima.append(float(np.nanmax(found.anomaly_map)))
    finally:
        images.close()
        if own:
            runtime.detector.memory.left_out = None
    if paths and not scores:
        raise ValueError(f"none of the {name} images can be read:\n" + "\n".join(skipped))
    return scores, maxima
