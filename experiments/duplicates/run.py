"""How much nearer than neighbours are two images of one part? Where the limit of ``squad_lit.dataset.duplicates`` is.

    SQUAD_LIT_DATA=PATH python -m experiments.duplicates.run

Of each category the good training images are taken, and copies of some are made: compressed, of half the size,
brighter, with noise, moved and turned. Distances are in units of the median distance of an image to its nearest one:
those of the two nearest pairs of the images themselves, and the largest one of a copy to its original. Thumbnails are
those of ``squad-lit check``, features those of ``squad-lit check checkpoint=...``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from experiments.threshold.few import CATEGORIES
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch.nn import functional as F

from squad_lit.dataset.duplicates import thumbnail
from squad_lit.dataset.image import resize
from squad_lit.run.config import compose
from squad_lit.run.option import make

IMAGES, EVERY = 90, 15  # images of a category, and of them one of so many is copied
Picture = Image.Image


def changed(image: Picture, seed: int) -> Mapping[str, Picture]:
    """Copies of an image by what was done to them."""
    width, height = image.size
    compressed = io.BytesIO()
    image.save(compressed, "JPEG", quality=60)
    corner: Any = image.getpixel((0, 0))
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))

    def moved(share: float) -> Picture:
        matrix = (1, 0, share * width, 0, 1, share * height)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=corner)

    return {
        "JPEG of quality 60": Image.open(compressed).convert("RGB"),
        "half the size": image.resize((width // 2, height // 2)),
        "5 % brighter": ImageEnhance.Brightness(image).enhance(1.05),
        "noise of 6 grey levels": Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)),
        "moved by 0.5 %": moved(0.005),
        "turned by 2 degrees": image.rotate(2, fillcolor=corner),
    }


def ratios(vectors: NDArray[Any], copies: Mapping[str, list[tuple[int, NDArray[Any]]]]) -> dict[str, float]:
    """Distances in units of the median distance to the nearest image."""
    mean = vectors.mean(0)

    def unit(vector: NDArray[Any]) -> NDArray[Any]:
        away = vector - mean
        return away / np.linalg.norm(away, axis=-1, keepdims=True)

    units = unit(vectors)
    distance = np.sqrt(np.maximum(2 - 2 * units @ units.T, 0))
    np.fill_diagonal(distance, np.inf)
    usual = np.median(distance.min(1))
    pairs = np.sort(distance[np.triu_indices(len(units), 1)])
    found = {"nearest pair": pairs[0], "second": pairs[1]}
    found |= {name: max(np.linalg.norm(unit(v) - units[i]) for i, v in rows) for name, rows in copies.items()}
    return {name: float(value / usual) for name, value in found.items()}


@torch.inference_mode()
def main() -> None:
    """A table in Markdown."""
    heads: list[str] = []
    for category, dataset in CATEGORIES.items():
        config = compose([f"dataset={dataset}", f"dataset.category={category}", "model=memory"])
        data, backbone = make(config, "dataset"), make(config, "model").backbone
        paths = [sample.image_path for sample in data.scans[category][0][:IMAGES]]
        images = [Image.open(path).convert("RGB") for path in paths]

        def tensor(image: Picture) -> torch.Tensor:
            return resize(torch.tensor(np.asarray(image)).permute(2, 0, 1).float() / 255, (256, 256))[None]

        backbone.fit(map(tensor, images[:30]))

        def features(image: Picture, backbone: Any = backbone) -> NDArray[Any]:
            return torch.cat([F.adaptive_avg_pool2d(f, 4).flatten() for f in backbone(tensor(image)).values()]).numpy()

        kinds: dict[str, Callable[[Picture], NDArray[Any]]] = {
            "thumbnails": lambda image: thumbnail(np.asarray(image)),
            "features": features,
        }
        for kind, vector in kinds.items():
            copies: dict[str, list[tuple[int, NDArray[Any]]]] = {}
            for i in range(0, len(images), EVERY):
                for name, image in changed(images[i], i).items():
                    copies.setdefault(name, []).append((i, vector(image)))
            found = ratios(np.stack([vector(image) for image in images]), copies)
            if not heads:
                heads = [*found]
                print("| category | by | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 2) + "|")
            print(f"| {category} | {kind} | " + " | ".join(f"{found[h]:.2f}" for h in heads) + " |", flush=True)


if __name__ == "__main__":
    main()
