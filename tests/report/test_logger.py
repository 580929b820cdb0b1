"""What is shown is read back from the loggers' own files."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from squad_lit.metric.curve import Curve
from squad_lit.report.logger import Mlflow, PictureLogger, ResumableCSVLogger, TensorBoard, Wandb, run_name
from squad_lit.report.panel import Panel, choose, name_all
from squad_lit.run import config as configuration
from squad_lit.training.checkpoint import KEY, RUN_IDS, VERSION, State

CURVES = {
    "bottle": {"image_roc": Curve(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.75, 1.0]))},
    "screw": {"image_roc": Curve(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))},
}
LEVELS = {"low": [[0.5, 0.25, 0.25], [0.125, 0.875]]}


def history(records: list[Record]) -> dict[str, Any]:
    """The last value of each key."""
    items = [item for r in records if r.HasField("history") for item in r.history.item]
    return {"/".join(["|".join(i.nested_key) or i.key]): json.loads(i.value_json) for i in items}


@pytest.fixture
def panels() -> list[Panel]:
    tile = {"image": np.full((16, 16, 3), 200, np.uint8), "fused": np.zeros((16, 16, 3), np.uint8)}
    made = [
        Panel(0, "a/000.png", "bottle", "good", 0, 2.5, tile, threshold=2.0),
        Panel(1, "b/001.png", "bottle", "broken", 1, 1.25, tile, threshold=2.0),
    ]
    chosen = choose(made, per_defect=1, worst=1)
    name_all(chosen)
    return chosen


def show(logger: Any, panels: list[Panel]) -> None:
    dataset = {"_target_": "a.b.MVTec", "category": "bottle"}
    logger.log_hyperparams({"seed": 3, "dataset": dataset, "model": {"_target_": "a.b.Memory"}})
    logger.log_metrics({"train/feature/low": 0.5, "train/lr/generator": 0.1, "epoch": 7}, step=5)
    logger.log_metrics({"val/copy_ratio/low": 0.25, "test/pixel_ap": 0.75}, step=6)
    logger.show_levels(LEVELS, 6)
    logger.show_curves(CURVES, 6)
    logger.show_panels(panels, 6)


def test_wandb_shows_everything_offline(
    tmp_path: Path,
    panels: list[Panel],
    read_wandb: Callable[[Path], list[Record]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    logger = Wandb(save_dir=str(tmp_path), project="p", offline=True)
    assert isinstance(logger, PictureLogger)
    show(logger, panels)
    logger.experiment.finish(exit_code=3)

    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = read_wandb(file)
    run = next(r.run for r in records if r.HasField("run"))
    assert (run.project, run.run_group, run.display_name) == ("p", "mvtec", "bottle memory")
    config = [u for r in records if r.HasField("config") for u in r.config.update if u.key == "seed"]
    assert [json.loads(u.value_json) for u in config] == [3]
    axis = [r.metric.step_metric for r in records if r.HasField("metric") and r.metric.glob_name == "*"]
    assert axis[-1] == "step"
    assert next(r.exit.exit_code for r in records if r.HasField("exit")) == 3

    found = history(records)
    assert found["losses/feature_low"] == 0.5
    assert found["training/lr_generator"] == 0.1
    assert found["codes/copy_ratio_low"] == 0.25
    assert found["metrics/pixel_ap"] == 0.75
    assert found["step"] == 6
    assert not any("epoch" in key or "global_step" in key for key in found)
    assert found["codes/levels_low_1|values"] == [0.125, 0.875]
    assert found["codes/levels_low_0|bins"] == [0, 1, 2, 3]
    assert found["maps/panels|nrows"] == 2
    assert found["maps/highest_normal|captions"] == ["bottle_good_000.png: score 2.5, false alarm"]
    assert found["maps/lowest_anomalous|captions"] == ["bottle_broken_001.png: score 1.2, missed"]

    media = file.parent / "files" / "media"
    (table,) = media.glob("table/metrics/image_roc_table*.json")
    assert json.loads(table.read_text())["data"][:3] == [
        [0.0, "bottle", 0.0],
        [0.0, "bottle", 0.75],
        [1.0, "bottle", 1.0],
    ]
    contents = [e for r in records if r.HasField("artifact") for e in r.artifact.manifest.contents]
    table = next(Path(e.local_path) for e in contents if e.path == "maps/panels.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == [*panels[0].row(), "image", "fused"]
    assert content["data"][0][:2] == ["bottle_good_000.png", "first, highest normal"]
    assert content["data"][0][-1]["_type"] == "image-file"
    assert len(list(media.glob("images/maps/*.jpg"))) == 4  # two of them chosen twice


def test_a_run_of_wandb_is_kept_on_disk_until_there_is_a_key_for_the_server(tmp_path: Path) -> None:
    """In a process of its own, because W&B keeps a key as long as one lasts."""
    code = f"""
from pathlib import Path
from squad_lit.report.logger import Wandb
for machine in ("api.wandb.ai", "wandb.example.org"):
    Path("netrc").write_text(f"machine {{machine}} login user password {"0" * 40}")
    print(Wandb(project="p")._offline)
