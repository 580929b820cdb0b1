"""``predictions.csv`` as a log: rows are appended for months, and of old images nothing is kept if so asked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from squad_lit.deploy.output_folder import HEADER, files
from squad_lit.system.file import whole
from squad_lit.system.table import iterate_rows, line


class RowLog:
    """The table of an output folder, of which no more than a row is in memory.

    Args:
        root: The output folder.
        keep: How many images keep their rows and files; None keeps all. Up to a tenth more are there, because the table
            is written anew when it is cut.

    Raises:
        ValueError: The table has other columns.
        OSError: It cannot be read or written.
    """

    def __init__(self, root: Path, keep: int | None = None) -> None:
        self._root, self._table, self._keep = root, root / "predictions.csv", keep
        if not self._table.exists():
            with whole(self._table) as part:
                part.write_bytes(_render([dict(zip(HEADER, HEADER, strict=True))]))
        with self._table.open("rb") as file:
            header = file.readline()
        if header != _render([dict(zip(HEADER, HEADER, strict=True))]):
            raise ValueError(
                f"--output: {self._table} has other columns, so a run or another version wrote it; name another folder"
            )
        self._count = sum(1 for _ in self.rows())

    @property
    def size(self) -> int:
        """Size of the table in bytes."""
        return self._table.stat().st_size

    def rows(self) -> Iterator[dict[str, str]]:
        """The whole rows, from the first one."""
        for row in iterate_rows(self._table):
            if None not in row and None not in row.values():
                yield row

    def append(self, rows: Sequence[Mapping[str, Any]], place: int) -> None:
        """Append rows, on the disk at the return; what a process that was killed left of them is written over.

        Args:
            rows: The rows.
            place: The size of the table when these rows were first to be appended.
        """
        content = _render(rows)
        with self._table.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(min(place, end))
            if content.startswith(file.read()):
                file.truncate(file.seek(min(place, end)))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._count += len(rows)

    def rotate(self, is_replaced: Callable[[Mapping[str, str]], bool]) -> None:
        """Remove the rows and files of the oldest images if there are too many.

        Args:
            is_replaced: Whether the file of a row was judged again after another content took its place, so that the
                map, the mask and the overlay are of that.
        """
        if self._keep is None or self._count < self._keep + max(1, self._keep // 10):
            return
        spare = self._count - self._keep
        with whole(self._table, flush=True) as part, part.open("wb") as file:
            file.write(_render([dict(zip(HEADER, HEADER, strict=True))]))
            for number, row in enumerate(self.rows()):
                if number >= spare:
                    file.write(_render([row]))
                elif not is_replaced(row):
                    self._remove(row["name"])
        self._count = self._keep

    def _remove(self, name: str) -> None:
        """Remove the files of an image, and the folders that are empty without them."""
        for kind, file in files(self._root, name).items():
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # until one is not empty
                for folder in file.relative_to(self._root / kind).parents:
                    if folder.parts:
                        (self._root / kind / folder).rmdir()


def _render(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(line([row[column] for column in HEADER]) for row in rows)
