"""Images per second and the time of a request, with 1, 8 and 64 clients, against the model alone.

    python -m experiments.serve.run --checkpoint part.onnx --images DIR [--seconds 20]

The service is a process of its own, and the clients are threads of this one, which keep their connections and send one
image per request as soon as the last one was answered. The model alone decodes and judges the same files in this
process, one by one and in the batches of its runtime, before the service starts.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

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
    while (now := time.perf_counter()) < started + _WARM_UP + seconds:
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
    taken: list[list[float]] = [[] for _ in range(clients)]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        while (now := time.perf_counter()) < end:
            connection.request("POST", f"/predict{query}", contents[(number + len(taken[number])) % len(contents)])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
            if now > end - seconds:
                taken[number].append(time.perf_counter() - now)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    joined = [one for part in taken for one in part]
    return len(joined) / seconds, joined


def row(name: str, rate: float, taken: list[float]) -> str:
    """A line of the table."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return f"| {name} | {rate:.1f} | {1000 * cuts[49]:.0f} | {1000 * cuts[98]:.0f} |"


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
