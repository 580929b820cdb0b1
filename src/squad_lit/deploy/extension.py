"""New normal images for the memory of a trained model."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from squad_lit.deploy.known_image import listed, without
from squad_lit.deploy.pixel_model import shrink
from squad_lit.deploy.together import AHEAD
from squad_lit.image.tile import AT_ONCE
from squad_lit.system.ahead import ahead
from squad_lit.system.console import say
from squad_lit.system.progress import progress
from squad_lit.training.forward import cut

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor
    from squad_lit.network.patch_memory import PatchMemory
    from squad_lit.training.detector import Detector


def memory_of(detector: Detector) -> PatchMemory:
    """The memory of a model.

    Raises:
        ValueError: It has none.
    """
    memory: PatchMemory | None = getattr(detector, "memory", None)
    if memory is None:
        raise ValueError(
            f"--remember: the model ({type(detector).__name__}) has no memory of patches that new images could extend; "
            f"model=hybrid and model=memory have one. Leave --remember out to find new thresholds alone"
        )
    return memory


def extend(predictor: Predictor, detector: Detector, paths: Sequence[Path], skipped: list[str]) -> list[Path]:
    """Let the memory of a model remember patches of new normal images beside those that it has, and say so.

    Args:
        predictor: Reads the images.
        detector: The model, whose ``state.remembered`` has the images that were added before.
        paths: The new images.
        skipped: Takes lines that say which of them cannot be read.

    Returns:
        The images that can be read. Without any, nothing is changed.
    """
    started, memory, state = time.perf_counter(), memory_of(detector), detector.state
    grid = detector.grid(state.image_size)
    images = read_each(predictor, progress(paths, desc="memory", unit="image"), skipped)
    added: list[Path] = []

    def features(images: Iterable[tuple[Path, NDArray[Any]]]) -> Iterator[dict[str, Tensor]]:
        for path, pixels in images:
            added.append(path)
            planes = shrink(torch.tensor(pixels[None], device=detector.device), state.image_size)
            for tiles in cut(planes, grid).split(AT_ONCE):
                yield detector.backbone(tiles)

    with contextlib.closing(images):
        if (first := next(images, None)) is None:
            return []
        with torch.no_grad(), progress(total=memory.patches, desc="coreset", unit="patch", leave=False) as bar:
            memory.extend(
                features(itertools.chain([first], images)),
                len(paths),
                detector.seed,
                bar.update,
                known=len(state.trained_on) + len(state.remembered),
                first=-1 - len(state.remembered),
                tiles=len(grid),
                inside=detector.inside_tiles(),
            )
    new = int((memory.source < 0).sum())
    say(
        f"memory: {len(memory.rows):,} patches, {new:,} of them of {len(state.remembered) + len(added):,} images "
        f"beside the {len(state.trained_on):,} of the training; {time.perf_counter() - started:.1f} seconds"
    )
    return added


def remember_more(
    predictor: Predictor, content: dict[str, Any], good: Sequence[Path], skipped: list[str]
) -> dict[Path, int]:
    """Extend the memory of a model by those normal images that it does not know.

    Args:
        predictor: The model of a checkpoint, which is changed.
        content: The checkpoint, which gets the memory and the digests of the new images.
        good: Normal images. Those that the model was trained on are left out.
        skipped: Takes lines that say which images are left out.

    Returns:
        The images that are to be judged, new ones and those that were remembered before, and the number of each in the
        memory.

    Raises:
        ValueError: The model has no memory, or there is no such image.
    """
    runtime: Any = predictor.runtime
    detector: Detector = runtime.detector
    memory = memory_of(detector)  # before the work
    runtime.captures = False  # a captured graph would go on with the memory of before
    state = detector.state
    by_digest = {found: path for path, found in without(good, state.trained_on, skipped).items()}
    if before := [path for found, path in by_digest.items() if found in state.remembered]:
        say(f"{len(before)} of {len(good)} good images were remembered before: {listed(before)}")
    new = {path: found for found, path in by_digest.items() if found not in state.remembered}
    added = extend(predictor, detector, list(new), skipped)
    if not added and not before:
        raise ValueError("none of the good images can be read:\n" + "\n".join(skipped))
    state.remembered += [new[path] for path in added]
    content["state_dict"] |= {f"memory.{name}": value.cpu() for name, value in memory.state_dict().items()}
    state.save(content)
    return {by_digest[found]: -1 - i for i, found in enumerate(state.remembered) if found in by_digest}


def read_each(predictor: Predictor, paths: Iterable[Path], skipped: list[str]) -> Generator[tuple[Path, NDArray[Any]]]:
    """The images that can be read, and their pixels; threads read the next ones. Why others cannot be is noted."""

    def read(path: Path) -> tuple[Path, NDArray[Any] | str]:
        try:
            return path, predictor.read(path)
        except (OSError, ValueError) as error:
            return path, str(error)

    threads = ThreadPoolExecutor()
    try:
        for path, pixels in ahead(threads, read, paths, AHEAD):
            if isinstance(pixels, str):
                skipped.append(pixels)
            else:
                yield path, pixels
    finally:
        threads.shutdown(cancel_futures=True)
