"""The search, with a training whose objective is its learning rate, undefined above 0.9."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

from squad_lit import search
from squad_lit.run.search import search as run_search
from squad_lit.system.table import read_rows

RATE = "model.optimizer.lr=interval(0.1,0.9)"
pytestmark = pytest.mark.usefixtures("fake_training")


def run(folder: Path, *overrides: str, trials: int = 3, jobs: int = 1) -> optuna.Study:
    return run_search(folder, overrides or (RATE,), trials=trials, jobs=jobs)


def test_a_study_goes_on_and_keeps_a_table(tmp_path: Path) -> None:
    run(tmp_path, trials=2)
    study = run(tmp_path, trials=4, jobs=2)
    rates = [trial.params["model.optimizer.lr"] for trial in study.trials]
    assert len(set(rates)) == 4
    assert all(0.1 <= rate <= 0.9 for rate in rates)
    assert study.best_value == max(rates)
    rows = read_rows(tmp_path / "trials.csv")
    assert [float(row["synthetic_ap"]) for row in rows] == rates
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match=r"has a search of model\.optimizer\.lr=interval\(0\.1,0\.9\); go on with"):
        run(tmp_path, "model.optimizer.lr=interval(0.1,0.5)")


def test_an_undefined_objective_and_a_failed_job_end_no_study_and_get_no_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = run(tmp_path, "model.optimizer.lr=0.2,0.95", "dataset.category=none,error", trials=12)
    expected = {("0.2", "none"): 0.2, ("0.95", "none"): None, ("0.2", "error"): None, ("0.95", "error"): None}
    found = {(t.params["model.optimizer.lr"], t.params["dataset.category"]): t.value for t in study.trials}
    assert found == expected
    assert all(t.state.is_finished() for t in study.trials)
    assert "failed: no folder for category cable" in capsys.readouterr().err


def test_a_trial_that_cannot_start_fails_and_the_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "metrics.json").write_text("{")
    study = run(tmp_path)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "trial 1 failed: " in (told := capsys.readouterr().err)
    assert "metrics.json is damaged" in told
    assert [row["state"] for row in read_rows(tmp_path / "trials.csv")] == ["complete", "fail", "complete"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=0,-1", "seed: expected at least 0, got -1"),
        ("quantizer=fsq,vqq", "quantizer=vqq: no such choice; did you mean quantizer=vq?"),
        ("model.gradient_clip=interval(0,1)", r"model\.gradient_clip: expected more than 0, got 0"),
    ],
)
def test_a_value_that_is_wrong_by_itself_shows_before_the_first_trial(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "study", override)
    assert not (tmp_path / "study").exists()


def test_gpus_for_a_trainer_on_the_cpu_are_refused_before_the_first_trial(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this trainer computes on the CPU: add trainer=gpu"):
        run_search(tmp_path / "study", ["seed=0,1"], trials=2, gpus=["0"])
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("trials", ["0", "-3", "2.5"])
def test_the_number_of_trials_is_a_positive_whole_one(
    trials: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["search", RATE, "--output", "x", "--trials", trials])
    with pytest.raises(SystemExit):
        search.main()
    assert f"--trials: expected a whole number of at least 1, got {trials}" in capsys.readouterr().err


def test_an_interrupted_trial_is_run_to_its_end_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it

    def stop() -> None:
        while not (tmp_path / "0" / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    given = ["seed=0,1", "dataset.category=${oc.env:SQUAD_LIT_END}"]
    monkeypatch.setenv("SQUAD_LIT_END", "sleep")
    threading.Thread(target=stop).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *given)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setenv("SQUAD_LIT_END", "none")
    study = run(tmp_path, *given, trials=1)
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(0, "COMPLETE")]
    assert (tmp_path / "0" / "metrics.json").exists()


def test_what_is_searched(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        "threads=1",
        "model.optimizer.lr=interval(0.5,1)",
        "model.optimizer.weight_decay=tag(log,interval(1e-4,1e-2))",
        "model.image_every=range(1,8,3)",
        "model.fsq.levels=[8,6,5],[8,5,5,5]",
        "seed=int(interval(1,5))",
        trials=1,
    )
    assert study.trials[0].distributions == {
        "model.optimizer.lr": optuna.distributions.FloatDistribution(0.5, 1),
        "model.optimizer.weight_decay": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "model.image_every": optuna.distributions.IntDistribution(1, 7, step=3),
        "model.fsq.levels": optuna.distributions.CategoricalDistribution(["[8,6,5]", "[8,5,5,5]"]),
        "seed": optuna.distributions.IntDistribution(1, 5),
    }
    with pytest.raises(ValueError, match="nothing to search"):
        run(tmp_path, "seed=1")
    with pytest.raises(ValueError, match="no experiment that is a sweep itself"):
        run(tmp_path, "seed=1,2", "experiment=mvtec")


@pytest.mark.parametrize(("name", "direction"), [("copy_ratio/low", "MINIMIZE"), ("synthetic_ap", "MAXIMIZE")])
def test_the_direction_is_that_of_the_objective(tmp_path: Path, name: str, direction: str) -> None:
    study = run(tmp_path, "seed=0,1", f"objective={name}", trials=1)
    assert study.direction.name == direction
