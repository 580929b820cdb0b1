"""Whether a file is whole, against the decoder's own word."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from squad_lit.image.file import read_pixels
from squad_lit.image.intact import check_image

FORMS: dict[str, dict[str, Any]] = {
    "a.png": {},
    "a.jpg": {"quality": 90},
    "progressive.jpg": {"progressive": True},
    "a.bmp": {},
    "a.tif": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "a.webp": {"lossless": True},
}


def save(path: Path, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **FORMS[path.name])
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMS)
def test_a_whole_file_is_accepted_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    check_image(path)
    check_image(path, (0, 4095))


@pytest.mark.parametrize("name", FORMS)
def test_a_truncated_file_is_refused_if_it_cannot_be_decoded(tmp_path: Path, name: str) -> None:
    content = save(tmp_path / name)
    refused = 0
    for length in [*range(0, len(content), max(1, len(content) // 40)), len(content) - 1]:
        (tmp_path / name).write_bytes(content[:length])
        try:
            read_pixels(tmp_path / name)
        except OSError:
            refused += 1
            with pytest.raises(OSError, match=f"cannot read image .*{name}"):
                check_image(tmp_path / name)
        else:
            check_image(tmp_path / name)
    assert refused > 30


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_follows_an_image_in_its_file_does_no_harm(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(save(tmp_path / name) + b"written by a camera" * 9)
    check_image(tmp_path / name)


def test_a_damage_in_the_middle_is_found_by_decoding(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "a.png"))
    content[len(content) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    check_image(tmp_path / "a.png")
    for is_mask in (False, True):
        with pytest.raises(OSError, match=r"cannot read image .*a\.png"):
            check_image(tmp_path / "a.png", is_mask=is_mask, decode=True)


def test_pixels_that_may_be_no_numbers_are_always_looked_at(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
    for is_mask in (False, True):
        with pytest.raises(ValueError, match="NaN or infinite"):
            check_image(tmp_path / "a.tif", (0, 1), is_mask=is_mask)


def test_a_whole_file_that_reading_refuses_is_refused_here(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(OSError, match="it has 2 pages"):
        check_image(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", [256, 257, 258, 273])
def test_a_directory_that_lacks_an_entry_is_a_sentence(tmp_path: Path, tag: int) -> None:
    """As ``read_pixels`` says, which asks Pillow."""
    save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = int.from_bytes(content[4:8], "little") + 2
    place = next(p for p in range(at, len(content) - 12, 12) if int.from_bytes(content[p : p + 2], "little") == tag)
    content[place : place + 2] = (60000).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read image .*a\.tif"):
        read_pixels(tmp_path / "a.tif")
    with pytest.raises(OSError, match=r"cannot read image .*a\.tif"):
        check_image(tmp_path / "a.tif")
