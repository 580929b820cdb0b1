"""The search, with a training whose objective is its learning rate, undefined above 0.9."""

import contextlib
import csv
import signal
from pathlib import Path

import hydra
import optuna
import pytest

from squad_lit import job, search

RATE = "model.optimizer.lr=interval(0.1,0.9)"


@pytest.fixture(autouse=True)
def command(fake_training: Path) -> None:
    del fake_training


def run(folder: Path, *overrides: str, trials: int = 3, jobs: int = 1) -> optuna.Study:
    return search.search(folder, overrides or (RATE,), trials=trials, jobs=jobs, gpus=None, seed=0)


@pytest.fixture(autouse=True)
def no_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    """One configuration for all trials: composing is Hydra's, and slow."""
    with hydra.initialize_config_dir(str(search.CONF), version_base="1.3"):
        config = hydra.compose("train")
    monkeypatch.setattr(search, "_compose", lambda overrides: config)


def test_a_study_goes_on_and_keeps_a_table(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    study = run(tmp_path, trials=4, jobs=2)
    rates = [trial.params["model.optimizer.lr"] for trial in study.trials]
    assert len(set(rates)) == 4
    assert all(0.1 <= rate <= 0.9 for rate in rates)
    assert study.best_value == max(rates)
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [float(row["synthetic_auroc"]) for row in rows] == rates
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match=r"has a search of model\.optimizer\.lr=interval\(0\.1,0\.9\); go on with"):
        run(tmp_path, "model.optimizer.lr=interval(0.1,0.5)")


def test_an_undefined_objective_and_a_failed_job_end_no_study_and_get_no_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = run(tmp_path, "model.optimizer.lr=0.2,0.95", "+end=none,error", trials=12)
    expected = {("0.2", "none"): 0.2, ("0.95", "none"): None, ("0.2", "error"): None, ("0.95", "error"): None}
    found = {(t.params["model.optimizer.lr"], t.params["+end"]): t.value for t in study.trials}
    assert found == expected
    assert all(t.state.is_finished() for t in study.trials)
    assert "failed: no folder for category cable" in capsys.readouterr().err


def test_an_interrupted_trial_is_run_to_its_end_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(jobs: list[job.Job]) -> None:
        for one in jobs:
            one.send(signal.SIGKILL)
            job.wait([one])
            with contextlib.suppress(ValueError):
                one.figures()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "wait", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    study = run(tmp_path, trials=1)
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(0, "COMPLETE")]
    assert (tmp_path / "0" / "metrics.json").exists()


def test_what_is_searched() -> None:
    fixed, space = search._parse(
        [
            "seed=1",
            "a=interval(0,1)",
            "b=tag(log,interval(1e-4,1e-2))",
            "c=range(1,8,3)",
            "d=[8,6,5],[8,5,5,5]",
            "e=int(interval(1,5))",
        ]
    )
    assert fixed == ["seed=1"]
    assert space == {
        "a": optuna.distributions.FloatDistribution(0, 1),
        "b": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "c": optuna.distributions.IntDistribution(1, 7, step=3),
        "d": optuna.distributions.CategoricalDistribution(["[8,6,5]", "[8,5,5,5]"]),
        "e": optuna.distributions.IntDistribution(1, 5),
    }
    with pytest.raises(ValueError, match="nothing to search"):
        search._parse(["seed=1"])


def test_the_direction_is_that_of_the_objective(tmp_path: Path) -> None:
    for name, direction in (("copy_ratio/low", "MINIMIZE"), ("synthetic_ap", "MAXIMIZE")):
        study = search._open(tmp_path / direction, [], search.is_cost(name), seed=0)
        assert study.direction.name == direction
