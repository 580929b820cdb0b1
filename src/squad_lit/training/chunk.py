"""Images on their way to the backbone, some at a time, made in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import default_collate

from squad_lit.system.ahead import ahead

# Images that pass the backbone at once; on a CPU, more are slower, because they leave the caches.
_GPU_CHUNK, CPU_CHUNK = 16, 4
# Images that threads make in their turn on a CPU, at least.
_CPU_TURN = 16


def chunk_size(device: torch.device) -> int:
    """How many images pass the backbone at once on a device."""
    return CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK


def one_thread(worker: int = 0) -> threadpool_limits:
    """Leave NumPy one thread; more would wait busily for each other and for those of torch, at twice the time."""
    return threadpool_limits(1, "blas")


def chunks_ahead(make: Callable[[int], Any], total: int, device: torch.device) -> Iterator[Any]:
    """``make(0)`` to ``make(total - 1)``, in order, made in threads.

    Beside a GPU they are made while the caller is busy with those before. On a CPU the threads and the caller take
    turns, because threads of torch wait busily: sharing the cores costs a quarter more time.

    Returns:
        What was made, tensors or tuples of tensors, stacked by as many as pass the backbone at once on ``device``, and
        a last rest.
    """
    size = chunk_size(device)
    with one_thread(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        if device.type == "cpu":
            turn = max(_CPU_TURN, torch.get_num_threads())
            turns = (range(i, min(i + turn, total)) for i in range(0, total, turn))
            coming: Iterator[Any] = (made for turn in turns for made in list(threads.map(make, turn)))
        else:
            coming = ahead(threads, make, range(total), size)
        while chunk := list(islice(coming, size)):
            yield default_collate(chunk)
