"""Tables worked out by hand, from run folders made by hand."""

import csv
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from squad_lit.dataset.mvtec import MVTec
from squad_lit.report import gather, table, text
from squad_lit.report.__main__ import main
from squad_lit.system.table import read_rows

KEYS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")
QUANTIZER = {
    "fsq": {"_target_": "squad_lit.network.quantizer.FSQ", "levels": [8, 5, 5, 5]},
    "none": {"_target_": "squad_lit.network.quantizer.NoQuantizer", "dim": 4},
}


def make(folder: Path, category: Any, seed: int, figures: dict[str, Any] | None, *overrides: str) -> Path:
    """A run's folder; figures None: it failed. Overrides: ``quantizer=none``, ``model.steps=N``."""
    options = dict(o.split("=") for o in overrides)
    quantizer = options.get("quantizer", "fsq")
    config = {
        "seed": seed,
        "quantizer": quantizer,
        "dataset": {
            "_target_": "squad_lit.dataset.mvtec.MVTec",
            "category": category,
            "root": str(folder),
            "seed": seed,
        },
        "model": {
            "_target_": "squad_lit.training.squad.Squad",
            "seed": seed,
            "steps": int(options.get("model.steps", 100)),
            "generator": {"_target_": "squad_lit.network.generator.Generator", "quantizer": QUANTIZER[quantizer]},
        },
        "threads": seed,
        "logger": {"csv": {"save_dir": "${hydra:runtime.output_dir}"}},
    }
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    OmegaConf.save([f"seed={seed}", "dataset=mvtec", *overrides], folder / ".hydra" / "overrides.yaml")
    if figures is not None:
        (folder / "metrics.json").write_text(json.dumps(figures | {"run": {}}))
    return folder


