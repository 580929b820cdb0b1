"""Caches of decoded, resized images. Decoding an image of 1,000 pixels takes most of the time of reading it."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from squad_lit.system.file import whole

log = logging.getLogger(__name__)

# Part of the key. Raise it when reading or resizing changes, so that no run gets the pixels of an older version.
_VERSION = 1


class MemoryCache:
    """Keeps tensors in the memory of the process. It does not notice a file that changes meanwhile.

    Each worker process has a cache of its own. This costs no second decoding, because threads of the main process read
    the training images, and a loader gives each worker the same validation images in every epoch.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[Path, ...], str], Tensor] = {}

    def get(self, paths: Sequence[Path], options: str) -> Tensor | None:
        """The tensor that was put for these files and options, or None. The caller must not write to it."""
        return self._kept.get((tuple(paths), options))

    def put(self, paths: Sequence[Path], options: str, value: Tensor) -> None:
        """Keep a float32 tensor for these files and options."""
        self._kept[tuple(paths), options] = value


class DiskCache:
    """Keeps one ``.npy`` file per tensor, memory-mapped on reading and shared by all workers and runs.

    The file name is a hash of the options and of the paths, sizes and modification times of the source files, so a
    changed image is decoded again. Files are written whole or not at all. If the disk is full or not accessible, one
    warning says so, and images that are not in the cache are decoded each time.

    Args:
        folder: Created if it does not exist. It may be deleted at any time.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"cannot make the cache folder {folder}: {error}. Choose another with dataset.cache_folder=PATH, or "
                f"set dataset.cache=off"
            ) from error
        self.folder = folder
        self._is_unusable = False

    def get(self, paths: Sequence[Path], options: str) -> Tensor | None:
        """As :meth:`MemoryCache.get`."""
        try:
            # Copy-on-write, because torch wants a writable array. np.load would take some damaged files for archives.
            array = np.lib.format.open_memmap(self._file(paths, options), mode="c")
        except (FileNotFoundError, ValueError, EOFError):  # missing or damaged: decode again
            return None
        except OSError as error:
            self._warn("read from", error)
            return None
        return torch.from_numpy(array)

    def put(self, paths: Sequence[Path], options: str, value: Tensor) -> None:
        """As :meth:`MemoryCache.put`."""
        if self._is_unusable:
            return
        try:
            with whole(self._file(paths, options)) as part, part.open("wb") as file:
                np.save(file, value.numpy())
        except OSError as error:
            self._warn("write to", error)

    def _warn(self, what: str, error: OSError) -> None:
        if not self._is_unusable:
            log.warning(
                "cannot %s the cache folder %s: %s. Images that it lacks are decoded each time. Free some space or "
                "grant access, choose another folder with dataset.cache_folder=PATH, or set dataset.cache=off",
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


Cache = MemoryCache | DiskCache
