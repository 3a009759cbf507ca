"""Pages of lists on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from policy.domain import InvalidFieldError

PAGE_DEFAULT = 100
PAGE_MAX = 1000

Item = TypeVar("Item")


def page_size(given: int) -> int:
    """How many items a page may have. Raises InvalidFieldError."""
    if not 0 <= given <= PAGE_MAX:
        raise InvalidFieldError("page_size", f"must be 0 to {PAGE_MAX}, not {given}")
    return given or PAGE_DEFAULT


def page_of(items: Sequence[Item], keys: Sequence[str], size: int, token: str) -> tuple[list[Item], str]:
    """A page of the items, which are sorted by their keys; the token is the last key of the page before.

    Gives also the token of the next page, empty if there is none. Raises InvalidFieldError.
    """
    size = page_size(size)
    if len(token) > 256:
        raise InvalidFieldError("page_token", "must be the next_page_token of the page before")
    start = sum(key <= token for key in keys) if token else 0
    end = start + size
    return list(items[start:end]), keys[end - 1] if end < len(items) else ""
