"""Files that are written whole or not at all, and read back."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin  # noqa: F401  registers it; otherwise Pillow loads all formats to find it


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """Yield a path beside the file to write to. At the end it replaces the file, or is removed after an error.

    Args:
        path: The file. Processes that write it at the same time each have a path of their own.
        flush: Whether the content is on the disk before it replaces the file, as for what must outlive a power cut.

    Raises:
        OSError: It cannot be written, such as on a full disk; names the file.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        if flush:
            with part.open("r+b") as file:  # Windows refuses to flush a file that is open for reading
                os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part), part):
            raise  # of another file
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def lock(path: Path) -> IO[bytes] | None:
    """Take a lock that ends with this process, however that ends, or when the file that is returned is closed.

    Returns:
        The open file, which is made if it is missing; None if another one has the lock. Where the file system has no
        locks, nothing is locked.
    """
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            file.close()
            return None
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):  # a file system without locks
            file.close()
            raise
    return file


def digest(*paths: Path) -> str:
    """Identify a file, or several that belong together, by the content, in 16 hexadecimal digits."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
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
        with whole(path.with_name(f".{path.name}.try")) as part:
            part.touch()
        path.with_name(f".{path.name}.try").unlink()
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
    """Write a text file."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file, on one line if ``indent`` is None; NaN and infinity become null."""
    write_text(path, json.dumps(_plain(value), indent=indent) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> None:
    """Write a CSV file; the first row gives the header if none is given. Names that are no text keep their bytes."""
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, header or (list(rows[0]) if rows else []), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of :func:`write_rows`.

    Raises:
        ValueError: The file is damaged.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        try:
            return list(csv.DictReader(file))
        except csv.Error as error:
            raise ValueError(f"{path} is damaged: {error}") from None


def read_figures(folder: Path) -> dict[str, Any] | None:
    """The content of ``metrics.json`` in the folder of a run; None if there is no such file.

    Raises:
        ValueError: The file is damaged, or no run wrote it.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise ValueError(f"{path} is damaged: it does not say of which run it is")
    return found


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
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG")
    return content.getvalue()


def to_tiff(values: NDArray[np.float32]) -> bytes:
    """The content of the file of :func:`write_tiff`."""
    content = io.BytesIO()  # given a path, Pillow uses libtiff, which fails on names that are no text
    Image.fromarray(values).save(content, format="TIFF", compression="tiff_adobe_deflate")
    return content.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
