"""Values of a wrong kind or range: refused on the way that a user's command takes, before anything is computed."""

import copy
import functools
import math
import re
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

from squad_lit.run.config import CONF
from squad_lit.run.fit import make_module
from squad_lit.run.option import check_kinds
from squad_lit.training.squad import Squad

NO_WEIGHTS = "backbone.weights=null"  # nothing is downloaded or read


@functools.cache
def composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", [NO_WEIGHTS, *overrides])


def changed(option: str, value: Any) -> DictConfig:
    config = copy.deepcopy(composed("discriminator=both"))
    OmegaConf.update(config, option, value)
    return config


def build(*overrides: str) -> Squad:
    config = composed(*overrides)
    check_kinds(config)
    module = make_module(config)
    assert isinstance(module, Squad)
    return module


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


NUMBERS = [
    "model.fsq.jitter",
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
    "synthesis.image.gross",
    "synthesis.image.curriculum",
    "synthesis.image.kinds.patch",
    "synthesis.code.fraction",
    "discriminator.segmentation.feature_dropout",
    "augmentation.rotation",
    "callback.progress.refresh_every",
    "callback.panels.scale",
]
WHOLE = [
    "model.seed",
    "model.steps",
    "model.image_every",
    "model.pool.views",
    "model.generator.width",
    "anomaly.shift",
    "synthesis.image.fine_count",
    "synthesis.code.largest",
    "synthesis.code.total",
    "discriminator.segmentation.width",
    "discriminator.segmentation.upsample",
    "discriminator.patch.width",
    "discriminator.patch.layers",
    "callback.panels.worst",
]


@pytest.mark.parametrize("option", NUMBERS)
def test_what_is_no_number_is_refused(option: str) -> None:
    for value, shown in (("x", "'x'"), (None, "null"), (True, "true"), (math.nan, "nan"), (math.inf, "inf")):
        with pytest.raises(ValueError, match=whole(f"{option}: expected a number, got {shown}")):
            check_kinds(changed(option, value))


