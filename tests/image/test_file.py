"""Pillow's limit of pixels: off for the files that squad_lit opens, and untouched for its host."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squad_lit.image.file import is_deep_colour, open_header, read_marked, read_pixels

LIMIT = 100


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image of more pixels than twice the limit, which Pillow refuses."""
    Image.fromarray(np.arange(400, dtype=np.uint16).astype(np.uint8).reshape(20, 20)).save(tmp_path / "large.png")
    return tmp_path / "large.png"


@pytest.fixture(autouse=True)
def limit(large: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(large)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_an_image_of_any_size_is_read_and_the_hosts_limit_stays(large: Path, tmp_path: Path) -> None:
    assert read_pixels(large).shape == (20, 20, 3)
    assert read_marked(large).sum() == 398  # 0 and 256
    assert not is_deep_colour(large)
    with open_header(large) as image:
        assert image.size == (20, 20)
        assert Image.MAX_IMAGE_PIXELS == LIMIT
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"broken\.png"):
        read_pixels(tmp_path / "broken.png")
    assert Image.MAX_IMAGE_PIXELS == LIMIT
    with pytest.raises(Image.DecompressionBombError):
        Image.open(large)


def test_threads_that_read_at_once_leave_the_limit_as_it_was(large: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        shapes = set(threads.map(lambda _: read_pixels(large).shape, range(400)))
    assert shapes == {(20, 20, 3)}
    assert Image.MAX_IMAGE_PIXELS == LIMIT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_forked_while_a_thread_reads_can_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, never, plain = threading.Event(), threading.Event(), Image.open

    def slow(path: Path) -> Image.Image:
        inside.set()
        never.wait(0.1)  # the main thread forks meanwhile
        return plain(path)

    def read() -> None:
        open_header(large).close()

    monkeypatch.setattr(Image, "open", slow)
    thread = threading.Thread(target=read)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if Image.MAX_IMAGE_PIXELS == LIMIT and open_header(large).size == (20, 20) else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_importing_changes_no_setting_of_pillow() -> None:
    code = "from PIL import Image; before = Image.MAX_IMAGE_PIXELS; import squad_lit.deploy.predictor; "
    code += "import squad_lit.predict; assert Image.MAX_IMAGE_PIXELS == before > 0"
    subprocess.run([sys.executable, "-c", code], check=True)
