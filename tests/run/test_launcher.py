"""Sweeps: what Hydra and its launchers do with jobs, folders and failures."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from hydra.core.singleton import Singleton

from squad_lit import train as train_command
from squad_lit.run.config import compose
from squad_lit.run.job import config_hash
from squad_lit.run.objective import check_objective, is_cost, objective


def train(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squad_lit.train", *overrides]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=variables)


@pytest.mark.slow
def test_jobs_of_two_processes_each_run_side_by_side_with_none_of_them_starting_the_sweep_again(
    tmp_path: Path, mvtec: Path
) -> None:
    """About 10 s alone on 2 cores, most of it the imports of four processes."""
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "model.steps=2", "logger=none"]
    options += ["dataset.image_size=64", "callback.progress=null"]
    options += ["dataset.limit_train=8", "model.pool.clean_limit=8", "model.pool.synthetic=8"]
    options += ["experiment=mvtec", "dataset.category=bottle,screw", f"dataset.root={mvtec}"]
    options += ["quantizer=vq", "model.vq.codebook_size=8"]
    done = train(*options, f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "0",
        "1",
        "multirun.yaml",
        "table.md",
        "table.tex",
    ]
    for job in ("0", "1"):
        assert len((tmp_path / job / "predictions.csv").read_text().splitlines()) == 1 + 5
        assert json.loads((tmp_path / job / "metrics.json").read_text())["image_auroc"] is not None
        assert (tmp_path / job / "train_ddp_process_1.log").exists()
        # A learned codebook has seen the batches of both processes: one image each, of 8 x 8 cells.
        state = torch.load(tmp_path / job / "last.ckpt", weights_only=True)["state_dict"]
        assert state["generator.quantizer.low.vq._codebook.cluster_size"].sum().item() == pytest.approx(128, rel=0.01)


@pytest.mark.usefixtures("fake_training")
def test_a_failed_job_is_named_and_the_others_run(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "5").mkdir(parents=True)
    (sweep / "5" / "metrics.json").write_text("{}")
    done = train("-m", "seed=0,1", "threads=1", "trust=[error],[none],[kill]", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 1
    summary = done.stderr[done.stderr.index("error: 4 of the jobs failed, all not named here are done:") :]
    killed = "its process was killed by signal 9, perhaps for memory, without a message"
    for job, varied, error in (
        (0, "seed=0, trust=[error]", "no folder for category cable"),
        (2, "seed=0, trust=[kill]", killed),
        (3, "seed=1, trust=[error]", "no folder for category cable"),
        (5, "seed=1, trust=[kill]", f"{sweep / '5' / 'metrics.json'} is damaged: it does not say of which run it is"),
    ):
        assert f"  job {job} ({varied}): {error}; see {sweep / str(job)}\n" in summary
    assert (sweep / "2" / "error.txt").read_text() == f"{killed}\n"
    assert f"the same command with hydra.sweep.dir='{sweep}' does what is missing" in summary
    assert all((sweep / job / "metrics.json").exists() for job in "14")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("fake_training")
def test_a_job_has_the_overrides_for_hydra_and_the_folder_of_the_users_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "quantizer").mkdir()
    (tmp_path / "quantizer" / "own.yaml").write_text("# @package model\nown: {dim: 3}\n")
    options = [f"hydra.searchpath=[file://{tmp_path}]", f"hydra.sweep.dir={tmp_path / 'sweep'}", "logger=none"]
    done = train("-m", "quantizer=vq,none", *options, "--config-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "sweep" / "1" / "metrics.json").read_text())
    assert figures["quantizer"] == "none"
    assert figures["logger"] == "none"
    assert figures["hydra.searchpath"] == f"[file://{tmp_path}]"
    assert figures["hydra.mode"] == "RUN"


@pytest.mark.usefixtures("fake_training")
def test_ctrl_c_reaches_jobs_side_by_side_once_and_waits_for_them(tmp_path: Path) -> None:
    options = ["-m", "seed=0,1", "trust=[sleep]", "hydra.launcher.jobs=2", f"hydra.sweep.dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "squad_lit.train", *options],
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    with process:
        while process.poll() is None and not all((tmp_path / job / "ready").exists() for job in "01"):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate()
    assert process.returncode == 130, told
    assert [(tmp_path / job / "signals").read_text() for job in "01"] == [f"{signal.SIGINT:d} "] * 2
    assert all((tmp_path / job / "stopped").exists() for job in "01")


# Takes its folder, as a training does.
_HOLDER = """
import pathlib, sys, time
from squad_lit.system.lock import hold
given = dict(text.split("=", 1) for text in sys.argv[1:] if "=" in text)
folder = pathlib.Path(given["hydra.run.dir"][1:-1])
with hold(folder):
    (folder / "ready").touch()
    time.sleep(60)