@pytest.mark.parametrize("option", WHOLE)
def test_what_is_no_whole_number_is_refused(option: str) -> None:
    for value, shown in (("x", "'x'"), (16.0, "16.0"), (False, "false"), ([3], "[3]")):
        with pytest.raises(ValueError, match=whole(f"{option}: expected a whole number, got {shown}")):
            check_kinds(changed(option, value))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Of a wrong kind.
        ("quantizer=vq model.vq.codebook_size=1.5", "model.vq.codebook_size: expected a whole number, got 1.5"),
        ("quantizer=vq model.vq.decay=x", "model.vq.decay: expected a number, got 'x'"),
        ("quantizer=none model.none.dim=2.5", "model.none.dim: expected a whole number, got 2.5"),
        ("model.stop_gradient=maybe", "model.stop_gradient: expected true or false, got 'maybe'"),
        ("model.tile=64.0", "model.tile: expected a whole number or null, got 64.0"),
        ("model.fsq.levels=8", "model.fsq.levels: expected a list of whole numbers such as [4, 8], got 8"),
        ("model.groups=null", "model.groups: expected a list of whole numbers such as [4, 8] for each name, got null"),
        ("model.groups.low=4", "model.groups.low: expected a list of whole numbers such as [4, 8], got 4"),
        ("model.groups.low=[4,x]", "model.groups.low: expected a list of whole numbers such as [4, 8], got [4, 'x']"),
        ("+model.groups={1:[4]}", "model.groups: expected texts as names, got 1"),
        ("model.pool=null", "model.pool: expected a dictionary with _target_, got null"),
        ("model.patch=x", "model.patch: expected a dictionary with _target_ or null, got 'x'"),
        ("model.loss_weight=1", "model.loss_weight: expected a number for each name, got 1"),
        ("+model.optimizer.fused=x", "model.optimizer.fused: expected true or false or null, got 'x'"),
        ("+model.scheduler.anneal_strategy=x", "model.scheduler.anneal_strategy: expected cos or linear, got 'x'"),
        ("anomaly.weight=0.5", "anomaly.weight: expected a number for each name, got 0.5"),
        ("anomaly.flips=horizontal", "anomaly.flips: expected a list of texts such as [a, b], got 'horizontal'"),
        ("anomaly.flips=true", "anomaly.flips: expected a list of texts such as [a, b], got true"),
        ("anomaly.flips=null", "anomaly.flips: expected a list of texts such as [a, b], got null"),
        ("anomaly.flips=[1]", "anomaly.flips: expected a list of texts such as [a, b], got [1]"),
        ("augmentation.flip=vertical", "augmentation.flip: expected a list of texts such as [a, b], got 'vertical'"),
        ("synthesis.image.kinds=1", "synthesis.image.kinds: expected a number for each name, got 1"),
        (
            "synthesis.image.fine_area=15",
            "synthesis.image.fine_area: expected a list of numbers such as [0.5, 1.0], got 15",
        ),
        (
            "synthesis.image.opacity=0.5",
            "synthesis.image.opacity: expected a list of numbers such as [0.5, 1.0], got 0.5",
        ),
        ("synthesis.image.texture_dir=3", "synthesis.image.texture_dir: expected a text or null, got 3"),
        ("backbone.weights=3", "backbone.weights: expected a text or null, got 3"),
        ("backbone.name=null", "backbone.name: expected a text, got null"),
        ("model=memory model.memory.patches=1.5", "model.memory.patches: expected a whole number, got 1.5"),
        (
            "+model.memory.patches=5",
            "model.memory: expected a dictionary with _target_ or null, got {'patches': 5}",
        ),
        ("model=memory model.memory.selection=1", "model.memory.selection: expected a text, got 1"),
        # Of what stands elsewhere, and the model refers to.
        ("synthesis.code=null", "synthesis.code: expected a dictionary with _target_, got null"),
        ("synthesis.image=1", "synthesis.image: expected a dictionary with _target_, got 1"),
        ("model.fsq=x", "model.fsq: expected a dictionary with _target_, got 'x'"),
        (
            "discriminator.segmentation=0",
            "discriminator.segmentation: expected a dictionary with _target_ or null, got 0",
        ),
        ("resume=3", "resume: expected a text or null, got 3"),
        # Out of range.
        ("model.adversarial_start=2", "model.adversarial_start: expected a share in [0, 1], got 2"),
        ("model.gradient_clip=-1", "model.gradient_clip: expected a norm above 0, got -1"),
        ("model.gradient_clip=0", "model.gradient_clip: expected a norm above 0, got 0"),
        ("quantizer=vq model.vq.codebook_size=0", "model.vq.codebook_size: expected at least 1, got 0"),
        ("quantizer=vq model.vq.dim=0", "model.vq.dim: expected at least 1, got 0"),
        ("quantizer=vq model.vq.decay=2", "model.vq.decay: expected a share in [0, 1), got 2"),
        ("quantizer=vq model.vq.decay=-1", "model.vq.decay: expected a share in [0, 1), got -1"),
        ("quantizer=vq model.vq.commitment_weight=-3", "model.vq.commitment_weight: expected at least 0, got -3"),
        ("quantizer=vq model.vq.dead_code_threshold=-1", "model.vq.dead_code_threshold: expected at least 0, got -1"),
        ("quantizer=none model.none.dim=0", "model.none.dim: expected at least 1, got 0"),
        ("discriminator=patch discriminator.patch.layers=0", "discriminator.patch.layers: expected 1 to 10, got 0"),
        ("discriminator=patch discriminator.patch.layers=11", "discriminator.patch.layers: expected 1 to 10, got 11"),
        (
            "quantizer=vq synthesis.code.fraction=0.5",
            "synthesis.code.fraction: expected 0, because only quantizer=fsq has levels to move",
        ),
        (
            "model.optimizer.weight_decay=-1",
            "model.optimizer or model.scheduler: Invalid weight_decay value: -1",
        ),
        ("model.groups.low=[4,4]", "model.groups.low: expected each layer once, got [4, 4]"),
        (
            "+model.groups.keys=[4]",
            "model.groups: 'keys' cannot be the name of a group; take a word such as low",
        ),
        (
            "model.loss_weight.feature=0",
            "model.loss_weight.feature: expected more than 0: without it no feature is reconstructed",
        ),
        (
            "+anomaly.weight.novelty=1",
            "anomaly.weight: expected weights for residual, discriminator, memory, got one for ['novelty']",
        ),
        (
            "anomaly.flips=[horizontal,horizontal]",
            "anomaly.flips: expected each once, got ['horizontal', 'horizontal']",
        ),
        ("synthesis.image.opacity=[0.3]", "synthesis.image.opacity: expected a range in (0, 1], got [0.3]"),
        (
            "synthesis.image.fine_area=[15]",
            "synthesis.image.fine_area: expected [smallest in px, largest as share of the image], got [15]",
        ),
        (
            "synthesis.image.fine_area=[15,0.1,0.2]",
            "synthesis.image.fine_area: expected [smallest in px, largest as share of the image], got [15, 0.1, 0.2]",
        ),
        ("synthesis.image.fine_area=[0,0.1]", "synthesis.image.fine_area[0]: expected 1 to 10000, got 0"),
        ("synthesis.image.fine_count=0", "synthesis.image.fine_count: expected 1 to 100, got 0"),
    ],
)
def test_what_is_wrong_is_told_by_the_name_that_is_typed(overrides: str, message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        build(*overrides.split())


def test_a_folder_of_textures_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"synthesis\.image\.texture_dir: there is no folder '/nowhere'$"):
        build("synthesis.image.texture_dir=/nowhere")