def same(value: float | None, **more: Any) -> dict[str, Any]:
    return dict.fromkeys(KEYS, value) | more


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two arms, two categories; two seeds of the first arm; an undefined value; a failed run; a joint one elsewhere."""
    root = tmp_path / "runs"
    for seed, bottle, screw in ((0, 0.90, 0.50), (1, 0.94, 0.60)):
        make(root / f"b{seed}", "bottle", seed, same(bottle, **{"codebook_usage/low": 0.5}))
        make(root / f"s{seed}", ["screw"], seed, same(screw, **{"codebook_usage/low": 0.25}))
    make(root / "none_b", "bottle", 0, same(0.93), "quantizer=none")
    make(root / "none_s", "screw", 0, same(None), "quantizer=none")
    make(root / "failed", "screw", 2, None)
    return root


def tables(runs: Path, baseline: str | None = None) -> dict[str, table.Table]:
    results, _ = gather.results(gather.find([runs]))
    return {t.title: t for t in table.make(results, baseline)}


def cells(made: table.Table) -> dict[str, list[str]]:
    return {row.name: [text.cell_text(c, row.categories) for c in row.cells] for row in made.rows}


def test_means_deviations_differences_and_what_is_undefined_by_hand(runs: Path) -> None:
    made = tables(runs, "default")["mvtec: Pixel AP"]
    assert made.columns == ["default", "quantizer=none"]
    assert cells(made) == {
        "bottle": ["92.0 ± 2.8", "93.0 (+1.0)"],  # 90, 94: deviation 4 / sqrt(2)
        "screw": ["55.0 ± 7.1", "undefined"],
        "mean": [
            "73.5 ± 4.9",
            "93.0 (of 1) (1 undefined)",
        ],  # seeds 70, 77: 7 / sqrt(2); no difference: fewer categories
    }
    assert [[c.best for c in row.cells] for row in made.rows] == [[False, True], [False, False], [False, False]]


def test_arms_have_a_table_of_their_means(runs: Path) -> None:
    made = tables(runs)["mvtec: means over 2 categories"]
    assert cells(made)["default"] == ["73.5 ± 4.9"] * 4
    assert cells(made)["quantizer=none"] == ["93.0 (of 1) (1 undefined)"] * 4
    assert not any(c.best for row in made.rows for c in row.cells)
    assert cells(tables(runs)["mvtec: further figures"])["default"] == ["37.5 ± 0.0"]


def test_equal_as_shown_is_equally_good(tmp_path: Path) -> None:
    for name, value, *more in (("a", 0.90001), ("b", 0.90004, "model.steps=7"), ("c", 0.8, "model.steps=8")):
        make(tmp_path / name, "bottle", 0, same(value), *more)
    made = tables(tmp_path)
    assert list(made) == ["mvtec: bottle"]
    assert {row.name: row.cells[2].best for row in made["mvtec: bottle"].rows} == {
        "default": True,
        "model.steps=7": True,
        "model.steps=8": False,
    }


def test_one_arm_has_one_table_by_category(tmp_path: Path) -> None:
    each = {"bottle": same(0.5), "screw": same(0.7)}
    joint = same(0.6, per_category=each, categories_averaged=dict.fromkeys(KEYS, 2), **{"codebook_usage/low": 0.1})
    make(tmp_path / "joint", "all", 0, joint)
    made = tables(tmp_path)
    assert list(made) == ["mvtec: means over 2 categories", "mvtec: dataset.category=all", "mvtec: further figures"]
    assert cells(made["mvtec: dataset.category=all"]) == {
        "bottle": ["50.0"] * 4,
        "screw": ["70.0"] * 4,
        "mean": ["60.0"] * 4,
    }
    assert cells(made["mvtec: further figures"]) == {"dataset.category=all": ["10.0"]}


def test_a_joint_model_is_another_arm_than_one_a_category(runs: Path) -> None:
    each = {"bottle": same(0.5), "screw": same(0.7)}
    make(runs / "joint", "all", 0, same(0.6, per_category=each, categories_averaged=dict.fromkeys(KEYS, 2)))
    made = cells(tables(runs)["mvtec: means over 2 categories"])
    assert {arm: values[0] for arm, values in made.items()} == {
        "default": "73.5 ± 4.9",
        "dataset.category=all": "60.0",
        "quantizer=none": "93.0 (of 1) (1 undefined)",
    }


def test_what_is_no_run_of_ours_is_passed_over(runs: Path) -> None:
    for name, content in (("theirs", "lr: 0.1"), ("other", "dataset: mnist")):
        (runs / name).mkdir()
        (runs / name / "config.yaml").write_text(content)
    assert len(gather.find([runs])) == 7


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("metrics.json", '{"image_auroc": 0.', "metrics.json is damaged: "),
        ("metrics.json", "{}", "metrics.json is damaged: it does not say of which run it is"),
        ("metrics.json", "[]", "metrics.json is damaged: it does not say of which run it is"),
        ("metrics.json", '{"run": {}, "per_category": 1}', "metrics.json is damaged: per_category is 1"),
        ("config.yaml", "a: [", "config.yaml is damaged: "),
        ("config.yaml", "[1, 2]", "config.yaml is no configuration"),
        ("config.yaml", "dataset: {_target_: squad_lit.dataset.mvtec.MVTec}", "is incomplete (KeyError('seed'))"),
    ],
)
def test_a_damaged_run_is_named_and_replaces_no_good_one(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, problem: str
) -> None:
    """Its figures would be the newest."""
    again = make(runs / "again", "bottle", 1, same(0.98))
    (again / name).write_text(content)
    assert main([str(runs)]) == 0
    for told in (capsys.readouterr().out, (runs / "report" / "report.md").read_text()):
        (line,) = [line for line in told.splitlines() if line.startswith(f"- `{again}`")]
        assert problem in line
    rows = read(runs / "report" / "results.csv")
    assert [r["pixel_ap"] for r in rows if (r["arm"], r["category"]) == ("default", "bottle")] == ["90.0", "94.0"]


def test_damaged_files_beside_the_figures_are_left_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panels(runs / "b0", "bottle")
    (runs / "b0" / "panels" / "p 1#.png").write_bytes(b"\x89PNG")
    (runs / "b0" / "curves.json").write_text("{")
    (runs / "none_b" / "panels.csv").write_text("panel\na.png\n")
    (runs / "b0" / "csv").mkdir()
    (runs / "b0" / "csv" / "metrics.csv").write_text("step,train/loss\n0,2.0\n10,half\n")
    assert main([str(runs)]) == 0
    warned = capsys.readouterr().err
    for name in ("b0/panels/p 1#.png", "b0/curves.json", "none_b/panels.csv", "b0/csv/metrics.csv"):
        assert f"{runs / name} is damaged and left out" in warned
    assert (runs / "report" / "report.html").read_text().count("data:image/jpeg") == 3


def test_a_run_that_failed_before_its_configuration_was_written_is_found(runs: Path) -> None:
    early = make(runs / "early", "bottle", 0, None)
    (early / "config.yaml").unlink()
    (early / "error.txt").write_text("no folder for category cable\nmore\n")
    problems = {run.folder.name: run.problem for run in gather.find([runs]) if run.figures is None}
    assert problems == {"failed": "not finished", "early": "no folder for category cable"}


def test_the_newer_of_two_equal_runs_counts_and_the_failed_one_is_found(runs: Path) -> None:
    again = make(runs / "again", "bottle", 1, same(0.98))
    os.utime(runs / "b1" / "metrics.json", (1, 1))
    found = gather.find([runs, again])
    results, repeated = gather.results(found)
    assert [run.folder.name for run in repeated] == ["b1"]
    assert sorted(r.figures["pixel_ap"] for r in results if (r.arm, r.category) == ("default", "bottle")) == [0.9, 0.98]
    assert [run.folder.name for run in found if run.figures is None] == ["failed"]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ([[], ["quantizer=none"]], ["default", "quantizer=none"]),
        ([["quantizer=fsq"], ["quantizer=none"]], ["quantizer=fsq", "quantizer=none"]),
        ([["model.steps=5"], ["model.steps=5", "quantizer=none"]], ["default", "quantizer=none"]),
        (
            [["model.steps=5"], ["model.steps=6"], ["model.steps=7"]],
            ["model.steps=5", "model.steps=6", "model.steps=7"],
        ),
        ([[], [], ["model.steps=5"]], ["default", "default", "model.steps=5"]),
        ([["model.steps=100"], []], ["model.steps=100", "model.steps=100"]),  # the default, typed: the same arm
    ],
)
def test_arms_are_named_by_what_differs(tmp_path: Path, typed: list[list[str]], names: list[str]) -> None:
    found = [make(tmp_path / str(i), "bottle", i, same(0.5), *o) for i, o in enumerate(typed)]
    arms = gather.name_arms(gather.find(found))
    assert len(set(arms)) == len(set(names))
    if len(set(names)) > 1:
        assert arms == names


def test_arms_whose_options_are_not_known_are_named_by_their_configuration(tmp_path: Path) -> None:
    for i, options in enumerate([["quantizer=none"], ["model.steps=5"], []]):
        make(tmp_path / str(i), "bottle", 0, same(0.5), *options)
        (tmp_path / str(i) / ".hydra" / "overrides.yaml").unlink()
    assert gather.name_arms(gather.find([tmp_path])) == ["quantizer=none", "model.steps=5", "default"]


def test_a_test_of_a_checkpoint_is_of_the_arm_of_its_training(tmp_path: Path) -> None:
    for i, options in enumerate(([], ["quantizer=none"], ["quantizer=none"])):
        make(tmp_path / str(i), "bottle", i, same(0.5), *options)
    config = OmegaConf.load(tmp_path / "2" / "config.yaml")
    del config["quantizer"]  # it is not of the command line that was typed for the test
    OmegaConf.save(OmegaConf.merge(config, {"fit": False}), tmp_path / "2" / "config.yaml")
    OmegaConf.save(["fit=false", "checkpoint=x"], tmp_path / "2" / ".hydra" / "overrides.yaml")
    assert gather.name_arms(gather.find([tmp_path])) == ["default", "quantizer=none", "quantizer=none"]


def make_own(folder: Path, target: str = "my_parts.Bolts", model: Any = None, **figures: Any) -> Path:
    """A run of a data set, and perhaps with parts, of a user's own package, which cannot be imported here."""
    config = OmegaConf.load(make(folder, "bottle", 0, same(0.5) | figures) / "config.yaml")
    config.dataset = {"_target_": target, "folder": "x"}
    config.model = model or config.model
    OmegaConf.save(config, folder / "config.yaml")
    (folder / ".hydra" / "overrides.yaml").unlink()
    return folder


