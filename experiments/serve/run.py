"""Images per second and the time of a request, with 1, 8 and 64 clients, against the model alone.

    python -m experiments.serve.run --checkpoint part.onnx --images DIR [--seconds 20]

The service is a process of its own, and the clients are threads of this one, which keep their connections and send one
image per request as soon as the last one was answered. The model alone decodes and judges the same files in this
process, one by one and in the batches of its runtime, before the service starts.
"""

from __future__ import annotations

import argparse
import http.client
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import squad_lit
from squad_lit.image.file import find_images, read_sent

CLIENTS = (1, 8, 64)
_WARM_UP = 3.0  # seconds before anything counts


def alone(checkpoint: Path, contents: list[bytes], seconds: float, batch: int) -> tuple[float, list[float]]:
    """Images per second and seconds per call of the model without a service, for batches of a size."""
    predictor = squad_lit.load(checkpoint)
    taken: list[float] = []
    started = time.perf_counter()
    number = 0
    while (now := time.perf_counter()) < started + _WARM_UP + seconds or not taken:
        part = [contents[(number + i) % len(contents)] for i in range(batch)]
        number += batch
        predictor.predict([read_sent(content, "image", most_pixels=10**9) for content in part])
        if now > started + _WARM_UP:
            taken.append(time.perf_counter() - now)
    return batch * len(taken) / sum(taken), taken


def load(address: str, contents: list[bytes], clients: int, seconds: float, query: str) -> tuple[float, list[float]]:
    """Images per second, and seconds per request, with so many clients at a time."""
    target = urlsplit(address)
    end = time.perf_counter() + _WARM_UP + seconds

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        taken: list[float] = []
        while (now := time.perf_counter()) < end:
            connection.request("POST", f"/predict{query}", contents[number % len(contents)])
            number += 1
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
            if end - seconds < (answered := time.perf_counter()) <= end:
                taken.append(answered - now)
        return taken

    with ThreadPoolExecutor(clients) as threads:
        joined = [one for part in threads.map(client, range(clients)) for one in part]
    return len(joined) / seconds, joined


def row(name: str, rate: float, taken: list[float]) -> str:
    """A line of the table."""
    p50, p99 = np.percentile(taken, [50, 99]) if taken else (math.nan, math.nan)
    return f"| {name} | {rate:.1f} | {1000 * p50:.0f} | {1000 * p99:.0f} |"


def main() -> None:
    """A table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    options = parser.parse_args()
    contents = [path.read_bytes() for path in find_images([options.images])[:40]]
    print(f"load of the machine before: {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores")
    print("| | images/s | p50, ms | p99, ms |\n|---|---|---|---|", flush=True)
    for batch in (1, squad_lit.load(options.checkpoint).runtime.batch):
        print(row(f"model alone, {batch} at a time", *alone(options.checkpoint, contents, options.seconds, batch)))
    command = [sys.executable, "-m", "squad_lit.serve", "--port", "0", "--checkpoint", str(options.checkpoint)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        address = next(line.split()[-1] for line in service.stdout if line.startswith("serving at "))
        for query, more in (("", ""), ("?overlay=true", ", with overlay")):
            for clients in CLIENTS:
                name = f"{clients} client{'s' * (clients > 1)}{more}"
                print(row(name, *load(address, contents, clients, options.seconds, query)), flush=True)
    finally:
        service.terminate()
        service.wait(30)


if __name__ == "__main__":
    main()
