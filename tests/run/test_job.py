"""Jobs, with a command in the place of a training that ends in a moment and in any way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from squad_lit.run import fit
from squad_lit.run.job import Job, config_hash, quote
from squad_lit.run.launcher import find_gpus, run_jobs
from squad_lit.system.lock import hold

pytestmark = pytest.mark.usefixtures("fake_training")


def make(**more: object) -> DictConfig:
    return OmegaConf.create(
        {
            "seed": 0,
            "threads": None,
            "output": "${hydra:runtime.output_dir}",
            "logger": {"csv": {"save_dir": "${output}"}},
        }
        | {
            "dataset": {"_target_": "squad_lit.dataset.mvtec.MVTec", "root": "a", "batch_size": 4},
            "model": {"steps": 3},
        }
        | more
    )


def run(folder: Path, *arguments: str, config: DictConfig | None = None) -> Job:
    (job,) = run_jobs([Job(folder, arguments, config or make())])
    return job


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    code = f"import pathlib, squad_lit.system.lock as l; held = l.hold(pathlib.Path({str(folder)!r})); held.__enter__()"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(flush=True); input()"], stdin=-1, stdout=-1, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        yield other
        other.kill()


def test_the_hash_is_of_what_changes_figures() -> None:
    same = make(threads=2, resume="x", logger={}, callback={"a": 1})
    same.dataset.root, same.dataset.num_workers = "b", 3
    assert config_hash(same) == config_hash(make())
    more = (
        {"steps": 3, "pool": {"workers": 2}},
        {"steps": 3, "pool": {"workers": None}},
        {"steps": 3, "pool": {"views": 2}},
    )
    workers, default, views = (config_hash(make(model=model)) for model in more)
    assert workers == default != views
    assert len({config_hash(make(seed=seed)) for seed in range(3)}) == 3
    folders = [make(dataset={"_target_": "squad_lit.dataset.folder.Folder", "root": root}) for root in "ab"]
    assert config_hash(folders[0]) != config_hash(folders[1])


def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    config = make()
    (tmp_path / "metrics.json").write_text(json.dumps({"psnr": 3.5, "run": {"config_hash": config_hash(config)}}))
    job = run(tmp_path, "end=error", config=config)
    assert job.skipped
    assert job.figures is not None
    assert job.figures["psnr"] == 3.5
    assert "figures of another configuration" in run(tmp_path, config=make(seed=1)).error


def test_a_half_finished_job_goes_on_from_its_checkpoint_and_no_other_overwrites_it(tmp_path: Path) -> None:
    folder = tmp_path / "it's, a=folder"
    folder.mkdir()
    with zipfile.ZipFile(folder / "last.ckpt", "w") as archive:
        archive.writestr("data", bytes(1000))
    OmegaConf.save(make(threads=3), folder / "config.yaml")
    assert (
        "a run with other values of model.steps: choose another" in run(folder, config=make(model={"steps": 4})).error
    )
    figures = run(folder).figures
    assert figures is not None
    assert figures["resume"] == quote(folder / "last.ckpt")
    assert figures["hydra.mode"] == "RUN"


def test_a_damaged_checkpoint_starts_the_job_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        archive.writestr("data", bytes(range(256)) * 4)
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    encrypted = content.copy()
    encrypted[content.index(b"PK\x01\x02") + 8] ^= 1  # a flag in the directory of the file
    content[200] ^= 1
    for damaged in (b"", bytes(content), bytes(content[:600]), bytes(encrypted)):
        (tmp_path / "metrics.json").unlink(missing_ok=True)
        (tmp_path / "last.ckpt").write_bytes(damaged)
        OmegaConf.save(make(), tmp_path / "config.yaml")
        figures = run(tmp_path).figures
        assert figures is not None
        assert "resume" not in figures
        assert f"{tmp_path / 'last.ckpt'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json is damaged: Expecting"),
        ("metrics.json", "{}", "metrics.json is damaged: it does not say of which run"),
        ("metrics.json", "[]", "metrics.json is damaged: it does not say of which run"),
        (
            "config.yaml",
            "a: [",
            "config.yaml is damaged: expected the node content, but found '<stream end>' in line 1",
        ),
        ("config.yaml", "", "config.yaml is no configuration: expected keys with values, got an empty file"),
        ("config.yaml", "a: 1\na: 2", "config.yaml is damaged: found duplicate key a in line 2"),
        ("config.yaml", "[" * 5000, "config.yaml is damaged: it is nested too deeply"),
        ("metrics.json", "[" * 100_000, "metrics.json is damaged: "),
        ("config.yaml", "- 1", "config.yaml is no configuration"),
        ("config.yaml", "dataset: 1", "a run with other values of dataset"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    if name == "config.yaml":
        (tmp_path / "last.ckpt").touch()
    error = run(tmp_path).error
    assert message in error
    assert str(tmp_path) in error


def test_a_folder_is_of_one_process_and_free_again_when_that_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        told = (
            rf"{tmp_path} is in use by process {other.pid} \(-c\) on .* since .*: wait for its end, or choose another"
        )
        assert re.match(told, run(tmp_path).error)
        with pytest.raises(ValueError, match=told):
            fit.run(make(), tmp_path)
        assert not (tmp_path / "config.yaml").exists()
        other.kill()
        other.wait()
        assert run(tmp_path).figures is not None
    with hold(tmp_path), hold(tmp_path):  # the callback of a run takes it, and the run once more
        pass


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("error", "no folder for category cable"),
        ("kill", "its process was killed by signal 9, perhaps for memory, without a message"),
        ("silent", "its process ended with exit status 3, without a message"),
    ],
)
def test_how_a_job_failed_is_told_and_the_others_run(
    tmp_path: Path, end: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(tmp_path / "a", [f"end={end}"], make(), name="first"), Job(tmp_path / "b", [], make())]
    assert run_jobs(jobs) == jobs
    assert [job.error for job in jobs] == [message, ""]
    out, err = capfd.readouterr()
    assert err == f"first failed: {message}; see {tmp_path / 'a'}\n"
    assert out == f"trained\nb is finished: {tmp_path / 'b'}\n"
    assert (tmp_path / "a" / "error.txt").read_text().strip() == message


def test_jobs_side_by_side_have_their_gpus_and_share_of_the_cpu_and_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the GPUs' locks are
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(9)), raising=False)
    jobs = [Job(tmp_path / name, [], make(threads=5 if name == "b" else None)) for name in "abc"]
    seen = []
    run_jobs(jobs, side_by_side=4, gpus=["0", "MIG-GPU-a/1/0", "0"], on_end=seen.append)
    figures = [job.figures or {} for job in jobs]
    assert [found["gpu"] for found in figures] == ["0", "MIG-GPU-a/1/0", "0"]
    assert [found["threads"] for found in figures] == ["2", None, "2"]  # of nine
    assert set(seen) == set(jobs)
    assert (tmp_path / "a" / "output.log").read_text() == "trained\n"
    assert "trained" not in capfd.readouterr().out


def test_no_other_user_reaches_or_makes_the_folder_of_the_gpus_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_jobs([Job(tmp_path / "a", [], make())], gpus=["7"])[0].figures
    (folder,) = tmp_path.glob("squad_lit_*")
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"^{folder} is not of this user"):
        run_jobs([Job(tmp_path / "b", [], make())], gpus=["7"])
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_gpu_waits_until_the_job_on_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    jobs = [Job(tmp_path / name, [f"end={end}"], make()) for name, end in (("a", "sleep"), ("b", ""))]

    def wake() -> None:
        when_there(tmp_path / "a" / "ready")
        assert not (tmp_path / "b").exists()
        jobs[0].send(signal.SIGTERM)

    waker = threading.Thread(target=wake)
    waker.start()
    run_jobs(jobs, side_by_side=2, gpus=["7"])
    waker.join()
    assert [bool(job.figures) for job in jobs] == [False, True]
    assert jobs[1].figures is not None
    assert jobs[1].figures["gpu"] == "7"


def when_there(*files: Path) -> None:
    while not all(file.exists() for file in files):
        time.sleep(0.01)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A suite that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_the_jobs_reaches_each_once_and_waits_for_it(tmp_path: Path, number: signal.Signals) -> None:
    jobs = [Job(tmp_path / name, ["end=sleep"], make()) for name in "abc"]

    def stop() -> None:
        when_there(*(tmp_path / name / "ready" for name in "ab"))
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        run_jobs(jobs, side_by_side=2)
    for name in "ab":
        assert (tmp_path / name / "signals").read_text() == f"{number:d} "
        assert (tmp_path / name / "stopped").exists()
    assert not any(job.is_running() for job in jobs)
    assert not (tmp_path / "c").exists()


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_kills(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(tmp_path / "a", ["end=deaf"], make())

    def stop() -> None:
        when_there(tmp_path / "a" / "ready")
        os.kill(os.getpid(), signal.SIGINT)
        while "Ctrl-C again" not in capfd.readouterr().err:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job])
    assert not job.is_running()


def test_an_error_of_the_caller_leaves_no_job_behind(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / "a", ["end=sleep"], make()), Job(tmp_path / "b", [], make())]

    def fail(job: Job) -> None:
        when_there(tmp_path / "a" / "ready")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_jobs(jobs, side_by_side=2, on_end=fail)
    assert (tmp_path / "a" / "stopped").exists()


@pytest.mark.parametrize("text", ["plain", "a b", "it's", "back\\slash", "end\\", "quo\\'te", "a,b=[c]{d}", "ü: #"])
def test_quoted_texts_are_what_hydra_reads(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={quote(text)}").value() == text


def test_slurm_leaves_the_processes_of_a_job_to_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert SLURMEnvironment.detect()
    figures = run(tmp_path).figures or {}
    assert figures["rank"] is None
    assert figures["ignores_usr2"]  # which SLURM sends to all processes of a job, and which would end them
    monkeypatch.setenv("SLURM_JOB_NAME", str(figures["slurm"]))
    assert not SLURMEnvironment.detect()


def test_on_several_nodes_of_slurm_each_starts_its_processes_and_the_first_one_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\n[ $2 = hostnames ] && printf "a1\\na2\\n" || echo "NodeName=$4 NodeAddr=10.0.0.7"\n'
    )
    scontrol.chmod(0o755)
    environment = {"SLURM_JOB_ID": "30001", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NAME": "x"}
    for name, value in {**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    config = make(trainer={"num_nodes": 2})
    monkeypatch.setenv("SLURM_NODEID", "0")
    first = run(tmp_path / "first", config=config)
    assert first.figures is not None
    found = {key: first.figures[key] for key in ("address", "port", "node")}
    assert found == {"address": "10.0.0.7", "port": "30001", "node": "0"}
    monkeypatch.setenv("SLURM_NODEID", "1")
    with holder(tmp_path / "second"):  # by the first node
        second = run(tmp_path / "second", config=config)
    assert second.figures == {}
    assert json.loads((tmp_path / "second" / "metrics.json").read_text())["node"] == "1"


def test_which_gpus_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SQUAD_LIT_GPUS", "0, 2")
    assert find_gpus() == ["0", "2"]
    monkeypatch.delenv("SQUAD_LIT_GPUS")
    assert find_gpus() == ["3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ["GPU-a", "GPU-b"]
    smi.unlink()
    with pytest.raises(ValueError, match="no GPU was found"):
        find_gpus()
