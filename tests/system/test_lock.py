"""One process at a time, with processes that end in every way."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from squad_lit.system.lock import hold, take

_HOLDER = """
import sys, pathlib
from squad_lit.system.lock import hold
with hold(pathlib.Path(sys.argv[1])):
    print(flush=True)
    input()
"""


@pytest.mark.parametrize("name", ["folder", "file.ckpt"])
def test_who_has_it_is_said_and_it_is_free_when_that_process_is_killed(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir() if name == "folder" else place.touch()
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(place)], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        kind = name.partition(".")[0]
        told = rf"{place} is in use by process {other.pid} \(-c\) on \S+ since 2\d{{3}}-\d\d-\d\d \d\d:\d\d:\d\d: "
        with pytest.raises(ValueError, match=rf"^{told}wait for its end, or choose another {kind}$"), hold(place):
            pass
        other.kill()
        other.wait()
        with hold(place):
            pass


def test_its_own_thread_may_take_it_again_and_no_other_one(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with hold(tmp_path):
                pass
        except ValueError as error:
            refused.append(str(error))

    with hold(tmp_path):
        with hold(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [re.sub(r".*is in use by process (\d+).*", r"\1", text) for text in refused] == [str(os.getpid())]
    with hold(tmp_path):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("what must stay")
    (tmp_path / "gpu.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"gpu\.lock"):
        take(tmp_path / "gpu.lock")
    assert (tmp_path / "mine").read_text() == "what must stay"
