"""The end of a sweep: the table of a paper, with categories in rows, in the terminal and in the sweep's folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from squad_lit.system.console import say


class SweepTable(Callback):
    """Writes ``table.md`` and ``table.tex`` into the folder of a sweep of trainings, and prints the first.

    Each arm has a table of its own; several arms are compared in one before, which stands alone if there is
    one category. A sweep that trained nothing has none.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # interpolations in the name need it
        folder = Path(config.hydra.sweep.dir).absolute()
        try:
            write_tables(folder)
        except (OSError, ValueError) as error:  # the trainings are done; squad-lit report can be typed again
            say(f"warning: the table of the sweep was not written: {error}", to=sys.stderr)


def write_tables(folder: Path) -> None:
    """Write and print the tables of the runs below a folder, if one of them has figures.

    Raises:
        OSError: A table cannot be written.
    """
    from squad_lit.report import gather, table, text
    from squad_lit.system.file import write_text

    try:
        runs = gather.find([folder])
    except ValueError:  # there is no run, as after squad-lit check
        return
    results, _ = gather.results(runs)
    if not results:
        return
    arms = table.of_arms(results)
    means = table.make(results)[:1] if len(arms) > 1 else []
    if means and len({r.category for r in results}) == 1:  # the tables of the arms would have one row each, as above
        arms = []
    write_text(folder / "table.md", text.markdown([*means, *arms]))
    write_text(folder / "table.tex", text.latex([*means, *arms]))
    say(text.markdown(means or arms))
    say(f"{folder / 'table.md'}, and .tex beside it")
