"""The report as one self-contained HTML page of tables, plots and panels, which needs no server."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from squad_lit.image.file import read_pixels, to_uint8
from squad_lit.report import critical_difference, plot, sweep_plot
from squad_lit.report.curve import curve_figure
from squad_lit.report.gather import Result, Run, readable
from squad_lit.report.panel import FIRST, HIGHEST_NORMAL, LOWEST_ANOMALOUS
from squad_lit.report.table import Table
from squad_lit.report.text import cell_text
from squad_lit.system.file import inside
from squad_lit.system.table import read_rows

_WIDTH, _QUALITY = 1100, 80  # width in pixels and JPEG quality of an embedded panel


def render(template: str, **content: Any) -> str:
    """Render a page from a template. All templates extend ``page.html``.

    Args:
        template: Name of a file in ``template/``.
        content: Variables of the template. Text is escaped, :class:`markupsafe.Markup` is not.
    """
    environment = Environment(
        loader=PackageLoader("squad_lit.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["cell_text"] = cell_text
    return environment.get_template(template).render(content)


def report(
    results: Sequence[Result],
    tables: Sequence[Table],
    unfinished: Sequence[Run],
    repeated: Sequence[Run],
    *,
    folder: Path,
    panels: int,
    link: bool,
) -> str:
    """The page of many runs, as HTML.

    Args:
        results: At least one result.
        tables: See :func:`squad_lit.report.table.make`.
        unfinished: Runs without figures.
        repeated: Runs that newer ones replace.
        folder: Folder of the page.
        panels: Pictures per arm and category; the lowest anomalous and the highest normal ones come first.
        link: Whether pictures are linked in their folders and not embedded.
    """
    pictures = [p for r in _one_seed(results) for p in _pictures(r, folder, panels, link)]
    return render(
        "report.html",
        title="Runs of squad_lit",
        tables=tables,
        plots=_plots(results),
        pictures=pictures,
        megabytes=sum(len(p["source"]) for p in pictures) / 2**20,
        link=link,
        arms={arm: _about(results, arm) for arm in dict.fromkeys(r.arm for r in results)},
        unfinished={os.path.relpath(run.folder, folder): run.problem for run in unfinished},
        partial={os.path.relpath(r.run.folder, folder): r.run.lacks for r in results if r.run.lacks},
        repeated=[os.path.relpath(run.folder, folder) for run in repeated],
        runs=len({r.run.folder for r in results}),
    )


def embed(image: Image.Image, side: int, quality: int) -> str:
    """A picture as a data URI of a JPEG.

    Args:
        image: RGB image, which is shrunk in place.
        side: Largest length of the longer side in pixels.
        quality: JPEG quality, in [0, 95].
    """
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _pictures(result: Result, folder: Path, count: int, link: bool) -> list[dict[str, str]]:
    """Rows of ``panels.csv``, with the source of the image element: a JPEG as a data URI, or a relative path."""
    place = result.run.folder / "panels"

    def chosen(table: Path) -> list[dict[str, str]]:
        rows = [row for row in read_rows(table) if inside(place, row["panel"]) and row["category"] == result.category]
        return _in_turn(rows)[:count]

    def source(file: Path) -> str:
        if link:
            return quote(Path(os.path.relpath(file, folder)).as_posix())
        return embed(Image.fromarray(to_uint8(read_pixels(file))), _WIDTH, _QUALITY)

    pictures = []
    for row in readable(chosen, result.run.folder / "panels.csv") or []:
        if found := readable(source, place / row["panel"]):
            pictures.append(row | {"source": found, "arm": result.arm})
    return pictures


def _in_turn(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Lowest anomalous, highest normal and first images in turn, so that a few pictures show some of each."""
    reasons = (LOWEST_ANOMALOUS, HIGHEST_NORMAL, FIRST)
    lowest, highest, first = ([r for r in rows if reason in r["choice"]] for reason in reasons)
    lowest.sort(key=lambda r: float(r["anomaly_score"]))
    highest.sort(key=lambda r: -float(r["anomaly_score"]))
    turns = itertools.chain.from_iterable(itertools.zip_longest(lowest, highest, first))
    return list({row["panel"]: row for row in turns if row}.values())


def _plots(results: Sequence[Result]) -> list[tuple[str, Markup, bool]]:
    """Title and SVG per plot, and whether the page shows it on request only."""
    plots = []

    def add(title: str, draw: Any, *content: Any, folded: bool = False) -> None:
        if svg := plot.svg(draw, *content, name=title):
            plots.append((title, Markup(svg), folded))

    colours = {arm: f"C{i % 10}" for i, arm in enumerate(dict.fromkeys(r.arm for r in results))}
    for dataset in dict.fromkeys(r.dataset for r in results):
        own = [r for r in results if r.dataset == dataset]
        add(f"{dataset}: metrics against the number of codes", plot.metrics_by_codebook, own, colours)
        add(f"{dataset}: critical differences", critical_difference.plot, own, colours)
        add(f"{dataset}: number of training images", sweep_plot.image_curves, own)
        add(f"{dataset}: changed test images", sweep_plot.corruption_curves, own)
        add(f"{dataset}: training", plot.training_curves, own, colours)
        add(f"{dataset}: use of the codebook", plot.codebook_use, own, colours)
        for arm, run in {r.arm: r.run for r in reversed(own)}.items():
            add(f"{dataset}: levels of the codes, {arm}", plot.level_histograms, run, folded=True)
        for category in dict.fromkeys(r.category for r in own):
            curves = {r.arm: _curves(r) for r in _one_seed(own) if r.category == category}
            if any(curves.values()):
                title = f"{dataset}, {category}: ROC, precision-recall, region overlap"
                add(title, curve_figure, curves, colours, folded=True)
    return plots


def _curves(result: Result) -> dict[str, list[Any]]:
    """The curves of ``curves.json`` by name, as pairs of x and y."""

    def read(file: Path) -> dict[str, list[Any]]:
        curves = json.loads(file.read_text(encoding="utf-8")).get(result.category, {})
        return {name: list(axes.values()) for name, axes in curves.items()}

    return readable(read, result.run.folder / "curves.json") or {}


def _one_seed(results: Sequence[Result]) -> list[Result]:
    """The result of the lowest seed per data set, arm and category."""
    lowest = {(r.dataset, r.arm, r.category): r for r in sorted(results, key=lambda r: -r.seed)}
    return [r for r in results if lowest[r.dataset, r.arm, r.category] is r]


def _about(results: Sequence[Result], arm: str) -> str:
    runs = {r.run.folder: r.run for r in results if r.arm == arm}
    seeds = sorted({r.seed for r in results if r.arm == arm})
    about = next(iter(runs.values())).figures or {}
    command = about.get("run", {}).get("command", "")
    return f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}. {command}"
