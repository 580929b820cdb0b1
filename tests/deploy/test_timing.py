"""The stages of a prediction by a clock that only known steps advance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_predictor import Brightness

from squad_lit.deploy import timing
from squad_lit.deploy.predictor import Predictor
from squad_lit.deploy.runtime import Output

SIZE = (20, 30)


@pytest.mark.filterwarnings("ignore::UserWarning")  # two normal images support no rate
@pytest.mark.parametrize("tile", [None, {"side": 20, "overlap": 0.0}])
def test_each_stage_has_its_time(tile: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    class Model(Brightness):
        """Takes 20 ms for an image of its own size, or its tiles, and 5 ms more for another."""

        def run(self, image: np.ndarray) -> Output:
            now[0] += 0.02 if tile or image.shape[1:3] == SIZE else 0.025
            return super().run(image)

    class Known(Predictor):
        """Takes 3 ms to read an image, and 2 ms for its regions."""

        def read(self, path: str | Path) -> Any:
            now[0] += 0.003
            return super().read(path)

        def predict(self, image: Any) -> Any:
            now[0] += 0.002
            return super().predict(image)

    write, resize = timing.write, timing.resize_plane

    def slow_write(*arguments: Any) -> None:
        now[0] += 0.007
        write(*arguments)

    def slow_resize(*arguments: Any) -> Any:
        now[0] += 0.001
        return resize(*arguments)

    monkeypatch.setattr(timing, "write", slow_write)
    monkeypatch.setattr(timing, "resize_plane", slow_resize)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(file)
    found = timing.measure(Known(Model(SIZE, tile)), files)
    expected = {"decoding": 3, "resizing": 5, "model": 20, "regions": 2, "writing": 7}
    if tile:  # one pass per 8 tiles, resized by the predictor
        expected |= {"resizing": 1, "regions": 1}
    assert found == pytest.approx(expected)
    head, line = timing.table({"part.onnx": found}).splitlines()
    assert head.split() == ["ms", "per", "image", *timing.STAGES]
    assert line.split() == ["part.onnx", *(f"{expected[stage]:.1f}" for stage in timing.STAGES)]
