"""What the jobs of a sweep need: right options, folders of the data, a GPU; ``python -m squad_lit.run.needs`` looks.

It is a process of its own, because torch and CUDA would stay in that of the sweep as long as it lasts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from squad_lit.run.option import check, make
from squad_lit.training.build import find


def faults(configs: Mapping[str, DictConfig], *, devices: bool) -> dict[str, str]:
    """The jobs that would fail at their start, by name, and why.

    Args:
        configs: The configurations by the names of the jobs.
        devices: Whether this machine must have the GPU, or the CPU cores, that a configuration asks for.
    """
    given = json.dumps(
        {"devices": devices, "configs": {name: OmegaConf.to_yaml(config) for name, config in configs.items()}}
    )
    command = [sys.executable, "-m", "squad_lit.run.needs"]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _look(configs: Mapping[str, str], devices: bool) -> dict[str, str]:
    wrong: dict[str, str] = {}
    made: dict[str, str] = {}
    for name, text in configs.items():
        config: Any = OmegaConf.create(text)
        config.output = ""  # only Hydra knows it
        data = str({key: value for key, value in config.dataset.items() if key != "seed"})
        try:
            check(config, here=devices)
            if devices:
                _check_gpu(config)
            if data not in made:
                made[data] = _fault_of_data(config)
        except (ValueError, TypeError, OSError, ImportError) as error:
            wrong[name] = str(error)
        else:
            if made[data]:
                wrong[name] = made[data]
    return wrong


def _check_gpu(config: DictConfig) -> None:
    import torch

    accelerator = OmegaConf.select(config, "trainer.accelerator")
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ValueError(f"trainer.accelerator={accelerator}: torch finds no GPU on this machine")


def _fault_of_data(config: DictConfig) -> str:
    """Why the folders of the data cannot be used; one of the user's own classes may take a while, and is not made."""
    from squad_lit.dataset.core import AnomalyDataModule

    made = find(config.dataset._target_, "dataset._target_")
    if isinstance(made, type) and issubclass(made, AnomalyDataModule):
        try:
            make(config, "dataset", strict=False)
        except (ValueError, TypeError, OSError) as error:
            return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(_look(**json.load(sys.stdin))))
