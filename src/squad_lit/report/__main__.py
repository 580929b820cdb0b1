"""Gathers runs into tables and a page: ``python -m squad_lit.report RUNS... [--output DIR]``.

The command writes ``report.html``, ``report.md``, ``report.tex``, ``tables.csv``, ``results.csv``, which has one row
per category and run, and, of several arms, ``comparisons.csv`` with paired tests. It exits with 0 on success
and 1 on failure.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from squad_lit.system.console import exit_status, say

_HEAD = (
    "Metrics are in percent, as mean ± standard deviation over seeds if there are several. The best arm is in bold. "
    "Undefined values are left out and counted."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.report``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    # Imported late, so that a mistake in the options shows at once.
    from squad_lit.report import comparison, gather, page, sweep_plot, table, text
    from squad_lit.system.file import make_folder, write_text
    from squad_lit.system.table import write_rows

    runs = gather.find(options.runs)
    unfinished = [run for run in runs if run.figures is None]
    results, repeated = gather.results(runs)
    if not results:
        raise ValueError(f"none of {len(runs)} runs is finished; {runs[0].folder}: {runs[0].problem}")
    folder = options.output or Path(os.path.commonpath([path.resolve() for path in options.runs])) / "report"
    published = table.read_published() if options.published else []
    tables = table.make(results, options.baseline, published)
    by_dataset = [[r for r in results if r.dataset == name] for name in dict.fromkeys(r.dataset for r in results)]
    compared = [c for own in by_dataset for c in comparison.compare(own, options.baseline)]
    tables += [made for own in by_dataset for made in sweep_plot.image_tables(own)] + comparison.tables(compared)
    make_folder(folder)
    html = page.report(
        results, tables, unfinished, repeated, folder=folder.resolve(), panels=options.panels, link=options.link
    )
    write_text(folder / "report.html", html)
    lists = {
        "† of runs that ended early, or were tested in part": list(
            dict.fromkeys(f"`{r.run.folder}`: {r.run.lacks}" for r in results if r.run.lacks)
        ),
        "Without figures": [f"`{run.folder}`: {run.problem}" for run in unfinished],
        "Replaced by a newer run": [f"`{run.folder}`" for run in repeated],
    }
    named = ["\n- ".join([f"{title}:\n", *lines]) + "\n" for title, lines in lists.items() if lines]
    write_text(folder / "report.md", "\n".join([_HEAD + "\n", text.markdown(tables), *named]))
    write_text(folder / "report.tex", text.latex(tables))
    write_rows(folder / "tables.csv", text.table_rows(tables))
    write_rows(folder / "results.csv", text.result_rows(results, folder.resolve()))
    if compared:
        write_rows(folder / "comparisons.csv", comparison.rows(compared))
    else:
        (folder / "comparisons.csv").unlink(missing_ok=True)  # of an earlier report
    first = {made.title.partition(":")[0]: made for made in reversed(tables)}  # one per data set
    for made in reversed(first.values()):
        ours = [row for row in made.rows if row.kind != "published"]
        say(text.markdown([dataclasses.replace(made, rows=ours, notes=[])]))
    say("\n".join(named), end="")
    if not compared and any(len({r.arm for r in own}) > comparison.MOST_ARMS for own in by_dataset):
        print("So many arms are not compared each with each: --baseline ARM compares them with one.")
    size = len(html.encode()) / 2**20
    say(f"{len(runs)} runs: {folder / 'report.html'} ({size:.1f} MB), with .md, .tex and .csv beside it")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="squad-lit report", description="Make tables and a page from any number of runs and sweeps."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_SWEEP", help="folders that are searched for runs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: report/ in the folder that the runs share")
    parser.add_argument("--baseline", metavar="ARM", help="arm to compare the others with, named as in the tables")
    parser.add_argument("--published", action="store_true", help="show published results of other methods")
    panels = "pictures per arm and category; default: 6"
    parser.add_argument("--panels", type=int, default=6, metavar="N", help=panels)
    link = "link the pictures in their folders instead of embedding them"
    parser.add_argument("--link", action="store_true", help=link)
    options = parser.parse_args(arguments)
    if options.panels < 0:
        parser.error(f"--panels: expected a whole number of at least 0, got {options.panels}")
    return options


if __name__ == "__main__":
    sys.exit(main())
