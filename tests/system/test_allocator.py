"""Freed memory is kept: seen in the page faults of a process of its own, because the setting stays."""

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
import numpy as np
from squad_lit.system.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(77)
def use():
    for _ in range(50):
        several = [np.ones(2**18) for _ in range(4)]  # 2 MiB each
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("not glibc: its setting does not exist")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_pages_are_not_asked_for_again():
    kept = faults("kept")
    assert kept < 100
    assert faults("as it is") > 10 * kept