def own_model(quantizer: str, **options: Any) -> dict[str, Any]:
    part = {"_target_": quantizer, **options}
    return {"_target_": "my_parts.Net", "own": part, "generator": {"_target_": "my_parts.Decoder", "quantizer": part}}


def test_own_parts_are_reported_by_the_names_of_their_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configurations have no category, no generator, or no known quantiser."""
    make_own(tmp_path / "fsq")
    make_own(tmp_path / "sign", model=own_model("my_parts.Sign", dim=3), **{"codebook_usage/low": 0.5})
    make_own(tmp_path / "twin", model=own_model("my_parts.Twin", dim=3), **{"codebook_usage/low": 0.5})
    make_own(tmp_path / "plain", model={"_target_": "my_parts.Plain", "generator": None})
    assert main([str(tmp_path), "--published"]) == 0
    assert "### bolts: bolts" in capsys.readouterr().out
    arms = {Path(row["run"]).name: row["arm"] for row in read(tmp_path / "report" / "results.csv")}
    assert arms == {
        "fsq": "model=squad quantizer=fsq",
        "sign": "quantizer=sign",
        "twin": "quantizer=twin",
        "plain": "model=plain quantizer=none",
    }


def test_own_classes_of_one_name_are_two_arms(tmp_path: Path) -> None:
    for module in ("one", "other"):
        make_own(tmp_path / module, model=own_model(f"{module}.Sign", dim=3))
    assert sorted(gather.name_arms(gather.find([tmp_path]))) == ["quantizer=one.Sign", "quantizer=other.Sign"]


def test_published_results_do_not_stand_beside_an_own_data_set(tmp_path: Path) -> None:
    results, _ = gather.results(gather.find([make_own(tmp_path / "run", "my_parts.MVTec")]))
    made = table.make(results, None, table.read_published())
    assert [row.name for row in made[0].rows] == ["default"]


@pytest.mark.parametrize(
    ("quantizer", "figures", "size"),
    [
        ({"dim": 3}, {"codebook_usage/low": 0.5, "level_histogram/low": [[0.5, 0.5]] * 3}, 8),
        ({"codebook_size": 64}, {"codebook_usage/low": 0.5}, 64),
        ({"dim": 3}, {"codebook_usage/low": 0.5}, None),
        ({"codebook_size": 64}, {}, None),
    ],
)
def test_the_number_of_codes_is_known_from_levels_or_configuration(
    tmp_path: Path, quantizer: dict[str, Any], figures: dict[str, Any], size: int | None
) -> None:
    (run,) = gather.find([make_own(tmp_path / "run", model=own_model("my_parts.Sign", **quantizer), **figures)])
    assert gather.codebook_size(run) == size


def test_latex_has_no_sign_that_is_a_command(runs: Path) -> None:
    best = table.Cell(50.0, 1.5, best=True)
    made = table.Table("a_b & 100%", "#", ["x^2 [1]", "~"], [table.Row("[8,5]_{1}", [best, best])])
    written = text.latex([made])
    assert r"\caption{a\_b \& 100\%}" in written
    assert r"\# & x\textasciicircum{}2 {[}1{]} & \textasciitilde{} \\" in written
    assert r"{[}8,5{]}\_\{1\} & \textbf{50.0 $\pm$ 1.5} & \textbf{50.0 $\pm$ 1.5} \\" in written
    everything = text.latex(list(tables(runs, "default").values()))
    assert everything.count("{") == everything.count("}")
    assert not re.search(r"(?<!\\)[_#^~]|[^\x00-\x7f]", everything)
    assert everything.count(r"\toprule") == everything.count(r"\bottomrule") >= 6
    assert r"\label{tab:mvtec-pixel-ap}" in everything


def test_a_table_wider_than_a_page_of_latex_is_cut() -> None:
    titles = [f"perplexity (codes) {i}" for i in range(9)]
    rows = [table.Row(arm, [table.Cell(float(i)) for i in range(9)]) for arm in ("default", "quantizer=none")]
    written = text.latex([table.Table("further", "arm", titles, rows)])
    heads = [line.split(" & ") for line in written.splitlines() if line.startswith("arm & ")]
    assert [title.removesuffix(r" \\") for head in heads for title in head[1:]] == titles
    assert all(sum(map(len, head)) <= 90 for head in heads)
    labels = re.findall(r"\\label\{(.*)\}", written)
    assert len(set(labels)) == len(heads) > 1
    values = [cell for line in written.splitlines() if line.startswith("default & ") for cell in line.split(" & ")[1:]]
    assert [value.removesuffix(r" \\") for value in values] == [f"{i}.0" for i in range(9)]


def test_markdown_marks_the_best(runs: Path) -> None:
    assert "| bottle | 92.0 ± 2.8 | **93.0** |" in text.markdown([tables(runs)["mvtec: Pixel AP"]])


def test_published_results_are_marked_never_the_best_and_beside_all_categories_only(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = table.read_published()
    for row in published:
        values = [float(row[key]) for key in KEYS if row[key]]
        assert row["source"]
        assert row["protocol"]
        assert 0 <= min(values) <= max(values) <= 100
        assert not row["method"].lower().startswith("squad")
    results, _ = gather.results(gather.find([runs]))
    made = table.make(results, None, published)[0]
    assert not any(row.kind == "published" for row in made.rows)
    assert made.notes == ["published means are over 15 categories and not shown beside fewer"]
    monkeypatch.setattr(MVTec, "CATEGORIES", ("bottle", "screw"))
    made = table.make(results, None, published)[0]
    theirs = [row for row in made.rows if row.kind == "published"]
    assert len(theirs) == sum(p["dataset"] == "mvtec" and not p["category"] for p in published) > 20
    assert all("published, other protocol" in row.name for row in theirs)
    assert not any(c.best or c.delta for row in theirs for c in row.cells)


def test_published_results_of_a_category_stand_beside_those_on_it(runs: Path) -> None:
    results, _ = gather.results(gather.find([runs]))
    made = {t.title: t for t in table.make(results, None, table.read_published())}
    screw = made["mvtec: screw beside published results"]
    dinomaly = next(row for row in screw.rows if row.name.startswith("Dinomaly ("))
    assert [c.mean for c in dinomaly.cells] == [98.4, 99.6, 60.2, 98.3]  # its paper, tables A8 and A9
    assert "tables A8 and A9" in " ".join(screw.notes)
    alone = table.make([r for r in results if r.category == "screw"], None, table.read_published())[0]
    assert alone.title == "mvtec: screw"
    assert [row.name for row in alone.rows if row.kind] == [row.name for row in screw.rows if row.kind]


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


class Links(HTMLParser):
    """Everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]


