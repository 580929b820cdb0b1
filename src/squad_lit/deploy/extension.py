"""New normal images for the memory of a trained model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from squad_lit.deploy.known_image import listed, note, without
from squad_lit.deploy.pixel_model import shrink
from squad_lit.image.tile import AT_ONCE
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


def extend(predictor: Predictor, detector: Detector, paths: Sequence[Path]) -> None:
    """Let the memory of a model remember patches of new normal images beside those that it has, and say so.

    Args:
        predictor: Reads the images.
        detector: The model, whose ``state.remembered`` has the images that were added before.
        paths: The new images, which can be read.
    """
    started, memory, state = time.perf_counter(), memory_of(detector), detector.state
    grid = detector.grid(state.image_size)

    def features() -> Iterator[dict[str, Tensor]]:
        for path in progress(paths, desc="memory", unit="image"):
            pixels = torch.tensor(predictor.read(path)[None], device=detector.device)
            for tiles in cut(shrink(pixels, state.image_size), grid).split(AT_ONCE):
                yield detector.backbone(tiles)

    with torch.no_grad(), progress(total=memory.patches, desc="coreset", unit="patch", leave=False) as bar:
        memory.extend(
            features(),
            len(paths),
            detector.seed,
            bar.update,
            known=len(state.trained_on) + len(state.remembered),
            first=-1 - len(state.remembered),
            tiles=len(grid),
            inside=detector.inside_tiles(),
        )
    added = int((memory.source < 0).sum())
    print(
        f"memory: {len(memory.rows):,} patches, {added:,} of them of {len(state.remembered) + len(paths):,} images "
        f"beside the {len(state.trained_on):,} of the training; {time.perf_counter() - started:.1f} seconds"
    )


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
    by_digest: dict[str, Path] = {}
    copies = []
    for path, found in without(good, state.trained_on, skipped).items():
        if found in by_digest:
            copies.append(path)
        by_digest.setdefault(found, path)
    note(skipped, copies, len(good), "which are there twice")
    if before := [path for found, path in by_digest.items() if found in state.remembered]:
        print(f"{len(before)} of {len(good)} good images were remembered before: {listed(before)}")
    new = {path: found for found, path in by_digest.items() if found not in state.remembered}
    with ThreadPoolExecutor() as threads:
        errors = dict(zip(new, threads.map(partial(_why_unreadable, predictor), new), strict=True))
    skipped += filter(None, errors.values())
    readable = [path for path in new if not errors[path]]
    if not readable and not before:
        raise ValueError("none of the good images can be read:\n" + "\n".join(skipped))
    if readable:
        extend(predictor, detector, readable)
        state.remembered += [new[path] for path in readable]
        content["state_dict"] |= {f"memory.{name}": value.cpu() for name, value in memory.state_dict().items()}
        state.save(content)
    return {by_digest[found]: -1 - i for i, found in enumerate(state.remembered) if found in by_digest}


def read(predictor: Predictor, path: Path) -> NDArray[Any] | str:
    """The pixels of an image, or why it cannot be read."""
    try:
        return predictor.read(path)
    except (OSError, ValueError) as error:
        return str(error)


def _why_unreadable(predictor: Predictor, path: Path) -> str:
    found = read(predictor, path)
    return found if isinstance(found, str) else ""
