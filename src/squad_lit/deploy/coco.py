"""The regions of predictions as COCO's JSON, which tools for annotations read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squad_lit.deploy.output_folder import files
from squad_lit.image.file import read_marked
from squad_lit.image.region import connected_runs

_CATEGORY = 1


def document(root: Path, rows: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Images, and the connected parts of their masks as annotations.

    Args:
        root: Output folder of ``squad_lit.predict``.
        rows: Rows of its ``predictions.csv``.

    Returns:
        The content of the file. The name of an image is its path in the folder of the images. An annotation has the box
        ``[x, y, width, height]`` and area in pixels, and the region as an uncompressed run-length code. An image has
        score and label beside what COCO knows.

    Raises:
        OSError: A mask cannot be read.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        mask = read_marked(files(root, row["name"])["mask"])
        height, width = mask.shape
        about = {"anomaly_score": float(row["anomaly_score"]), "label": int(row["label"])}
        images.append({"id": number, "file_name": row["name"], "width": width, "height": height} | about)
        for region in _regions(mask):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": _CATEGORY} | region)
    categories = [{"id": _CATEGORY, "name": "anomaly", "supercategory": ""}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _regions(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Box, area and run-length code of each region, the largest first.

    COCO counts pixels down the columns, in turns of background and region, so the runs are those of the columns.
    """
    height, width = mask.shape
    runs = connected_runs(mask.T)
    found = []
    for number in range(runs[:, 3].max(initial=-1) + 1):
        column, start, stop, _ = runs[runs[:, 3] == number].T
        edges = np.stack([column * height + start, column * height + stop], axis=1)
        counts = np.diff(np.concatenate([[0], edges.ravel(), [height * width]]))
        box = [column.min(), start.min(), column.max() + 1 - column.min(), stop.max() - start.min()]
        found.append(
            {
                "bbox": [int(value) for value in box],
                "area": int((stop - start).sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": counts.tolist()},
            }
        )
    return sorted(found, key=lambda region: -region["area"])
