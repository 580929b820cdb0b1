"""Each form of an image against a file of the same values."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from squad_lit.image.file import read_pixels
from squad_lit.image.input import to_pixels

RANGE = (100.0, 4095.0)


def values(*shape: int, kind: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected) and found.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_arrays_of_8_bits(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = values(*shape)
    Image.fromarray(array.squeeze()).save(tmp_path / "a.png")
    assert same(to_pixels(array), read_pixels(tmp_path / "a.png"))
    assert same(to_pixels(array[::-1, ::-1]), read_pixels(tmp_path / "a.png")[::-1, ::-1].copy())


@pytest.mark.parametrize("intensity_range", [None, RANGE])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1)])
def test_grey_arrays_of_16_bits(tmp_path: Path, shape: tuple[int, ...], intensity_range: Any) -> None:
    array = values(*shape, kind=np.uint16)
    Image.fromarray(array.squeeze()).save(tmp_path / "a.png")
    expected = read_pixels(tmp_path / "a.png", intensity_range)
    assert same(to_pixels(array, "image", intensity_range), expected)
    assert same(to_pixels(array.astype(">u2"), "image", intensity_range), expected)


def test_grey_arrays_of_32_bits_have_the_range_of_the_model(tmp_path: Path) -> None:
    array = values(6, 5, kind=np.int32) // 2**16
    Image.fromarray(array).save(tmp_path / "a.tif")
    assert same(to_pixels(array, "image", RANGE), read_pixels(tmp_path / "a.tif", RANGE))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits(tmp_path: Path, channels: int) -> None:
    """A PNG by its definition (RFC 2083): Pillow writes none of 16-bit colour."""
    array = values(6, 5, channels, kind=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", 5, 6, 16, 2 if channels == 3 else 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in chunks:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
    assert same(to_pixels(array), read_pixels(tmp_path / "a.png"))
    for image in (tmp_path / "a.png", array):
        with pytest.raises(ValueError, match="has 16-bit colours"):
            to_pixels(image, "image", RANGE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_pillow_images_of_every_mode(tmp_path: Path, mode: str) -> None:
    colour = Image.fromarray(values(6, 5, 3))
    if mode == "I;16":
        image = Image.fromarray(values(6, 5, kind=np.uint16))
    elif mode == "PA":  # no file has it
        image = colour.convert("P").convert("PA")
        assert same(to_pixels(image), np.asarray(colour.convert("P").convert("RGB")))
        return
    else:
        image = colour.convert(mode)
    image.save(tmp_path / "a.tif")
    given = RANGE if mode in ("I", "F") else None
    assert same(to_pixels(image, "image", given), read_pixels(tmp_path / "a.tif", given))


@pytest.mark.parametrize("mode", ["La", "RGBa", "RGBX", "YCbCr", "HSV", "LAB"])
def test_pillow_images_of_modes_that_no_file_has(mode: str) -> None:
    assert to_pixels(Image.new(mode, (5, 6))).shape == (6, 5, 3)


def test_floats_and_tensors_have_their_range_already() -> None:
    array = values(6, 5, 3) / 255
    for intensity_range in (None, RANGE):
        assert same(to_pixels(array, "image", intensity_range), array.astype(np.float32))
        tensor = torch.tensor(array).permute(2, 0, 1)
        assert same(to_pixels(tensor, "image", intensity_range), array.astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float16, bool])
def test_tensors_are_as_arrays_with_the_channels_first(shape: tuple[int, ...], kind: Any) -> None:
    array = values(*shape) > 99 if kind is bool else values(*shape, kind=np.uint8).astype(kind)
    array = array / kind(255) if np.dtype(kind).kind == "f" else array
    tensor = torch.tensor(array)
    assert same(to_pixels(tensor.permute(2, 0, 1) if array.ndim == 3 else tensor), to_pixels(array))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_order_of_opencv_is_turned(channels: int, kind: Any) -> None:
    rgb = values(6, 5, channels, kind=kind)
    bgr = rgb[..., [2, 1, 0, 3][:channels]]
    assert same(to_pixels(bgr, channels="BGR"), to_pixels(rgb))
    grey = values(6, 5, 1, kind=kind)
    assert same(to_pixels(grey, channels="BGR"), to_pixels(grey))
    image = Image.fromarray(values(6, 5, 3))
    assert same(to_pixels(image, channels="BGR"), to_pixels(image))  # it knows its own


def test_true_is_white(tmp_path: Path) -> None:
    array = values(6, 5) > 99
    Image.fromarray(array).save(tmp_path / "a.png")
    assert same(to_pixels(array), read_pixels(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (None, TypeError, r"images\[3\]: expected a file name, a PIL image, an array or a tensor, got NoneType"),
        (b"\x89PNG", TypeError, r"got bytes; decode it with PIL\.Image\.open"),
        ({"image": 1}, TypeError, "got dict"),
        (io.BytesIO(), TypeError, "got BytesIO"),
        (3.5, TypeError, "got float"),
        ([[1, 2], [3, 4]], TypeError, "got list"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"\(H, W, C\) with 1, 3 or 4 channels, got shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"got shape \(2, 4, 4, 3\); several images are a list"),
        (np.float32(3), ValueError, r"got shape \(\)"),
        (np.zeros((0, 0, 3), np.uint8), ValueError, r"got shape \(0, 0, 3\)"),
        (np.full((4, 4), 4095.0), ValueError, r"expected values in \[0, 1\], got 0?.*4\.1e\+03"),
        (np.full((4, 4), 200), ValueError, r"got 200 to 200 of int64; if 255 is white, use image\.astype\('uint8'\)"),
        (np.full((4, 4), 900), ValueError, r"got 900 to 900 of int64; divide by the largest value that the camera"),
        (np.array([[0.5, np.nan]]), ValueError, r"images\[3\] has values that are NaN or infinite, 1 of 2"),
        (np.full((4, 4), np.inf, np.float16), ValueError, r"images\[3\] has values that are NaN or infinite, 16"),
        (np.full((4, 4), "a"), ValueError, "expected numbers, uint8, uint16, bool or float in .*, got <U1"),
        (np.zeros((3, 40, 50), np.uint8), ValueError, r"got shape \(3, 40, 50\); where the channels come first, use"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), ValueError, r"images\[3\] has float pixels"),
        (torch.zeros(40, 50, 3), ValueError, r"expected a tensor \(H, W\) or \(C, H, W\) .*got shape \(40, 50, 3\)"),
        (torch.full((3, 4, 4), np.nan), ValueError, r"images\[3\] has values that are NaN or infinite, 48"),
    ],
)
def test_what_is_no_image_is_named(image: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        to_pixels(image, "images[3]")
