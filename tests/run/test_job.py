"""Jobs, with a command in the place of a training that ends in a moment and in any way."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from squad_lit.run import job, lock
from squad_lit.run.job import Job, config_hash, quote, wait


@pytest.fixture(autouse=True)
def command(fake_training: Path) -> None:
    del fake_training


def make(**more: object) -> DictConfig:
    return OmegaConf.create(
        {"seed": 0, "threads": None, "logger": {"csv": {"save_dir": "${hydra:runtime.output_dir}"}}}
        | {
            "dataset": {"_target_": "squad_lit.dataset.mvtec.MVTec", "root": "a", "batch_size": 4},
            "model": {"steps": 3},
        }
        | more
    )


def run(folder: Path, *arguments: str, config: DictConfig | None = None, **options: object) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    started = Job(folder, config or make(), arguments, **options)  # type: ignore[arg-type]
    wait([started])
    return started.figures()


def test_the_hash_is_of_what_changes_figures() -> None:
    same = make(threads=2, resume="x", logger={}, callback={"a": 1})
    same.dataset.root, same.dataset.num_workers = "b", 3
    assert config_hash(same) == config_hash(make())
    assert len({config_hash(make(seed=seed)) for seed in range(3)}) == 3
    folders = [make(dataset={"_target_": "squad_lit.dataset.folder.Folder", "root": root}) for root in "ab"]
    assert config_hash(folders[0]) != config_hash(folders[1])


def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    config = make()
    (tmp_path / "metrics.json").write_text(json.dumps({"psnr": 3.5, "run": {"config_hash": config_hash(config)}}))
    started = Job(tmp_path, config, ["end=error"])
    assert started.skipped
    assert started.figures()["psnr"] == 3.5
    with pytest.raises(ValueError, match="figures of another configuration"):
        Job(tmp_path, make(seed=1), [])


def test_a_half_finished_job_goes_on_from_its_checkpoint_and_no_other_overwrites_it(tmp_path: Path) -> None:
    folder = tmp_path / "it's, a=folder"
    folder.mkdir()
    (folder / "last.ckpt").touch()
    OmegaConf.save(make(threads=3), folder / "config.yaml")
    with pytest.raises(ValueError, match=r"a run with other values of model\.steps: choose another folder"):
        run(folder, config=make(model={"steps": 4}))
    figures = run(folder)
    assert figures["resume"] == quote(folder / "last.ckpt")
    assert figures["hydra.mode"] == "RUN"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json is damaged: Expecting"),
        ("metrics.json", "{}", "metrics.json is damaged: it does not say of which run"),
        ("metrics.json", "[]", "metrics.json is damaged: it does not say of which run"),
        ("config.yaml", "a: [", "config.yaml is damaged: while parsing"),
        ("config.yaml", "- 1", "config.yaml is no configuration"),
        ("config.yaml", "dataset: 1", "a run with other values of dataset"),
    ],
)
def test_a_damaged_file_is_named_and_the_folder_is_free_again(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    if name == "config.yaml":
        (tmp_path / "last.ckpt").touch()
    with pytest.raises(ValueError, match=message) as found:
        Job(tmp_path, make(), [])
    assert str(tmp_path) in str(found.value)
    free = lock.take(tmp_path / ".lock")
    assert free is not None
    free.close()


def test_a_trainer_on_the_cpu_gets_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this trainer computes on the CPU: add trainer=gpu"):
        Job(tmp_path, make(trainer={"accelerator": "cpu"}), [], gpus=["0"])


def test_two_jobs_cannot_share_a_folder(tmp_path: Path) -> None:
    first = Job(tmp_path, make(), ["end=sleep"])
    try:
        with pytest.raises(ValueError, match="in use by another process"):
            Job(tmp_path, make(), [])
    finally:
        first.send(signal.SIGKILL)
        wait([first])


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("error", "no folder for category cable"),
        ("kill", "signal 9, perhaps for memory"),
        ("silent", "exit status 3"),
    ],
)
def test_how_a_job_failed_is_told(tmp_path: Path, end: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, f"end={end}")


def test_jobs_side_by_side_have_different_gpus_and_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(job.time, "sleep", lambda seconds, sleep=time.sleep: sleep(seconds / 20))
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    jobs = [Job(f, make(), [], gpus=["0", "1"], quiet=True) for f in folders[:2]]
    wait(jobs[:1])
    wait(jobs[1:])
    assert [one.figures()["gpu"] for one in jobs] == ["0", "1"]
    assert run(folders[2], gpus=["0", "1"], quiet=True)["gpu"] == "0"  # it is free again
    assert (folders[0] / "output.log").read_text() == "trained\n"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_the_sweep_reaches_the_job_once(tmp_path: Path, number: signal.Signals) -> None:
    started = Job(tmp_path, make(), ["end=sleep"])
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            wait([started])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "signals").read_text() == f"{number:d} "
    assert not started.is_running()


@pytest.mark.parametrize("text", ["plain", "a b", "it's", "back\\slash", "end\\", "quo\\'te", "a,b=[c]{d}", "ü: #"])
def test_quoted_texts_are_what_hydra_reads(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={quote(text)}").value() == text


def test_slurm_leaves_the_processes_of_a_job_to_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.plugins.environments import SLURMEnvironment

    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert SLURMEnvironment.detect()
    name = run(tmp_path)["slurm"]
    monkeypatch.setenv("SLURM_JOB_NAME", str(name))
    assert not SLURMEnvironment.detect()
