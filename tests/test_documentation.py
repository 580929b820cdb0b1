"""What the documents say is true: commands are understood, Python runs, options, links, numbers and names exist."""

import argparse
import html
import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from lightning import Trainer
from omegaconf import DictConfig
from PIL import Image

import squad_lit
from squad_lit import metric
from squad_lit.deploy.metadata import FORMAT
from squad_lit.deploy.threshold import from_normals
from squad_lit.image.tile import Grid
from squad_lit.run import config as configuration
from squad_lit.run import fit
from squad_lit.run.config import CONF
from squad_lit.run.option import check, check_effect
from squad_lit.training.checkpoint import VERSION
from test_experiment import split

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SAMPLE = ROOT / "tests" / "sample" / "conf"  # the parts that docs/extending.md explains
STUDIES = sorted((ROOT / "experiments").rglob("README.md"))
# A training of a few steps, in the place of one that takes minutes.
SMALL = ["trainer=smoke", "model.steps=4", "dataset.image_size=64", "logger=none", "callback.progress=null"]


def blocks(file: Path, language: str) -> list[tuple[str, str]]:
    """Title and text of the blocks of a language."""
    text = file.read_text(encoding="utf-8")
    return re.findall(rf'^```{language}(?: title="(.+?)")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


def lines(file: Path) -> list[str]:
    """The lines of the blocks for a shell, each whole."""
    return [line for _, text in blocks(file, "bash") for line in text.replace("\\\n", " ").splitlines()]


def commands() -> list[Any]:
    """File, a folder for Python to look into, and ``MODULE ARGUMENT...``, of each command of squad_lit."""
    found = {}
    for file in [*PAGES, *STUDIES]:
        for line in lines(file):
            for path, command in re.findall(r"(?:PYTHONPATH=(\S+) )?(?:python -m squad_lit\.|squad-lit )(\w.*)", line):
                found.setdefault(command, pytest.param(file, path, command, id=command))
    return list(found.values())


def missing(text: str) -> str:
    """What a command or block needs and is not there yet."""
    return ""


class Parsed(BaseException):
    """Carries the arguments that a command has understood."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], argparse.Namespace]:
    """Lets a command parse its arguments, and nothing more."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *arguments: Any) -> None:
        raise Parsed(original(self, *arguments))

    def run(module: str, arguments: list[str]) -> argparse.Namespace:
        if importlib.util.find_spec(f"squad_lit.{module}").submodule_search_locations:
            module += ".__main__"
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed) as found:
            importlib.import_module(f"squad_lit.{module}").main()
        return found.value.args[0]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    return run


def compose(overrides: list[str]) -> DictConfig:
    """The configuration of a training, checked as far as it is without data."""
    config = configuration.compose(overrides)
    check(config)
    check_effect(config, overrides)
    return config


def one_value(override: Override) -> str:
    """An override of a search with the first of its values."""
    value = override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(override.sweep_string_iterator())
    return f"{override.get_key_element()}={first}"


