"""Where the time of a prediction goes: decoding, resizing, the model, regions and writing, one after the other."""

from __future__ import annotations

import contextlib
import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from squad_lit.deploy.output_folder import files, write
from squad_lit.image.file import resize_pixels, resize_plane, to_uint8

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor
    from squad_lit.deploy.runtime import Output, Runtime

STAGES = ("decoding", "resizing", "model", "regions", "writing")
"""The stages of a prediction, in their order."""
# Images that are measured, and passes before them, in which a runtime prepares itself.
_IMAGES, _WARM_UP = 8, 2


def measure(predictor: Predictor, images: Sequence[Path]) -> dict[str, float]:
    """Milliseconds per image by stage: medians of up to eight images that are judged one by one.

    Resizing is that of the image to the model's size, and that of the map back. Inside of an exported graph it cannot
    be seen, so it is what an image takes longer there than one that has the model's size already. Regions are the mask
    and its connected parts. Writing is that of map, mask and overlay.

    Args:
        predictor: The model.
        images: Files that can be read, at least one.

    Returns:
        A value for each of ``STAGES``.
    """
    chosen = images[:: -(-len(images) // _IMAGES)]
    for _ in range(_WARM_UP):
        _measure(predictor, chosen[0])
    rows = [_measure(predictor, path) for path in chosen]
    return {stage: 1000 * max(0.0, statistics.median(row[stage] for row in rows)) for stage in STAGES}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Rows of :func:`measure` as lines of text, under a head."""
    width = max(map(len, rows), default=0)
    lines = [f"{'ms per image':<{max(width, 12)}}" + "".join(f"{stage:>10}" for stage in STAGES)]
    for name, row in rows.items():
        lines.append(f"{name:<{max(width, 12)}}" + "".join(f"{row[stage]:>10.1f}" for stage in STAGES))
    return "\n".join(lines)


def _measure(predictor: Predictor, path: Path) -> dict[str, float]:
    """Seconds of an image by stage."""
    clock = _Clock()
    timed = copy.copy(predictor)
    timed.runtime = _Timed(predictor.runtime, clock)
    size = predictor.runtime.metadata["image_size"]
    with clock("decoding"):
        pixels = predictor.read(path)
    with clock("judging"):
        result = timed.predict(pixels)
    if predictor.runtime.metadata["tile"] is None:
        small = resize_pixels(pixels, size)
        with clock("alone"):
            predictor.runtime.run(small[None] if pixels.dtype == small.dtype else to_uint8(small)[None])
        clock.seconds["regions"] = clock.seconds["judging"] - clock.seconds["model"]
        clock.seconds["resizing"] = clock.seconds["model"] - clock.seconds["alone"]
        clock.seconds["model"] = min(clock.seconds["model"], clock.seconds["alone"])
    else:  # the predictor resizes, and the graph sees tiles
        with clock("resizing"):
            resize_plane(resize_pixels(pixels, size)[..., 0], pixels.shape[:2])
        clock.seconds["regions"] = clock.seconds["judging"] - clock.seconds["model"] - clock.seconds["resizing"]
    with tempfile.TemporaryDirectory() as place, clock("writing"):
        write(result, to_uint8(pixels), files(Path(place), path.name), predictor.pixel_threshold.value)
    return clock.seconds


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started


class _Timed:
    """A runtime whose time is that of the model."""

    def __init__(self, runtime: Runtime, clock: _Clock) -> None:
        self.metadata, self.device, self.batch = runtime.metadata, runtime.device, runtime.batch
        self._runtime, self._clock = runtime, clock

    def run(self, image: NDArray[Any]) -> Output:
        with self._clock("model"):
            return self._runtime.run(image)
