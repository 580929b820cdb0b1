"""A few of the trials of experiments/reliability, which has thousands: what nobody should do, and what comes of it."""

import importlib
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from experiments.reliability.bad_image import BAD, GOOD, make
from experiments.reliability.command import Skipped
from hypothesis import given, settings
from hypothesis import strategies as st

from squad_lit.image.file import read_pixels
from squad_lit.image.intact import check_image


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged files
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_an_image_is_read_or_refused_in_a_sentence_that_names_it(seed: int) -> None:
    """The seed of a file that fails is printed: ``make(folder, random.Random(seed), 12)`` writes it."""
    with tempfile.TemporaryDirectory() as place:
        for path, expected in make(Path(place) / "files", random.Random(seed), 12).items():
            error = checked = ""
            try:
                check_image(path)
            except (OSError, ValueError) as caught:
                checked = str(caught)
            try:
                pixels = read_pixels(path)
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3
                assert pixels.dtype in (np.uint8, np.float32)
                assert np.isfinite(pixels).all()
            except (OSError, ValueError) as caught:
                error = str(caught)
                assert path.name in error
            assert not (error and expected == GOOD), error
            assert error or expected != BAD, path
            assert error or not checked, f"only the check refuses it: {checked}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [("image", 24), ("hostile", 7), ("disk", 2), ("concurrent", 3), ("soak", 200), ("kill", 3)]
)
def test_no_trial_has_a_fault(tmp_path: Path, kind: str, count: int) -> None:
    seed = f"{kind} 0"
    print(f"random.Random({seed!r})")
    try:
        made = list(
            importlib.import_module(f"experiments.reliability.{kind}").trials(tmp_path, random.Random(seed), count)
        )
    except Skipped as reason:
        pytest.skip(str(reason))
    assert made
    assert [trial for trial in made if trial[1]] == []
