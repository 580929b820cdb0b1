"""What a checkpoint holds, and how a model is rebuilt from it without running what is in it.

A checkpoint is Lightning's, with one more key, ``squad_lit``: its version and a :class:`State`. It loads with
``torch.load(weights_only=True)``. The configuration names classes; only trusted ones are made (see
:mod:`squad_lit.training.build`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from squad_lit.system.file import check_archive, whole
from squad_lit.system.option import check_arguments
from squad_lit.training.build import rebuild

if TYPE_CHECKING:
    from squad_lit.training.detector import Detector

KEY = "squad_lit"
VERSION = 9
PREVIOUS = "previous.ckpt"
"""The model of an earlier run in the folder, until this one has its own."""
RUN_IDS = "squad_lit_run_ids"
"""Key of a checkpoint with the run's number in each dashboard, by the class of the logger; older files lack it."""
# What Lightning keeps, by its kind.
_LIGHTNING = {"state_dict": dict, "optimizer_states": list, "lr_schedulers": list, "loops": dict, "callbacks": dict}
# Arguments that name what only a training reads.
_FILES = ("weights", "texture_dir")

# Endings of exported files, which people give where a checkpoint is needed.
_EXPORTED = (".onnx", ".xml", ".pt2")


@dataclass
class State:
    """What a checkpoint keeps of a model besides its weights and its optimisers: plain values only.

    Args:
        config: Configuration of the model, from which it is made again.
        data: Options of the data set that decide which images a training sees.
        categories: What it was trained on.
        trained_on: Digest of each training image's file; see :func:`squad_lit.system.file.digest`.
        remembered: Digests of the images whose patches ``squad_lit.calibrate --remember`` has added to the memory; the
            number of the first one in the memory is -1, and those of the others follow downwards.
        image_size: Height and width, in pixels.
        step: Training steps that are done.
        measured: What the last calibration measured; see :class:`squad_lit.training.calibration.Calibration`.
        normal_scores: Anomaly scores of normal images, from which the threshold comes.
        normal_maxima: The highest pixel of each one's anomaly map, from which the threshold of pixels comes.
        defective_scores: Scores of known defects, from ``squad_lit.calibrate``.
        roi: Region of interest in which images are looked at, as :func:`squad_lit.image.roi.encode` writes it; empty:
            the whole image.
        false_alarm_rate: Share of normal images that the training's threshold lets through as anomalous.
        threshold: The threshold that somebody has chosen with ``squad_lit.calibrate``; None: there is none.
        trained: ``seconds`` and ``images`` of the training so far.
    """

    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    trained_on: list[str] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    image_size: list[int] = field(default_factory=list)
    step: int = 0
    measured: dict[str, Any] = field(default_factory=dict)
    normal_scores: list[float] = field(default_factory=list)
    normal_maxima: list[float] = field(default_factory=list)
    defective_scores: list[float] = field(default_factory=list)
    roi: str = ""
    false_alarm_rate: float | None = None
    threshold: float | None = None
    trained: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "images": 0})

    @classmethod
    def load(cls, checkpoint: Mapping[str, Any]) -> State:
        """The state in a checkpoint of this version.

        Raises:
            LookupError: A part of it is missing.
            ValueError: A part of it is of another kind.
        """
        values = {f.name: checkpoint[KEY][f.name] for f in fields(cls)}
        check_arguments(cls, values, plain=True)
        return cls(**values)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the state into a checkpoint, in the place of any other."""
        checkpoint[KEY] = {"version": VERSION, **asdict(self)}


class WholeFile(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, as Lightning's own way through the folder for temporary files does not.

    That folder may be on another file system, from which a file is copied over the old one, or full.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # Lightning writes to object stores
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write(checkpoint, Path(path))


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OSError: It cannot be written; names the file.
    """
    buffer = io.BytesIO()  # torch says neither which file nor why it cannot write
    torch.save(content, buffer)
    with whole(path, flush=True) as part:
        part.write_bytes(buffer.getbuffer())


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file and check that it is one of ours.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file that is damaged, foreign, or of another version.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path.resolve()} is a folder; name the file in it, such as {path / 'last.ckpt'}")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path.resolve()}; a run leaves one as last.ckpt in its folder")
    if path.suffix in _EXPORTED:
        raise ValueError(
            f"{path} is an exported file, which cannot be changed or trained: name the checkpoint that it comes from, "
            f"such as last.ckpt of the run"
        )
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types, depending on where the file is damaged
        raise ValueError(f"{path} is not a readable checkpoint: it is damaged, or not of squad_lit") from error
    own = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(own, dict) or type(own.get("version")) is not int:
        raise ValueError(f"{path} is not a checkpoint of squad_lit: it has no key {KEY!r}")
    if own["version"] != VERSION:
        todo = "update squad_lit" if own["version"] > VERSION else "train the model anew with the config.yaml beside it"
        raise ValueError(f"{path} has checkpoint version {own['version']}; this squad_lit reads {VERSION}: {todo}")
    try:
        State.load(content)
        for key, kind in _LIGHTNING.items():
            if not isinstance(content.get(key, kind()), kind):
                raise ValueError(f"{key} is {type(content[key]).__name__}")
    except (LookupError, ValueError) as error:
        raise _misfit(path, error) from error
    return content


def run_id(path: str | Path | None, logger: str) -> str | None:
    """The number of the run in a dashboard, from the checkpoint that is continued; None if there is none.

    Args:
        path: The checkpoint; None: nothing is continued.
        logger: Name of the logger's class.
    """
    return None if path is None else read(path).get(RUN_IDS, {}).get(logger)


def _misfit(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"{path} does not fit this squad_lit: it is damaged, or of a version between releases ({error})")


def _without_files(config: Any) -> Any:
    """The configuration without what a training reads: the weights are in the checkpoint, and nothing is drawn."""
    if isinstance(config, list):
        return [_without_files(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    return {key: None if key in _FILES else _without_files(value) for key, value in config.items()}


def load(path: str | Path, *, trust: Sequence[str] = ()) -> Detector:
    """Rebuild a trained model from its checkpoint alone: no data set, no hub, no other file.

    Args:
        path: A file that a run wrote.
        trust: Packages whose classes the file may name; see :func:`squad_lit.training.build.rebuild`.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A damaged or foreign file, one of another version, or one whose maps are not standardised.
    """
    content = read(path)
    try:
        module: Detector = rebuild(_without_files(State.load(content).config), trust)
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
    except (LookupError, AttributeError, TypeError, RuntimeError, ArithmeticError) as error:
        raise _misfit(path, error) from error
    if not module.anomaly.standardised:
        raise ValueError(
            f"{path} is of a run that was stopped before its maps were standardised; continue it with resume=PATH"
        )
    return module.eval()