@pytest.mark.parametrize(("file", "path", "command"), commands())
def test_a_quoted_command_is_understood(
    file: Path,
    path: str,
    command: str,
    parse: Callable[[str, list[str]], argparse.Namespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := missing(command):
        pytest.skip(reason)
    monkeypatch.setenv("SQUAD_LIT_GPUS", "0,1")
    monkeypatch.syspath_prepend(ROOT / path)
    for title, text in blocks(file, "yaml"):  # the files that a page tells to write
        (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / title).write_text(text)
    module, *arguments = shlex.split(command, comments=True)
    if module not in ("train", "check"):
        given = parse(module, arguments)
        if module == "search":
            parsed = OverridesParser.create().parse_overrides(given.overrides)
            compose([one_value(o) if o.is_sweep_override() else str(o.input_line) for o in parsed])
        return
    if "--config-name" in arguments:  # the configuration of a run: the test of it is below
        return
    own = [arguments.pop(arguments.index("--config-dir") + 1)] if "--config-dir" in arguments else []
    overrides = [a for a in arguments if a not in ("-m", "--config-dir")]
    is_sweep = "-m" in arguments or any(o.startswith("experiment=") for o in overrides)
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert is_sweep or not any(override.is_sweep_override() for override in parsed)
    for job in split(overrides):
        compose([*job, *(f"hydra.searchpath=[file://{tmp_path / folder}]" for folder in own)])


def test_there_are_commands() -> None:
    assert {parameters.id.split()[0] for parameters in commands()} == {
        *(
            "train",
            "check",
            "predict",
            "watch",
            "drift",
            "calibrate",
            "validate",
            "serve",
            "export",
            "search",
            "report",
            "view",
            "submission",
            "workspace",
        ),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the Python of the documents is run in: parts, new parts, and a model of them."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for name in ["part", "new_parts/1", *(f"parts/good/{i:02}" for i in range(12))]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(place / f"{name}.png")
    folder = place / "runs" / "parts"
    folder.mkdir(parents=True)
    overrides = [*SMALL[2:], "trainer=smoke", "model=memory", "model.memory.patches=50", "dataset=folder"]
    overrides += [f"dataset.root={place / 'parts'}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there are no bad parts
        fit.run(configuration.compose([*overrides, "callback.panels=null", "callback.curves=null"]), folder)
    return place


@pytest.mark.filterwarnings("ignore::UserWarning")  # there are no bad parts
@pytest.mark.parametrize("file", [f for f in PAGES if blocks(f, "python")], ids=lambda f: f.name)
def test_python_runs(file: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(squad_lit, "fit"):
        original = squad_lit.fit

        def short(*arguments: Any, overrides: tuple[str, ...] = (), **options: Any) -> Any:
            return original(*arguments, overrides=[*overrides, *SMALL], **options)

        monkeypatch.setattr(squad_lit, "fit", short)
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    reasons = [missing(text) for _, text in blocks(file, "python")]
    for reason, (_, text) in zip(reasons, blocks(file, "python"), strict=True):
        code = compile(text, str(file), "exec")
        if not reason:
            exec(code, names)
    if any(reasons):
        pytest.skip("; ".join(filter(None, reasons)))


def test_the_configuration_of_a_run_runs_again(place: Path) -> None:
    with hydra.initialize_config_dir(str(place / "runs" / "parts"), version_base="1.3"):
        config = hydra.compose("config", [f"hydra.searchpath=[file://{CONF}]"])
    check(config)
    assert Path(config.dataset.root).name == "parts"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """What makes the reference of the options."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # where a NamedTuple looks for the names in its annotations
    spec.loader.exec_module(module)
    return module


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """The values of a file of options, by their names."""
    if not isinstance(node, dict) or not node:
        return {name: node}
    inner = {k: v for k, v in node.items() if k not in ("defaults", "_target_", "_partial_")}
    return {n: v for k, value in inner.items() for n, v in leaves(value, f"{name}.{k}".lstrip(".")).items()}


def test_every_option_is_in_the_reference(reference: ModuleType) -> None:
    sections = dict(re.findall(r"^##+ `?(.+?)`?\n(.*?)(?=^##|\Z)", reference.page(), re.DOTALL | re.MULTILINE))
    for file in sorted(CONF.rglob("*.yaml")):
        text, folder = file.read_text(), file.parent.relative_to(CONF)
        group = "hydra/launcher" if folder.parts[:1] == ("hydra",) else folder.parts[0] if folder.parts else ""
        name = file.relative_to(CONF / group).with_suffix("").as_posix()
        section = sections[f"{group}={name}" if group else "Top level"]
        rows = dict(re.findall(r"^\| `([^`]+)` \| `?(.*?)`? \|", section, re.MULTILINE))
        package = "" if "@package _global_" in text else ".".join(folder.parts)
        expected = {
            option.removeprefix("hydra.sweeper.params."): value
            for option, value in leaves(yaml.safe_load(text), package).items()
            if option not in ("hydra.mode", "", package)
        }
        assert expected.keys() <= rows.keys(), file
        assert {option: yaml.safe_load(rows[option]) for option in expected} == expected, file
        for comment in re.findall(r"^ *[^ #].*?# (.+)$", text, re.MULTILINE):
            assert comment in html.unescape(section), file


def test_options_and_choices_in_the_text_exist(reference: ModuleType) -> None:
    known = {option.name for file in CONF.rglob("*.yaml") for option in reference.options(file)}
    known |= {name.rpartition(".")[0] for name in known} | {"synthesis.texture_dir"}
    known |= {f"trainer.{name}" for name in inspect.signature(Trainer).parameters}
    groups = {file.parent.relative_to(CONF).as_posix() for file in CONF.rglob("*.yaml")} - {"."}
    first = {name.split(".")[0] for name in known} - {"hydra", ""}
    for file in PAGES:
        text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`\n]+)`", text):
            for word in code.strip("'\"").split():
                name, is_given, value = word.strip("'+").partition("=")
                is_file = name.endswith((".py", ".yaml", ".json", ".log"))
                if name.split(".")[0] in first and re.fullmatch(r"\w+(\.\w+)+", name):
                    assert is_file or name in known, f"{file.name}: {name}"
                if is_given and name in groups and re.fullmatch(r"[\w/]+", value) and not value.isupper():
                    own = "NAME" in value or value in dict(blocks(file, "yaml"))
                    assert (
                        own
                        or missing(code)
                        or any((folder / name / f"{value}.yaml").exists() for folder in (CONF, SAMPLE))
                    ), f"{file.name}: {word}"


def test_the_python_reference_is_complete() -> None:
    shown = re.findall(r"^::: (\S+)", (ROOT / "docs" / "reference" / "python.md").read_text(), re.MULTILINE)
    public = {f"squad_lit.{name}" for name in squad_lit.__all__ if not name.startswith("_")}
    public |= {f"squad_lit.metric.{name}" for name in metric.__all__}
    contracts = (ROOT / "src" / "squad_lit").rglob("contract.py")
    for path in contracts:
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        public |= {f"{module}.{name}" for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE)}
    assert public <= set(shown)


def slugs(file: Path) -> set[str]:
    """The anchors of the headings of a file."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in found}


@pytest.mark.parametrize(
    "file", [*PAGES[:2], ROOT / "CHANGELOG.md", *STUDIES], ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_links_lead_somewhere(file: Path) -> None:  # those of docs/ are checked by its strict build
    text = file.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_the_readme_is_short_and_stands_alone() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "../" not in text


def test_make_targets_and_extras_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for file in PAGES:
        for line in lines(file):
            if target := re.match(r"make (\w+)", line):
                assert target[1] in targets, f"{file.name}: {line}"
        text = file.read_text(encoding="utf-8")
        for given in [*re.findall(r"pip install '\.\[([\w,]+)\]'", text), *re.findall(r"the extra `(\w+)`", text)]:
            assert set(given.split(",")) <= extras.keys(), f"{file.name}: {given}"


def test_the_numbers_of_the_splits(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(rows) > 3
    (tmp_path / "good").mkdir()
    for total, test, calibration, training, rate in sorted(rows, key=lambda row: int(row[0])):
        for number in range(len(list((tmp_path / "good").iterdir())), int(total)):
            Image.new("L", (4, 4)).save(tmp_path / "good" / f"{number}.png")
        config = compose(["dataset=folder", f"dataset.root={tmp_path}", "dataset.cache=off"])
        data = hydra.utils.instantiate(config.dataset, _convert_="all")
        data.setup()
        assert [int(test), int(calibration), int(training)] == list(
            map(len, (data.test_set, data.val_set, data.train_set))
        )
        lowest = from_normals(range(int(calibration)), 1e-9).false_alarm_rate
        assert float(rate) == pytest.approx(100 * lowest, rel=0.03)


def test_other_numbers() -> None:
    data = (ROOT / "docs" / "data.md").read_text()
    small, large = (len(Grid((side, side), 256, 0.25)) for side in (512, 1024))
    assert f"{small} at 512 pixels, {large} at 1,024" in data
    deployment = (ROOT / "docs" / "deployment.md").read_text()
    assert str(from_normals(range(16), 0.01)).partition(": ")[2] in deployment
    versions = (ROOT / "docs" / "versions.md").read_text()
    assert f"has a format, now {FORMAT}" in versions
    assert f"a version of its own, now {VERSION}" in versions
