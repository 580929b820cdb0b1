"""The command as its user runs it: a real category where there is one, a few steps, real files."""

import csv
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
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from squad_lit import train
from squad_lit.deploy.threshold import from_normals
from squad_lit.run import fit
from squad_lit.run.config import compose
from squad_lit.run.model import make_module
from squad_lit.system.console import uninterrupted
from squad_lit.training import checkpoint
from squad_lit.training.pool import FeaturePool
from squad_lit.training.squad import Squad

# The categories below are no MVTec categories, and are told so.
pytestmark = pytest.mark.filterwarnings("ignore:.*officially")

SMALL = ["trainer=smoke", "dataset.image_size=64", "logger=none", "callback.progress=null", "dataset.batch_size=4"]


def run(folder: Path, mvtec: Path, *overrides: str, curves: bool = False) -> dict[str, Any]:
    """Train and test; Matplotlib takes as long for the curves as a short training."""
    folder.mkdir(parents=True, exist_ok=True)
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    base += [] if curves else ["callback.curves=null"]
    return fit.run(compose([*base, *overrides], output=folder), folder).figures


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, mvtec: Path) -> Path:
    """The folder of a training with the default parts."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, mvtec, "threshold.false_alarm_rate=0.4", curves=True)
    return folder


def figures_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_run_leaves_its_files(trained: Path) -> None:
    figures = figures_of(trained)
    for key in ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro"):
        assert 0 <= figures[key] <= 1
    for key in ("copy_ratio/low", "codebook_usage/high", "perplexity/low", "psnr", "ssim", "seconds/train"):
        assert isinstance(figures[key], float)
    for key in ("synthetic_ap", "synthetic_auroc", "normal_score"):
        assert isinstance(figures[key], float)
    assert [len(levels) for levels in figures["level_histogram/low"]] == [8, 5, 5, 5]
    assert figures["run"]["seed"] == 0
    detector = checkpoint.load(trained / "last.ckpt")
    assert detector.state.false_alarm_rate == 0.4
    assert figures["threshold"]["anomaly_score"] == from_normals(detector.state.normal_scores, 0.4).value
    assert (trained / "predictions.csv").read_text().count("\n") == 1 + 5
    assert {p.name for p in (trained / "panels").iterdir()} == {
        f"bottle_{kind}_{i:03}.png" for kind, count in (("good", 2), ("broken", 3)) for i in range(count)
    }
    curves = json.loads((trained / "curves.json").read_text())["bottle"]
    assert np.trapezoid(curves["image_roc"]["true_positive_rate"], curves["image_roc"]["false_positive_rate"]) == (
        pytest.approx(figures["image_auroc"])
    )
    assert curves["pixel_pro"]["false_positive_rate"][-1] == pytest.approx(0.3)
    assert (trained / "curves.png").stat().st_size > 1000
    assert OmegaConf.load(trained / "config.yaml").model.fsq.levels == [8, 5, 5, 5]


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (a, b))
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


def test_same_seed_same_numbers_and_another_seed_others(tmp_path: Path, mvtec: Path, trained: Path) -> None:
    again, other = (run(tmp_path / str(seed), mvtec, f"seed={seed}") for seed in (0, 1))
    assert again["pixel_ap"] == figures_of(trained)["pixel_ap"]
    assert again["pixel_ap"] != other["pixel_ap"]
    assert_same_weights(tmp_path / "0", trained)


HYBRID = ["discriminator=both", "model.adversarial_start=0", "model=hybrid", "model.memory.patches=40"]
HYBRID += ["logger=csv", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory: pytest.TempPathFactory, mvtec: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run(folder, mvtec, *HYBRID)
    return folder


def without_time(folder: Path) -> dict[str, Any]:
    """The content of all files of a run, except for checkpoints and for what is a time, or of one process."""
    timed = {"run", "peak_memory_mb", "seconds/train", "images_per_second/train", "train/images_per_second"}
    timed |= {"test/peak_memory_mb"}
    found: dict[str, Any] = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.suffix == ".csv":
            rows = csv.DictReader(file.read_text().splitlines())
            found[name] = [[(key, value) for key, value in row.items() if key not in timed] for row in rows]
        elif file.suffix == ".json":
            found[name] = {key: value for key, value in json.loads(file.read_text()).items() if key not in timed}
        elif file.is_file() and file.suffix != ".ckpt" and file.name != ".lock":
            found[name] = file.read_bytes()
    return found


@pytest.mark.parametrize("at", [1, 2, 3])
def test_resumed_run_ends_as_the_uninterrupted_one(
    tmp_path: Path, mvtec: Path, uninterrupted_run: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    step = Squad.training_step

    def stopping(self: Squad, *batch: Any) -> None:
        if self.state.step == at:
            raise RuntimeError("power cut")
        step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Squad, "training_step", stopping)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path / "part", mvtec, *HYBRID)
    content = checkpoint.read(tmp_path / "part" / "last.ckpt")
    assert content["squad_lit"]["step"] == at
    assert content["squad_lit"]["trained"]["images"] == at * 4
    content["squad_lit"]["trained"]["seconds"] += 1000
    torch.save(content, tmp_path / "part" / "last.ckpt")
    resumed = run(tmp_path / "rest", mvtec, *HYBRID, f"resume={tmp_path / 'part' / 'last.ckpt'}")
    assert_same_weights(uninterrupted_run, tmp_path / "rest")
    assert without_time(tmp_path / "rest") == without_time(uninterrupted_run)
    seconds = resumed["seconds/train"]
    assert isinstance(seconds, float)
    assert 1000 < seconds < 1100  # those of both parts, and the images of all steps
    assert resumed["images_per_second/train"] == pytest.approx(4 * 4 / seconds)


def test_checkpoint_can_be_tested_alone_and_gives_the_same_figures(tmp_path: Path, mvtec: Path, trained: Path) -> None:
    before = figures_of(trained)
    tested = run(tmp_path, mvtec, "fit=false", f"checkpoint={trained / 'last.ckpt'}")
    names = ("pixel_ap", "image_auroc", "copy_ratio/low", "perplexity/high")
    assert {name: tested[name] for name in names} == {name: before[name] for name in names}
    assert not (tmp_path / "last.ckpt").exists()


def test_finished_checkpoint_is_not_trained_again(tmp_path: Path, mvtec: Path, trained: Path) -> None:
    before = figures_of(trained)
    tested = run(tmp_path, mvtec, f"resume={trained / 'last.ckpt'}")
    assert tested["pixel_ap"] == before["pixel_ap"]
    assert 0 < tested["seconds/train"] <= before["seconds/train"]  # up to the last checkpoint
    assert (tmp_path / "last.ckpt").read_bytes() == (trained / "last.ckpt").read_bytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.category=botle"], "did you mean 'bottle'"),
        (["fit=false"], "needs checkpoint=PATH"),
        (["checkpoint=x.ckpt"], "use resume=PATH"),
        (["fit=false", "checkpoint=/nowhere/x.ckpt"], "checkpoint=/nowhere/x.ckpt: no checkpoint"),
        (["resume=/nowhere/x.ckpt"], "resume=/nowhere/x.ckpt: no checkpoint"),
        (["trainer.accelerator=abacus"], "trainer.accelerator: expected auto, cpu, .*got 'abacus'"),
        (["model.fsq.levels=[2,5]"], "fsq.levels"),
        (["model.fsq.levels=8"], "fsq.levels"),
        (["dataset.image_size=60"], "multiples of 16"),
        (["dataset.validation_fraction=0"], "validation_fraction"),
        (["backbone.name=resnet999"], "no model"),
        (["model.groups={low:[3]}"], "no layer of stride"),
        (["backbone.weights=/nowhere.pth"], "backbone.weights"),
        (["model.steps=0"], "model.steps"),
        (["model.steps=2.5"], r"model.steps: expected a whole number, got 2.5"),
        (["model.pool.refresh_every=1.5"], r"model.pool.refresh_every: expected a whole number"),
        (["threshold.false_alarm_rate=0"], r"threshold.false_alarm_rate: expected more than 0, got 0"),
        (["model.optimizer.lr=abc"], r"model.optimizer.lr: expected a number, got 'abc'"),
        (["model.fsq.levels=[1000,1000,1000]"], r"model.fsq.levels: .* at most 2\^20"),
        (["seed=abc"], r"seed: expected a whole number, got 'abc'"),
        (["seed=-1"], r"seed: expected at least 0"),
        (["threads=-1"], r"threads: expected at least 1 or null"),
        (["threads=0"], r"threads: expected at least 1 or null"),
        (["dataset.batch_size=1", "model.synthetic_fraction=0.4"], "is no image; raise it or dataset.batch_size"),
        (["dataset.limit_train=0"], r"dataset.limit_train: expected at least 1 or all or null"),
        (["metric.resolution=full"], r"metric.resolution: expected map or original"),
        (["metric.fpr_limit=[0.3,2]"], r"metric.fpr_limit: expected values in"),
        (["synthesis.kinds.patch=-1"], "synthesis.kinds"),
        (["+synthesis.kinds.rust=1"], "unknown"),
        (["anomaly.top=0"], "anomaly.top"),
        (["model.generator.width=30"], "multiple of 8"),
        (["model.loss_weight.dice=-1"], "loss_weight"),
    ],
)
def test_mistakes_are_told_in_words(tmp_path: Path, mvtec: Path, overrides: list[str], message: str) -> None:
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    with pytest.raises((ValueError, OSError), match=message) as caught:
        fit.run(compose([*base, *overrides], output=tmp_path), tmp_path)
    assert not isinstance(caught.value, KeyError)


@pytest.mark.parametrize("other", ["model.optimizer.lr=0.5", "dataset.validation_fraction=0.3"])
def test_resume_with_another_configuration_names_the_difference(
    tmp_path: Path, mvtec: Path, trained: Path, other: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(other.partition("=")[0])):
        run(tmp_path, mvtec, f"resume={trained / 'last.ckpt'}", other)


def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path, mvtec: Path, trained: Path) -> None:
    data = ["dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    resumed = [*SMALL, *data, f"resume={trained / 'last.ckpt'}", "model.pool.workers=2"]
    assert make_module(compose(resumed, output=tmp_path)).state.step == 4


def test_what_the_data_sets_share_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset=default is only what the others share"):
        fit.run(compose([*SMALL, "dataset=default"], output=tmp_path), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_in_words(tmp_path: Path, mvtec: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer: No supported gpu backend found.* trainer=cpu"):
        run(tmp_path, mvtec, "trainer=gpu")


def finish(given: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(given, env=environment(), capture_output=True, text=True, check=False, timeout=300)


def test_an_error_of_a_reading_process_is_a_sentence(tmp_path: Path, mvtec: Path) -> None:
    shutil.copytree(mvtec / "bottle", tmp_path / "data" / "bottle")
    broken = tmp_path / "data" / "bottle" / "train" / "good" / "003.png"
    broken.with_suffix(".jpg").write_bytes(b"")
    Image.open(broken).convert("RGB").save(broken.with_suffix(".jpg"), quality=95)
    broken.unlink()
    content = broken.with_suffix(".jpg").read_bytes()
    broken.with_suffix(".jpg").write_bytes(content[:-200])  # the header is whole
    done = finish(
        command(tmp_path / "run", tmp_path / "data", "dataset.num_workers=1", "dataset.validation_fraction=0.8")
    )
    assert done.returncode == 1
    assert "error: cannot read image" in done.stderr
    assert "003.jpg" in done.stderr
    error = (tmp_path / "run" / "error.txt").read_text().strip()
    assert "003.jpg" in error
    assert (tmp_path / "run" / "train.log").read_text().endswith(f"[ERROR] - {error}\n")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_jobs_at_once_give_the_figures_of_one_alone(tmp_path: Path, mvtec: Path) -> None:
    sweep = ["experiment=mvtec", "dataset.category=screw,bottle", f"dataset.root={mvtec}", "threads=1"]
    launcher = ["hydra.launcher.jobs=2", f"hydra.sweep.dir={tmp_path}"]
    done = finish([sys.executable, "-m", "squad_lit.train", *SMALL, "callback.curves=null", *sweep, *launcher])
    assert done.returncode == 0, done.stderr
    run(tmp_path / "alone", mvtec, "threads=1")
    swept, alone = figures_of(tmp_path / "1"), figures_of(tmp_path / "alone")
    timed = {"run", "peak_memory_mb", "seconds/train", "images_per_second/train"}
    assert {key: swept[key] for key in swept.keys() - timed} == {key: alone[key] for key in alone.keys() - timed}
    assert swept["run"]["config_hash"] == alone["run"]["config_hash"]
    assert all("run folder" in (tmp_path / job / "output.log").read_text() for job in "01")
    assert done.stdout.count("is finished") == 2


def test_broken_test_data_are_found_before_the_training(tmp_path: Path, mvtec: Path) -> None:
    shutil.copytree(mvtec, tmp_path / "data")
    folder = tmp_path / "data" / "bottle"
    (folder / "test" / "good" / "000.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot read image .*good/000\.png"):
        run(tmp_path / "a", tmp_path / "data")
    Image.new("L", (32, 64)).save(folder / "ground_truth" / "broken" / "001_mask.png")
    with pytest.raises(ValueError, match=r"001_mask\.png is 64x32 pixels .*001\.png is 64x64"):
        run(tmp_path / "b", tmp_path / "data")
    assert not (tmp_path / "a" / "last.ckpt").exists()


def test_ctrl_c_waits_for_the_end_of_an_update_whatever_threads_there_are() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append(True)
    finally:
        stop.set()
        other.join()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_test_images_is_no_error(tmp_path: Path, mvtec: Path) -> None:
    own = ["dataset=folder", f"dataset.root={mvtec / 'bottle'}", "dataset.train_dir=train/good"]
    config = compose([*SMALL, *own, "dataset.test_fraction=0"], output=tmp_path)
    figures = fit.run(config, tmp_path).figures
    assert "image_auroc" not in figures
    assert json.loads((tmp_path / "metrics.json").read_text())["copy_ratio/low"] is not None
    assert checkpoint.load(tmp_path / "last.ckpt").state.step == 4


def test_a_training_that_an_option_of_the_trainer_ends_says_so(
    tmp_path: Path, mvtec: Path, caplog: pytest.LogCaptureFixture, trained: Path
) -> None:
    early = run(tmp_path, mvtec, "trainer.max_epochs=1", "+trainer.limit_test_batches=1")["run"]
    assert early["ended_early"].startswith("after 2 of 4 steps, because of trainer.max_epochs=1 ")
    assert early["partly_tested"].startswith(
        "4 of 5 images, because of trainer.max_epochs=1 trainer.limit_test_batches="
    )
    assert "the training ended after 2 of 4 steps" in caplog.text
    assert not {"ended_early", "partly_tested"} & figures_of(trained)["run"].keys()
    with pytest.raises(ValueError, match=r"without a validation, .*: leave out trainer\.limit_val_batches=0$"):
        run(tmp_path, mvtec, "+trainer.limit_val_batches=0")


def test_a_folder_has_the_files_of_one_run_and_an_older_model_is_kept_apart(
    tmp_path: Path, mvtec: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = (trained / "last.ckpt").read_bytes()
    shutil.copytree(trained, tmp_path / "used")

    def interrupted(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeaturePool, "attach", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "used", mvtec, "seed=1")
    assert "there is nothing to continue, and " in capsys.readouterr().out
    left = {file.name for file in (tmp_path / "used").iterdir()}
    assert left == {".lock", "config.yaml", "previous.ckpt", "panels"}
    assert not any((tmp_path / "used" / "panels").iterdir())
    assert (tmp_path / "used" / "previous.ckpt").read_bytes() == old
    run(tmp_path / "used", mvtec, "seed=1")
    assert not (tmp_path / "used" / "previous.ckpt").exists()
    assert checkpoint.load(tmp_path / "used" / "last.ckpt").state.config["seed"] == 1
    tested = run(tmp_path / "used", mvtec, "fit=false", f"checkpoint={tmp_path / 'used' / 'last.ckpt'}")
    assert (tmp_path / "used" / "last.ckpt").exists()
    assert tested["pixel_ap"] != figures_of(trained)["pixel_ap"]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("optimizer_states", "does not continue a training: it is damaged"),
        ("loops", "does not fit this squad_lit: it is damaged"),
        ("lr_schedulers", "does not continue a training: it is damaged"),
    ],
)
def test_a_checkpoint_without_what_a_training_needs_is_a_sentence(
    tmp_path: Path, mvtec: Path, trained: Path, lost: str, message: str
) -> None:
    content = torch.load(trained / "last.ckpt", weights_only=True)
    content[lost] = []
    torch.save(content, tmp_path / "part.ckpt")
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", mvtec, f"resume={tmp_path / 'part.ckpt'}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", "x", "step: expected a whole number, got 'x'"),
        ("normal_scores", [float("nan")], r"normal_scores\[0\]: expected a finite number"),
        ("categories", {"a": 1}, "categories: expected a list"),
        ("measured", {"a": torch.zeros(2)}, "measured: expected plain values"),
        ("config", [1], "config: expected a dictionary"),
    ],
)
def test_a_checkpoint_with_parts_of_another_kind_is_a_sentence(
    tmp_path: Path, trained: Path, name: str, value: Any, message: str
) -> None:
    content = torch.load(trained / "last.ckpt", weights_only=True)
    content["squad_lit"][name] = value
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=rf"other\.ckpt does not fit this squad_lit.*{message}"):
        checkpoint.load(tmp_path / "other.ckpt")


def test_a_checkpoint_does_not_go_through_the_folder_for_temporary_files(
    tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    run(tmp_path, mvtec, "model=memory", "model.memory.patches=10", "fit=true")
    assert checkpoint.load(tmp_path / "last.ckpt").state.categories == ["bottle"]


def command(folder: Path, mvtec: Path, *overrides: str) -> list[str]:
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle", f"hydra.run.dir={folder}"]
    return [sys.executable, "-m", "squad_lit.train", *base, *overrides]


def environment() -> dict[str, str]:
    source = str(Path(train.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_interrupt_leaves_a_usable_checkpoint(tmp_path: Path, mvtec: Path) -> None:
    long = ["model.steps=100000", "model.pool.refresh_every=100000"]
    logger = "_target_: lightning.pytorch.loggers.CSVLogger, flush_logs_every_n_steps: 1, name: '', version: csv"
    logged = f"+logger.steps={{{logger}, save_dir: '{tmp_path}'}}"
    with subprocess.Popen(
        command(tmp_path, mvtec, *long, logged),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        # A suite that was started in the background has been told to ignore it, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not (tmp_path / "csv" / "metrics.csv").exists():  # after the first step
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 130
    assert "continue with resume=" in output
    assert "Epoch" not in output  # of Lightning's own bar
    module = checkpoint.load(tmp_path / "last.ckpt")
    assert module.state.step > 0
    assert bool(module.anomaly.standardised)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words", "both"),
    [
        (signal.SIGKILL, 1, "error: process 1 of this training was killed by signal 9, perhaps for memory", False),
        (signal.SIGINT, 130, "interrupted", False),
        (signal.SIGINT, 130, "interrupted", True),  # Ctrl-C in a terminal
    ],
)
def test_one_of_two_processes_that_is_lost_ends_the_other_with_a_checkpoint(
    tmp_path: Path, mvtec: Path, number: int, status: int, words: str, both: bool
) -> None:
    options = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.log_every_n_steps=1"]
    options += ["model.steps=100000", "model.validate_every=100000", "model.pool.refresh_every=100000", "logger=csv"]
    options += ["dataset.limit_train=8", "model.pool.clean_limit=8", "model.pool.synthetic=8"]
    with subprocess.Popen(
        command(tmp_path, mvtec, *options),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and not (tmp_path / "csv" / "metrics.csv").exists():
            time.sleep(0.05)
        (other,) = psutil.Process(process.pid).children()
        lost = time.monotonic()
        for one in (process, other) if both else (other,):
            os.kill(one.pid, number)
        output, _ = process.communicate()
    assert time.monotonic() - lost < 20
    assert process.returncode == status, output
    assert words in output
    assert "Traceback" not in output
    assert "continue with resume=" in output
    assert checkpoint.read(tmp_path / "last.ckpt")["squad_lit"]["step"] > 0


def test_a_run_that_fails_leaves_the_record_of_the_run_whose_results_are_there(
    tmp_path: Path, mvtec: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=0\n")
    before = without_time(folder)
    with pytest.raises(SystemExit) as ended:
        train.main([*command(folder, tmp_path / "nosuch")[3:], "model.steps=6"])
    assert ended.value.code == 1
    assert (folder / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"
    told = (folder / "error.txt").read_text()
    assert "nosuch" in told.splitlines()[0]
    assert told.splitlines()[-1] == "The other files here are of an earlier run, which this one has not replaced."
    after = without_time(folder)
    assert {name: after[name] for name in before if name != "train.log"} == before
