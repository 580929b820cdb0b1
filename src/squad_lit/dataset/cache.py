"""Decoded, resized images, kept so that a file is decoded once: at 1,000 pixels that is most of the reading time."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Part of the key: raise it when reading or resizing changes, so that no run meets the numbers of an older one.
_VERSION = 1


class Cache(Protocol):
    """Where a dataset looks before it decodes."""

    def get(self, paths: Sequence[Path], options: str) -> Tensor | None:
        """What was put for these files and options, or None; not to be written to."""

    def put(self, paths: Sequence[Path], options: str, value: Tensor) -> None:
        """Keep a float32 tensor."""


class MemoryCache:
    """Keeps tensors in the process; files that change meanwhile are not noticed.

    A worker process has its own, which loses nothing: the training images are read in the main process, by threads, and
    a loader gives each worker the same validation images every time.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[Path, ...], str], Tensor] = {}

    def get(self, paths: Sequence[Path], options: str) -> Tensor | None:
        """See :class:`Cache`."""
        return self._kept.get((tuple(paths), options))

    def put(self, paths: Sequence[Path], options: str, value: Tensor) -> None:
        """See :class:`Cache`."""
        self._kept[tuple(paths), options] = value


class DiskCache:
    """Keeps one ``.npy`` file a tensor, mapped into memory when read, for all workers and runs together.

    A file's name is a hash of the paths, sizes and modification times of its sources and of the options: a changed
    image is read anew. Files appear whole or not at all, and two processes that write the same one write the same. When
    the disk is full or not accessible, a warning says so once, and what is not there is decoded each time.

    Args:
        folder: Made if need be. It may be deleted at any time.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"cannot make the cache folder {folder}: {error}. Choose another with dataset.cache_folder=PATH, or "
                f"dataset.cache=off"
            ) from error
        self.folder = folder
        self._is_unusable = False

    def get(self, paths: Sequence[Path], options: str) -> Tensor | None:
        """See :class:`Cache`."""
        try:
            # Copy on write: torch wants a writable array. Not np.load, which would take some damaged files for others.
            array = np.lib.format.open_memmap(self._file(paths, options), mode="c")
        except (FileNotFoundError, ValueError, EOFError):  # not there, or damaged by hand: read anew
            return None
        except OSError as error:
            self._warn("read from", error)
            return None
        return torch.from_numpy(array)

    def put(self, paths: Sequence[Path], options: str, value: Tensor) -> None:
        """See :class:`Cache`."""
        if self._is_unusable:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".part-", delete=False) as part:
                try:
                    np.save(part, value.numpy())
                    part.close()
                    os.chmod(part.name, 0o666 & ~_umask())  # a temporary file is its maker's alone, a cache is shared
                    os.replace(part.name, self._file(paths, options))
                except BaseException:
                    Path(part.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            self._warn("write to", error)

    def _warn(self, what: str, error: OSError) -> None:
        if not self._is_unusable:
            log.warning(
                "cannot %s the cache folder %s: %s. Images that are not in it are decoded each time; make room or give "
                "access, or choose another with dataset.cache_folder=PATH, or dataset.cache=off",
                what,
                self.folder,
                error,
            )
        self._is_unusable = True

    def _file(self, paths: Sequence[Path], options: str) -> Path:
        text = [f"{_VERSION} {options}"]
        for path in paths:
            state = path.stat()
            text.append(f"{path.absolute()} {state.st_size} {state.st_mtime_ns}")
        return self.folder / f"{hashlib.sha256(chr(10).join(text).encode()).hexdigest()[:32]}.npy"


def _umask() -> int:
    """The process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def free_memory() -> int | None:
    """Bytes of memory that are free for us, or None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
