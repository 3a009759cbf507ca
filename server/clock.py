"""The clock and the source of ids, so that everything else can be handed others."""

from __future__ import annotations

import secrets
import time


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def new_decision_id(time_us: int) -> str:
    """32 hexadecimal digits: the time in milliseconds, so that ids sort and index well, and 80 random bits."""
    return f"{time_us // 1000:012x}{secrets.token_hex(10)}"
