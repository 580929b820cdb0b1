"""What several test files share."""

import os
import shlex
import struct
import sys
import time
import zlib

# Before torch is imported: OpenMP threads that spin beside other processes on a small machine cost minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Takes back what a test, or a library in it, left in the environment, which the next one's processes inherit.

    W&B leaves the address of its service there, and Lightning the port and the rank of a process group.
    """
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the benchmarks: SQUAD_LIT_DATA, else shared/data beside the repository."""
    root = Path(os.environ.get("SQUAD_LIT_DATA") or ROOT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no benchmark data at {root}; set SQUAD_LIT_DATA to the folder that holds mvtec, visa, ...")
    return root


@pytest.fixture(scope="session")
def draw_texture() -> Callable[..., NDArray[np.float32]]:
    """Draws a smooth random texture of a seed that fills the frame: ``(H, W, 3)`` float32 in [0, 1]."""

    def draw(seed: int, height: int = 64, width: int | None = None) -> NDArray[np.float32]:
        noise = np.random.default_rng(seed).normal(size=(height, width or height, 3))
        smooth = ndimage.gaussian_filter(noise, (1.5, 1.5, 0), mode="wrap")
        return np.clip(0.5 + 0.2 * smooth / smooth.std(), 0, 1).astype(np.float32)

    return draw


@pytest.fixture(scope="session")
def header_of_png() -> Callable[[Path, int, int], Path]:
    """Writes a PNG whose header has this width and height, and whose pixels are missing (RFC 2083)."""

    def write(path: Path, width: int, height: int) -> Path:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        with path.open("wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
                file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
        return path

    return write


@pytest.fixture(scope="session")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two MVTec categories of 64 px: grey noise, defects are bright squares."""
    root = tmp_path_factory.mktemp("mvtec")
    rng = np.random.default_rng(0)
    for category in ("bottle", "screw"):
        for folder, count in (("train/good", 8), ("test/good", 2), ("test/broken", 3)):
            (root / category / folder).mkdir(parents=True)
            for i in range(count):
                image = rng.normal(120, 12, (64, 64, 3)).clip(0, 255).astype(np.uint8)
                mask = np.zeros((64, 64), np.uint8)
                if "broken" in folder:
                    mask[8 * i : 8 * i + 16, 20:40] = 255
                    image[mask > 0] = 250
                    truth = root / category / "ground_truth" / "broken"
                    truth.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth / f"{i:03}_mask.png")
                Image.fromarray(image).save(root / category / folder / f"{i:03}.png")
    return root


@pytest.fixture(scope="session")
def read_wandb() -> Callable[[Path], list[Any]]:
    """Reads the records of W&B's file: after 7 bytes, blocks of 32 KiB of chunks: CRC, length, kind, content.

    W&B's service may write the last ones after the run was finished, so the record of its exit is waited for.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    def read(file: Path) -> list[Any]:
        content, at, record, records = file.read_bytes(), 7, b"", []
        while at + 7 <= len(content):
            if (left := 2**15 - at % 2**15) < 7:
                at += left
                continue
            _, length, kind = struct.unpack("<IHB", content[at : at + 7])
            record += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                records.append(Record.FromString(record))
                record = b""
        return records

    def read_whole(file: Path) -> list[Any]:
        deadline = time.monotonic() + 30
        while True:
            records = read(file)
            if any(r.HasField("exit") for r in records) or time.monotonic() > deadline:
                return records
            time.sleep(0.1)

    return read_whole


# Stands for a training: writes its options as figures into its folder, or ends as "end" says.
_FAKE = """
import json, os, pathlib, signal, sys, time
given = dict(text.lstrip("+").split("=", 1) for text in sys.argv[1:] if "=" in text)
folder = pathlib.Path(given["hydra.run.dir"][1:-1].replace(chr(92) + "'", "'"))
end = given.get("end") or given.get("trust", "").strip("[]") or given.get("dataset.category", "")
end = os.path.expandvars(end.replace("oc.env:", ""))
if end == "error":
    (folder / "error.txt").write_text("no folder for category cable")
    sys.exit(1)
if end == "silent":
    sys.exit(3)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "deaf":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    (folder / "ready").touch()
    time.sleep(60)
if end == "sleep":
    def stop(number, frame):
        with (folder / "signals").open("a") as file:
            file.write(f"{number} ")
        time.sleep(0.3)
        (folder / "stopped").touch()
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    (folder / "ready").touch()
    time.sleep(60)
print("trained")
names = {"gpu": "CUDA_VISIBLE_DEVICES", "slurm": "SLURM_JOB_NAME", "rank": "SLURM_PROCID", "threads": "OMP_NUM_THREADS"}
names |= {"address": "MASTER_ADDR", "port": "MASTER_PORT", "node": "NODE_RANK"}
known = {"run": {}} | {key: os.environ.get(name) for key, name in names.items()}
rate = float(given.get("model.optimizer.lr", 0.5))
known["ignores_usr2"] = signal.getsignal(getattr(signal, "SIGUSR2", signal.SIGTERM)) == signal.SIG_IGN
known["synthetic_ap"] = None if rate > 0.9 else rate
(folder / "metrics.json").write_text(json.dumps(given | known))
"""


@pytest.fixture
def fake_training(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs start a script that ends in a moment, in the place of a training."""
    script = tmp_path_factory.mktemp("fake") / "train.py"
    script.write_text(_FAKE)
    monkeypatch.setenv("SQUAD_LIT_TRAIN", shlex.join([sys.executable, "-S", str(script)]))
