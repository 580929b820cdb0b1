"""Values of a wrong kind or range: refused on the way that a user's command takes, before anything is computed."""

import copy
import functools
import logging
import math
import re
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from squad_lit.run.config import CONF, check_overrides, compose
from squad_lit.run.model import make_module
from squad_lit.run.option import check, check_effect, model_content
from squad_lit.training.squad import Squad

NO_WEIGHTS = "backbone.weights=null"  # nothing is downloaded or read


@functools.cache
def composed(*overrides: str) -> DictConfig:
    return compose([NO_WEIGHTS, *overrides])


def changed(option: str, value: Any) -> DictConfig:
    config = copy.deepcopy(composed("discriminator=both"))
    OmegaConf.update(config, option, value)
    return config


def build(*overrides: str) -> Squad:
    config = composed(*overrides)
    check(config)
    module = make_module(config)
    assert isinstance(module, Squad)
    return module


NUMBERS = [
    "model.focal_gamma",
    "model.synthetic_fraction",
    "model.adversarial_start",
    "model.gradient_clip",
    "model.loss_weight.dice",
    "model.tile_overlap",
    "model.optimizer.weight_decay",
    "anomaly.sigma",
    "anomaly.top",
    "anomaly.agreement",
    "anomaly.weight.residual",
    "synthesis.gross",
    "synthesis.kinds.patch",
    "discriminator.segmentation.feature_dropout",
    "augmentation.rotation",
    "callback.progress.refresh_every",
    "callback.panels.scale",
    "dataset.validation_fraction",
    "threshold.false_alarm_rate",
]
WHOLE = [
    "seed",
    "model.steps",
    "model.image_every",
    "model.pool.views",
    "model.generator.width",
    "synthesis.fine_count",
    "discriminator.segmentation.width",
    "discriminator.segmentation.upsample",
    "discriminator.patch.width",
    "discriminator.patch.layers",
    "callback.panels.worst",
    "dataset.batch_size",
    "dataset.num_workers",
    "metric.bootstrap",
    "dataset.recipe.size",
    "trainer.num_sanity_val_steps",
]


@pytest.mark.parametrize("option", NUMBERS)
def test_what_is_no_number_is_refused(option: str) -> None:
    for value, shown in (("x", "'x'"), (None, "null"), (True, "true"), (math.nan, "nan"), (math.inf, "inf")):
        with pytest.raises(ValueError, match=rf"^{re.escape(option)}: expected a (finite )?number.*, got {shown}$"):
            check(changed(option, value))


