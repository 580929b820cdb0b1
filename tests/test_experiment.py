"""The experiments of conf/experiment, composed by Hydra and run as their user runs them."""

import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from squad_lit.dataset.btad import BTAD
from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.ksdd2 import KSDD2
from squad_lit.dataset.mpdd import MPDD
from squad_lit.dataset.mvtec import MVTec
from squad_lit.dataset.visa import VisA
from squad_lit.train import CONF


@pytest.mark.parametrize("benchmark", [BTAD, KSDD2, MPDD, MVTec, VisA])
def test_an_experiment_runs_all_categories_of_its_benchmark(benchmark: type[AnomalyDataModule]) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", [f"experiment={benchmark.name}"], return_hydra_config=True)
        swept = config.hydra.sweeper.params["dataset.category"].split(",")
        seen = [hydra.compose("train", [f"dataset.category={name}"]).dataset.category for name in swept]
    assert config.hydra.mode == RunMode.MULTIRUN
    assert config.dataset._target_ == f"{benchmark.__module__}.{benchmark.__name__}"
    assert tuple(seen) == benchmark.CATEGORIES  # "01" is text, not the number 1


def test_the_command_line_narrows_an_experiment_and_each_job_has_its_folder(tmp_path: Path, mvtec: Path) -> None:
    command = [sys.executable, "-m", "squad_lit.train", "experiment=mvtec", "dataset.category=screw,bottle"]
    command += ["trainer=smoke", "model.steps=2", "dataset.image_size=64", "logger=none"]
    command += [f"dataset.root={mvtec}", f"hydra.sweep.dir={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    jobs = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert [OmegaConf.load(job / "config.yaml").dataset.category for job in jobs] == ["screw", "bottle"]
    assert all((job / "metrics.json").exists() for job in jobs)