"""


def test_a_job_whose_sweep_was_killed_goes_on_and_is_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUAD_LIT_TRAIN", shlex.join([sys.executable, "-c", _HOLDER]))
    options = ["-m", "seed=3", f"hydra.sweep.dir={tmp_path}"]
    with subprocess.Popen([sys.executable, "-m", "squad_lit.train", *options]) as sweep:
        while sweep.poll() is None and not (tmp_path / "0" / "ready").exists():
            time.sleep(0.1)
        (job,) = psutil.Process(sweep.pid).children()
        sweep.kill()
    again = train(*options)
    assert again.returncode == 1
    assert f"job 0 failed: {tmp_path / '0'} is in use by process {job.pid} (-c) on " in again.stderr
    assert job.is_running()
    job.kill()


def test_submitit_runs_jobs_skips_finished_ones_and_names_failed_ones(tmp_path: Path) -> None:
    """On this machine, by submitit's local executor; what is finished takes no time."""
    for job, seed in enumerate((1, 5)):
        (tmp_path / str(job)).mkdir()
        found = {"synthetic_ap": 0.5, "run": {"config_hash": config_hash(compose([f"seed={seed}"]))}}
        (tmp_path / str(job) / "metrics.json").write_text(json.dumps(found))
    done = train("-m", "seed=1,2", "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 1
    logs = (tmp_path / ".submitit").glob("*/*_0_log.out")
    assert "was finished before and is skipped" in "".join(log.read_text() for log in logs)
    assert "job 1 (seed=2): " in done.stderr
    assert "has the figures of another configuration" in done.stderr


def test_launchers_compose() -> None:
    options = {"processes": {"jobs": 1, "jobs_per_gpu": None}, "gpus": {"jobs": None, "jobs_per_gpu": 1}}
    for given, name in (([], "processes"), (["hydra/launcher=gpus"], "gpus")):
        launcher = compose(given, with_hydra=True).hydra.launcher
        target = "hydra_plugins.squad_lit_launcher.ProcessLauncher"
        assert launcher == {"_target_": target} | options[name]
    launcher = compose(["hydra/launcher=slurm", "hydra.launcher.partition=a100"], with_hydra=True).hydra.launcher
    assert launcher._target_ == "hydra_plugins.squad_lit_launcher.SlurmLauncher"
    assert launcher.nodes == 1
    nodes = compose(["hydra/launcher=slurm", "trainer=nodes", "trainer.num_nodes=3"], with_hydra=True)
    assert (nodes.hydra.launcher.nodes, nodes.trainer.strategy) == (3, "ddp")
    assert launcher.partition == "a100"
    target = compose(["hydra/launcher=submitit_local"], with_hydra=True).hydra.launcher._target_
    assert target.endswith("LocalLauncher")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs the command in this process, which saves the imports; returns what it says when it fails."""
    before = Singleton.get_state()
    monkeypatch.setattr(sys, "argv", ["train"])
    # Hydra's and submitit's settings close all handlers; that of absl, if TensorBoard was imported before, would close
    # pytest's own streams.
    monkeypatch.setattr("logging.config.DictConfigurator.configure", lambda self: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            train_command.main(arguments)
        told = capfd.readouterr().err
        if isinstance(end.value.code, str):  # Python prints it at its end
            return end.value.code
        assert end.value.code == 1
        return told

    yield run
    Singleton.set_state(before)


def test_what_cannot_be_run_is_told_in_words_before_there_is_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    sweep, a, b, c, held = (f"hydra.sweep.dir={tmp_path / name}" for name in ("file/sweep", "a", "b", "c", "held"))
    gpus = ["seed=1,2", "hydra/launcher=gpus"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "held").mkdir()
    code = "import pathlib, squad_lit.system.lock as l; held = l.hold(pathlib.Path('held')); held.__enter__()"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(flush=True); input()"], cwd=tmp_path, stdin=-1, stdout=-1
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        used = f"error: {tmp_path}/held is in use by process {other.pid} (-c) on "
        for arguments, message in (
            ([f"hydra.run.dir={file}"], f"error: hydra.run.dir={file}: File exists; choose another folder"),
            (["-m", sweep, "seed=1,2"], f"error: {sweep}: Not a directory"),
            (["-m", a, *gpus, "trainer=gpu"], "error: no GPU was found"),
            (["-m", held, "seed=1,2"], used),
            ([f"hydra.run.dir={tmp_path}/held"], used),
            ([f"hydra.run.dir={tmp_path}/new", "model.steps=0"], "error: model.steps: expected at least 1, got 0"),
            (["-m", b, "seed=1,2", "objective=foo"], "error: objective: no figure 'foo'"),
            (
                ["-m", c, "seed=1,2", "hydra.launcher.jobs=0"],
                "error: hydra.launcher.jobs: expected a whole number of at least 1, got 0",
            ),
        ):
            told = refused(*arguments)
            assert told.startswith(message)
            assert "Traceback" not in told
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
        assert refused("-m", f"hydra.sweep.dir={tmp_path}/d", *gpus).startswith("error: each job is to get a GPU, but")
        other.kill()
    assert sorted(path.name for path in (tmp_path / "held").iterdir()) == [".lock"]
    assert not any((tmp_path / name / "0").exists() for name in "abcd")
    assert not (tmp_path / "new").exists()


def test_no_two_runs_share_a_folder_and_a_run_has_one() -> None:
    configs = [compose(with_hydra=True).hydra for _ in range(2)]
    assert configs[0].sweep.dir != configs[1].sweep.dir
    assert configs[0].sweep.dir == configs[0].sweep.dir


def test_what_a_search_may_compare_runs_by() -> None:
    default, other = compose(), compose(["quantizer=none", "+model.groups={all:[4,8,16],low:null,high:null}"])
    for name in ("synthetic_ap", "copy_ratio/low", "perplexity/high", "seconds/train"):
        check_objective(name, [default])
    check_objective("copy_ratio/all", [default, other])
    with pytest.warns(UserWarning, match="is measured on the test set"):
        check_objective("pixel_aupro_0.05", [default])
    with pytest.raises(ValueError, match=r"no figure 'syntetic_ap' in metrics\.json; label-free ones: synthetic_ap"):
        check_objective("syntetic_ap", [default])
    for name in ("copy_ratio", "copy_ratio/all", "image_aurocXX", "pixel_aupro_0.1", "seconds", "synthetic_ap/low"):
        with pytest.raises(ValueError, match="no figure"):
            check_objective(name, [default])
    for name, config in (("perplexity/all", other), ("copy_ratio/low", compose(["model=memory"]))):
        with pytest.raises(ValueError, match="no figure"):
            check_objective(name, [config])
    assert objective({"a": 1}, "a") == 1.0
    assert math.isnan(objective({"a": None}, "a"))
    assert math.isnan(objective({}, "a"))
    assert [is_cost(name) for name in ("copy_ratio/low", "synthetic_ap")] == [True, False]
