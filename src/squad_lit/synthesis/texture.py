"""Textures for synthetic anomalies, from a folder or from scikit-image."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray

from squad_lit.image.file import IMAGE_EXTENSIONS, is_image, open_header, read_pixels, to_float32
from squad_lit.synthesis.defect import Array

# Images inside the scikit-image wheel that show texture rather than a drawing.
_PACKAGED = ["brick", "grass", "gravel", "camera", "coins", "moon", "page", "text", "cell", "astronaut", "chelsea"]
_PACKAGED += ["coffee", "rocket", "retina", "hubble_deep_field", "immunohistochemistry"]


class Textures(Sequence[Array]):
    """The images under a folder, read when they are asked for; the last 256 stay in memory.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: A file is no image.
    """

    def __init__(self, root: str) -> None:
        if not root or not Path(root).is_dir():  # an empty path would be the current folder
            raise FileNotFoundError(f"texture_dir: there is no folder {root!r}")
        self.files = [path for path in sorted(Path(root).rglob("*")) if is_image(path)]
        if not self.files:
            raise FileNotFoundError(f"texture_dir: no image ({', '.join(IMAGE_EXTENSIONS)}) under {root}")
        for path in self.files:  # otherwise a damaged file would end the training at the step that draws it
            try:
                with open_header(path):
                    pass
            except OSError as error:
                raise ValueError(f"texture_dir: {error}") from error

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return _read_texture(self.files[index])


@lru_cache(maxsize=256)  # about 250 MB
def _read_texture(path: Path) -> Array:
    return _to_texture(to_float32(read_pixels(path)))


@lru_cache(maxsize=1)
def packaged_textures() -> list[Array]:
    """The images of scikit-image that show texture, in the form of :class:`Textures`."""
    return [_to_texture(getattr(skimage.data, name)()) for name in _PACKAGED]


def _to_texture(image: NDArray[Any]) -> Array:
    """An 8-bit or float, grey or colour image as ``(H, W, 3)`` float32 in [0, 1] with a shorter side of 256 px."""
    image = skimage.util.img_as_float32(image)
    image = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]
    scale = 256 / min(image.shape[:2])
    size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
    return skimage.transform.resize(image, size, anti_aliasing=True).astype(np.float32)
