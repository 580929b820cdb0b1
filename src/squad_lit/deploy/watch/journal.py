"""The journal of a watched folder: what was judged, and which lines are not delivered yet, through any end."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from squad_lit.deploy.watch.arrival import Arrival

_VERSION = 1
# So many judged images are remembered in any case, and others as long as they lie in the folder.
_REMEMBERED = 100_000


class Line(NamedTuple):
    """A line about an image, and its number."""

    id: int
    text: str


class Journal:
    """A data base in one file, which only the process has that holds the lock of its folder.

    An image is judged once its entry is in the journal. The entry has the line about the image until that is in the
    table, on the standard output and, if asked for, posted. A process that is killed in between finds it there.

    Args:
        file: The file; made if it is missing.

    Raises:
        ValueError: The file is damaged, or of another version.
        OSError: It cannot be read or written, here and in each method.
    """

    def __init__(self, file: Path) -> None:
        self.file, self._lock = file, threading.Lock()
        try:
            # nolock: the folder has a lock, and network shares often have none that works.
            self._base = sqlite3.connect(
                f"{file.absolute().as_uri()}?nolock=1", uri=True, check_same_thread=False, isolation_level=None
            )
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            self._base.execute("PRAGMA journal_mode=PERSIST")  # cheaper than to delete it each time
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot open {file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{file} is damaged ({error}): remove it, and each image that still lies in the folder is judged again"
            ) from error
        if version not in (0, _VERSION):
            self._base.close()
            raise ValueError(f"{file} is of another version of squad_lit: name another --output")
        if version == 0:
            with self._change() as base:
                base.execute("CREATE TABLE image (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE, stamp TEXT)")
                base.execute(
                    "CREATE TABLE line (id INTEGER PRIMARY KEY, text TEXT, place INTEGER, written INTEGER DEFAULT 0, "
                    "posted INTEGER)"
                )
                base.execute(f"PRAGMA user_version={_VERSION}")

    def stamp(self, path: Path) -> str | None:
        """The stamp of the image that was last judged under a path."""
        found = self._read("SELECT stamp FROM image WHERE path=?", os.fsencode(path))
        return str(found[0][0]) if found else None

    def is_judged(self, arrival: Arrival) -> bool:
        """Whether an image was judged."""
        return self.stamp(arrival.path) == arrival.stamp

    def add(self, judged: Sequence[tuple[Arrival, Mapping[str, Any]]], *, place: int, post: bool) -> None:
        """Enter images as judged, all or none, and what is to be said of them.

        Args:
            judged: Each image with the content of its line, which gets a number.
            place: Size of the table in bytes, before it gets these rows.
            post: Whether the lines are to be posted.
        """
        with self._change() as base:
            for (path, stamp), content in judged:
                entry = base.execute(
                    "INSERT OR REPLACE INTO image (path, stamp) VALUES (?, ?)", (os.fsencode(path), stamp)
                )
                text = json.dumps({"id": entry.lastrowid, **content})
                base.execute(
                    "INSERT INTO line (id, text, place, posted) VALUES (?, ?, ?, ?)",
                    (entry.lastrowid, text, place, not post),
                )

    def unwritten(self) -> tuple[int, list[Line]]:
        """The lines that may not be in the table yet, and its size before them; :meth:`wrote` ends that."""
        found = self._read("SELECT id, text, place FROM line WHERE NOT written ORDER BY id")
        return (found[0][2] if found else 0), [Line(*row[:2]) for row in found]

    def wrote(self) -> None:
        """Note that all lines are in the table and on the standard output."""
        with self._change() as base:
            base.execute("UPDATE line SET written=1 WHERE NOT written")
            base.execute("DELETE FROM line WHERE written AND posted")

    def next_to_post(self) -> Line | None:
        """The first line that is to be posted."""
        found = self._read("SELECT id, text FROM line WHERE NOT posted ORDER BY id LIMIT 1")
        return Line(*found[0]) if found else None

    def count_to_post(self) -> int:
        """How many lines are to be posted."""
        return int(self._read("SELECT count(*) FROM line WHERE NOT posted")[0][0])

    def posted(self, line: Line) -> None:
        """Note that a line was posted."""
        with self._change() as base:
            base.execute("UPDATE line SET posted=1 WHERE id=?", (line.id,))
            base.execute("DELETE FROM line WHERE written AND posted")

    def forget(self, is_there: Callable[[Arrival], bool], *, remembered: int = _REMEMBERED) -> None:
        """Forget images that lie no longer in the folder, except the last ones, so that the file stays small."""
        with self._change() as base:
            old = base.execute("SELECT id, path, stamp FROM image ORDER BY id DESC LIMIT -1 OFFSET ?", (remembered,))
            gone = [(i,) for i, path, stamp in old if not is_there(Arrival(Path(os.fsdecode(path)), stamp))]
            base.executemany("DELETE FROM image WHERE id=?", gone)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            try:
                return self._base.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise OSError(f"cannot read {self.file}: {error}") from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Changes that are made whole or not at all, and on the disk at the end."""
        with self._lock:
            try:
                with self._base as base:
                    base.execute("BEGIN")
                    yield base
            except sqlite3.Error as error:
                raise OSError(f"cannot write {self.file}: {error}") from error
