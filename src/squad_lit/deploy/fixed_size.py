"""A file for images of one number and size, behind a runtime that takes images of any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.file import resize_pixels, resize_plane, to_uint8

if TYPE_CHECKING:
    from squad_lit.deploy.runtime import Output, Runtime


class FixedSize:
    """Resizes images and maps outside of the graph, and fills up batches.

    A graph of uint8 gets resized pixels that are rounded to 8 bits, so scores differ a little from those of a file for
    any size, which resizes in floats.

    Args:
        runtime: What runs the file; its metadata has the shape of its input.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.metadata, self.device = runtime.metadata, runtime.device
        self.batch, *self._size = runtime.metadata["input"]["shape"][:3]

    def run(self, image: NDArray[Any]) -> Output:
        """Maps and scores of images ``(N, H, W, 3)``; see :meth:`squad_lit.deploy.runtime.Runtime.run`."""
        size = image.shape[1:3]
        fits = list(size) == self._size
        pixels = image if fits else np.stack([self._resize(one) for one in image])
        parts = [self._run(pixels[start : start + self.batch]) for start in range(0, len(pixels), self.batch)]
        anomaly_map, score, model_map = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if not fits:
            anomaly_map = np.stack([resize_plane(one, size) for one in anomaly_map])
        return type(parts[0])(anomaly_map, score, model_map)

    def _resize(self, pixels: NDArray[Any]) -> NDArray[Any]:
        resized = resize_pixels(pixels, self._size)
        return to_uint8(resized) if self.metadata["input"]["type"] == "uint8" else resized

    def _run(self, pixels: NDArray[Any]) -> Output:
        """As many images as the graph takes, or fewer."""
        count = len(pixels)
        if count < self.batch:
            pixels = np.concatenate([pixels, pixels[-1:].repeat(self.batch - count, axis=0)])
        found = self._runtime.run(pixels)
        return type(found)(*(array[:count] for array in found))
