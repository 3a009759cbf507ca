"""Memory as a process wants it that serves for long: when garbage is searched for, and what is given back."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

# Python's own are 700, 10 and 10. A look takes a third of a microsecond for each new object, and all threads stand
# still for it: half a millisecond with these, and three every eleventh time. Ten times as many objects at a time
# would not be less work, and nobody would be answered for 6 and for 55 ms.
_NEW, _MIDDLE = 2_000, 10
# All that is alive is looked through as rarely as it was with ten times as many new ones.
_OLD = 100
# Of glibc's mallopt.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 256 * 1024
_ARENAS = 2


def settle_memory(old: int = _OLD) -> None:
    """What a process has when it starts stays: looking through it for garbage again and again stops all threads
    for a tenth of a second each time. What comes after that is looked through more rarely: little of it is in
    cycles. `old` is how many looks at what is no longer new come before one at all that is alive.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, _MIDDLE, old)


def give_back_memory() -> None:
    """Has glibc give large pieces of memory back as soon as they are free; other libraries are left as they are.

    By itself it soon keeps pieces of megabytes, as snapshots and states are, among small ones that stay, and so
    for each of a dozen threads: a server that saved, exported and restored snapshots all the time had 110 MB in
    use and 240 MB free, and ever more. To be called before there are threads.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
