"""What was typed wrongly is a sentence that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import squad_lit
from squad_lit.run.config import arrange, check_overrides, compose
from squad_lit.run.option import check


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["quantizer=vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?; there are: fsq, none, vq$"),
        (["-m", "seed=0,1", "quantizer=fsq,vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?"),
        (["model.step=5"], r"^model\.step: no such option; did you mean model\.steps\?"),
        (["modell=hybrid"], r"^modell: no such option; did you mean model\?"),
        (["synthesis.kind.dent=0"], r"^synthesis\.kind\.dent: no such option; did you mean synthesis\.kinds\?"),
        (["~modell"], r"^modell: no such option; did you mean model\?"),
        (["model.fsq.levels=[8,6"], r"^model\.fsq\.levels=\[8,6: expected NAME=VALUE, with quotes for the shell"),
        (["model.steps"], r"^model\.steps: expected NAME=VALUE"),
        (["seed=0,1"], r"^seed=0,1: several values make a sweep, which needs -m; a list is 'seed=\[0,1\]'$"),
    ],
)
def test_what_cannot_be_is_named_with_what_was_meant(typed: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_overrides(typed)


@pytest.mark.parametrize(
    "typed",
    [
        ["-m", "seed=range(0,3)", "quantizer=fsq,vq", "model.fsq.levels=[8,5],[8,6]"],
        ["experiment=mpdd"],
        ["experiment=ablation/backbone"],
        ["+trainer.precision=bf16-mixed", "hydra.run.dir=/a b/c", "~callback.panels"],
        ["--config-dir", "nowhere", "quantizer=my_own"],
    ],
)
def test_what_can_be_passes(typed: list[str]) -> None:
    check_overrides(typed)


def test_each_line_of_a_sweep_of_wandb_is_understood(tmp_path: Path) -> None:
    """The agent's own functions make the command line, from the first and the last value of each parameter."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    recipe = yaml.safe_load((Path(__file__).parents[2] / "experiments" / "wandb_sweep" / "sweep.yaml").read_text())
    nested = [key for key, given in recipe["parameters"].items() if "parameters" in given]
    assert nested  # W&B gives them as dictionaries
    made = []
    for i, bound in ((0, "min"), (-1, "max")):

        def value(given: dict[str, Any], i: int = i, bound: str = bound) -> Any:
            if "parameters" in given:
                return {key: value(own) for key, own in given["parameters"].items()}
            return given["values"][i] if "values" in given else given.get("value", given.get(bound))

        args = {key: {"value": value(given)} for key, given in recipe["parameters"].items()}
        typed = utils.create_sweep_command_args({"args": args})["args_no_hyphens"]
        fixed = [part for part in recipe["command"] if "=" in part]
        overrides = arrange([*fixed, *typed])
        check_overrides(overrides)
        config = compose(overrides, output=tmp_path)
        check(config)
        made.append(config)
    first, last = made
    assert (first.model.tile, last.model.tile) == (None, 128)
    assert (first.model.fsq.levels, last.model.fsq.levels) == ([8, 5, 5, 5], [8, 6, 5])
    assert "patch" not in first.discriminator
    assert "patch" in last.discriminator
    assert (first.dataset.image_size, last.dataset.image_size) == ([256, 256], [320, 320])
    assert (first.anomaly.sigma, last.anomaly.sigma) == (2.0, 4.0)
    assert {k: v for k, v in last.model.groups.items() if v} == {"all": [4, 8, 16]}


def test_fit_takes_the_data_of_an_experiment_and_refuses_its_sweep(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^experiment=mpdd is a sweep over dataset\.category, and fit is one training"
    ):
        squad_lit.fit(overrides=["experiment=mpdd"], output=tmp_path)
    with pytest.raises(FileNotFoundError, match=f"mpdd: no folder {tmp_path / 'none'}"):
        squad_lit.fit(overrides=["experiment=mpdd", "dataset.category=tubes"], root=tmp_path / "none", output=tmp_path)
    with pytest.raises(TypeError, match=r"^overrides: expected a list of texts, .* got 'model\.steps=3'"):
        squad_lit.fit(overrides="model.steps=3")
