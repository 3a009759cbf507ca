"""A server gives back what memory it no longer needs."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

HELD = """
from server.garbage import give_back_memory

MB = 1 << 20

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

asked = __ASKED__
if asked:
    give_back_memory()
# What is large comes and goes, among what is small and stays.
small, before = [], resident()
for size in range(1, 40):
    large = [bytes([1]) * (size * MB // 16) for _ in range(16)]
    small.append([bytes([1]) * 2000 for _ in range(100)])
    del large
large = []
for _ in range(150):
    large.append(bytes([1]) * MB)
    small.append(bytes([1]) * 2000)
del large
print(resident() - before)
"""


def held_bytes(asked: bool) -> int:
    """What a process still has of the 150 MB that it has freed."""
    code = HELD.replace("__ASKED__", str(asked))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="takes glibc's mallopt")
def test_large_pieces_are_given_back_though_small_ones_between_them_stay() -> None:
    assert held_bytes(asked=True) < 20 << 20
    assert held_bytes(asked=False) > 100 << 20
