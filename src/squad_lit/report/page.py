"""The report as one self-contained HTML page of tables, plots and panels, which needs no server."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from squad_lit.report import plot
from squad_lit.report.gather import Result, Run, readable
from squad_lit.report.panel import FALSE_ALARM, FIRST, MISS
from squad_lit.report.table import Table
from squad_lit.report.text import cell_text
from squad_lit.system.file import read_rows

_WIDTH, _QUALITY = 1100, 80  # width in pixels and JPEG quality of an embedded panel


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Args:
        title: Title above the plot.
        svg: The SVG element; empty if there is nothing to plot.
        folded: Whether the page shows it on request only.
    """

    title: str
    svg: Markup
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A panel of the page.

    Args:
        source: Data URI or relative path.
        arm: Arm of its run.
        row: Its row of ``panels.csv``.
    """

    source: str
    arm: str
    row: Mapping[str, Any]


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
        panels: Pictures per arm and category; misses and false alarms come first.
        link: Whether pictures are linked in their folders and not embedded.
    """
    pictures = [p for r in _one_seed(results) for p in _pictures(r, folder, panels, link)]
    embedded = 0 if link else sum(len(p.source) for p in pictures)
    return render(
        "report.html",
        title="Runs of squad_lit",
        tables=tables,
        plots=_plots(results),
        pictures=pictures,
        megabytes=embedded / 2**20,
        link=link,
        arms={arm: _about(results, arm) for arm in dict.fromkeys(r.arm for r in results)},
        unfinished={os.path.relpath(run.folder, folder): run.problem for run in unfinished},
        repeated=[os.path.relpath(run.folder, folder) for run in repeated],
        runs=len({r.run.folder for r in results}),
    )


def picture(file: Path, folder: Path, *, link: bool) -> str:
    """The source of an image element, either a small JPEG as a data URI or the relative path from ``folder``."""
    if link:
        return quote(Path(os.path.relpath(file, folder)).as_posix())
    with Image.open(file) as opened:
        return embed(opened.convert("RGB"), _WIDTH, _QUALITY)


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


def _pictures(result: Result, folder: Path, count: int, link: bool) -> list[Picture]:
    def chosen(table: Path) -> list[dict[str, str]]:
        return _in_turn([row for row in read_rows(table) if row["category"] == result.category])[:count]

    pictures = []
    for row in readable(chosen, result.run.folder / "panels.csv") or []:
        path = result.run.folder / "panels" / row["panel"]
        if source := readable(lambda file: picture(file, folder, link=link), path):
            pictures.append(Picture(source, result.arm, row))
    return pictures


def _in_turn(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Misses, false alarms and first images in turn, the worst first, so that a few pictures show some of each."""
    by_reason = {reason: [r for r in rows if reason in r["choice"]] for reason in (MISS, FALSE_ALARM, FIRST)}
    by_reason[MISS].sort(key=lambda r: float(r["anomaly_score"]))
    by_reason[FALSE_ALARM].sort(key=lambda r: -float(r["anomaly_score"]))
    longest = max(map(len, by_reason.values()), default=0)
    turns = [own[i] for i in range(longest) for own in by_reason.values() if i < len(own)]
    return list({row["panel"]: row for row in turns}.values())


def _plots(results: Sequence[Result]) -> list[Plot]:
    plots = []
    colours = {arm: f"C{i % 10}" for i, arm in enumerate(dict.fromkeys(r.arm for r in results))}
    for dataset in dict.fromkeys(r.dataset for r in results):
        own = [r for r in results if r.dataset == dataset]
        drawn = [
            ("metrics against the number of codes", plot.metrics_by_codebook),
            ("training", plot.training_curves),
            ("use of the codebook", plot.codebook_use),
        ]
        plots += [_plot(f"{dataset}: {title}", draw, own, colours) for title, draw in drawn]
        for arm, run in {r.arm: r.run for r in reversed(own)}.items():
            plots.append(_plot(f"{dataset}: levels of the codes, {arm}", plot.level_histograms, run, folded=True))
        for category in dict.fromkeys(r.category for r in own):
            curves = {r.arm: _curves(r) for r in _one_seed(own) if r.category == category}
            title = f"{dataset}, {category}: ROC, precision-recall, region overlap"
            plots.append(_plot(title, plot.ranking_curves, curves, colours, folded=True))
    return [p for p in plots if p.svg]


def _plot(title: str, draw: Any, *content: Any, folded: bool = False) -> Plot:
    return Plot(title, Markup(plot.svg(draw, *content, name=title)), folded)


def _curves(result: Result) -> dict[str, Any]:
    def read(file: Path) -> dict[str, Any]:
        return dict(json.loads(file.read_text(encoding="utf-8")).get(result.category, {}))

    return readable(read, result.run.folder / "curves.json") or {}


def _one_seed(results: Sequence[Result]) -> list[Result]:
    """The result of the lowest seed per data set, arm and category."""
    lowest: dict[tuple[str, ...], Result] = {}
    for r in sorted(results, key=lambda r: r.seed):
        lowest.setdefault((r.dataset, r.arm, r.category), r)
    return [r for r in results if lowest[r.dataset, r.arm, r.category] is r]


def _about(results: Sequence[Result], arm: str) -> str:
    runs = {r.run.folder: r.run for r in results if r.arm == arm}
    seeds = sorted({r.seed for r in results if r.arm == arm})
    about = next(iter(runs.values())).figures or {}
    command = about.get("run", {}).get("command", "")
    return f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}. {command}"