@pytest.mark.parametrize("option", WHOLE)
def test_what_is_no_whole_number_is_refused(option: str) -> None:
    for value, shown in (("x", "'x'"), (16.5, "16.5"), (False, "false"), ([3], "[3]")):
        with pytest.raises(ValueError, match=rf"^{re.escape(option)}: expected a whole.*, got {re.escape(shown)}$"):
            check(changed(option, value))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Of a wrong kind.
        ("quantizer=vq model.vq.codebook_size=1.5", "model.vq.codebook_size: expected a whole number, got 1.5"),
        ("quantizer=none model.none.dim=2.5", "model.none.dim: expected a whole number, got 2.5"),
        ("model.optimizer.lr=x", "model.optimizer.lr: expected a number, got 'x'"),
        ("+model.optimizer.betas=[0.9,x]", "model.optimizer.betas[1]: expected a number, got 'x'"),
        ("model.stop_gradient=maybe", "model.stop_gradient: expected true or false, got 'maybe'"),
        ("model.tile=64.0", "model.tile: expected a whole number or null, got 64.0"),
        ("model.fsq.levels=8", "model.fsq.levels: expected a list, got 8"),
        ("model.groups=null", "model.groups: expected a dictionary, got null"),
        ("model.groups.low=4", "model.groups.low: expected a list, got 4"),
        ("model.groups.low=[4,x]", "model.groups.low[1]: expected a whole number, got 'x'"),
        ("+model.groups={1:[4]}", "model.groups: expected texts as names, got 1"),
        ("model.pool=null", "model.pool: expected a dictionary with _target_, got null"),
        ("model.loss_weight=1", "model.loss_weight: expected a dictionary, got 1"),
        ("anomaly.weight=0.5", "anomaly.weight: expected a dictionary, got 0.5"),
        ("augmentation.flip=vertical", "augmentation.flip: expected a list, got 'vertical'"),
        ("synthesis.kinds=1", "synthesis.kinds: expected a dictionary, got 1"),
        ("synthesis.opacity=0.5", "synthesis.opacity: expected a list, got 0.5"),
        ("synthesis.opacity=[0.3]", "synthesis.opacity: expected at least 2 values, got [0.3]"),
        ("synthesis.texture_dir=3", "synthesis.texture_dir: expected a text or null, got 3"),
        ("backbone.weights=3", "backbone.weights: expected a text or null, got 3"),
        ("backbone.name=null", "backbone.name: expected a text, got null"),
        ("model=memory model.memory.patches=1.5", "model.memory.patches: expected a whole number, got 1.5"),
        ("model=memory model.memory.selection=1", "model.memory.selection: expected random or coreset, got 1"),
        ("resume=3", "resume: expected a text or null, got 3"),
        ("trust=mine", "trust: expected a list, got 'mine'"),
        ("callback.panels.folder=3", "callback.panels.folder: expected a text, got 3"),
        ("logger.csv.save_dir=3", "logger.csv.save_dir: expected a text, got 3"),
        ("trainer.max_epochs=x", "trainer.max_epochs: expected a whole number or null, got 'x'"),
        ("dataset.cache=ram", "dataset.cache: expected auto, memory, disk or off, got 'ram'"),
        # Of what stands elsewhere, and the model refers to.
        ("synthesis._target_=nowhere.Synthesis", "synthesis._target_: cannot import 'nowhere.Synthesis'"),
        # Out of range.
        ("model.adversarial_start=2", "model.adversarial_start: expected at most 1, got 2"),
        ("model.gradient_clip=0", "model.gradient_clip: expected more than 0, got 0"),
        ("quantizer=vq model.vq.dim=0", "model.vq.dim: expected at least 1, got 0"),
        ("quantizer=vq model.vq.decay=1", "model.vq.decay: expected less than 1, got 1"),
        (
            "discriminator=patch discriminator.patch.layers=11",
            "discriminator.patch.layers: expected at most 10, got 11",
        ),
        ("model.steps=0", "model.steps: expected at least 1, got 0"),
        ("seed=-1", "seed: expected at least 0, got -1"),
        ("threads=0", "threads: expected at least 1 or null, got 0"),
        ("threshold.false_alarm_rate=1", "threshold.false_alarm_rate: expected less than 1, got 1"),
        ("model.generator.width=12", "model.generator.width: expected a multiple of 8, got 12"),
        ("anomaly.sigma=1e30", "anomaly.sigma: expected at most 1000, got 1e+30"),
        ("model.loss_weight.dice=1e30", "model.loss_weight.dice: expected at most 1e+06, got 1e+30"),
        ("model.steps=1000000000000", "model.steps: expected at most 1000000000, got 1000000000000"),
        ("dataset.num_workers=1000000000000", "dataset.num_workers: expected at most 256, got 1000000000000"),
        ("trainer.max_epochs=0", "trainer.max_epochs: expected at least 1 or -1 or null, got 0"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run: expected False, got true"),
        ("trainer.devices=99", "trainer.devices: expected 1 to "),
        ("trainer.devices=0", "trainer.devices: expected 1 to "),
        ("trainer.num_nodes=0", "trainer.num_nodes: expected a number from 1 to 1024, got 0"),
        ("trainer.num_nodes=1000000000000", "trainer.num_nodes: expected a number from 1 to 1024, got 10000"),
        ("trainer.accelerator=gpu trainer.devices=1000000000000", "trainer.devices: expected at most 1024, got 10000"),
        # A group that is none.
        ("~dataset", "dataset: expected a dictionary, got null; dataset=NAME chooses one of btad, default, folder"),
        ("threshold=null", "threshold: expected a dictionary, got null"),
        ("~quantizer", "model.generator.quantizer: expected a value, which has no default; quantizer=NAME chooses"),
        (
            "~anomaly",
            "model.anomaly: there is no option anomaly, which it refers to; anomaly=NAME chooses one of fused",
        ),
        ("~logger", "logger: expected a dictionary, got null; logger=NAME chooses one of csv, mlflow"),
        ("~seed", "seed: expected a whole number, got null"),
        (
            "model.backbone=lite1",
            "model.backbone: expected a dictionary with _target_, got 'lite1'; backbone=NAME chooses",
        ),
        ("logger.csv=1", "logger.csv: expected a dictionary with _target_ or null, got 1"),
        ("seed=${nosuch}", "seed: there is no option nosuch, which it refers to"),
        (
            "dataset.batch_size=${model.nosuch}",
            "dataset.batch_size: there is no option model.nosuch, which it refers to",
        ),
        # What nothing takes.
        ("+nosuch=1", "nosuch: there is no such option"),
        ("+callbak=1", "callbak: there is no such option; did you mean callback?"),
        ("+trainer.precison=16", "trainer.precison: Trainer has no such option; did you mean trainer.precision?"),
        ("+dataset.batchsize=3", "dataset.batchsize: Synthetic has no such option; did you mean dataset.batch_size?"),
        ("+synthesis.curriculum=0.5", "synthesis.curriculum: Synthesis has no such option"),
        # Found by the objects themselves.
        ("model.optimizer.weight_decay=-1", "model.optimizer.weight_decay: expected at least 0, got -1"),
        ("model.scheduler.max_lr=-1", "model.scheduler.max_lr: expected at least 0 or a list, got -1"),
        ("+model.scheduler.div_factor=0", "model.optimizer or model.scheduler: "),
        ("+model.scheduler.final_div_factor=-1", "model.optimizer or model.scheduler: expected 0 to 1000 for min_lr"),
        ("model.groups.low=[4,4]", "model.groups.low: expected each layer once, got [4, 4]"),
        ("+model.groups.keys=[4]", "model.groups: 'keys' cannot be the name of a group; take a word such as low"),
        ("model.loss_weight.feature=0", "model.loss_weight.feature: expected more than 0"),
        ("+anomaly.weight.novelty=1", "anomaly.weight: expected weights for residual, discriminator, memory, got one"),
        ("synthesis.fine_area=[0,0.1]", "synthesis.fine_area: expected [smallest in px, 1 to 10,000, largest"),
        ("model.fsq.levels=[1024,2048]", "model.fsq.levels: [1024, 2048] make 2097152 codes"),
        ("backbone.name=lite9", "backbone.name: timm has no model 'lite9'"),
    ],
)
def test_what_is_wrong_is_told_by_the_name_that_is_typed(overrides: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build(*overrides.split())


def test_a_folder_of_textures_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"synthesis\.texture_dir: there is no folder '/nowhere'$"):
        build("synthesis.texture_dir=/nowhere")


