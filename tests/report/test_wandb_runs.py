"""Runs of W&B in processes of their own, read back from its offline files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "squad_lit.train", "trainer=smoke", "dataset.image_size=64", "logger=[csv,wandb]"]
COMMAND += ["dataset=mvtec", "callback.progress=null", "threads=1", "logger.wandb.offline=true"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {"WANDB_SILENT": "true", "WANDB_MODE": "offline", "WANDB_DATA_DIR": str(tmp_path / "staging")}
    return {**os.environ, **own}


def config_of(records: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        if record.HasField("run"):
            found |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        if record.HasField("config"):
            found |= {u.key: json.loads(u.value_json) for u in record.config.update if u.key}
    return found


def steps_of(records: list[Any]) -> set[int]:
    items = [item for r in records if r.HasField("history") for item in r.history.item]
    return {int(json.loads(item.value_json)) for item in items if "step" in (item.key, *item.nested_key)}


@pytest.mark.slow
def test_jobs_side_by_side_have_runs_of_their_own(
    tmp_path: Path, mvtec: Path, environment: dict[str, str], read_wandb: Callable[[Path], list[Any]]
) -> None:
    """About 20 s on two cores: the imports of three processes, twice."""
    options = [f"dataset.root={mvtec}", "dataset.category=[bottle,screw]", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    command = [*COMMAND, "-m", "seed=3,4", "hydra.launcher.jobs=2", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    numbers = set()
    for job in (0, 1):
        (file,) = tmp_path.glob(f"sweep/{job}/wandb/offline-run-*/run-*.wandb")
        records = read_wandb(file)
        config = config_of(records)
        assert config["seed"] == 3 + job
        figures = json.loads((tmp_path / "sweep" / str(job) / "metrics.json").read_text())
        assert config["data"] == figures["data"]
        # Two categories of 8 good images, one of each held out, and of 2 good and 3 broken test images.
        counts = {"train_images": 14, "validation_images": 2, "test_images": 10, "anomalous_test_images": 6}
        assert {key: value for key, value in config["data"].items() if key != "digest"} == counts
        numbers.add(next(r.run.run_id for r in records if r.HasField("run")))
        items = [item for r in records if r.HasField("history") for item in r.history.item]
        logged = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
        for category, own in figures["per_category"].items():
            assert logged[f"per_category/pixel_ap_{category}"] == pytest.approx(own["pixel_ap"])
        assert logged["threshold/anomaly_score"] == pytest.approx(figures["threshold"]["anomaly_score"])
        assert logged["threshold/false_alarm_rate"] == pytest.approx(figures["threshold"]["false_alarm_rate"])
    assert len(numbers) == 2


@pytest.mark.slow
def test_what_was_logged_survives_a_kill_and_the_resumed_run_has_the_same_number(
    tmp_path: Path, mvtec: Path, environment: dict[str, str], read_wandb: Callable[[Path], list[Any]]
) -> None:
    options = [f"dataset.root={mvtec}", "dataset.category=bottle", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [*COMMAND, *options, "model.steps=100000", "model.validate_every=4"]
    table, checkpoint = tmp_path / "run" / "csv" / "metrics.csv", tmp_path / "run" / "last.ckpt"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 200
        while not (checkpoint.exists() and table.exists() and len(table.read_text().splitlines()) > 12):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        head, *rows = table.read_text().splitlines()
        known = {int(float(row.split(",")[head.split(",").index("step")])) for row in rows[:-1]}
        time.sleep(3)  # W&B's service writes ten times per second, unless the machine is busy
        process.send_signal(signal.SIGKILL)
    (file,) = tmp_path.glob("run/wandb/offline-run-*/run-*.wandb")
    records = read_wandb(file)
    assert config_of(records)["model"]["steps"] == 100000
    assert known <= steps_of(records)
    resumed = [*command, f"resume={checkpoint}"]
    with subprocess.Popen(resumed, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 200
        while len(files := list(tmp_path.glob("run/wandb/offline-run-*/run-*.wandb"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert {path.name for path in files} == {file.name}
