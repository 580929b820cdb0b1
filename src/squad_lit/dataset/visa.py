"""VisA: 12 categories, with folders of its own and the split in a CSV file."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.sample import NORMAL, Sample


class VisA(AnomalyDataModule):
    """VisA, one-class split: 8,659 normal training images, 962 normal and 1,200 anomalous test images.

    ``split_csv/1cls.csv`` assigns the images to training and test. The kind of defect is the label in the category's
    ``image_anno.csv``, also if it names several, or ``anomaly`` if that file is missing. Masks hold class indices
    1, 2, ..., all of which are anomalous.

    Reference:
        Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation", ECCV
        2022.
    """

    name = "visa"
    COUNTS: ClassVar = {
        "candle": (900, 100, 100),
        "capsules": (542, 60, 100),
        "cashew": (450, 50, 100),
        "chewinggum": (453, 50, 100),
        "fryum": (450, 50, 100),
        "macaroni1": (900, 100, 100),
        "macaroni2": (900, 100, 100),
        "pcb1": (904, 100, 100),
        "pcb2": (901, 100, 100),
        "pcb3": (905, 101, 100),
        "pcb4": (904, 101, 100),
        "pipe_fryum": (450, 50, 100),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/split_csv/1cls.csv
          ROOT/<category>/Data/Images/{Normal,Anomaly}/*.JPG
          ROOT/<category>/Data/Masks/Anomaly/*.png
          ROOT/<category>/image_anno.csv
Get VisA by the link in https://github.com/amazon-science/spot-diff and unpack it.
Licence: CC BY 4.0."""

    def mask_folders(self, category: str) -> list[Path]:
        """The archive's folder of masks."""
        return [self.root / category / "Data" / "Masks"]

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category in the one-class split, sorted by label and file name."""
        split_file = self.root / "split_csv" / "1cls.csv"
        if not split_file.is_file():
            raise FileNotFoundError(f"{self.name}: no file {split_file}\n{self._help()}")
        kinds = self._kinds(category)
        samples: dict[str, list[Sample]] = {"train": [], "test": []}
        for line, row in _read(split_file, ("object", "split", "label", "image", "mask")):
            if row["object"] != category:
                continue
            split, label, image = row["split"], row["label"], self.root / row["image"]
            if (split, label) not in {("train", "normal"), ("test", "normal"), ("test", "anomaly")}:
                raise ValueError(
                    f"{split_file}, line {line}: split {split!r} with label {label!r}; expected train with normal, or "
                    f"test with normal or anomaly"
                )
            if self.strict and not image.is_file():
                raise FileNotFoundError(f"{split_file}, line {line}: no image {image}")
            if label == "normal":
                samples[split].append(Sample(image, category, NORMAL, 0))
                continue
            if not row["mask"]:
                raise ValueError(f"{split_file}, line {line}: an anomalous image without a mask")
            kind = kinds.get(row["image"], "anomaly")
            samples[split].append(Sample(image, category, kind, 1, self.root / row["mask"]))
        for found in samples.values():
            found.sort(key=lambda sample: (sample.label, sample.image_path))
        return samples["train"], samples["test"]

    def _kinds(self, category: str) -> dict[str, str]:
        """The kind of defect of each image, by its path in the CSV files; empty if the category has no such file."""
        path = self.root / category / "image_anno.csv"
        if not path.is_file():
            return {}
        return {row["image"]: row["label"] for _, row in _read(path, ("image", "label"))}


def _read(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers; values are stripped of spaces.

    Raises:
        ValueError: The header or a row lacks a column, or the file is not UTF-8 text.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file.read().splitlines())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error}); unpack it again from the archive") from error
        for row in reader:
            missing = [column for column in columns if row.get(column) is None]
            if missing:
                raise ValueError(
                    f"{path}, line {reader.line_num}: no column {', '.join(missing)}; columns are separated by commas"
                )
            yield reader.line_num, {column: row[column].strip() for column in columns}