def test_a_patch_discriminator_that_is_too_deep_for_the_image_is_refused_with_the_deepest_that_is_not() -> None:
    for side, most in ((64, 5), (96, 5), (128, 6)):
        narrow = ("discriminator=patch", "discriminator.patch.width=1")
        build(*narrow, f"discriminator.patch.layers={most}").check_data([], [side, 2 * side])
        module = build(*narrow, f"discriminator.patch.layers={most + 1}")
        with pytest.raises(ValueError, match=rf"discriminator\.patch\.layers: expected at most {most} for the {side}"):
            module.check_data([], [side, 2 * side])


SHIPPED = sorted(file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.glob("*/**/*.yaml"))
NO_PART = ("hydra/", "experiment/", "dataset/default")


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith(NO_PART)])
def test_every_configuration_that_is_shipped_passes(name: str) -> None:
    check(composed(name.replace("/", "=", 1)))


@pytest.mark.parametrize(
    "overrides",
    [
        "+model.groups={all:[4,8,16],low:null,high:null}",  # null takes a group away
        "anomaly.sigma=2 model.focal_gamma=0 model.loss_weight.dice=1",  # whole numbers are numbers
        "anomaly.sigma=${model.focal_gamma}",
        "callback.progress=null callback.panels=null",
        "model.segmentation=null backbone.weights=/some/file",
        "+model.optimizer.betas=[0.9,0.95] +model.scheduler.pct_start=0.1",
        "trainer=gpu trainer.devices=[0,1] +trainer.precision=bf16-mixed",
        "dataset.category=01",  # the data set's own message says more
        "+shared=3 dataset.batch_size=${shared}",  # a value of one's own that something refers to
        "trainer.accelerator=gpu trainer.devices=8",
    ],
)
def test_what_is_right_passes(overrides: str) -> None:
    check(composed(*overrides.split()))


