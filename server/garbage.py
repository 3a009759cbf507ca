"""Python's search for garbage, as a process wants it that serves for long."""

from __future__ import annotations

import gc

# Python's own are 700, 10 and 10.
_THRESHOLDS = (20_000, 10, 10)


def settle_memory() -> None:
    """What a process has when it starts stays: looking through it for garbage again and again stops all threads
    for a tenth of a second each time. What comes after that is looked through more rarely: little of it is in
    cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
