"""The backbone of an exported ONNX file in 8 bits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime import quantization

from squad_lit.deploy.metadata import KEY
from squad_lit.deploy.seal import OPEN, seal
from squad_lit.image.file import find_images, read_pixels, resize_pixels, to_uint8
from squad_lit.image.tile import Grid

# Most images that give ranges.
_IMAGES = 64
# Start of the names of its weights. The rest stays in float32: it judges differences that 8 bits would drown.
_BACKBONE = "detector.backbone."


def choose_images(folder: Path) -> list[Path]:
    """The images of a folder, searched at any depth, or at most 64 of them at regular distances.

    Raises:
        ValueError: There is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"--int8: there is no folder {folder.resolve()}; name one of normal training images")
    images = find_images([folder])
    return images[:: -(-len(images) // _IMAGES)]


def quantize(path: Path, images: Sequence[Path], about: dict[str, Any]) -> None:
    """Quantise the convolutions of the backbone in place: weights per channel, activations by their range on images.

    The first convolution, which has 3 input channels, and depthwise ones stay in float32: they are cheap and lose most
    (experiments/export).

    Args:
        path: An ONNX file that :mod:`squad_lit.deploy.export` wrote.
        images: Normal training images, whose activations give the ranges.
        about: The description to write into the file.

    Raises:
        ValueError: The backbone has no convolution.
        OSError: An image cannot be read.
    """
    model = onnx.load(path)
    weights = {value.name: value.dims for value in model.graph.initializer if value.name.startswith(_BACKBONE)}
    chosen = [n.name for n in model.graph.node if n.op_type == "Conv" and weights.get(n.input[1], [0, 3])[1] > 3]
    if not chosen:
        raise ValueError("--int8 quantises convolutions, and this backbone has none")
    quantization.quantize_static(
        model,
        path,
        _Reader(images, about),
        per_channel=True,
        nodes_to_quantize=chosen,
        activation_type=quantization.QuantType.QUInt8,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(about | {"precision": "int8 backbone", "digest": OPEN})})
    onnx.save(model, path)
    seal(path)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Feeds the images one by one, or a tile of each."""

    def __init__(self, paths: Sequence[Path], about: dict[str, Any]) -> None:
        self._images = inputs(paths, about)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def inputs(paths: Iterable[Path], about: dict[str, Any]) -> Iterator[NDArray[Any]]:
    """Images, or a tile of each, as the graph takes them: ``(H, W, 3)``."""
    for number, path in enumerate(paths):
        pixels = read_pixels(path, about["intensity_range"])
        if about["tile"] is None:
            yield to_uint8(pixels)
        else:
            windows = Grid(about["image_size"], **about["tile"]).windows
            yield resize_pixels(pixels, about["image_size"])[windows[number % len(windows)]]
