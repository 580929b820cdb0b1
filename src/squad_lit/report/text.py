"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from squad_lit.report.gather import Result
from squad_lit.report.table import METRICS, Cell, Table

_PAGE = 90  # characters of small type per line of a page
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a line, "[" would begin an option of the preceding \\.
    "[": "{[}",
    "]": "{]}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def cell_text(cell: Cell, total: int) -> str:
    """The text of a cell, such as ``98.2 ± 0.3 (+1.0) (of 3) (1 undefined)``, or ``98.2 [97.9, 98.5]``.

    Args:
        cell: Cell with mean, deviation, difference from the baseline, categories and undefined values.
        total: Number of categories that the mean should be over; a smaller one is stated.
    """
    if cell.text:
        return cell.text
    if math.isnan(cell.mean):
        return "undefined" if cell.undefined else "–"
    parts = [f"{cell.mean:.1f}" if cell.deviation is None else f"{cell.mean:.1f} ± {cell.deviation:.1f}"]
    parts[0] += "†" if cell.is_partial else ""
    if cell.interval is not None:
        parts.append("[{:.1f}, {:.1f}]".format(*cell.interval))
    if cell.delta is not None:
        parts.append(f"({cell.delta:+.1f})".replace("-", "−").replace("(−0.0)", "(+0.0)"))
    if 0 < len(cell.categories) < total:
        parts.append(f"(of {len(cell.categories)})")
    if cell.undefined:
        parts.append(f"({cell.undefined} undefined)")
    return " ".join(parts)


def markdown(tables: Sequence[Table]) -> str:
    """All tables as Markdown, for a README."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    head, *rows = _rows(table, lambda text, best: f"**{text}**" if best else text, escape_markdown)
    lines = [f"### {escape_markdown(table.title)}", "", _line(head), _line(["---"] + ["---:"] * len(table.columns))]
    notes = [f"- {escape_markdown(note)}" for note in (*table.notes, *table.partial)]
    return "\n".join([*lines, *map(_line, rows), "", *notes, *([""] if notes else [])])


def latex(tables: Sequence[Table]) -> str:
    """All tables as LaTeX with ``booktabs``, for a paper."""
    return "% needs \\usepackage{booktabs}\n\n" + "\n".join(_latex(part) for table in tables for part in _parts(table))


def _parts(table: Table) -> list[Table]:
    """The table, split by columns into parts that fit on a page."""
    columns = zip(*([cell_text(cell, row.categories) for cell in row.cells] for row in table.rows), strict=True)
    widths = [max(map(len, (title, *texts))) for title, texts in zip(table.columns, columns, strict=True)]
    room = _PAGE - max(len(row.name) for row in table.rows)
    parts: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if parts[-1] and sum(widths[j] for j in parts[-1]) + width > room:
            parts.append([])
        parts[-1].append(i)
    return [
        replace(
            table,
            title=table.title if len(parts) == 1 else f"{table.title} ({number} of {len(parts)})",
            columns=[table.columns[i] for i in part],
            rows=[replace(row, cells=[row.cells[i] for i in part]) for row in table.rows],
        )
        for number, part in enumerate(parts, 1)
    ]


def _latex(table: Table) -> str:
    head, *rows = _rows(table, lambda text, best: f"\\textbf{{{text}}}" if best else text, escape_latex)
    body = []
    for row, cells in zip(table.rows, rows, strict=True):
        if row.kind == "mean":
            body.append("\\midrule")
        body.append(" & ".join(cells) + r" \\")
    notes = [f"{escape_latex(note)}.\\\\" for note in (*table.notes, *table.partial)]
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            "\\small",
            f"\\caption{{{escape_latex(table.title)}}}",
            f"\\label{{tab:{re.sub('[^a-z0-9]+', '-', table.title.lower()).strip('-')}}}",
            f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            "\\toprule",
            " & ".join(head) + r" \\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            *(["", "\\footnotesize", *notes] if notes else []),
            "\\end{table}",
            "",
        ]
    )


def table_rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The rows of ``tables.csv``, one per cell."""
    return [
        {
            "table": table.title,
            "row": row.name,
            "column": column,
            "kind": row.kind,
            "mean": _number(cell.mean),
            "deviation": _number(cell.deviation),
            "delta": _number(cell.delta),
            "best": int(cell.best),
            "seeds": cell.seeds,
            "categories": len(cell.categories),
            "undefined": cell.undefined,
            "partial": int(cell.is_partial),
        }
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]


def result_rows(results: Sequence[Result], folder: Path) -> list[dict[str, Any]]:
    """The rows of ``results.csv``, one per category and run, with metrics in percent and other figures unchanged.

    Args:
        results: Results in the order of the rows.
        folder: Folder of the file, from which ``run`` is the relative path.
    """
    first = [column.key for column in METRICS]
    numbers = [key for r in results for key, value in r.figures.items() if isinstance(value, int | float)]
    keys = [*first, *(key for key in dict.fromkeys(numbers) if key not in first)]
    return [
        {"dataset": r.dataset, "category": r.category, "arm": r.arm, "seed": r.seed}
        | {key: _shown(key, r.value(key)) for key in keys}
        | {"run": os.path.relpath(r.run.folder, folder), "lacks": r.run.lacks}
        for r in results
    ]


def escape_latex(text: str) -> str:
    r"""Escape all characters that are special in LaTeX.

    Example:
        >>> print(escape_latex("model.fsq.levels=[8,5] & 100%"))
        model.fsq.levels={[}8,5{]} \& 100\%
    """
    escaped = "".join(_LATEX.get(sign, sign) for sign in text)
    return escaped.replace("±", r"$\pm$").replace("†", r"$\dagger$").replace("−", "$-$").replace("–", "--")


def escape_markdown(text: str) -> str:
    r"""Escape all characters that are markup in Markdown.

    Example:
        >>> print(escape_markdown("a_b|c"))
        a\_b\|c
    """
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text)


def _rows(table: Table, best: Callable[[str, bool], str], escape: Callable[[str], str]) -> list[list[str]]:
    """The texts of all cells, those of the head first."""
    head = [escape(title) for title in (table.corner, *table.columns)]
    return [head] + [
        [escape(row.name), *(best(escape(cell_text(cell, row.categories)), cell.best) for cell in row.cells)]
        for row in table.rows
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(key: str, value: float) -> float | None:
    if math.isnan(value):
        return None
    return round(100 * value, 2) if key.startswith(("image_", "pixel_")) else round(value, 4)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)
