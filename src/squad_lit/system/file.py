"""Files that are written whole or not at all, and read back."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin  # noqa: F401  registers it; otherwise Pillow loads all formats to find it

from squad_lit.system.lock import in_use, remove_abandoned

_LONGEST = 255  # bytes of a file name, on most file systems
_TEMPORARY = ".squad_lit.part"  # the end of a temporary name that no file of somebody else has
_SWEPT: set[Path] = set()  # folders without temporary files of processes that were killed


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield a path beside the file to write to. At the end it replaces the file, or is removed after an error.

    Args:
        path: The file. Processes that write it at the same time each have a path of their own.
        flush: Whether the content is on the disk before it replaces the file, as for what must outlive a power cut.

    Raises:
        OSError: It cannot be written, such as on a full disk; names the file.
    """

    def make() -> Path:
        part = _fresh(path)
        with naming(path, part):
            part.touch()
        return part

    with in_use(make) as part, naming(path, part):
        try:
            yield part
            if flush:
                with part.open("r+b") as file:  # Windows refuses to flush a file that is open for reading
                    os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_beside(path: Path) -> Iterator[Path]:
    """Yield a folder in which other libraries write a file, and files that belong to it. At the end they are moved.

    Args:
        path: The file. The others come beside it, in the order of their names. After an error nothing is left.

    Raises:
        OSError: They cannot be written, also where the library did not say so; names the file.
    """
    with temporary_folder(path.parent) as place, naming(path, place):
        try:
            yield place
        except Exception as error:
            if not isinstance(error, OSError):
                _check_room(place, error)
            raise
        for file in sorted(place.iterdir()):
            os.replace(file, path.parent / file.name)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in another one, on the same disk, and remove it at the end."""

    def make() -> Path:
        folder = _fresh(parent / "folder")
        folder.mkdir()
        return folder

    with in_use(make) as place:
        try:
            yield place
        finally:
            shutil.rmtree(place)


def _fresh(path: Path) -> Path:
    """A new temporary name beside a file."""
    _sweep(path.parent)
    ending = f".{secrets.token_hex(4)}{_TEMPORARY}"
    return path.with_name(fitting(path.name, len(ending)) + ending)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder, when this process first writes there."""
    if (place := folder.absolute()) in _SWEPT:
        return
    _SWEPT.add(place)
    with contextlib.suppress(OSError):  # what cannot be removed is in nobody's way
        for entry in [entry for entry in os.scandir(place) if entry.name.endswith(_TEMPORARY)]:
            remove_abandoned(Path(entry.path))


def _check_room(place: Path, reason: Exception) -> None:
    """Raise what the system says if no file can be written in a folder, as on a full disk."""
    try:
        with (place / "room").open("xb") as file:
            file.write(bytes(2**20))
    except OSError as error:
        raise error from reason
    (place / "room").unlink()


@contextlib.contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Let an error of the system name a file, if it names none, or another that stands for it or lies in that."""
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None
        if error.errno is None or (named is not None and (part is None or not named.is_relative_to(part))):
            raise  # of another file
        raise type(error)(error.errno, error.strerror, str(path)) from error


def fitting(name: str, room: int) -> str:
    """A file name that leaves room for so many more bytes: a long one is cut, with a digest that tells it from others.

    Args:
        name: The name, or a path with slashes, whose last part is cut.
        room: Bytes of what will be added.

    Example:
        >>> fitting("a.png", 10), len(fitting("a" * 255, 10))
        ('a.png', 245)
    """
    folders, slash, last = name.rpartition("/")
    content = os.fsencode(last)
    if len(content) + room <= _LONGEST:
        return name
    mark = f"~{hashlib.sha256(content).hexdigest()[:8]}"
    kept = content[: _LONGEST - room - len(mark)]
    while kept and (content[len(kept)] & 0xC0) == 0x80:  # not in the middle of a letter of UTF-8
        kept = kept[:-1]
    return f"{folders}{slash}{os.fsdecode(kept)}{mark}"


def regular(path: Path) -> Path:
    """The path, if it is not of something that would never end, such as a named pipe.

    Raises:
        OSError: There is nothing, or no file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path} is no regular file")
    return path


def inside(folder: Path, name: str) -> Path:
    """A file in a folder, by the name that a table has of it.

    Raises:
        ValueError: The name, as another's table may have it, leads out of the folder.
    """
    if not name or Path(name).anchor or ".." in Path(name).parts:
        raise ValueError(f"the name {name!r} leads out of {folder}")
    return folder / name


def digest(*paths: Path) -> str:
    """Identify a file, or several that belong together, by the content, in 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path in paths:
        with regular(path).open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()[:16]


def make_folder(folder: Path) -> None:
    """Create the folder that ``--output`` names if it is missing.

    Raises:
        ValueError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder}: {error.strerror}; give a folder, or a place for a new one") from None


def make_place(path: Path) -> None:
    """Create the folder of the file that ``--output`` names, before there is any work to lose.

    Raises:
        ValueError: It cannot be created or written to, or the file is a folder.
    """
    if path.is_dir():
        raise ValueError(f"--output: {path} is a folder; name a file in it")
    make_folder(path.parent)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"--output {path}: {error.strerror}; name a file in a folder that can be written to") from None


def check_archive(path: Path) -> None:
    """Compare the content of a zip file, such as torch writes, with its checksums; torch does not.

    Raises:
        ValueError: A part of it differs, or it is no zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # a changed byte may ask for a password
        raise ValueError(str(error)) from error
    if damaged:
        raise ValueError(f"{damaged} differs from its checksum")


def write_text(path: Path, text: str) -> None:
    """Write a text file; names of files that are no text are spelled with backslashes."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file, on one line if ``indent`` is None; NaN and infinity become null."""
    write_text(path, json.dumps(_plain(value), indent=indent) + "\n")


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture ``(H, W, 3)`` or ``(H, W)`` as PNG."""
    with whole(path) as part:
        part.write_bytes(to_png(picture))


def write_tiff(path: Path, values: NDArray[np.float32]) -> None:
    """Write a map ``(H, W)`` as a TIFF of 32-bit floats."""
    with whole(path) as part:
        part.write_bytes(to_tiff(values))


def to_png(picture: NDArray[np.uint8]) -> bytes:
    """The content of the file of :func:`write_picture`."""
    # A third of the time of Pillow's 6, for an eighth more bytes of an overlay; the pixels are the same.
    return _content(picture, format="PNG", compress_level=3)


def to_tiff(values: NDArray[np.float32]) -> bytes:
    """The content of the file of :func:`write_tiff`."""
    return _content(values, format="TIFF", compression="tiff_adobe_deflate")


def _content(pixels: NDArray[Any], **options: Any) -> bytes:
    content = io.BytesIO()  # given a path, Pillow uses libtiff, which fails on names that are no text
    Image.fromarray(pixels).save(content, **options)
    return content.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
