"""What a sweep ends in: a paper's table, curves of few images, and curves of changed test images."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from squad_lit.report import gather, sweep_plot, table
from squad_lit.report.sweep_table import SweepTable, write_tables
from squad_lit.report.text import cell_text
from squad_lit.run.config import compose, quote
from test_report import make, same


def change(folder: Path, override: str, **dataset: Any) -> Path:
    """Sets options of the data set in a run's folder, as one override."""
    config = OmegaConf.load(folder / "config.yaml")
    config.dataset.update(dataset)
    OmegaConf.save(config, folder / "config.yaml")
    file = folder / ".hydra" / "overrides.yaml"
    OmegaConf.save([*OmegaConf.load(file), override], file)
    return folder


def few(root: Path, number: Any, value: float, category: str = "bottle", *overrides: str) -> None:
    folder = make(root / f"{category}_{number}{''.join(overrides)}", category, 0, same(value), *overrides)
    change(folder, f"dataset.limit_train={number}", limit_train=number)


@pytest.fixture
def end_sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Ends a sweep in a folder, as Hydra does."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # the callback sets it; afterwards it is as before

    def end(folder: Path) -> None:
        SweepTable().on_multirun_end(compose([f"hydra.sweep.dir={quote(folder)}"], with_hydra=True))

    return end


def results(root: Path) -> list[gather.Result]:
    return gather.results(gather.find([root]))[0]


def test_a_sweep_over_categories_ends_in_a_papers_table(
    tmp_path: Path, end_sweep: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "0", "bottle", 0, same(0.9, image_auroc=1.0))
    make(tmp_path / "1", "screw", 0, same(0.5))
    end_sweep(tmp_path)
    expected = [
        "| category | image AUROC | pixel AUROC | Pixel AP | AUPRO |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| bottle | 100.0 | 90.0 | 90.0 | 90.0 |",
        "| screw | 50.0 | 50.0 | 50.0 | 50.0 |",
        "| mean | 75.0 | 70.0 | 70.0 | 70.0 |",
    ]
    for told in (capsys.readouterr().out, (tmp_path / "table.md").read_text()):
        assert [line for line in told.splitlines() if line.startswith("|")] == expected
    latex = (tmp_path / "table.tex").read_text()
    assert "bottle & 100.0 & 90.0 & 90.0 & 90.0 \\\\" in latex
    assert latex.index("\\midrule\nmean & 75.0") > latex.index("screw & 50.0")


def test_several_arms_are_compared_and_each_has_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, (category, steps) in enumerate((c, s) for c in ("bottle", "screw") for s in (7, 8)):
        make(tmp_path / str(i), category, 0, same(0.5 + i / 10), f"model.steps={steps}")
    write_tables(tmp_path)
    assert "### mvtec: means over 2 categories" in capsys.readouterr().out
    titles = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("###")]
    assert titles == [
        "### mvtec: means over 2 categories",
        "### mvtec: model.steps=7",
        "### mvtec: model.steps=8",
    ]


def test_numbers_in_the_names_of_arms_are_sorted_as_numbers(tmp_path: Path) -> None:
    for number in (16, 4, 1, "all"):
        few(tmp_path, number, 0.5)
    write_tables(tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    arms = [line.split("|")[1].strip() for line in lines if "limit" in line]
    assert arms == [f"dataset.limit\\_train={number}" for number in (1, 4, 16, "all")]
    assert not [line for line in lines if "| mean |" in line]  # of one category, the table of arms says all


def test_a_sweep_without_figures_has_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(tmp_path)
    make(tmp_path / "0", "bottle", 0, None)
    write_tables(tmp_path)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "table.md").exists()


def test_a_table_that_cannot_be_written_is_a_warning(
    tmp_path: Path, end_sweep: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "0", "bottle", 0, same(0.9))
    (tmp_path / "table.md").mkdir()
    end_sweep(tmp_path)
    assert "warning: the table of the sweep was not written" in capsys.readouterr().err


def test_few_images_are_points_of_a_curve_and_no_arms(tmp_path: Path) -> None:
    for number, value in ((2, 0.5), (16, 0.6), ("all", 0.7)):
        for category, more in (("bottle", 0.0), ("screw", 0.1)):
            few(tmp_path, number, value + more, category, "model.steps=7")
            few(tmp_path, number, value - more, category, "model.steps=8")
    found = sweep_plot.by_images(results(tmp_path))
    assert set(found) == {"model.steps=7", "model.steps=8"}
    assert all(list(own) == [2, 16, math.inf] for own in found.values())
    made = {t.title: t for t in sweep_plot.image_tables(results(tmp_path))}
    shown = made["mvtec: Pixel AP by number of training images"]
    assert shown.columns == ["2", "16", "all"]
    cells = {row.name: [cell_text(c, row.categories) for c in row.cells] for row in shown.rows}
    assert cells == {"model.steps=7": ["55.0", "65.0", "75.0"], "model.steps=8": ["45.0", "55.0", "65.0"]}
    figure = sweep_plot.image_curves(results(tmp_path))
    assert figure is not None
    (axes,) = (a for a in figure.axes if a.get_title() == "Pixel AP (%)")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "16", "all"]
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert lines["model.steps=7"] == [[2, pytest.approx(55)], [16, pytest.approx(65)], [32, pytest.approx(75)]]


def test_one_number_of_images_has_no_curve(tmp_path: Path) -> None:
    few(tmp_path, 2, 0.5)
    assert sweep_plot.image_curves(results(tmp_path)) is None
    assert sweep_plot.image_tables(results(tmp_path)) == []
    assert sweep_plot.corruption_curves(results(tmp_path)) is None


def test_changed_test_images_have_a_curve_per_kind_from_the_unchanged_ones(tmp_path: Path) -> None:
    changes = [(None, 0.9), ({"blur": 1}, 0.8), ({"blur": 2}, 0.6), ({"light": 0.5}, 0.7)]
    for i, (corruption, value) in enumerate(changes):
        figures = same(value, image_recall=value, image_false_alarm_rate=1 - value)
        folder = make(tmp_path / str(i), "bottle", 0, figures)
        change(folder, f"dataset.corruption={corruption}", corruption=corruption)
    found = sweep_plot.by_corruption(results(tmp_path))
    assert {kind: {arm: list(own) for arm, own in arms.items()} for kind, arms in found.items()} == {
        "blur": {"default": [0.0, 1.0, 2.0]},
        "light": {"default": [0.5, 1.0]},
    }
    figure = sweep_plot.corruption_curves(results(tmp_path))
    assert figure is not None
    assert len(figure.axes) == 2 * 4  # kinds by metrics
    (axes,) = (a for a in figure.axes if a.get_ylabel().startswith("false alarms"))  # of light, the first kind
    assert axes.containers[0].lines[0].get_xydata().tolist() == [
        [0.5, pytest.approx(30)],
        [1, pytest.approx(10)],
    ]


def test_logical_and_structural_anomalies_have_rows_of_their_own(tmp_path: Path) -> None:
    kinds = {"logical_anomalies": same(0.4), "structural_anomalies": same(0.8)}
    for category in ("bottle", "screw"):
        make(tmp_path / category, category, 0, same(0.6, per_defect=kinds))
    made = {t.title: t for t in table.make(results(tmp_path))}["mvtec: default by kind of defect"]
    cells = {row.name: [cell_text(c, row.categories) for c in row.cells] for row in made.rows}
    assert cells == {"logical_anomalies": ["40.0"] * 4, "structural_anomalies": ["80.0"] * 4}
