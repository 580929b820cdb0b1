"""Train and test: ``python -m squad_lit.train dataset=mvtec dataset.category=bottle``.

Compose the configuration, build the parts, fit, test, and leave in the run's folder: ``config.yaml``, ``last.ckpt``,
``metrics.json``, ``predictions.csv``, ``panels/``, and the loggers' files.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from squad_lit.table import table

if TYPE_CHECKING:
    import lightning as L

    from squad_lit.module import Squad

log = logging.getLogger(__name__)

# What a user can cause and mend: shown as a sentence, without a stack trace.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

_PACKAGE = Path(__file__).parent
# In a wheel the tree lies inside the package, in a checkout at its top.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


def run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """One run, from configuration to figures.

    Args:
        config: As composed from ``conf/train.yaml``.
        folder: Where everything of the run is written.

    Returns:
        What is in ``metrics.json``.

    Raises:
        ValueError: Options that do not go together, or a checkpoint of another model.
    """
    import lightning as L
    import torch

    from squad_lit.evaluation import Evaluation

    started = time.perf_counter()
    if config.fit and config.checkpoint:
        raise ValueError("checkpoint=PATH tests a trained model: add fit=false; to go on training it, use resume=PATH")
    if not config.fit and not config.checkpoint:
        raise ValueError("fit=false needs checkpoint=PATH: there is no model to test")
    if config.threads:
        torch.set_num_threads(config.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # tips and states of no use to our users
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = _instantiate(config.dataset)
    data.prepare_data()
    data.setup()
    module = _make_module(config)
    module.check_data(data.categories, data.image_size)
    options = OmegaConf.to_container(config.metric, resolve=True)
    module.evaluation = Evaluation(**options, seed=config.seed)  # type: ignore[arg-type]
    _write(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    callbacks = [_instantiate(c) for c in config.callback.values() if c]
    loggers = [_instantiate(c) for c in config.logger.values() if c]
    trainer: L.Trainer = _instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    for logger in loggers:
        logger.log_hyperparams(module.config)
    try:
        if config.fit and module.step < module.steps:
            trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
        trainer.test(module, datamodule=data, verbose=False)
    finally:
        _finish_wandb()
    timed = {k: v for c in callbacks for k, v in getattr(c, "figures", {}).items()}
    figures = module.figures | timed | {"peak_memory_mb": _peak_memory_mb(), "run": _about(config, started)}
    if trainer.is_global_zero:
        _write(folder / "metrics.json", json.dumps(_plain(figures), indent=2) + "\n")
        _write_rows(folder / "predictions.csv", module.evaluation.predictions())
        print(table(figures))
        print(f"\nrun folder: {folder}")
    return figures


def _instantiate(node: DictConfig, **more: Any) -> Any:
    """Hydra's ``instantiate``, but an error of the object's own constructor comes as it is."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, USER_ERRORS):
            raise error.__cause__ from None
        raise


def _make_module(config: DictConfig) -> Squad:
    """The model of the configuration, or of the checkpoint that is to be tested or continued."""
    from squad_lit import checkpoint

    plain: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    del plain[config.quantizer]  # model.fsq is where the command line finds it; the generator has its copy
    if config.checkpoint:
        return checkpoint.load(hydra.utils.to_absolute_path(config.checkpoint))
    if config.resume:
        content = checkpoint.read(config.resume)
        if different := sorted(_differences(content[checkpoint.KEY]["config"], plain)):
            raise ValueError(
                f"resume={config.resume}: this checkpoint was made with other values of: {', '.join(different)}; "
                f"continue with the configuration in the config.yaml beside it"
            )
    module: Squad = checkpoint.build(plain)
    module.config = plain
    if config.resume:
        module.on_load_checkpoint(content)
        if module.step >= module.steps:
            log.warning("%s has finished its %d steps; it is tested as it is", config.resume, module.steps)
            return checkpoint.load(config.resume)
    return module


def _differences(a: Any, b: Any, name: str = "model") -> list[str]:
    """Names of the leaves in which two plain configurations differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for key in a.keys() | b.keys() for d in _differences(a.get(key), b.get(key), f"{name}.{key}")]
    return [] if a == b else [name]


def _about(config: DictConfig, started: float) -> dict[str, Any]:
    """Seed, versions, commit, device: what one must know to repeat the run."""
    import torch

    packages = ("squad_lit", "torch", "lightning", "timm", "hydra-core", "numpy")
    device = f"cpu, {torch.get_num_threads()} threads"
    return {
        "seed": config.seed,
        "seconds": time.perf_counter() - started,
        "commit": _commit(),
        "versions": {name: _version(name) for name in packages} | {"python": platform.python_version()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else device,
        "command": " ".join(["python -m squad_lit.train", *sys.argv[1:]]),
    }


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, check=False).stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _finish_wandb() -> None:
    """One W&B run a job: without this the jobs of a multirun would share the first one's."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def _plain(value: Any) -> Any:
    """For JSON: NaN and infinity become null."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def _has_no_wandb_key() -> bool:
    """Whether W&B has to write to disk: no mode was asked for, and there is no key to upload with."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    stored = netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="replace")
    return not (stored or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"))


OmegaConf.register_new_resolver("wandb_offline", _has_no_wandb_key, replace=True)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> None:
    """Entry point of ``python -m squad_lit.train``."""
    hydra_config = HydraConfig.get()
    try:
        run(config, Path(hydra_config.runtime.output_dir))
    except USER_ERRORS as error:
        # In a sweep the error goes on to Hydra, which counts the job as failed.
        if hydra_config.mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        log.debug("stack trace", exc_info=True)
        print(f"error: {error}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