def panels(folder: Path, category: str) -> None:
    (folder / "panels").mkdir()
    rows = []
    for i, choice in enumerate(("first", "lowest anomalous", "first, highest normal", "lowest anomalous")):
        name = f"p {i}#.png"
        Image.fromarray(np.full((40, 200, 3), 50 * i, np.uint8)).save(folder / "panels" / name)
        row = {"panel": name, "choice": choice, "image_path": f"x/<{i}>.png", "category": category}
        rows.append(row | {"defect": "cut", "label": 1, "anomaly_score": 5 - i})
    with (folder / "panels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_page_needs_nothing_but_itself(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panels(runs / "b0", "bottle")
    curve = {"false_positive_rate": [0.0, 1.0], "true_positive_rate": [0.0, 1.0]}
    (runs / "b0" / "curves.json").write_text(json.dumps({"bottle": {"image_roc": curve}}))
    (runs / "b0" / "csv").mkdir()
    (runs / "b0" / "csv" / "metrics.csv").write_text("step,train/loss\n0,2.0\n10,1.0\n")
    assert main([str(runs), "--panels", "3", "--published", "--baseline", "default"]) == 0
    folder = runs / "report"
    assert {p.name for p in folder.iterdir()} == {"report.html", "report.md", "report.tex", "tables.csv", "results.csv"}
    assert str(runs / "failed") in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert sum(link.startswith("data:image/jpeg") for link in links.found) == 3
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "../failed" in page
    assert "&lt;3&gt;.png" in page  # the worst of the misses, escaped
    assert "x/<" not in page
    for title in ("training", "use of the codebook", "bottle: ROC"):
        assert title in page
    assert page.count("<svg") == page.count('role="img"') == 3
    rows = read(folder / "results.csv")
    assert len(rows) == 6
    assert {r["run"] for r in rows} == {f"../{name}" for name in ("b0", "b1", "s0", "s1", "none_b", "none_s")}
    assert [r["pixel_ap"] for r in rows if r["arm"] == "default" and r["category"] == "bottle"] == ["90.0", "94.0"]
    found = next(r for r in read(folder / "tables.csv") if (r["row"], r["column"]) == ("default", "AUPRO"))
    assert (float(found["mean"]), found["seeds"]) == (73.5, "2")
    assert math.isclose(float(found["deviation"]), 7 / math.sqrt(2), abs_tol=1e-4)


def test_the_terminal_shows_the_first_table_of_each_data_set(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.load(make(runs / "visa", "candle", 0, same(0.5)) / "config.yaml")
    config.dataset._target_ = "squad_lit.dataset.visa.VisA"
    OmegaConf.save(config, runs / "visa" / "config.yaml")
    assert main([str(runs)]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("###")]
    assert titles == ["### mvtec: means over 2 categories", "### visa: candle"]


def test_pictures_can_be_linked(runs: Path) -> None:
    panels(runs / "b0", "bottle")
    assert main([str(runs), "--link"]) == 0
    links = Links()
    links.feed((runs / "report" / "report.html").read_text())
    assert "../b0/panels/p%201%23.png" in links.found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no folder absent"),
        (["empty"], "no run in"),
        (["runs/failed"], "none of 1 runs is finished"),
        (["runs", "--output", "file"], "--output file: File exists; give a folder"),
        (["runs", "--baseline", "quantizer=vq"], "no arm 'quantizer=vq'; there are: default; quantizer=none"),
    ],
)
def test_mistakes_are_told_in_words(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(runs.parent)
    Path("empty").mkdir()
    Path("file").touch()
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_runs_that_ended_early_are_marked_and_never_the_best(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "whole", "bottle", 0, same(0.5))
    early = make(tmp_path / "runs" / "early", "bottle", 0, same(0.9), "model.steps=50")
    figures = json.loads((early / "metrics.json").read_text())
    figures["run"] = {"ended_early": "after 2 of 50 steps", "partly_tested": "3 of 9 images"}
    (early / "metrics.json").write_text(json.dumps(figures))
    assert main([str(tmp_path / "runs"), "--output", str(tmp_path / "out")]) == 0
    why = "its training ended after 2 of 50 steps; it was tested on 3 of 9 images"
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| model.steps=50 | 90.0† |" in markdown
    assert "| **50.0** |" not in markdown  # it stands alone
    assert "**90.0" not in markdown
    assert f"`{early}`: {why}" in markdown
    assert r"90.0$\dagger$" in (tmp_path / "out" / "report.tex").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "90.0†" in page
    assert why in page
    assert "† of a run that ended early" in page
    rows = {row["arm"]: row["lacks"] for row in read_rows(tmp_path / "out" / "results.csv")}
    assert rows == {"default": "", "model.steps=50": why}
