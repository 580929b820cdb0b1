"""Images as they arrive in a folder, which is looked at again and again.

It is polled, because the notifications of a system (inotify, and others elsewhere) tell nothing of what another
computer writes to a network share, where lines put their images, and are lost when their queue is full. A look at
10,000 files of a local disk takes some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from squad_lit.image.file import IMAGE_EXTENSIONS

# Images that a look returns at most: those that waited longest.
_MOST = 256
# Seconds after which a file that cannot be decoded, and does not change, is given up.
_PATIENCE = 10.0


class Arrival(NamedTuple):
    """An image file, and what tells it from another one that takes its place: size and time of change."""

    path: Path
    stamp: str


class Arrivals:
    """Finds the images of a folder, at any depth, that are whole and not judged yet.

    A file is taken for whole when it has not changed for a while and can be decoded. Whoever writes it under a hidden
    name, or one with another ending, and then renames it is always safe. A file that is changed or replaced later is a
    new image. Hidden files and folders are left out, and links to folders are not followed.

    Memory grows with the number of files in the folder, by some 300 bytes each, and not with time.

    Args:
        folder: The folder; it may vanish for a while, as a network share does.
        made: Folders whose images are left out.
        is_judged: Whether an image was judged, in this process or before.
        settle: Seconds without a change after which a file is taken for whole.

    Attributes:
        trouble: What could not be read in the last look, as a sentence, or an empty text.
    """

    def __init__(
        self, folder: Path, made: Collection[Path], is_judged: Callable[[Arrival], bool], settle: float
    ) -> None:
        self._folder, self._made = folder.absolute(), {path.absolute() for path in made}
        self._is_judged, self._settle = is_judged, settle
        self._judged: set[int] = set()  # by the hash of an arrival, which takes less memory
        self._waiting: dict[int, float] = {}  # and when it was first seen
        self._failed: dict[int, float] = {}  # and when it first could not be decoded
        self.trouble = ""

    def look(self) -> list[Arrival]:
        """The images that are whole and not judged, the ones that were changed first before the others; at most 256."""
        before, self._waiting, self.trouble = self._waiting, {}, ""
        known, self._judged = self._judged, set()
        now = time.monotonic()

        def whole() -> Iterator[tuple[int, Arrival]]:
            for changed, arrival in self._walk():
                key = hash(arrival)
                if key in known or self._is_judged(arrival):
                    self._judged.add(key)
                    continue
                self._waiting[key] = before.get(key, now)
                if now - self._waiting[key] >= self._settle:
                    yield changed, arrival

        found = [arrival for _, arrival in heapq.nsmallest(_MOST, whole())]
        self._failed = {key: since for key, since in self._failed.items() if key in self._waiting}
        return found

    def is_there(self, arrival: Arrival) -> bool:
        """Whether the last look saw a judged image."""
        return hash(arrival) in self._judged

    @property
    def is_empty(self) -> bool:
        """Whether the last look saw no judged image, as where a network share is not mounted."""
        return not self._judged

    def is_hopeless(self, arrival: Arrival, error: Exception) -> bool:
        """Whether a file that could not be read will not become an image; otherwise a later look returns it again.

        A file may still be written, and the system may fail to read one (network, permission) that is well.
        """
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            return False
        since = self._failed.setdefault(hash(arrival), time.monotonic())
        return time.monotonic() - since >= _PATIENCE

    def _walk(self) -> Iterator[tuple[int, Arrival]]:
        """Time of change and arrival of each image."""
        folders = [str(self._folder)]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            if Path(entry.path) not in self._made:
                                folders.append(entry.path)
                        elif entry.name.lower().endswith(IMAGE_EXTENSIONS):
                            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                                about = os.stat(entry.path)  # entry.stat() is out of date on Windows
                                if stat.S_ISREG(about.st_mode):
                                    yield about.st_mtime_ns, Arrival(Path(entry.path), describe(about))
            except OSError as error:
                if folder == str(self._folder) or not isinstance(error, FileNotFoundError):
                    self.trouble = f"cannot read the folder {folder}: {error.strerror}"


def describe(about: os.stat_result) -> str:
    """The stamp of a file: its size and its time of change."""
    return f"{about.st_size} bytes, {about.st_mtime_ns} ns"