def test_groups_that_are_null_do_not_reach_the_model() -> None:
    assert model_content(composed("model.groups.low=null"))["groups"] == {"high": [16]}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["model=memory", "quantizer=vq"], "quantizer=vq"),
        (["model=memory", "model.fsq.levels=[3]"], "model.fsq.levels=[3]"),
        (["model=memory", "discriminator=none"], "discriminator=none"),
        (["model=memory", "augmentation=free"], "augmentation=free"),
        (["quantizer=vq", "+model.fsq={levels:[3]}"], "+model.fsq={levels:[3]}"),
        (["+model.foo=1"], "+model.foo=1"),
    ],
)
def test_options_without_effect_are_refused(given: list[str], wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(wrong)} would have no effect: \w+ has no such option"):
        check_effect(compose(given), given)


@pytest.mark.parametrize(
    "given", ["model.fsq.levels=[3,3]", "anomaly.sigma=1", "quantizer=vq", "+synthesis.kinds.rust=1"]
)
def test_options_of_the_model_are_refused_where_a_trained_one_is_tested(given: str) -> None:
    test = ["fit=false", "checkpoint=x", "metric.bootstrap=10", "seed=1"]
    check_effect(compose(test), test)
    with pytest.raises(ValueError, match=rf"^fit=false tests .*, so {re.escape(given)} would have no effect"):
        check_effect(compose(test), [*test, given])


@pytest.mark.parametrize("given", ["synthesis.gross=1", "anomaly.sigma=1", "model.tile=32", "backbone=lite1", "seed=3"])
def test_options_with_an_effect_pass(given: str) -> None:
    for model in ("squad", "memory"):
        check_effect(compose([f"model={model}", given]), [f"model={model}", given])


@pytest.mark.parametrize(
    "override",
    [
        "hydra.job_logging=5",
        "hydra.job_logging.version=9",
        "hydra.job_logging.handlers.file=5",
        "hydra.job_logging.handlers.file.class=nosuch.Class",
        "hydra.job_logging.handlers.file.filename=/proc/nosuch/a.log",
        "hydra.job_logging.formatters.simple=5",
        "hydra.job_logging.root.level=LOUD",
        "hydra.job_logging.root.handlers=[nosuch]",
        "hydra.hydra_logging.root.level=LOUD",
    ],
)
def test_a_logging_that_python_does_not_take_is_a_sentence(override: str) -> None:
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(ValueError, match=override.partition("=")[0].rpartition("logging")[0] + "logging") as caught:
        check_overrides([override])
    assert "\n" not in str(caught.value)
    assert logging.getLogger().handlers == handlers
    check_overrides(["hydra.job_logging.root.level=WARNING", "hydra.job_logging.handlers.file.filename=/dev/null"])
