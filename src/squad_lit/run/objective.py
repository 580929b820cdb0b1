"""The figure by which a search compares runs, and whether jobs can have what they are to have."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from squad_lit.run.option import model_content

# Figures of metrics.json that need no label of the test set, per run and per group of features.
_LABEL_FREE = ["synthetic_ap", "synthetic_auroc", "normal_score"]
_LABEL_FREE += ["seconds/train", "images_per_second/train", "peak_memory_mb"]
_OF_A_GROUP = ["copy_ratio", "feature_error", "codebook_usage", "perplexity"]
_TEST = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]
_TEST += ["psnr", "ssim"]
# Smaller is better.
_COSTS = ("normal_score", "copy_ratio", "feature_error", "seconds", "peak_memory_mb")


def check_jobs(configs: Sequence[DictConfig], gpus: Sequence[str] = ()) -> None:
    """Refuse, before the first job, an objective that no run measures and a GPU for a trainer on the CPU.

    Raises:
        ValueError: The jobs have such an error.
    """
    if gpus and any(OmegaConf.select(config, "trainer.accelerator") == "cpu" for config in configs):
        raise ValueError("each job is to get a GPU, but this trainer computes on the CPU: add trainer=gpu")
    for name in {config.objective for config in configs}:
        check_objective(name, configs)


def check_objective(name: str, configs: Sequence[DictConfig]) -> None:
    """Refuse an objective that no run of the configurations measures, and warn if it is measured on the test set.

    Raises:
        ValueError: The name is unknown.
    """
    if name in _LABEL_FREE:
        return  # at once: what follows imports the models, and torch with them
    label_free, test = [*_LABEL_FREE], [*_TEST]
    for config in configs:
        model = model_content(config)
        own = _OF_A_GROUP[:2] if config.get("quantizer") == "none" else _OF_A_GROUP
        if "generator" in model:  # a model without one rebuilds nothing
            label_free += [f"{figure}/{group}" for figure in own for group in model["groups"]]
        limits = config.metric.fpr_limit
        test += [f"pixel_aupro_{limit:g}" for limit in (limits[1:] if isinstance(limits, ListConfig) else [])]
    if name in test:
        warnings.warn(
            f"objective={name} is measured on the test set: what is selected by it must not be reported on that set",
            stacklevel=2,
        )
    elif name not in label_free:
        known = [", ".join(dict.fromkeys(names)) for names in (label_free, test)]
        raise ValueError(
            f"objective: no figure {name!r} in metrics.json; label-free ones: {known[0]}; of the test set: {known[1]}"
        )


def is_cost(name: str) -> bool:
    """Whether a smaller value of an objective is better."""
    return name.partition("/")[0] in _COSTS


def objective(figures: Mapping[str, Any] | None, name: str) -> float:
    """The value of the objective of a run; NaN if it is undefined or was not measured."""
    value = (figures or {}).get(name)
    return math.nan if value is None else float(value)
