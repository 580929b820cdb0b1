"""Writes image files as someone may have them: damaged, forged, of rare kinds, under odd names, and whole ones."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GOOD, BAD, EITHER = "read", "refused", "either"
"""What has to become of a file; either: all ways to read it have to agree."""

_SIDE = 64
# Format, mode and options of files that are whole; GOOD unless it is said.
_WHOLE: list[tuple[str, str, dict[str, Any]]] = [
    *[("PNG", mode, {}) for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")],
    ("PNG", "RGB", {"optimize": True}),
    *[("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK", "YCbCr")],
    ("JPEG", "RGB", {"progressive": True}),
    *[("BMP", mode, {}) for mode in ("RGB", "L", "P", "1")],
    *[("TIFF", mode, {}) for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "LAB", "I;16")],
    *[("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")],
    *[("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")],
    ("WEBP", "RGB", {}),
]
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
_FOREIGN = [
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n",
    b"%PDF-1.7\n%%EOF",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    b"<!DOCTYPE html><html></html>",
    b"\x7fELF" + bytes(200),
    b"PK\x03\x04" + bytes(200),
    b"\0" * 500,
    b"",
    b"text",
]
_NAMES = [
    "carriage\rreturn",
    "line\nfeed",
    "=1+1|cmd",
    "@sum",
    'comma, quote "',
    "-dash",
    "trailing space ",
    "ü漢字",
    "\x1b[31m",
]
_NAMES += [
    "a" * 200,
    "<b>html",
    "%s%n",
    "{format}",
    "..png",
    "$(touch x)",
    "'; --",
    "tab\tname",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
]
_NAMES += ["x" * (255 - 4), "é" * 125]  # as long as a name can be, in bytes


def make(folder: Path, rng: random.Random, count: int) -> dict[Path, str]:
    """Write files of each kind in turn, and say what has to become of each."""
    kinds: list[Callable[[Path, random.Random], tuple[Path, str]]] = [
        _truncated, _flipped, _flipped_header, _overwritten, _whole, _no_numbers, _foreign, _giant, _named, _shaped,
        _rare, _special,
    ]  # fmt: skip
    folder.mkdir(parents=True)
    made = dict(kinds[number % len(kinds)](folder / f"{number:04}", rng) for number in range(count))
    return {path: expected for path, expected in made.items() if os.path.lexists(path)}


def _content(rng: random.Random, of: str = "") -> tuple[bytes, str]:
    form, mode, options = rng.choice([one for one in _WHOLE if of in ("", one[0])])
    grey = np.random.default_rng(rng.randrange(2**31)).integers(60, 200, (16, 16, 3), np.uint8)
    image = Image.fromarray(grey).resize((_SIDE, _SIDE))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", image.split())
    else:
        image = image.convert(mode)
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue(), _SUFFIXES[form]


def _write(path: Path, content: bytes, suffix: str) -> Path:
    path = path.with_name(path.name + suffix)
    path.write_bytes(content)
    return path


def _truncated(path: Path, rng: random.Random) -> tuple[Path, str]:
    content, suffix = _content(rng)
    length = rng.randrange(len(content))
    return _write(path, content[:length], suffix), BAD if length < 30 else EITHER


def _flipped(path: Path, rng: random.Random) -> tuple[Path, str]:
    content, suffix = _content(rng)
    changed = bytearray(content)
    for _ in range(rng.choice([1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return _write(path, bytes(changed), suffix), EITHER


def _flipped_header(path: Path, rng: random.Random) -> tuple[Path, str]:
    content, suffix = _content(rng)
    changed = bytearray(content)
    if suffix == ".tif":  # the directory is at the end
        at = struct.unpack("<I", content[4:8])[0] + rng.randrange(100)
        changed[min(at, len(changed) - 1)] = rng.randrange(256)
    else:
        changed[rng.randrange(2, 40)] = rng.randrange(256)
    return _write(path, bytes(changed), suffix), EITHER


def _overwritten(path: Path, rng: random.Random) -> tuple[Path, str]:
    content, suffix = _content(rng)
    at = rng.randrange(len(content))
    block = rng.choice([bytes(512), rng.randbytes(512), b"\xff" * 512])
    return _write(path, content[:at] + block[: len(content) - at] + content[at + 512 :], suffix), EITHER


def _whole(path: Path, rng: random.Random) -> tuple[Path, str]:
    content, suffix = _content(rng)
    suffix = rng.choice([suffix, suffix.upper(), ".png"])  # the content counts
    return _write(path, content, suffix), GOOD


def _no_numbers(path: Path, rng: random.Random) -> tuple[Path, str]:
    pixels = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
    value = rng.choice([np.nan, np.inf, -np.inf, 1e38, 0.5])
    if rng.random() < 0.5:
        pixels[5, 7] = value
    else:
        pixels[:] = value
    path = path.with_name(path.name + ".tiff")
    Image.fromarray(pixels if rng.random() < 0.8 else np.full(pixels.shape, 70_000, np.int32)).save(path)
    return path, BAD


def _foreign(path: Path, rng: random.Random) -> tuple[Path, str]:
    form = rng.choice(["GIF", "ICO", "PPM", "JPEG2000", "TGA", "PCX", ""])
    content = rng.choice(_FOREIGN)
    if form:
        written = io.BytesIO()
        Image.new("RGB", (_SIDE, _SIDE), (90, 120, 60)).save(written, form)
        content = written.getvalue()
    return _write(path, content, rng.choice(list(_SUFFIXES.values()))), BAD


def _giant(path: Path, rng: random.Random) -> tuple[Path, str]:
    width, height = rng.choice([(65535, 65535), (20000, 20000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 5), (40000, 30000)])
    form = rng.choice(["PNG", "BMP", "TIFF", "JPEG"])
    if form == "PNG":
        return _write(path, png(width, height), ".png"), BAD
    content = bytearray(_content(rng, form)[0])
    if form == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif form == "JPEG":
        at = content.find(b"\xff\xc0")
        if at < 0:
            return _write(path, png(width, height), ".jpg"), BAD
        content[at + 5 : at + 9] = struct.pack(">HH", height % 65536 or 65535, width % 65536 or 65535)
        return _write(path, bytes(content), ".jpg"), EITHER  # 1 x 65,535 pixels may be read
    else:
        at = struct.unpack("<I", content[4:8])[0] + 2
        for entry in range(at, len(content) - 12, 12):
            tag = struct.unpack("<H", content[entry : entry + 2])[0]
            if tag in (256, 257):
                content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return _write(path, bytes(content), _SUFFIXES[form]), EITHER if form == "TIFF" else BAD


def _named(path: Path, rng: random.Random) -> tuple[Path, str]:
    path = path.with_name(rng.choice(_NAMES) + ".png")
    path.write_bytes(_content(rng, "PNG")[0])
    return path, GOOD


def _shaped(path: Path, rng: random.Random) -> tuple[Path, str]:
    size = rng.choice([(1, 1), (1, 2000), (3000, 2), (20, 20), (7, 900), (2, 1)])
    path = path.with_name(path.name + ".png")
    Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).convert(rng.choice(["RGB", "L", "P", "1"])).save(path)
    return path, GOOD


def _rare(path: Path, rng: random.Random) -> tuple[Path, str]:
    """Several pages, frames, transparent palettes, orientation, and colours of 16 bits."""
    image, other = (Image.frombytes("RGB", (_SIDE, 32), rng.randbytes(_SIDE * 96)) for _ in range(2))  # no copies
    kind = rng.randrange(6)
    written = io.BytesIO()
    expected = GOOD
    if kind == 0:
        image.save(written, "TIFF", save_all=True, append_images=[other])
        return _write(path, written.getvalue(), ".tif"), BAD
    if kind == 1:
        image.save(written, "WEBP", save_all=True, append_images=[other])
        return _write(path, written.getvalue(), ".webp"), EITHER
    if kind == 2:
        image.save(written, "PNG", save_all=True, append_images=[other])
        return _write(path, written.getvalue(), ".png"), EITHER
    if kind == 3:
        image.quantize(8).save(written, "PNG", transparency=bytes(range(0, 256, 32)))
        return _write(path, written.getvalue(), ".png"), expected
    if kind == 4:
        exif = Image.Exif()
        exif[274] = rng.choice([1, 3, 6, 8, 0, 99])
        image.save(written, "JPEG", exif=exif)
        return _write(path, written.getvalue(), ".jpg"), expected
    rows = b"".join(b"\0" + rng.randbytes(_SIDE * 6) for _ in range(_SIDE))
    return _write(path, png(_SIDE, _SIDE, rows, depth=16), ".png"), expected


def _special(path: Path, rng: random.Random) -> tuple[Path, str]:
    """What is no file, under the name of an image."""
    path = path.with_name(path.name + ".png")
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(path.name)  # a loop
    elif kind == 2:
        path.symlink_to("gone.png")
    elif kind == 3:
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path, BAD


def png(width: int, height: int, rows: bytes = b"", depth: int = 8) -> bytes:
    """A PNG with this header, whatever its pixels are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
