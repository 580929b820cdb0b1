"""What was typed wrongly is a sentence that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import squad_lit
from squad_lit.run.config import arrange, check_overrides, compose
from squad_lit.run.option import check

SAMPLE = Path(__file__).parents[1] / "sample" / "conf"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["quantizer=vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?; there are: fsq, none, vq$"),
        (["-m", "seed=0,1", "quantizer=fsq,vqq"], r"^quantizer=vqq: no such choice; did you mean quantizer=vq\?"),
        (["model.step=5"], r"^model\.step: no such option; did you mean model\.steps\?"),
        (["modell=hybrid"], r"^modell: no such option; did you mean model\?$"),
        (["nosuch=1"], r"^nosuch: no such option$"),
        (["model.nosuch=1"], r"^model\.nosuch: no such option$"),
        (["trainer.precision=bf16-mixed"], r"^trainer\.precision: no such option; \+trainer\.precision= would add it$"),
        (["synthesis.kinds.rust=1"], r"^synthesis\.kinds\.rust: no such option$"),
        (
            ["model/steps=5"],
            r"^model/steps: no such group; the parts of an option have dots between them: model\.steps$",
        ),
        (["hydra.nosuch=1"], r"^hydra\.nosuch: no such option$"),
        (["model.loss_weight={imagee:1}"], r"^model\.loss_weight\.imagee: no such option; did you mean model\."),
        (
            ["hydra.launcher._target_=hydra_plugins.ray_x.Launcher"],
            r"^hydra/launcher: No module named 'hydra_plugins\.ray_x'$",
        ),
        (
            ["hydra.launcher=joblib"],
            r"^hydra\.launcher: .* got 'joblib'; a slash chooses one, as in hydra/launcher=NAME$",
        ),
        (["hydra/launcher=joblib"], r"^hydra/launcher=joblib: no such choice; .*there are: .*processes"),
        (["hydra.sweeper=null"], r"^hydra\.sweeper: expected its options, got None"),
        (["hydra.run.dir=null"], r"^hydra\.run\.dir=null: field 'hydra\.run\.dir' is not Optional$"),
        (["hydra.run.dir=''"], r"^hydra\.run\.dir: expected the name of a folder, got ''$"),
        (["hydra.mode=SOON"], r"^hydra\.mode=SOON: Invalid value 'SOON', expected one of \[RUN, MULTIRUN\]$"),
        (["+dataset=mvtec"], r"^dataset: it has a value, which is replaced without a plus: dataset=NAME$"),
        (["dataset=[mvtec,visa]"], r"^dataset=\[mvtec,visa\]: expected one name; -m dataset=A,B runs both$"),
        (["model=null"], r"^model=null: expected a name; there are: hybrid, memory, squad$"),
        (["hydra.sweeper.params.seed=1"], r"^hydra\.sweeper\.params\.seed=1: "),
        (["trainer.devices=10^12"], r"^trainer\.devices=10\^12: expected NAME=VALUE, .*more quotes around other signs"),
        (["seed=${"], r"^seed=\$\{: expected NAME=VALUE"),
        (["seed=1", "--nosuch"], r"^--nosuch: there is no such option; options are NAME=VALUE"),
        (["seed=1", "--config-dir"], r"^argument --config-dir/-cd: expected one argument; --help lists"),
        (["seed=1", "--config-dir", "nowhere"], r"^--config-dir nowhere: there is no such folder$"),
        (["--config-name", "nosuch"], r"^--config-name nosuch: there is no nosuch\.yaml in "),
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
        ["--config-dir", str(SAMPLE), "quantizer=sign"],
        ["quantizer=sign", "seed=1", "--config-dir", str(SAMPLE), "seed=2", "-m"],
        ["--help"],
        ["--info", "plugins"],
        ["--cfg", "job", "seed=1"],
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


def test_options_for_hydra_may_stand_anywhere(tmp_path: Path) -> None:
    given = ["seed=0", "--config-dir", str(tmp_path), "dataset=folder", "-m", "fit=true"]
    assert arrange(given) == ["--config-dir", str(tmp_path), "-m", "seed=0", "dataset=folder", "fit=true"]


def test_a_folder_of_ones_own_is_checked_as_well(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^quantizer=sing: no such choice; did you mean quantizer=sign\?"):
        check_overrides(["quantizer=sing", "--config-dir", str(SAMPLE)])
    with pytest.raises(ValueError, match=r"^model\.step: no such option; did you mean model\.steps\?"):
        check_overrides(["--config-dir", str(SAMPLE), "model.step=3"])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    assert arrange(["experiment=mine", "--config-dir", str(tmp_path)])[-1] == "experiment=mine"
    with pytest.raises(ValueError, match=r"^no experiment mien; there are: .*, mine, "):
        arrange(["experiment=mien", "--config-dir", str(tmp_path)])


def test_an_experiment_may_choose_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /hydra/launcher: gpus\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    config = compose(["experiment=mine"], config_dir=tmp_path, with_hydra=True)
    assert config.hydra.launcher.jobs_per_gpu == 1


def test_fit_takes_the_data_of_an_experiment_and_refuses_its_sweep(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^experiment=mpdd is a sweep over dataset\.category, and fit is one training"
    ):
        squad_lit.fit(overrides=["experiment=mpdd"], output=tmp_path)
    with pytest.raises(FileNotFoundError, match=f"mpdd: no folder {tmp_path / 'none'}"):
        squad_lit.fit(overrides=["experiment=mpdd", "dataset.category=tubes"], root=tmp_path / "none", output=tmp_path)
    with pytest.raises(TypeError, match=r"^overrides: expected a list of texts, .* got 'model\.steps=3'"):
        squad_lit.fit(overrides="model.steps=3")
