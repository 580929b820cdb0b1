"""Does ``squad-lit watch`` lose or repeat images over kills, and does its memory grow?

    python -m experiments.watch.run MODEL FOLDER [--count 10000] [--kills 20]

MODEL is an exported file. Textures of 128 x 128 pixels are put into FOLDER/in over and over, under new names, by a
rename. A server takes the lines. The process is killed (SIGKILL) at random moments and started again by the same
command. At the end each image must have one row, at least one line and at least one post.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

# Images that wait at most, so that they arrive about as fast as they are judged.
_WAITING = 200


class Receiver(BaseHTTPRequestHandler):
    """Counts the images of the lines that are posted."""

    posted: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        """Take a line."""
        Receiver.posted[json.loads(self.rfile.read(int(self.headers["Content-Length"])))["name"]] += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    inbox, lines = options.folder / "in", options.folder / "lines"
    inbox.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-m", "squad_lit.watch", str(inbox), "--checkpoint", str(options.model)]
    command += ["--output", str(options.folder / "out"), "--no-overlay"]
    command += ["--post", f"http://127.0.0.1:{server.server_port}"]

    def start() -> subprocess.Popen[bytes]:
        with lines.open("ab") as out:
            return subprocess.Popen(command, stdout=out)

    chance = random.Random(0)
    kills = sorted(chance.sample(range(options.count), options.kills))
    pool = [texture(seed) for seed in range(50)]
    process, started, memory = start(), time.monotonic(), dict[int, float]()
    for number in range(options.count):
        part = inbox / f"{number:06}.part"
        part.write_bytes(pool[number % len(pool)])
        part.rename(inbox / f"{number:06}.png")
        while number + 1 - len(Receiver.posted) > _WAITING:
            time.sleep(0.05)
        if kills and number >= kills[0]:
            kills.pop(0)
            time.sleep(chance.random())
            process.kill()
            process.wait()
            process = start()
        if (number + 1) % (options.count // 10) == 0:
            memory[number + 1] = resident(process.pid)
    while len(Receiver.posted) < options.count:
        time.sleep(0.1)
    seconds = time.monotonic() - started
    process.terminate()
    status = process.wait()
    with (options.folder / "out" / "predictions.csv").open(newline="") as file:
        rows = Counter(row["name"] for row in csv.DictReader(file))
    told = [json.loads(text) for text in lines.read_text().splitlines()]
    names = {f"{number:06}.png" for number in range(options.count)}
    rate = options.count / seconds
    print(f"{options.count:,} images, {options.kills} kills, {rate:.1f} images per second, exit status {status}")
    print(f"rows:  {len(names - rows.keys())} lost, {sum(rows.values()) - len(rows)} repeated")
    seen = Counter(line["name"] for line in told)
    ids = len({line["id"] for line in told})
    print(f"lines: {len(names - seen.keys())} lost, {len(told) - len(seen)} repeated, {ids:,} numbers")
    posted = Receiver.posted
    print(f"posts: {len(names - posted.keys())} lost, {sum(posted.values()) - len(posted)} repeated")
    print("memory: " + ", ".join(f"{mb:.0f} MB after {count:,}" for count, mb in memory.items()))


def texture(seed: int) -> bytes:
    """The content of a file with an image."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC).convert("RGB").save(content, "PNG")
    return content.getvalue()


def resident(pid: int) -> float:
    """Memory of a process in MB, as Linux counts it."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
