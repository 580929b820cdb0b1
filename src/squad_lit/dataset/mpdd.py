"""MPDD: painted metal parts, in the layout of MVTec AD."""

from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import Sample


class MPDD(AnomalyDataModule):
    """MPDD: 6 kinds of metal parts in varying pose; 888 normal training, 176 normal and 282 anomalous test images.

    Reference:
        Jezek et al., "Deep learning-based defect detection of metal parts: evaluating current methods in complex
        conditions", ICUMT 2021.
    """

    name = "mpdd"
    COUNTS: ClassVar = {
        "bracket_black": (289, 32, 47),
        "bracket_brown": (185, 26, 51),
        "bracket_white": (110, 30, 30),
        "connector": (128, 30, 14),
        "metal_plate": (54, 26, 71),
        "tubes": (122, 32, 69),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/<category>/train/good/*.png
          ROOT/<category>/test/{good,<defect>}/*.png
          ROOT/<category>/ground_truth/<defect>/<stem>_mask.png
Get MPDD by the link in https://github.com/stepanje/MPDD and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """See :func:`scan_mvtec_layout`."""
        return scan_mvtec_layout(self.root, category)
