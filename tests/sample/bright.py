"""A model without a training: the score of an image is its brightness. Run as a program, it is ``squad-lit watch``."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import squad_lit
from squad_lit.deploy.runtime import Output

ABOUT: dict[str, Any] = {
    "squad_lit": "test",
    "image_size": [16, 16],
    "tile": None,
    "top": 1.0,
    "intensity_range": None,
    "false_alarm_rate": 0.01,
    "normal_scores": [float(score) for score in range(100)],
    "normal_maxima": [float(score) for score in range(100)],
    "defective_scores": [],
    "roi": "",
    "chosen_threshold": None,
    "input": {"type": "uint8"},
}


class Bright:
    """Maps of the brightness, 0 to 254, times what the file of the model says; 255 has no score."""

    device, batch = "the CPU", 4

    def __init__(self, factor: float, pause: float = 0) -> None:
        self.metadata, self._factor, self._pause = ABOUT, factor, pause

    def run(self, image: NDArray[Any]) -> Output:
        time.sleep(self._pause)
        maps = self._factor * image.mean(axis=3, dtype=np.float32)
        maps[maps == 255] = np.nan
        return Output(maps, maps.mean(axis=(1, 2)), maps)


def load(path: Path, **options: Any) -> squad_lit.Predictor:
    """Stands for what the command loads its model by; the file has the factor."""
    return squad_lit.Predictor(Bright(float(Path(path).read_text()), float(os.environ.get("PAUSE", 0))))


if __name__ == "__main__":
    from squad_lit.deploy import model_option
    from squad_lit.watch import main

    model_option.load_model = load
    sys.exit(main())
