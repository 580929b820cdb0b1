"""Files for the evaluation server of MVTec AD 2: ``python -m squad_lit.submission --root DATA --output DIR RUN...``.

The server knows the truth of the private test images. It takes ``anomaly_images/CATEGORY/SPLIT/NAME.tiff`` (float16, at
the size of the image) and ``anomaly_images_thresholded/CATEGORY/SPLIT/NAME.png`` (0 and 255). The thresholds are those
of the models. The command exits with 0 on success and 1 on failure, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squad_lit.system.console import exit_status, say

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor

_LARGEST = 65504.0  # of float16


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m squad_lit.submission``; returns the exit status."""
    options = _parse(arguments)
    return exit_status(lambda: _run(options), interrupted="interrupted; the same command continues")


def _run(options: argparse.Namespace) -> int:
    # Imported late, so that a mistake in the options shows at once.
    import squad_lit
    from squad_lit.dataset.mvtec_ad2 import MVTecAD2
    from squad_lit.system.file import make_folder

    models: dict[str, tuple[Path, Predictor]] = {}
    for checkpoint in _checkpoints(options.runs):
        predictor = squad_lit.load(checkpoint, trust=options.trust, device=options.device)
        for category in predictor.runtime.metadata["categories"]:
            if category not in MVTecAD2.CATEGORIES:
                raise ValueError(f"{checkpoint} was trained on {category}, which is no category of MVTec AD 2")
            if category in models:
                raise ValueError(f"two models of {category}: {models[category][0]} and {checkpoint}; name one of them")
            models[category] = checkpoint, predictor
    make_folder(options.output)
    for category, (_, predictor) in models.items():
        made = sum(_write(predictor, *files) for files in _private(options.root, category, options.output))
        say(f"{category}: {made} images")
    missing = [category for category in MVTecAD2.CATEGORIES if category not in models]
    say(f"{options.output}" + (f" lacks {', '.join(missing)}: the server takes all categories" if missing else ""))
    return 0


def _checkpoints(runs: Sequence[Path]) -> list[Path]:
    """The checkpoints of runs and of all runs in sweeps."""
    found = [path for run in runs for path in ([run] if run.is_file() else sorted(run.rglob("last.ckpt")))]
    if not found:
        raise ValueError(f"no last.ckpt in {', '.join(map(str, runs))}: give checkpoints, or folders of runs or sweeps")
    return found


def _private(root: Path, category: str, output: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Each private test image of a category, and the files of its map and mask."""
    from squad_lit.dataset.image import list_images
    from squad_lit.dataset.mvtec_ad2 import PRIVATE

    for split in PRIVATE:
        images = list_images(root / category / split)
        if not images:
            raise ValueError(f"no images in {root / category / split}: --root is the folder of the categories")
        for image in images:
            name = Path(category, split, image.stem)
            yield (
                image,
                output / "anomaly_images" / name.with_suffix(".tiff"),
                output / "anomaly_images_thresholded" / name.with_suffix(".png"),
            )


def _write(predictor: Predictor, image: Path, map_file: Path, mask_file: Path) -> bool:
    """Write map and mask of an image unless they are there; the map comes last."""
    import numpy as np
    from tifffile import imwrite

    from squad_lit.system.file import whole, write_picture

    if map_file.is_file():
        return False
    result = predictor.predict(predictor.read(image))
    for file in (map_file, mask_file):
        os.makedirs(file.parent, exist_ok=True)
    write_picture(mask_file, result.mask.astype(np.uint8) * 255)
    with whole(map_file) as part:
        half = result.anomaly_map.clip(-_LARGEST, _LARGEST).astype(np.float16)
        imwrite(part, half, compression="zlib")
    return True


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="squad-lit submission", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of MVTec AD 2")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="cpu, cuda, cuda:1 (default: auto)")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_SWEEP", help="checkpoints, runs or sweeps")
    trust = "package whose classes the checkpoints may name; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=trust)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