"""
    own = {"NETRC": str(tmp_path / "netrc"), "WANDB_CONFIG_DIR": str(tmp_path)}
    own |= {"WANDB_BASE_URL": "https://wandb.example.org"}
    rest = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=rest | own, cwd=tmp_path)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "all fsq"),
        (["quantizer=none", "dataset.category=[wood,gear]"], "wood+gear none"),
        (["quantizer=vq", "dataset=btad", "dataset.category='01'"], "01 vq"),
        (["model=memory"], "all memory"),
        (["model=squad"], "all fsq squad"),
    ],
)
def test_a_run_is_named_by_category_and_quantiser(overrides: list[str], name: str) -> None:
    config = configuration.compose(overrides)
    plain = {key: OmegaConf.to_container(config[key], resolve=True) for key in ("dataset", "model")}
    assert run_name(plain) == name


def test_tensorboard_shows_everything(tmp_path: Path, panels: list[Panel]) -> None:
    logger = TensorBoard(save_dir=str(tmp_path), name="", version="tensorboard")
    assert isinstance(logger, PictureLogger)
    show(logger, panels)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("losses/feature_low")] == [(5, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("metrics/pixel_ap")] == [(6, 0.75)]
    assert set(events.Tags()["images"]) == {"maps/bottle_good_000", "maps/bottle_broken_001", "metrics/curves"}
    (event,) = events.Images("maps/bottle_good_000")
    assert (event.width, event.height) == panels[0].picture().shape[1::-1]
    (levels,) = events.Histograms("codes/levels_low_0")
    assert (levels.histogram_value.min, levels.histogram_value.max, levels.histogram_value.num) == (0, 2, 1)
    assert list(levels.histogram_value.bucket) == [0.5, 0.25, 0.25]


def test_mlflow_shows_everything_and_a_resumed_run_goes_on(tmp_path: Path, panels: list[Panel]) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    logger = Mlflow(save_dir=str(tmp_path / "mlruns"), experiment_name="e", artifacts=True)
    assert isinstance(logger, PictureLogger)
    show(logger, panels)
    (tmp_path / "metrics.json").write_text("{}")
    logger.keep(tmp_path)
    client, number = logger.experiment, str(logger.version)
    torch.save({KEY: {"version": VERSION, **asdict(State())}, RUN_IDS: {"Mlflow": number}}, tmp_path / "last.ckpt")
    again = Mlflow(save_dir=str(tmp_path / "mlruns"), experiment_name="e", resume=str(tmp_path / "last.ckpt"))
    dataset = {"_target_": "a.b.MVTec", "category": "bottle"}
    again.log_hyperparams({"seed": 4, "resume": "x", "dataset": dataset, "model": {"_target_": "a.b.Memory"}})
    again.log_metrics({"test/pixel_ap": 0.875}, step=9)
    (run,) = client.search_runs([logger.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.data.params["seed"]) == (number, "bottle memory", "3")
    assert [(m.step, m.value) for m in client.get_metric_history(number, "metrics/pixel_ap")] == [(6, 0.75), (9, 0.875)]
    kept = {f.path for place in ("maps", "metrics", "codes", "results") for f in client.list_artifacts(number, place)}
    assert kept == {f"maps/{p.name}" for p in panels} | {
        "metrics/curves.png",
        "codes/levels.json",
        "results/metrics.json",
    }


def test_a_resumed_run_goes_on_in_its_run_of_wandb(
    tmp_path: Path, read_wandb: Callable[[Path], list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    torch.save({KEY: {"version": VERSION, **asdict(State())}, RUN_IDS: {"Wandb": "abc123"}}, tmp_path / "last.ckpt")
    logger = Wandb(save_dir=str(tmp_path), project="p", offline=True, resume=str(tmp_path / "last.ckpt"))
    logger.log_metrics({"test/pixel_ap": 0.75}, 6)
    logger.experiment.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-abc123.wandb")
    assert next(r.run.run_id for r in read_wandb(file) if r.HasField("run")) == "abc123"


def steps_in_csv(folder: Path, steps: range, resume: Path | None) -> list[str]:
    logger = ResumableCSVLogger(save_dir=str(folder), resume=None if resume is None else str(resume))
    if resume is not None:
        logger.go_on(steps.start - 1)
    for step in steps:
        logger.log_metrics({"train/loss": 1.0 + step}, step)
    logger.log_metrics({"val/score": 0.5}, steps.stop)
    logger.save()
    rows = list(csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines()))
    assert [float(row["train/loss"]) for row in rows if row["train/loss"]] == [
        1.0 + int(row["step"]) for row in rows if row["train/loss"]
    ]
    return [row["step"] for row in rows if row["train/loss"]]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # of the run that starts anew
def test_a_resumed_run_keeps_the_rows_up_to_its_checkpoint(tmp_path: Path) -> None:
    assert steps_in_csv(tmp_path, range(6), None) == list("012345")
    last = tmp_path / "last.ckpt"
    assert steps_in_csv(tmp_path, range(4, 8), last) == list("01234567")  # 4 and 5 came after the checkpoint
    assert steps_in_csv(tmp_path, range(8, 8), last) == list("01234567")  # nothing was left to train
    assert steps_in_csv(tmp_path / "other", range(8, 9), last) == list("012345678")  # in a folder of its own
    assert steps_in_csv(tmp_path, range(2), None) == list("01")
