"""Which files are opened, and that Pillow's limit of pixels is the host's alone."""

import io
import os
import struct
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squad_lit.image import file
from squad_lit.image.file import is_deep_colour, open_header, read_marked, read_pixels

LIMIT = 100


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "deflate.tif", "tiled.tif"])
def test_an_image_of_any_size_is_read_and_the_hosts_limit_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Watched(types.ModuleType):
        def __setattr__(self, key: str, value: Any) -> None:
            assert key != "MAX_IMAGE_PIXELS"
            super().__setattr__(key, value)

    pixels = np.arange(400, dtype=np.uint16).astype(np.uint8).reshape(20, 20)
    compression = {"compression": "tiff_adobe_deflate"} if name.startswith("deflate") else {}
    Image.fromarray(pixels).save(tmp_path / name, **compression)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / name)
    monkeypatch.setattr(Image, "__class__", Watched)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_pixels(tmp_path / name)
        assert read_marked(tmp_path / name).shape == (20, 20)
        assert not is_deep_colour(tmp_path / name)
        with open_header(tmp_path / name) as image:
            assert image.size == (20, 20)
    assert found.shape == (20, 20, 3)
    assert abs(found[..., 0].astype(int) - pixels).max() <= (60 if name == "a.jpg" else 0)


def test_importing_changes_no_setting_of_pillow() -> None:
    code = "from PIL import Image; before = Image.MAX_IMAGE_PIXELS; import squad_lit.deploy.predictor; "
    code += "import squad_lit.predict; assert Image.MAX_IMAGE_PIXELS == before > 0"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_content_says_what_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other program is started: Pillow gives PostScript to Ghostscript."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(postscript)
    images = [tmp_path / "a.png"]
    for form in ("GIF", "PPM", "TGA", "ICO", "PCX", "PDF", "JPEG2000"):
        images.append(tmp_path / f"{form}.png")
        Image.new("RGB", (8, 8)).save(images[-1], format=form)
    for path in images:
        with pytest.raises(OSError, match=rf"cannot read image .*{path.name}: its content is not that of a PNG, JPEG"):
            read_pixels(path)
    assert not (tmp_path / "started").exists()
    for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        Image.new("RGB", (8, 6), (9, 99, 200)).save(tmp_path / "any.bmp", format=form, quality=95)
        assert abs(read_pixels(tmp_path / "any.bmp").astype(int) - (9, 99, 200)).max() < 8
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"a\.png: it is empty"):
        read_pixels(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"cannot read image .*absent\.png: No such file or directory$"):
        read_pixels(tmp_path / "absent.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.timeout(20)
def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        for read in (read_pixels, read_marked, open_header):
            with pytest.raises(OSError, match=f"cannot read image {path}: it is no regular file"):
                read(path)


def test_sizes_are_compared_with_the_memory_before_anything_is_decoded(
    tmp_path: Path, header_of_png: Callable[[Path, int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    giant = header_of_png(tmp_path / "giant.png", 65535, 60000)
    with pytest.raises(OSError, match=r"giant\.png: its 60000 x 65535 pixels .* need about 196\.6 GB of memory, and"):
        read_pixels(giant)
    monkeypatch.setattr(file, "free_memory", lambda: 1.2e9)
    with pytest.raises(OSError, match=r"need about 1\.2 GB of memory, and 1\.2 GB are free"):
        read_marked(header_of_png(tmp_path / "large.png", 5000, 5000))
    with pytest.raises(OSError, match=r"small\.png: (?!its).*"):  # read, and found to be broken
        read_marked(header_of_png(tmp_path / "small.png", 4800, 4800))


def test_a_jpeg_file_whose_bytes_cannot_be_all_of_its_pixels_is_damaged(tmp_path: Path) -> None:
    plain = Image.new("L", (2500, 2000), 90)  # nothing takes fewer bytes than one colour
    plain.save(tmp_path / "plain.jpg", progressive=True, optimize=True)
    assert read_pixels(tmp_path / "plain.jpg").shape == (2000, 2500, 3)
    content = bytearray((tmp_path / "plain.jpg").read_bytes())
    at = content.find(b"\xff\xc2") + 5  # the frame's header: height and width (ITU T.81, B.2.2)
    assert struct.unpack(">HH", content[at : at + 4]) == (2000, 2500)
    content[at : at + 4] = struct.pack(">HH", 20000, 20000)
    (tmp_path / "forged.jpg").write_bytes(content)
    words = rf"forged\.jpg: it is damaged: its {len(content):,} bytes are too few for 20000 x 20000 pixels"
    with pytest.raises(OSError, match=words):
        read_pixels(tmp_path / "forged.jpg")
    with pytest.raises(OSError, match="too few"):
        open_header(io.BytesIO(bytes(content)), "forged.jpg")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused_by_file(tmp_path: Path, value: float) -> None:
    pixels = np.random.default_rng(0).random((6, 5), np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert read_pixels(tmp_path / "a.tif", (0.0, 1.0)).shape == (6, 5, 3)
    pixels[2, 3] = pixels[4, 4] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    words = r"a\.tif has values that are NaN or infinite, 2 of 30$"
    for given in (None, (0.0, 1.0)):
        with pytest.raises(ValueError, match=words):
            read_pixels(tmp_path / "a.tif", given)
    with pytest.raises(ValueError, match=words):
        read_marked(tmp_path / "a.tif")
