"""Real-IAD: 30 categories in five views, whose split is in a JSON file per category."""

import json
from pathlib import Path
from typing import Any, Literal

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.sample import NORMAL, Sample
from squad_lit.system.option import checked

_OK = "OK"  # the authors' word for normal


class RealIAD(AnomalyDataModule):
    """Real-IAD, one-class split: 36,465 normal training, and 63,256 normal and 51,329 anomalous test images.

    The kinds of defect are the authors' codes: ``AK`` pit, ``BX`` deformation, ``CH`` abrasion, ``HS`` scratch, ``PS``
    damage, ``QS`` missing part, ``YW`` foreign object, ``ZW`` contamination. The views of a product are images of one
    category.

    Args:
        resolution: Which of the authors' sizes is read: the longer side in pixels, or ``raw``.
        split: Folder of the JSON files in ``realiad_jsons``: ``realiad_jsons``, or ``realiad_jsons_sv`` for the view
            from above alone.
        options: The other arguments of :class:`AnomalyDataModule`.

    Reference:
        Wang et al., "Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly
        Detection", CVPR 2024.
    """

    name = "real_iad"
    CATEGORIES = (
        *("audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts", "pcb"),
        *("phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll", "regulator", "rolled_strip_base"),
        *("sim_card_set", "switch", "tape", "terminalblock", "toothbrush", "toy", "toy_brick", "transistor1"),
        *("u_block", "usb", "usb_adaptor", "vcpill", "wooden_beads", "woodstick", "zipper"),
    )
    HELP = """\
Expected: ROOT/realiad_jsons/realiad_jsons/<category>.json (or ROOT/realiad_jsons/<category>.json)
          ROOT/realiad_1024/<category>/{OK,NG}/... (dataset.resolution=1024)
Get Real-IAD by the form in https://realiad4ad.github.io/Real-IAD and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    @checked
    def __init__(self, *, resolution: Literal[256, 512, 1024, "raw"], split: str, **options: Any) -> None:
        self.resolution, self.split = resolution, split
        super().__init__(**options)

    def folder_of(self, category: str) -> Path:
        """The category's folder in that of the resolution; the raw images lie in the root."""
        return self.root / ("" if self.resolution == "raw" else f"realiad_{self.resolution}") / category

    def mask_folders(self, category: str) -> list[Path]:
        """None, because masks lie beside the images."""
        return []

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category in the order of the JSON file."""
        path = self._file(category)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            train, test = ([self._sample(category, row) for row in content[part]] for part in ("train", "test"))
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{path}: expected train and test, lists of entries with image_path, mask_path and anomaly_class; "
                f"unpack it again from the archive ({error!r})"
            ) from error
        if bad := [sample.image_path for sample in train if sample.label]:
            raise ValueError(f"{path}: {len(bad)} training images are anomalous, such as {bad[0]}")
        if self.strict and (gone := [s.image_path for s in (*train, *test) if not s.image_path.is_file()]):
            raise FileNotFoundError(f"{path}: {len(gone)} images are missing, such as {gone[0]}")
        return train, test

    def _file(self, category: str) -> Path:
        folder = self.root / "realiad_jsons"
        places = [folder / self.split / f"{category}.json", folder / f"{category}.json"]
        if found := next((place for place in places if place.is_file()), None):
            return found
        raise FileNotFoundError(f"{self.name}: no file {places[0]}\n{self._help()}")

    def _sample(self, category: str, row: Any) -> Sample:
        folder, kind = self.folder_of(category), row["anomaly_class"]
        if kind == _OK:
            return Sample(folder / row["image_path"], category, NORMAL, 0)
        mask = folder / row["mask_path"] if row["mask_path"] else None
        return Sample(folder / row["image_path"], category, kind, 1, mask)
