"""Listing, reading and resizing image files; pixel values are worked out by hand."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from squad_lit.dataset.image import image_size, list_images, read_image, read_mask, resize, resize_mask
from squad_lit.image.file import is_deep_colour


def save(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    """Write an 8-bit image (or one of the array's own type), making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(pixels)
    image = Image.fromarray(array if array.dtype != np.int64 else array.astype(np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Reading


def test_rgb_is_scaled_by_255(tmp_path):
    path = save(tmp_path / "a.png", [[[51, 102, 255], [0, 153, 204]]])
    image = read_image(path)
    assert image.shape == (3, 1, 2)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[:, 0].T, torch.tensor([[0.2, 0.4, 1.0], [0.0, 0.6, 0.8]]))


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[51, 255]]))
    torch.testing.assert_close(image, torch.tensor([[[0.2, 1.0]]]).expand(3, 1, 2))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_by_the_type_not_by_the_content(tmp_path, name):
    image = read_image(save(tmp_path / name, np.array([[13107, 26214]], dtype=np.uint16)))
    torch.testing.assert_close(image, torch.tensor([[[0.2, 0.4]]]).expand(3, 1, 2))


def test_16_bit_big_endian_tiff(tmp_path):
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (2, 1), bytes([0x33, 0x33, 0xFF, 0xFF])).save(path)  # 13107, 65535
    torch.testing.assert_close(read_image(path)[0], torch.tensor([[0.2, 1.0]]))


def test_alpha_is_dropped_not_blended(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[[51, 102, 255, 0], [51, 102, 255, 128]]]))
    torch.testing.assert_close(image[:, 0].T, torch.tensor([[0.2, 0.4, 1.0]] * 2))


def test_grey_with_alpha(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[[51, 0], [255, 9]]]))
    torch.testing.assert_close(image[1], torch.tensor([[0.2, 1.0]]))


def test_palette_gives_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 51, 102, 153])
    image.putdata([1, 0])
    image.save(tmp_path / "a.png")
    torch.testing.assert_close(read_image(tmp_path / "a.png")[:, 0].T, torch.tensor([[0.2, 0.4, 0.6], [1.0, 0.0, 0.0]]))


def test_black_and_white(tmp_path):
    image = read_image(save(tmp_path / "a.png", [[0, 255]], "1"))
    assert image[2].tolist() == [[0.0, 1.0]]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    path = save(tmp_path / "a.png", [[0, 51, 102], [153, 204, 255]], exif=exif)
    expected = torch.tensor([[0.6, 0.0], [0.8, 0.2], [1.0, 0.4]])
    torch.testing.assert_close(read_image(path)[0], expected)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(tmp_path, kind):
    path = save(tmp_path / "deep.tif", np.array([[1, 2]], dtype=kind))
    with pytest.raises(ValueError, match=r"deep\.tif has .* no fixed range"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", "cut", "flipped"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_broken_file_is_named(tmp_path, content, read):
    path = save(tmp_path / "broken 1.png", np.arange(48 * 48).reshape(48, 48) % 251)
    whole = path.read_bytes()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "flipped":
        content = whole[:60] + bytes(255 - byte for byte in whole[60:90]) + whole[90:]
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read image .*broken 1\.png"):
        read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot read image .*gone\.png"):
        read_image(tmp_path / "gone.png")


def test_any_non_zero_mask_pixel_counts(tmp_path):
    mask = read_mask(save(tmp_path / "a.png", [[0, 1, 2], [127, 255, 0]]))
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [[0, 1, 1], [1, 1, 0]]


def test_mask_of_16_bits(tmp_path):
    assert read_mask(save(tmp_path / "a.png", np.array([[0, 1, 256]], dtype=np.uint16))).tolist() == [[0, 1, 1]]


def test_mask_in_colour_ignores_alpha(tmp_path):
    rows = [[[0, 0, 0, 255], [0, 0, 7, 255], [0, 0, 0, 0], [9, 0, 0, 0]]]
    assert read_mask(save(tmp_path / "a.png", rows)).tolist() == [[0, 1, 0, 1]]
    assert read_mask(save(tmp_path / "b.png", [[[0, 255], [3, 0]]])).tolist() == [[0, 1]]


def test_mask_with_a_palette_counts_indices(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0] * 3)  # as written by tools that store class indices only
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 1]]


