"""What a sweep checks before its first job, what it shows, and how it ends; the trainings are a script."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from squad_lit.run import slurm
from squad_lit.run.config import compose
from squad_lit.run.job import Job, config_hash
from squad_lit.run.option import cpu_cores
from squad_lit.run.status import Status
from squad_lit.system.file import write_json


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squad_lit.train", "-m", *overrides, f"hydra.sweep.dir={folder}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.usefixtures("fake_training")
def test_what_each_job_needs_is_checked_once_and_before_the_first_one(tmp_path: Path, mvtec: Path) -> None:
    none = sweep(tmp_path / "none", "experiment=visa", f"dataset.root={tmp_path / 'nowhere'}")
    assert none.returncode == 1
    assert none.stderr.startswith(f"error: visa: no folder {tmp_path / 'nowhere'}\n")
    assert none.stderr.count("no folder") == 1
    some = sweep(tmp_path / "some", "experiment=mvtec", "dataset.category=bottle,cable", f"dataset.root={mvtec}")
    assert some.returncode == 1
    assert "error: 1 of 2 jobs cannot run:\n  job 1 (dataset.category=cable): mvtec: no folder for" in some.stderr
    assert "a sweep with one model each, -m dataset.category=bottle,screw\n" in some.stderr
    for name in ("none", "some"):
        assert not (tmp_path / name / "0").exists()


@pytest.mark.usefixtures("fake_training")
def test_a_value_that_is_wrong_or_a_gpu_that_is_not_there_shows_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = sweep(tmp_path, "model.steps=5,0")
    assert "error: 1 of 2 jobs cannot run:\n  job 1 (model.steps=0): model.steps: expected" in done.stderr
    done = sweep(tmp_path, "seed=0,1", "trainer=gpu")
    assert done.stderr.startswith("error: trainer.accelerator=gpu: torch finds no GPU on this machine")
    assert not (tmp_path / "0").exists()


@pytest.mark.usefixtures("fake_training")
def test_pairs_and_counts_and_where_a_sweep_is_when_it_ends(tmp_path: Path) -> None:
    for name, steps, batch in (("a", 5, 4), ("b", 7, 2)):
        (tmp_path / "conf" / "pair").mkdir(parents=True, exist_ok=True)
        text = f"# @package _global_\nmodel:\n  steps: {steps}\ndataset:\n  batch_size: {batch}\n"
        (tmp_path / "conf" / "pair" / f"{name}.yaml").write_text(text)
    folder = tmp_path / "sweep"
    done = sweep(folder, "--config-dir", str(tmp_path / "conf"), "+pair=a,b", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert len([path for path in folder.iterdir() if path.name in "0123"]) == 4
    told = [line.partition(";")[0] for line in done.stdout.splitlines() if line.startswith("sweep: ")]
    assert told[0] == "sweep: 3 waiting, 1 running, 0 done, 0 failed"
    assert told[-1] == "sweep: 0 waiting, 0 running, 4 done, 0 failed"
    assert done.stdout.endswith(f"sweep folder: {folder}\nnext: squad-lit report {folder}\n")


@pytest.mark.usefixtures("fake_training")
def test_stop_after_starts_no_further_job(tmp_path: Path) -> None:
    done = sweep(tmp_path, "trust=[none],[error],[kill],[none]", "sweep.stop_after=1")
    assert done.returncode == 1
    assert "1 of the jobs failed, 2 were not started (sweep.stop_after=1), all not named here are done:" in done.stderr
    assert (tmp_path / "0" / "metrics.json").exists()
    assert not (tmp_path / "2").exists()
    assert "sweep.stop_after: expected" in sweep(tmp_path, "seed=0,1", "sweep.stop_after=0").stderr


def test_the_time_left_is_that_of_the_mean_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("squad_lit.run.status.time.monotonic", lambda: now)
    jobs = [Job(tmp_path / str(i), []) for i in range(6)]
    status = Status(len(jobs))
    for job in jobs[:2]:
        status.start(job)
    now = 600.0
    jobs[0].figures = {}
    status.end(jobs[0])
    status.start(jobs[2])
    now = 700.0
    status.tell("Resources")
    # The mean is 600 s: three jobs wait, one has run for 700 s, another one for 100 s, and two run side by side.
    assert capsys.readouterr().out.splitlines()[-1] == (
        "sweep: 3 waiting, 2 running, 1 done, 0 failed (waiting: Resources); some 19 min left"
    )
    status.tell("Resources")
    assert capsys.readouterr().out == ""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the rows that ``squeue`` prints; ``scancel`` removes rows, and ``scontrol`` knows job 9_1.

    ``sbatch`` refuses everything.
    """
    programs, file = tmp_path / "bin", tmp_path / "queue"
    programs.mkdir()
    file.touch()
    scripts = {
        "squeue": f"cat {file}",
        "sbatch": "echo Invalid partition >&2; exit 1",
        "scancel": f'for id in "$@"; do sed -i "/^$id|/d" {file}; done',
        "scontrol": '[ "$4" = 9_1 ] && echo "JobId=9 JobState=CANCELLED Reason=None"',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return file


def test_jobs_in_slurms_queue_are_waited_for_and_not_submitted_again(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(tmp_path / str(i), [], compose([f"seed={i}"]), f"job {i}") for i in range(4)]
    for i, job in enumerate(jobs):
        job.folder.mkdir()
        (job.folder / ".slurm").write_text(f"9_{i}")

    def finish(i: int) -> None:
        config = jobs[i].config
        assert config is not None
        write_json(jobs[i].folder / "metrics.json", {"run": {"config_hash": config_hash(config)}})

    finish(0)  # by an earlier call
    states = iter(
        [
            "9_1|RUNNING|None\n9_2|PENDING|Resources\n9_3|PENDING|Resources\n",
            "9_1|RUNNING|None\n9_2|PENDING|Resources\n9_3|PENDING|Resources\n",
            "9_2|RUNNING|None\n9_3|PENDING|Priority\n",  # 9_1 was cancelled
            "9_2|RUNNING|None\n9_3|PENDING|Priority\n",
            "9_2|COMPLETING|None\n9_3|RUNNING|None\n",
            "",
        ]
    )

    def sleep(seconds: float) -> None:
        queue.write_text(text := next(states, ""))
        if not text:
            finish(2)
            (jobs[3].folder / "error.txt").write_text("no folder for category cable\n")

    queue.write_text(next(states))
    monkeypatch.setattr(slurm.time, "sleep", sleep)
    monkeypatch.setattr(slurm, "_submit", lambda *_: pytest.fail("there was nothing to submit"))
    slurm.run_on_slurm(jobs, {"submitit_folder": "out/%j"}, Status(4))
    assert [job.figures is not None for job in jobs] == [True, False, True, False]
    assert jobs[1].error == (
        "its job 9_1 in SLURM ended without figures or a message: SLURM says CANCELLED; its output is in out/9_1"
    )
    assert jobs[3].error == "no folder for category cable"
    told = capsys.readouterr().out
    assert "sweep: 2 waiting, 1 running, 1 done, 0 failed (waiting: Resources)" in told
    assert "sweep: 1 waiting, 1 running, 1 done, 1 failed (waiting: Priority)" in told
    assert told.splitlines()[-1] == "sweep: 0 waiting, 0 running, 2 done, 2 failed"
    assert "job 0 was finished before and is skipped" in told
    assert "job 2 is finished" in told


@pytest.mark.usefixtures("fake_training", "queue")
def test_the_cpu_cores_of_a_login_node_do_not_limit_the_jobs_of_slurm(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    many = (f"trainer.devices={cpu_cores() + 2}", "trainer.strategy=ddp", "seed=0,1")
    here = sweep(tmp_path / "here", *many)
    assert here.stderr.startswith(f"error: trainer.devices: expected 1 to {max(2, cpu_cores())} processes for the CPU")
    there = sweep(tmp_path / "there", "hydra/launcher=slurm", *many)
    assert "error: SLURM did not take the jobs: " in there.stderr
    assert "trainer.devices" not in there.stderr


def test_after_so_many_failures_waiting_jobs_leave_slurms_queue(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(tmp_path / str(i), [], compose([f"seed={i}"])) for i in range(3)]
    for i, job in enumerate(jobs):
        job.folder.mkdir()
        (job.folder / ".slurm").write_text(f"9_{i}")
    rows = ["9_0|RUNNING|None\n9_1|RUNNING|None\n9_2|PENDING|Priority\n", "9_0|RUNNING|None\n9_2|PENDING|Priority\n"]
    queue.write_text(rows[0])
    asked = []

    def sleep(seconds: float) -> None:
        asked.append(queue.read_text())
        queue.write_text(rows[1] if "9_2" in asked[-1] else "" if len(asked) > 4 else "9_0|RUNNING|None\n")

    monkeypatch.setattr(slurm.time, "sleep", sleep)
    slurm.run_on_slurm(jobs, {"submitit_folder": "out/%j"}, Status(3, stop_after=1))
    assert "9_0|RUNNING|None\n" in asked  # it runs, and 9_2 is gone
    assert [bool(job.error) for job in jobs] == [True, True, False]


def test_without_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no SLURM on this machine"):
        slurm.run_on_slurm([], {}, Status(0))


def test_a_training_has_left_its_checkpoint_before_its_job_is_back_in_slurms_queue(tmp_path: Path) -> None:
    """SLURM kills what still runs then. submitit pickles what ``checkpoint`` returns."""
    submitit = pytest.importorskip("submitit")
    job = Job(tmp_path, ["seed=3"], compose(["seed=3"]), "job 0")
    script = f"trap 'sleep 0.3; touch {tmp_path}/last.ckpt; exit 143' TERM; touch {tmp_path}/ready; sleep 60 & wait"
    with subprocess.Popen(["bash", "-c", script], start_new_session=True) as job._process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        slurm._Remote(30).checkpoint(job).dump(tmp_path / "again.pkl")
        assert (tmp_path / "last.ckpt").exists()
    again = submitit.core.utils.DelayedSubmission.load(tmp_path / "again.pkl")
    (loaded,) = again.args
    assert (loaded.folder, loaded.arguments, loaded.config, loaded.name) == (tmp_path, ["seed=3"], job.config, "job 0")
    assert again.function.patience == 30


def test_a_training_that_does_not_stop_does_not_keep_its_job_out_of_the_queue(tmp_path: Path) -> None:
    job = Job(tmp_path, [], compose([]))
    command = ["bash", "-c", "trap '' TERM; echo ready; sleep 60"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as job._process:
        assert job._process.stdout.readline() == b"ready\n"
        began = time.monotonic()
        slurm._Remote(0.3).checkpoint(job)
        assert 0.3 <= time.monotonic() - began < 20
        os.killpg(job._process.pid, signal.SIGKILL)


def test_a_job_that_ran_out_of_time_too_often_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")

    def end(jobs: list[Job]) -> None:
        raise submitit.core.utils.UncompletedJobError("Job not requeued because: timed-out too many times.")

    monkeypatch.setattr(slurm, "run_jobs", end)
    with pytest.raises(SystemExit):
        slurm._Remote(0)(Job(tmp_path, []))
    assert (tmp_path / "error.txt").read_text().startswith("it ran out of time too often: raise hydra.launcher.timeout")


@pytest.mark.usefixtures("fake_training")
def test_ray_runs_the_jobs_of_a_sweep(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs an environment with the extra 'ray'")
    options = ["hydra/launcher=ray_cluster", "hydra.launcher.ray.remote={num_cpus:1,num_gpus:0}"]
    done = sweep(tmp_path, "trust=[none],[error],[]", *options, "+hydra.launcher.ray.init.num_cpus=2")
    assert done.returncode == 1
    assert "job 1 (trust=[error]): no folder for category cable; " in done.stderr
    assert [(tmp_path / job / "metrics.json").exists() for job in "012"] == [True, False, True]
