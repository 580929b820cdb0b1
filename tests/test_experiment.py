"""The experiments of conf/experiment, composed as Hydra composes their jobs, and the scripts in experiments/."""

import functools
import itertools
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from squad_lit.dataset.btad import BTAD
from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.ksdd2 import KSDD2
from squad_lit.dataset.mpdd import MPDD
from squad_lit.dataset.mvtec import MVTec
from squad_lit.dataset.mvtec_3d import MVTec3D
from squad_lit.dataset.mvtec_ad2 import MVTecAD2
from squad_lit.dataset.mvtec_loco import MVTecLOCO
from squad_lit.dataset.real_iad import RealIAD
from squad_lit.dataset.visa import VisA
from squad_lit.run.config import CONF, arrange, compose
from squad_lit.run.job import config_hash
from squad_lit.run.model import make_module
from squad_lit.run.option import check


@pytest.mark.parametrize(
    "benchmark", [BTAD, KSDD2, MPDD, MVTec, VisA, MVTec3D, MVTecAD2, MVTecLOCO, RealIAD], ids=lambda b: b.name
)
def test_an_experiment_runs_all_categories_of_its_benchmark(benchmark: type[AnomalyDataModule]) -> None:
    config = compose([f"experiment={benchmark.name}"], with_hydra=True)
    swept = config.hydra.sweeper.params["dataset.category"].split(",")
    seen = [OverridesParser.create().parse_override(f"dataset.category={name}").value() for name in swept]
    assert config.hydra.mode == RunMode.MULTIRUN
    assert config.dataset._target_ == f"{benchmark.__module__}.{benchmark.__name__}"
    assert tuple(seen) == benchmark.CATEGORIES  # "01" is text, not the number 1


def split(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep; the last one of an option counts, as on Hydra's command line."""
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides([*overrides]):
        name = override.get_key_element()
        is_sweep = override.is_sweep_override()
        values = override.sweep_string_iterator() if is_sweep else [override.get_value_element_as_str()]
        choices[name] = [f"{name}={value}" for value in values]
    return [list(job) for job in itertools.product(*choices.values())]


def jobs(experiment: str, *overrides: str) -> list[list[str]]:
    """What each job of an experiment is composed from."""
    given = [f"experiment={experiment}", *overrides]
    params = compose(given[:1], with_hydra=True).hydra.sweeper.params
    return split([*(f"{name}={values}" for name, values in params.items()), *given])


@functools.cache
def ablation(name: str) -> list[DictConfig]:
    return [compose([*job, "backbone.weights=null"]) for job in jobs(f"ablation/{name}")]


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "experiment" / "ablation").glob("*.yaml")))
def test_each_job_of_an_ablation_builds_and_no_two_are_the_same(name: str) -> None:
    configs = ablation(name)
    assert len({config_hash(config) for config in configs}) == len(configs) >= 3
    for config in configs:
        check(config)
    groups = [make_module(config).backbone.groups for config in configs]
    if name == "groups":  # replaced, where Hydra by itself would have added to the default
        assert groups == [{"low": [4, 8], "high": [16]}, {"low": [4, 8]}, {"high": [16]}, {"all": [4, 8, 16]}]


def test_each_kind_of_anomaly_is_off_once() -> None:
    kinds = [config.synthesis.kinds for config in ablation("kinds")]
    off = [kind for own in kinds for kind, weight in own.items() if weight == 0 < kinds[0][kind]]
    assert sorted(off) == sorted(kind for kind, weight in kinds[0].items() if weight > 0)
    assert [config.synthesis.gross for config in ablation("synthesis")] == [0.4, 1.0, 0.0]


def test_the_command_line_wins_and_ablations_combine_with_benchmarks() -> None:
    assert len(jobs("ablation/levels", "model.fsq.levels=[8,6,5]")) == 1
    configs = [compose(job) for job in jobs("[mpdd,ablation/quantizer]", "dataset.category=tubes,metal_plate")]
    seen = [(config.dataset.category, config.quantizer) for config in configs]
    assert sorted(seen) == [(c, q) for c in ("metal_plate", "tubes") for q in ("fsq", "none", "vq")]


def test_an_unknown_experiment_is_told_with_those_in_folders_and_a_sweep_may_be_typed_anywhere(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"no experiment ablation/level; there are: ablation/backbone, .*, visa"):
        arrange(["experiment=ablation/level"])
    given = ["seed=1,2", "experiment=[mvtec,ablation/levels]", "-m", "model.steps=3"]
    assert arrange(given) == ["-m", "seed=1,2", "experiment=[mvtec,ablation/levels]", "model.steps=3"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").touch()
    own = ["--config-dir", str(tmp_path)]
    assert arrange(["experiment=mine", *own]) == [*own, "experiment=mine"]


SCRIPTS = sorted((CONF.parent / "experiments").glob("*/*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{path.parent.name}/{path.stem}" for path in SCRIPTS])
def test_a_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CONF.parent)
    runpy.run_path(str(script), run_name="imported")