def test_mask_in_black_and_white(tmp_path):
    assert read_mask(save(tmp_path / "a.png", [[0, 255]], "1")).tolist() == [[0, 1]]


# Resizing


def test_resize_by_hand():
    # Halving with antialiasing: a triangle of half-width 2 about the new centres 1 and 3; weights 3/7, 3/7, 1/7.
    image = torch.tensor([[[0.0, 0.0, 7.0, 14.0]]])
    torch.testing.assert_close(resize(image, (1, 2)), torch.tensor([[[1.0, 9.0]]]))


@pytest.mark.parametrize("size", [(16, 24), (37, 20), (70, 90)])
def test_resize_equals_pillow(size):
    image = torch.rand(3, 48, 40, generator=torch.Generator().manual_seed(0))
    outside = [Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BILINEAR) for plane in image]
    torch.testing.assert_close(resize(image, size), torch.from_numpy(np.stack(outside)), atol=1e-5, rtol=0)


def test_resize_takes_batches_and_leaves_equal_sizes_alone():
    batch = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize(batch, (4, 4))[1], resize(batch[1], (4, 4)))
    assert resize(batch, (8, 6)) is batch


def test_resize_mask_takes_the_pixel_at_the_centre():
    mask = torch.tensor([[0, 1, 2, 3, 4, 5]], dtype=torch.uint8)
    assert resize_mask(mask, (1, 2)).tolist() == [[1, 4]]  # new centres 1.5 and 4.5
    assert resize_mask(mask[:, :2], (2, 4)).tolist() == [[0, 0, 1, 1]] * 2


# Listing


def test_list_images_skips_what_is_no_image(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.JPEG", "d.bmp", "e.TIF", "f.tiff", "g.webp"):
        (tmp_path / name).touch()
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "readme.txt", ".hidden.png", "a.png.bak", "png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == [
        "a.jpg", "b.PNG", "c.JPEG", "d.bmp", "e.TIF", "f.tiff", "g.webp",
    ]  # fmt: skip
    assert list_images(tmp_path / "none") == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_image_read(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert image_size(path) == tuple(read_image(path).shape[1:])


def test_size_of_a_broken_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(OSError, match=r"cannot read image .*broken\.png"):
        image_size(path)


def test_intensity_range_scales_grey_of_more_than_eight_bits(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1000, 2048, 4095, 5000]], np.uint16)).save(path)
    grey = read_image(path, intensity_range=[1000, 4095])[0, 0]
    torch.testing.assert_close(grey, torch.tensor([0.0, 0.0, 1048 / 3095, 1.0, 1.0]))
    torch.testing.assert_close(read_image(path)[0, 0, 3], torch.tensor(4095 / 65535))
    floats = tmp_path / "a.tif"
    Image.fromarray(np.array([[-1.0, 0.5, 2.0]], np.float32)).save(floats)
    with pytest.raises(ValueError, match=r"dataset\.intensity_range=\[LOW,HIGH\]"):
        read_image(floats)
    torch.testing.assert_close(read_image(floats, [-1, 1])[1, 0], torch.tensor([0.0, 0.75, 1.0]))


def test_the_size_of_a_png_is_read_from_its_header_alone(tmp_path):
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 8])  # no pixel is there
    assert image_size(tmp_path / "a.png") == (30, 20)


def write_deep_png(path, pixels):
    """A PNG of 16-bit colour, by its definition (RFC 2083): Pillow writes none."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_16_bit_colour_is_read_to_8_bits_and_takes_no_range(tmp_path):
    write_deep_png(tmp_path / "a.png", np.array([[[65535, 256 * 51 + 17, 0]]]))
    torch.testing.assert_close(read_image(tmp_path / "a.png").flatten(), torch.tensor([1.0, 0.2, 0.0]))
    assert is_deep_colour(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"image .*a\.png has 16-bit colours.*intensity_range cannot apply"):
        read_image(tmp_path / "a.png", [0, 4095])
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "b.png")
    assert not is_deep_colour(tmp_path / "b.png")
