"""How the C library keeps memory: the tensors of one image are of the sizes of those of the one before."""

from __future__ import annotations

import ctypes
import sys

# glibc's names in malloc.h: from what size on memory is asked of the system, and how much may lie idle at the top.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # more is refused
_IDLE = 2**30


def keep_freed_memory() -> bool:
    """Have freed memory kept for the next tensor, up to 1 GiB of it.

    By default glibc gives the memory of large tensors back to the system when they are freed, and pays for each page
    again at the next image: a third of the time of a prediction on a CPU. It costs no memory at the peak
    (``experiments/inference``). It is a setting of the process, so that commands and the torch runtime make it, and
    ``import squad_lit`` does not.

    Returns:
        Whether it was done: on other systems and C libraries nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and set_option(_M_TRIM_THRESHOLD, _IDLE))
