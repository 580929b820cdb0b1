"""The folder of a run: its configuration, and what an earlier run has left there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from squad_lit.run.job import is_first_process
from squad_lit.run.option import OF_THE_MODEL
from squad_lit.system.file import whole, write_text

if TYPE_CHECKING:
    from squad_lit.training.detector import Detector

# Files of an earlier run that would contradict the configuration of the next one.
_RESULTS = ("metrics.json", "predictions.csv", "panels.csv", "curves.json", "curves.png", "error.txt")
_EXPORTED = ("model.onnx", "model.xml", "model.bin", "model.pt2")
# These refer to the folder of the run, which is that of whoever reads config.yaml.
_UNRESOLVED = ("callback", "logger")


# What Hydra had written of the run whose results are in the folder, until those make room for a new one's.
_record: dict[Path, bytes] = {}


def keep_record(folder: Path) -> None:
    """Remember what Hydra has written of an earlier run, before it writes the same of a new one."""
    _record.clear()
    if (folder / "metrics.json").exists():
        _record.update((file, file.read_bytes()) for file in (folder / ".hydra").glob("*.yaml") if file.is_file())


def restore_record() -> bool:
    """After a failure, let ``.hydra`` be of the run whose results the folder still has; returns whether it has some."""
    found = bool(_record)
    with contextlib.suppress(OSError):  # a full disk may be the failure
        for file, content in _record.items():
            with whole(file) as part:
                part.write_bytes(content)
    _record.clear()
    return found


def write_config(folder: Path, config: DictConfig, module: Detector) -> dict[str, Any]:
    """Write the resolved configuration. A test writes the model's options from the checkpoint.

    Returns:
        The options that determine the figures: all but callbacks, loggers and the folder.
    """
    beside: dict[str, Any] = {key: OmegaConf.to_container(config[key]) for key in _UNRESOLVED}
    beside |= {"output": "${hydra:runtime.output_dir}", "resume": None}  # a resumed run is the one that was interrupted
    rest = OmegaConf.masked_copy(config, [key for key in map(str, config) if key not in beside])
    plain: dict[str, Any] = OmegaConf.to_container(rest, resolve=True)  # type: ignore[assignment]
    if config.checkpoint:
        plain = {key: value for key, value in plain.items() if key not in OF_THE_MODEL} | {"model": module.state.config}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain | beside)))
    return plain


def clear(folder: Path, config: DictConfig) -> None:
    """Remove the results of an earlier run in the folder, and keep its model apart as ``previous.ckpt``."""
    from squad_lit.training.checkpoint import PREVIOUS  # here, because it imports torch

    _record.clear()
    old = [*(folder / name for name in _RESULTS), *(folder / "panels").glob("*.png")]
    old += [folder / name for name in _EXPORTED] if config.fit else []
    last, source = folder / "last.ckpt", config.resume or config.checkpoint
    if is_first_process() and not (source and last.exists() and last.samefile(source)):
        if last.exists():
            os.replace(last, folder / PREVIOUS)
        old += [*folder.glob("tensorboard/events.*"), *([] if "csv" in config.logger else folder.glob("csv/*.csv"))]
    for file in old:
        file.unlink(missing_ok=True)
