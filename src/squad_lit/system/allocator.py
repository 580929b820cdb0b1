"""Keep freed memory for the next image, whose tensors have the same sizes."""

from __future__ import annotations

import ctypes
import sys

# Names in glibc's malloc.h: the size from which memory comes from the system, and how much may stay idle.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
_IDLE = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory for the next tensor.

    By default glibc returns the memory of large tensors to the system and pays for each page again at the next image,
    which is a third of the time of a prediction on a CPU. Keeping it does not raise the peak
    (``experiments/inference``). The setting belongs to the whole process, so the commands and the torch runtime make
    it, and ``import squad_lit`` does not.

    Returns:
        Whether it was done; other systems and C libraries have no such setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and set_option(_M_TRIM_THRESHOLD, _IDLE))
