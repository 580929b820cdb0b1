"""``calibration.json`` of an output folder: the normal scores of each model that judged images there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squad_lit.image.roi import decode, identify
from squad_lit.system.file import write_json

_MODELS = 100  # the last ones


def remember(root: Path, model: str, metadata: Mapping[str, Any]) -> None:
    """Note the scores of the normal images of a model, so that those of new images can be compared with them.

    Args:
        root: The output folder.
        model: The model as the column ``model`` of the table has it.
        metadata: Its description, as of a :class:`squad_lit.deploy.runtime.Runtime`.
    """
    known = recall(root)
    # As many digits as the threshold has in the table, which is one of these scores and must not lie below itself.
    scores = [float(f"{score:.6g}") for score in metadata["normal_scores"]]
    found = {"normal_scores": scores, "roi": identify(decode(metadata["roi"]))}
    if known.get(model) != found:
        known.pop(model, None)
        write_json(root / "calibration.json", dict([*known.items(), (model, found)][-_MODELS:]), indent=None)


def recall(root: Path) -> dict[str, Any]:
    """``normal_scores`` and ``roi`` by model; empty without a file.

    Raises:
        ValueError: The file is damaged.
    """
    path = root / "calibration.json"
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        whole = all(about["normal_scores"] and isinstance(about["roi"], str) for about in known.values())
    except (ValueError, TypeError, LookupError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: remove it, and predict into the folder again, which writes it anew")
    return dict(known)