def test_a_patch_discriminator_that_is_too_deep_for_the_image_is_refused_with_the_deepest_that_is_not() -> None:
    for side, most in ((64, 5), (96, 5), (128, 6)):
        narrow = ("discriminator=patch", "discriminator.patch.width=1")
        build(*narrow, f"discriminator.patch.layers={most}").check_data([], [side, 2 * side])
        module = build(*narrow, f"discriminator.patch.layers={most + 1}")
        with pytest.raises(ValueError, match=rf"discriminator\.patch\.layers: expected at most {most} for the {side}"):
            module.check_data([], [side, 2 * side])


SHIPPED = sorted(file.relative_to(CONF).with_suffix("").as_posix() for file in CONF.glob("*/**/*.yaml"))


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith(("hydra/", "experiment/"))])
def test_every_configuration_that_is_shipped_passes(name: str) -> None:
    check_kinds(composed(name.replace("/", "=", 1)))


@pytest.mark.parametrize(
    "overrides",
    [
        "+model.groups={all:[4,8,16],low:null,high:null}",  # null takes a group away
        "anomaly.sigma=2 model.focal_gamma=0 model.loss_weight.dice=1",  # whole numbers are numbers
        "anomaly.flips=[horizontal] synthesis.image.opacity=[1,1]",
        "anomaly.sigma=${model.focal_gamma}",
        "callback.progress=null callback.panels=null",
        "model.segmentation=null backbone.weights=/some/file",
        "+model.optimizer.betas=[0.9,0.95] +model.scheduler.pct_start=0.1",
        "dataset.category=01",  # the data set's own message says more
    ],
)
def test_what_is_right_or_not_for_this_check_passes(overrides: str) -> None:
    check_kinds(composed(*overrides.split()))


def test_a_class_of_someone_else_is_left_alone() -> None:
    check_kinds(OmegaConf.create({"mine": {"_target_": "somewhere.Model", "width": "x"}}))
