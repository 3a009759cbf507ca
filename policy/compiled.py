"""Compiles the loops that are run for every decision or reward to machine code, with Numba.

NumPy takes about a microsecond for each operation, however small the arrays; what is made of dozens of them for
a handful of models costs more by that than by what it computes. What is compiled is kept in files beside the
module, or where NUMBA_CACHE_DIR says; where those cannot be written, each process compiles it again, and damaged
ones are made anew by the first process that meets them.
Compiled code keeps the interpreter: one that gave it up would wait for it again, and for longer than the few
microseconds that it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(signature: str, *, sums_in_any_order: bool = False) -> Callable[[Function], Function]:
    """Makes the decorator that compiles a function for arguments of these types, when its module is imported.

    `sums_in_any_order` lets a sum be added up in several parts at once, which is faster, and not to the same bits
    as one by one; it is always to the same bits on one kind of processor.

    What is kept is compiled anew when the file of the function has changed, and only then: constants of another
    module have to be arguments.
    """

    def compile_now(function: Function) -> Function:
        def made(*, cache: bool) -> Function:
            compile_for = numba.njit(signature, cache=cache, **_options(sums_in_any_order))
            return cast("Function", compile_for(function))

        try:
            return made(cache=True)
        except OSError:  # A folder that may not be written, a disk that is full.
            return made(cache=False)
        except Exception:  # A file that was cut off: what reads it fails in any way. Or there is no folder at all.
            with suppress(Exception):
                FunctionCache(function).flush()  # type: ignore[no-untyped-call]
                return made(cache=True)
            return made(cache=False)

    return compile_now


def part_of_compiled(*, sums_in_any_order: bool = False) -> Callable[[Function], Function]:
    """Compiles a function as part of the compiled ones of its module that call it, and not by itself.

    Its sums are added up as it says, whatever those that call it say.
    """
    return cast("Callable[[Function], Function]", numba.njit(**_options(sums_in_any_order)))


def _options(sums_in_any_order: bool) -> dict[str, Any]:
    return {
        "fastmath": {"reassoc", "contract", "nsz"} if sums_in_any_order else False,
        "error_model": "numpy",
    }
