"""Synthetic anomalies for training, on NumPy images ``(H, W, 3)`` float32 in [0, 1]."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy import ndimage

from squad_lit.synthesis.contract import Defect, within
from squad_lit.synthesis.defect import KINDS, Array, Mask, Scene, blend, blob, own, pasted, perlin
from squad_lit.synthesis.texture import Textures, packaged_textures
from squad_lit.system.option import Share, Weight, checked

Pair = Annotated[Sequence[float], Field(min_length=2, max_length=2)]
# Least mean absolute difference over the channels of a pixel that counts as changed, about what an inspector can see.
VISIBLE = 0.025
_MEAN = np.full(3, 1 / 3, np.float32)  # of the channels; a product is ten times as fast as a mean over a short axis
# A pixel that differs from the background by less than this share of the object's difference is in its shadow.
_SHADOW = 0.4


class Synthesis:
    """Draws synthetic anomalies, from gross ones to hairlines.

    With probability ``gross``, a sample is a texture or a displaced part of a normal image in a Perlin mask of up to
    ``gross_area`` of the image. Otherwise it is one to ``fine_count`` small defects with log-uniform areas, which start
    on the estimated foreground and may reach beyond it.

    Args:
        kinds: Weights of the kinds of small defect, by name. The built-in kinds are ``patch``, ``own``, ``tone``,
            ``smear``, ``stain``, ``dent``, ``warp``, ``scratch`` and ``missing``.
        gross: Probability of a gross defect.
        gross_area: Largest share of the image that a gross defect covers.
        fine_area: Smallest area of a small defect in pixels, and its largest area as a share of the image.
        fine_count: Largest number of small defects in an image, 1 to 100.
        opacity: Lowest and highest opacity of a defect, in (0, 1].
        texture_dir: Folder of texture images, such as DTD, used instead of those in scikit-image. An image is read when
            it is first drawn.
        defects: Kinds of defect of your own by name, beside the built-in ones; ``kinds`` has their weights.

    Raises:
        ValueError: A kind is unknown, no kind has a weight, a number is out of range, or a file in ``texture_dir`` is
            no image.
        FileNotFoundError: ``texture_dir`` does not exist or holds no image.
    """

    @checked
    def __init__(
        self,
        *,
        kinds: Mapping[str, Weight],
        gross: Share,
        gross_area: Share,
        fine_area: Pair,
        fine_count: Annotated[int, Field(ge=1, le=100)],
        opacity: Pair,
        texture_dir: str | None = None,
        defects: Mapping[str, Defect] | None = None,
    ) -> None:
        self.defects = KINDS | dict(defects or {})
        if unknown := sorted(set(kinds) - set(self.defects)):
            raise ValueError(f"kinds: unknown {unknown}; known: {sorted(self.defects)}")
        if not 0 < sum(kinds.values()) < math.inf:
            raise ValueError(f"kinds: expected weights with a positive sum, got {dict(kinds)}")
        if not (1 <= fine_area[0] <= 10_000 and 0 <= fine_area[1] <= 1):
            raise ValueError(
                f"fine_area: expected [smallest in px, 1 to 10,000, largest as share of the image], got {[*fine_area]}"
            )
        if not 0 < opacity[0] <= opacity[1] <= 1:
            raise ValueError(f"opacity: expected a range in (0, 1], got {[*opacity]}")
        self.names = list(kinds)
        self.weights = np.array([kinds[name] for name in self.names]) / sum(kinds.values())
        self.gross, self.gross_area = gross, gross_area
        self.fine_area, self.fine_count, self.opacity = fine_area, fine_count, (opacity[0], opacity[1])
        self._textures = None if texture_dir is None else Textures(texture_dir)

    @property
    def textures(self) -> Sequence[Array]:
        """Those of ``texture_dir`` or the packaged ones, read on first use because a prediction needs none."""
        return packaged_textures() if self._textures is None else self._textures

    def __call__(
        self, image: Array, others: Sequence[Array], rng: np.random.Generator, inside: Mask | None = None
    ) -> tuple[Array, Mask]:
        """Corrupt an image; see :class:`squad_lit.synthesis.contract.ImageSynthesis`."""
        foreground, background = estimate_foreground(image)
        if inside is not None:  # of a region without a part of the object, all is foreground
            foreground = foreground & inside if (foreground & inside).any() else inside
        scene = Scene(image, foreground, background, others, self.textures, rng)
        for _ in range(8):  # a draw may change nothing, e.g. a grey tone on grey
            changed = (self._gross if rng.random() < self.gross else self._fine)(scene).astype(np.float32)
            changed = within(changed, image, inside)
            mask = changed_pixels(image, changed)
            if mask.sum() >= self.fine_area[0] / 2:
                return changed, mask
        opposite = (image < 0.5).astype(np.float32)  # black or white, whichever is far, changes any image
        changed = blend(image, opposite, blob(scene, 4 * self.fine_area[0]), 1.0).astype(np.float32)
        changed = within(changed, image, inside)
        return changed, changed_pixels(image, changed)

    def _gross(self, scene: Scene) -> Array:
        rng = scene.rng
        noise = perlin(scene.image.shape[:2], 2.0 ** rng.uniform(1, 5, 2), rng)
        shape = noise > np.quantile(noise, 1 - rng.uniform(min(0.02, self.gross_area), self.gross_area))
        if not scene.foreground.all() and rng.random() < 0.7:
            shape &= scene.foreground
        fill = pasted(scene) if rng.random() < 0.7 else own(scene)
        return blend(scene.image, fill, shape.astype(np.float32), rng.uniform(*self.opacity))

    def _fine(self, scene: Scene) -> Array:
        rng = scene.rng
        smallest = self.fine_area[0]
        low, high = np.log(smallest), np.log(max(smallest, self.fine_area[1] * scene.foreground.size))
        for _ in range(rng.integers(1, self.fine_count + 1)):
            kind = self.defects[self.names[rng.choice(len(self.names), p=self.weights)]]
            area = float(np.exp(rng.uniform(low, high)))
            scene = scene._replace(image=kind(scene, area, rng.uniform(*self.opacity)))
        return scene.image


def estimate_foreground(image: Array) -> tuple[Mask, Array]:
    """Where the object is, if it lies on a plain background; everywhere otherwise.

    A quadratic surface, fitted to the colours along the border, is the background, because lighting is rarely even.

    Args:
        image: ``(H, W, 3)`` float32 in [0, 1].

    Returns:
        Mask ``(H, W)``, and the background ``(H, W, 3)``.
    """
    h, w = image.shape[:2]
    surface, border = _quadratic(h, w)
    terms, colours = surface[border], image[border]
    keep = np.ones(len(terms), bool)
    for _ in range(2):  # the second fit leaves out what crosses the border: a part of the object, a hook, a shadow
        weights = np.linalg.lstsq(terms[keep], colours[keep], rcond=None)[0]
        error = np.abs(terms @ weights - colours) @ _MEAN
        keep = error <= max(0.03, float(np.median(error)) * 3)
    background = (surface @ weights).clip(0, 1)
    everywhere = np.ones((h, w), bool)
    if keep.mean() < 0.7:
        return everywhere, background
    noise = float(np.median(error[keep]))
    # Half the resolution is enough and saves time on every synthetic image.
    away = ndimage.uniform_filter(np.abs(image[::2, ::2] - background[::2, ::2]) @ _MEAN, 3)
    found = away > max(0.06, 4 * noise)
    if found.any():  # soft shadows are much nearer to the background than the object that casts them
        found = away > max(0.06, 4 * noise, _SHADOW * float(np.quantile(away[found], 0.9)))
    found = ndimage.binary_dilation(_filled(ndimage.binary_closing(found)))
    found = found.repeat(2, 0).repeat(2, 1)[:h, :w]
    return (found, background) if 0.02 < found.mean() < 0.95 else (everywhere, background)


def _filled(mask: Mask) -> Mask:
    """The mask with its holes, as of ``ndimage.binary_fill_holes``, which takes ten times as long."""
    outside, _ = ndimage.label(~np.pad(mask, 1))
    return np.asarray(outside != outside[0, 0])[1:-1, 1:-1]


@cache
def _quadratic(height: int, width: int) -> tuple[Array, Mask]:
    """The terms of a quadratic surface ``(H, W, 6)``, and pixels along the border ``(H, W)``."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width)), indexing="ij")
    border = np.zeros((height, width), bool)
    border[::4, [1, -2]] = border[[1, -2], ::4] = True
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1), border


def changed_pixels(before: Array, after: Array) -> Mask:
    """Pixels that changed visibly, with pinholes closed; both images ``(H, W, 3)`` in [0, 1]."""
    changed = np.abs(after - before) @ _MEAN > VISIBLE
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    if len(rows):  # farther away there is nothing to close
        box = tuple(slice(max(at[0] - 1, 0), at[-1] + 2) for at in (rows, columns))
        changed[box] |= ndimage.binary_closing(changed[box], np.ones((3, 3), bool))
    return changed
