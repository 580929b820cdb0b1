"""What one must know to repeat a run: seed, versions, commit, device and memory."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from squad_lit.run.job import config_hash

if TYPE_CHECKING:
    import torch


def about(config: DictConfig, started: float, device: torch.device) -> dict[str, Any]:
    """The seed, versions, commit, device and command of a run."""
    import torch

    packages = ("squad_lit", "torch", "lightning", "timm", "hydra-core", "numpy")
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else sys.argv[1:]
    return {
        "seed": config.seed,
        "seconds": time.perf_counter() - started,
        "commit": _commit(),
        "versions": {name: _version(name) for name in packages} | {"python": platform.python_version()},
        "device": f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(),
        "config_hash": config_hash(config),
        "command": shlex.join(["python", "-m", "squad_lit.train", *overrides]),
    }


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    command, here = ["git", "describe", "--always", "--dirty"], Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def peak_memory() -> dict[str, float]:
    """Peak memory of this process, and of the GPU where one is used, in MiB."""
    import torch

    if sys.platform == "win32":
        peak = psutil.Process().memory_info().peak_wset / 2**20
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    figures = {"peak_memory_mb": peak}
    if torch.cuda.is_initialized():
        figures["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return figures
