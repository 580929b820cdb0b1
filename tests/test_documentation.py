"""The commands that README.md and the experiments quote, composed as their user would run them."""

import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from squad_lit.run import search
from squad_lit.run.command import check_options, check_overrides
from squad_lit.run.config import CONF
from squad_lit.run.option import check_kinds

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "experiments").glob("*/README.md"))]


def commands() -> list[str]:
    """``MODULE ARGUMENT...`` of each command in a block that takes Hydra's overrides."""
    found = []
    for file in FILES:
        for block in re.findall(r"```bash\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            found += re.findall(r"python -m squad_lit\.((?:train|check|search)\b.*)", block.replace("\\\n", " "))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands())
def test_a_quoted_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUAD_LIT_GPUS", "0,1")
    module, *arguments = shlex.split(command, comments=True)
    if module == "search":
        given = search._parser().parse_args(arguments)
        fixed, space = search._parse(given.overrides)
        search._compose([*fixed, *(f"{key}={search._ends(values)[0]}" for key, values in space.items())])
        return
    overrides = [argument for argument in arguments if argument != "-m"]
    is_sweep = "-m" in arguments or any(o.startswith("experiment=") for o in overrides)
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert is_sweep or not any(override.is_sweep_override() for override in parsed)
    for job in BasicSweeper.split_arguments(parsed, None)[0]:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", job)
        check_options(config)
        check_kinds(config)
        check_overrides(config, job)


def test_there_are_commands() -> None:
    assert len(commands()) > 10
