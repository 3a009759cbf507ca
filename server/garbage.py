"""Python's search for garbage, as a process wants it that serves for long."""

from __future__ import annotations

import gc

# Python's own are 700, 10 and 10. A look takes a third of a microsecond for each new object, and all threads stand
# still for it: half a millisecond with these, and three every eleventh time. Ten times as many objects at a time
# would not be less work, and nobody would be answered for 6 and for 55 ms.
_NEW, _MIDDLE = 2_000, 10
# All that is alive is looked through as rarely as it was with ten times as many new ones.
_OLD = 100


def settle_memory(old: int = _OLD) -> None:
    """What a process has when it starts stays: looking through it for garbage again and again stops all threads
    for a tenth of a second each time. What comes after that is looked through more rarely: little of it is in
    cycles. `old` is how many looks at what is no longer new come before one at all that is alive.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, _MIDDLE, old)
