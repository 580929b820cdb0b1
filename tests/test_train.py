"""The command as its user runs it: a real category where there is one, a few steps, real files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from squad_lit import train
from squad_lit.deploy.threshold import from_normals
from squad_lit.run import fit
from squad_lit.run.config import CONF
from squad_lit.run.config import compose as compose_alone
from squad_lit.run.option import check, make
from squad_lit.system.console import uninterrupted
from squad_lit.training import checkpoint

# The categories below are no MVTec categories, and are told so.
pytestmark = pytest.mark.filterwarnings("ignore:.*officially")

SMALL = ["trainer=smoke", "dataset.image_size=64", "logger=none", "callback.progress=null", "dataset.batch_size=4"]


def compose(folder: Path, *overrides: str) -> DictConfig:
    return compose_alone(overrides, output=folder)


def run(folder: Path, mvtec: Path, *overrides: str) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle"]
    return fit.run(compose(folder, *base, *overrides), folder).figures


def test_run_leaves_its_files(tmp_path: Path, mvtec: Path) -> None:
    run(tmp_path, mvtec, "threshold.false_alarm_rate=0.4")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    for key in ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro"):
        assert 0 <= figures[key] <= 1
    for key in ("copy_ratio/low", "codebook_usage/high", "perplexity/low", "psnr", "ssim", "seconds/train"):
        assert isinstance(figures[key], float)
    for key in ("synthetic_ap", "synthetic_auroc", "normal_score"):
        assert isinstance(figures[key], float)
    assert [len(levels) for levels in figures["level_histogram/low"]] == [8, 5, 5, 5]
    assert figures["run"]["seed"] == 0
    detector = checkpoint.load(tmp_path / "last.ckpt")
    assert detector.state.false_alarm_rate == 0.4
    assert figures["threshold"]["anomaly_score"] == from_normals(detector.state.normal_scores, 0.4).value
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 1 + 5
    assert {p.name for p in (tmp_path / "panels").iterdir()} == {
        f"bottle_{kind}_{i:03}.png" for kind, count in (("good", 2), ("broken", 3)) for i in range(count)
    }
    curves = json.loads((tmp_path / "curves.json").read_text())["bottle"]
    assert np.trapezoid(curves["image_roc"]["true_positive_rate"], curves["image_roc"]["false_positive_rate"]) == (
        pytest.approx(figures["image_auroc"])
    )
    assert curves["pixel_pro"]["false_positive_rate"][-1] == pytest.approx(0.3)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert OmegaConf.load(tmp_path / "config.yaml").model.fsq.levels == [8, 5, 5, 5]


def test_joint_model_has_metrics_per_category_and_their_mean(tmp_path: Path, mvtec: Path) -> None:
    run(tmp_path, mvtec, "dataset.category=[bottle,screw]")
    figures = json.loads((tmp_path / "metrics.json").read_text())
    each = figures["per_category"]
    assert list(each) == ["bottle", "screw"]
    assert figures["pixel_ap"] == pytest.approx((each["bottle"]["pixel_ap"] + each["screw"]["pixel_ap"]) / 2)


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (a, b))
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


def test_same_seed_same_numbers_and_another_seed_others(tmp_path: Path, mvtec: Path) -> None:
    first, again, other = (run(tmp_path / n, mvtec, f"seed={s}") for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert first["pixel_ap"] == again["pixel_ap"]
    assert first["pixel_ap"] != other["pixel_ap"]
    assert_same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_resumed_run_ends_as_the_uninterrupted_one(
    tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    options = ["discriminator=both", "model.adversarial_start=0", "model=hybrid", "model.memory.patches=40"]
    whole = run(tmp_path / "whole", mvtec, *options)

    from squad_lit.training.squad import Squad

    step = Squad.training_step

    def stopping(self: Squad, number: int) -> None:
        if number == at:
            raise RuntimeError("power cut")
        step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Squad, "training_step", stopping)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path / "part", mvtec, *options)
    content = checkpoint.read(tmp_path / "part" / "last.ckpt")
    assert content["squad_lit"]["step"] == at
    assert content["squad_lit"]["trained"]["images"] == at * 4
    content["squad_lit"]["trained"]["seconds"] += 1000
    torch.save(content, tmp_path / "part" / "last.ckpt")
    resumed = run(tmp_path / "rest", mvtec, *options, f"resume={tmp_path / 'part' / 'last.ckpt'}")
    assert_same_weights(tmp_path / "whole", tmp_path / "rest")
    assert resumed["pixel_ap"] == whole["pixel_ap"]
    seconds = resumed["seconds/train"]
    assert isinstance(seconds, float)
    assert 1000 < seconds < 1100  # those of both parts, and the images of all steps
    assert resumed["images_per_second/train"] == pytest.approx(4 * 4 / seconds)


def test_checkpoint_can_be_tested_alone_and_gives_the_same_figures(tmp_path: Path, mvtec: Path) -> None:
    trained = run(tmp_path / "a", mvtec)
    tested = run(tmp_path / "b", mvtec, "fit=false", f"checkpoint={tmp_path / 'a' / 'last.ckpt'}")
    assert {k: tested[k] for k in ("pixel_ap", "image_auroc", "copy_ratio/low", "perplexity/high")} == {
        k: trained[k] for k in ("pixel_ap", "image_auroc", "copy_ratio/low", "perplexity/high")
    }
    assert not (tmp_path / "b" / "last.ckpt").exists()


def test_finished_checkpoint_is_not_trained_again(tmp_path: Path, mvtec: Path) -> None:
    trained = run(tmp_path / "a", mvtec)
    tested = run(tmp_path / "b", mvtec, f"resume={tmp_path / 'a' / 'last.ckpt'}")
    assert tested["pixel_ap"] == trained["pixel_ap"]
    assert 0 < tested["seconds/train"] <= trained["seconds/train"]  # up to the last checkpoint


@pytest.mark.parametrize("quantizer", ["vq", "none"])
@pytest.mark.parametrize("discriminator", ["segmentation", "patch", "both", "none"])
def test_every_quantizer_with_every_discriminator(
    tmp_path: Path, mvtec: Path, quantizer: str, discriminator: str
) -> None:
    options = [f"quantizer={quantizer}", f"discriminator={discriminator}", "model.steps=2", "model.adversarial_start=0"]
    figures = run(tmp_path, mvtec, *options)
    assert ("codebook_usage/low" in figures) == (quantizer == "vq")
    names = checkpoint.load(tmp_path / "last.ckpt").anomaly.names
    assert ("discriminator" in names) == (discriminator in ("segmentation", "both"))


@pytest.mark.parametrize("selection", ["random", "coreset"])
def test_memory_is_filled_tested_and_reloaded(tmp_path: Path, mvtec: Path, selection: str) -> None:
    options = ["model.memory.patches=40", f"model.memory.selection={selection}"]
    figures = run(tmp_path / "a", mvtec, "model=memory", *options)
    assert figures["pixel_auroc"] > 0.7  # bright squares on grey noise
    assert figures["synthetic_ap"] > 0
    assert checkpoint.load(tmp_path / "a" / "last.ckpt").memory.rows.shape[0] == 40
    again = run(tmp_path / "b", mvtec, "fit=false", f"checkpoint={tmp_path / 'a' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]
    assert list((tmp_path / "a" / "panels").glob("*.png"))


def test_a_hybrid_is_squad_with_one_more_map(tmp_path: Path, mvtec: Path) -> None:
    options = ["model.steps=3", "model.groups={low: [4], high: [8]}"]
    run(tmp_path / "squad", mvtec, *options)
    figures = run(tmp_path / "hybrid", mvtec, "model=hybrid", "model.memory.patches=40", *options)
    squad, hybrid = (checkpoint.load(tmp_path / name / "last.ckpt") for name in ("squad", "hybrid"))
    assert hybrid.memory.rows.shape[0] == 40
    trained = hybrid.state_dict()
    assert [k for k, v in squad.generator.state_dict().items() if not torch.equal(v, trained[f"generator.{k}"])] == []
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, one = hybrid(image).maps, squad(image).maps
    assert set(both) - set(one) == {"memory"}
    assert all(torch.equal(both[name], one[name]) for name in one)
    again = run(tmp_path / "b", mvtec, "fit=false", f"checkpoint={tmp_path / 'hybrid' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]


@pytest.mark.parametrize("options", [["discriminator=both"], ["model=memory", "model.memory.patches=40"]])
def test_large_images_are_trained_and_tested_in_tiles(tmp_path: Path, mvtec: Path, options: list[str]) -> None:
    tiles = ["dataset.image_size=[96,128]", "model.tile=64"]
    figures = run(tmp_path / "a", mvtec, *options, *tiles)
    assert 0 <= figures["pixel_aupro"] <= 1
    assert ("psnr" in figures) == ("copy_ratio/low" in figures) == ("model=memory" not in options)
    again = run(tmp_path / "b", mvtec, "fit=false", *tiles[:1], f"checkpoint={tmp_path / 'a' / 'last.ckpt'}")
    assert again["pixel_ap"] == figures["pixel_ap"]
    with Image.open(next((tmp_path / "a" / "panels").glob("*.png"))) as panel:
        assert panel.height == 96 + 14  # the whole image, and its caption


def groups() -> list[str]:
    return sorted(
        f"{folder.name}={file.stem}"
        for folder in CONF.iterdir()
        if folder.is_dir()
        for file in folder.glob("*.yaml")
        if file.stem != "default" or folder.name == "callback"
    )


@pytest.mark.parametrize("choice", groups())
def test_every_yaml_composes_and_its_model_builds(tmp_path: Path, choice: str) -> None:
    config = compose(tmp_path, choice, "backbone.weights=null")
    if choice != "dataset=default":
        check(config)
    assert make(config, "model").steps >= 1
    for node in (config.callback, config.logger):
        for part in node.values():
            assert part._target_
    assert config.trainer._target_ == "lightning.Trainer"


def test_each_loggers_files(tmp_path: Path, mvtec: Path) -> None:
    for name, pattern in (("csv", "csv/metrics.csv"), ("tensorboard", "tensorboard/events.*")):
        run(tmp_path / name, mvtec, f"logger={name}", "model.steps=2")
        assert list((tmp_path / name).glob(pattern))


def test_wandb_works_offline(
    tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch, read_wandb: Callable[[Path], list[Any]]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path / "a", mvtec, "logger=wandb", "model.steps=2")
    monkeypatch.setattr("squad_lit.run.fit._test", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "b", mvtec, "logger=wandb", "model.steps=1")
    first, second = (next(tmp_path.glob(f"{name}/wandb/offline-run-*/run-*.wandb")) for name in "ab")
    content = first.read_bytes()
    for key in (b"losses/feature_low", b"codes/levels_high_3", b"training/images_per_second", b"metrics/pixel_pro"):
        assert key in content
    codes = [r.exit.exit_code for file in (first, second) for r in read_wandb(file) if r.HasField("exit")]
    assert codes == [0, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.category=botle"], "did you mean 'bottle'"),
        (["fit=false"], "needs checkpoint=PATH"),
        (["checkpoint=x.ckpt"], "use resume=PATH"),
        (["fit=false", "checkpoint=/nowhere/x.ckpt"], "no checkpoint"),
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
        (["model.optimizer.lr=abc"], r"model.optimizer.lr: expected a number .*, got 'abc'"),
        (["model.fsq.levels=[1000,1000,1000]"], r"model.fsq.levels: .* at most 2\^20"),
        (["seed=abc"], r"seed: expected a whole number, got 'abc'"),
        (["seed=-1"], r"seed: expected at least 0"),
        (["threads=-1"], r"threads: expected at least 1 or null"),
        (["threads=0"], r"threads: expected at least 1 or null"),
        (["dataset.batch_size=1"], r"dataset.batch_size: expected at least 2"),
        (["dataset.limit_train=0"], r"dataset.limit_train: expected at least 1 or null"),
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
        fit.run(compose(tmp_path, *base, *overrides), tmp_path)
    assert not isinstance(caught.value, KeyError)


def test_resume_with_another_configuration_names_the_difference(tmp_path: Path, mvtec: Path) -> None:
    run(tmp_path / "a", mvtec)
    with pytest.raises(ValueError, match=r"model\.optimizer\.lr"):
        run(tmp_path / "b", mvtec, f"resume={tmp_path / 'a' / 'last.ckpt'}", "model.optimizer.lr=0.5")
    with pytest.raises(ValueError, match=r"dataset\.validation_fraction"):
        run(tmp_path / "b", mvtec, f"resume={tmp_path / 'a' / 'last.ckpt'}", "dataset.validation_fraction=0.3")


def test_what_the_data_sets_share_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset=default is only what the others share"):
        fit.run(compose(tmp_path, *SMALL, "dataset=default"), tmp_path)


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


def test_two_jobs_at_once_give_the_figures_of_one_after_the_other(tmp_path: Path, mvtec: Path) -> None:
    sweep = [
        "experiment=mvtec",
        "dataset.category=screw,bottle",
        f"dataset.root={mvtec}",
        f"hydra.sweep.dir={tmp_path}",
    ]
    launcher = ["hydra.launcher.jobs=2", "threads=1"]
    done = finish([sys.executable, "-m", "squad_lit.train", *SMALL, *sweep, *launcher])
    assert done.returncode == 0, done.stderr
    for job, category in enumerate(("screw", "bottle")):
        swept = json.loads((tmp_path / str(job) / "metrics.json").read_text())
        run(tmp_path / category, mvtec, f"dataset.category={category}", "threads=1")
        alone = json.loads((tmp_path / category / "metrics.json").read_text())
        timed = {"run", "peak_memory_mb", "seconds/train", "images_per_second/train"}
        assert {key: swept[key] for key in swept.keys() - timed} == {key: alone[key] for key in alone.keys() - timed}
        assert swept["run"]["config_hash"] == alone["run"]["config_hash"]
        assert "run folder" in (tmp_path / str(job) / "output.log").read_text()
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
    config = compose(
        tmp_path,
        *SMALL,
        "dataset=folder",
        f"dataset.root={mvtec / 'bottle'}",
        "dataset.train_dir=train/good",
        "dataset.test_fraction=0",
    )
    figures = fit.run(config, tmp_path).figures
    assert "image_auroc" not in figures
    assert json.loads((tmp_path / "metrics.json").read_text())["copy_ratio/low"] is not None
    assert checkpoint.load(tmp_path / "last.ckpt").state.step == 4


def test_override_of_an_absent_quantizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(hydra.errors.ConfigCompositionException, match="fsq"):
        compose(tmp_path, "quantizer=vq", "model.fsq.levels=[8,5,5,5]")


def command(folder: Path, mvtec: Path, *overrides: str) -> list[str]:
    base = [*SMALL, "dataset=mvtec", f"dataset.root={mvtec}", "dataset.category=bottle", f"hydra.run.dir={folder}"]
    return [sys.executable, "-m", "squad_lit.train", *base, *overrides]


def environment() -> dict[str, str]:
    source = str(Path(train.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


def test_interrupt_leaves_a_usable_checkpoint(tmp_path: Path, mvtec: Path) -> None:
    long = ["model.steps=100000", "model.pool.refresh_every=100000"]
    process = subprocess.Popen(
        command(tmp_path, mvtec, *long),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        # A suite that was started in the background has been told to ignore it, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline and not (tmp_path / "config.yaml").exists():
            time.sleep(0.1)
        time.sleep(6)  # well into the steps of 20 ms
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "continue with resume=" in output
    assert "Epoch" not in output  # of Lightning's own bar
    module = checkpoint.load(tmp_path / "last.ckpt")
    assert module.state.step > 0
    assert bool(module.anomaly.standardised)
