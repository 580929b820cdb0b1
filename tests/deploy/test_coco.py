"""COCO's JSON, read back by COCO's own tools and compared with another library's regions."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from squad_lit.deploy.coco import document
from squad_lit.system.file import write_json, write_picture

pytest.importorskip("pycocotools", reason="reads the file")
from pycocotools.coco import COCO

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools and NumPy 2


def test_the_regions_are_those_of_another_library(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = {"a.png": rng.random((30, 41)) < 0.2, "b/a.png": np.zeros((9, 7), bool), "c.png": np.ones((5, 8), bool)}
    masks["d.png"] = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)
    for name, mask in masks.items():
        path = tmp_path / "mask" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, mask.astype(np.uint8) * 255)
    rows = [{"name": name, "anomaly_score": "1.5", "label": str(int(mask.any()))} for name, mask in masks.items()]
    write_json(tmp_path / "regions.json", document(tmp_path, rows), indent=None)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "regions.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(masks)
    for image in coco.loadImgs(coco.getImgIds()):
        mask = masks[image["file_name"]]
        assert (image["height"], image["width"]) == mask.shape
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(found) == count
        assert [a["area"] for a in found] == sorted(np.bincount(labelled.ravel())[1:], reverse=True)
        for annotation in found:
            region = coco.annToMask(annotation).astype(bool)
            assert region.sum() == annotation["area"]
            number = labelled[region][0]
            np.testing.assert_array_equal(region, labelled == number)
            rows_, columns = ndimage.find_objects(labelled)[number - 1]
            box = [columns.start, rows_.start, columns.stop - columns.start, rows_.stop - rows_.start]
            assert annotation["bbox"] == box
    with (tmp_path / "regions.json").open() as file:
        assert json.load(file)["categories"] == [{"id": 1, "name": "anomaly", "supercategory": ""}]
