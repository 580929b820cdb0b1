"""Tables as CSV files: written so that spreadsheets take no text for a formula, and read back as they were."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from squad_lit.system.file import naming, regular, whole

# A spreadsheet computes a cell that begins with one of these, also with the wide ones of a Japanese keyboard.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]")
# Python quotes a line feed by itself, and not these: what reads the file may end a row or a cell there.
_SEPARATOR = re.compile(r"[\r\t;]")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> None:
    """Write a CSV file; the first row gives the header if none is given.

    A text that a spreadsheet would compute gets an apostrophe in front, which :func:`read_rows` takes away. Names that
    are no text keep their bytes.

    Raises:
        OSError: It cannot be written; names the file.
    """
    names = header or (list(rows[0]) if rows else [])
    lines = [line(names), *(line([row.get(name) for name in names]) for row in rows)]
    with whole(path) as part:
        part.write_bytes(b"".join(lines))


def append_row(path: Path, row: Sequence[Any]) -> None:
    """Add a row at the end of a file of :func:`write_rows`, whole or not at all.

    Raises:
        OSError: It cannot be written; names the file.
    """
    with naming(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        left = line(row)
        try:
            while left:  # a disk that is nearly full takes a part of it
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise


def read_rows(path: Path) -> list[dict[str, str]]:
    """All of :func:`iterate_rows`."""
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file of :func:`write_rows`, one after the other.

    A row that is too short has None for what it lacks, and one that is too long has the rest under the key None.

    Raises:
        OSError: The file cannot be read, or is no file.
        ValueError: The file is damaged.
    """
    with regular(path).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            for row in csv.DictReader(file):
                yield {key: _plain(value) for key, value in row.items()}
        except csv.Error as error:
            raise ValueError(f"{path} is damaged: {error}") from None


def line(values: Sequence[Any]) -> bytes:
    """A row as it stands in a file of :func:`write_rows`, with the end of the line."""
    texts = [_safe(value) if isinstance(value, str) else value for value in values]
    quoted = any(isinstance(text, str) and _SEPARATOR.search(text) for text in texts)
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n").writerow(texts)
    return written.getvalue().encode("utf-8", "surrogateescape")


def _safe(text: str) -> str:
    """A text that no spreadsheet computes; numbers stay as they are."""
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _plain(value: Any) -> Any:
    """The text as it was before :func:`_safe`."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value
