"""The names that policies have, for who has to know no more of them: to load a policy is to compile it."""

from __future__ import annotations

from policy.domain import InvalidFieldError, require_model_id

NAMED = ("learned", "greedy", "uniform", "cheapest", "dearest")
_FIXED = "fixed:"


def fixed_model(name: str) -> str | None:
    """The model that a policy of this name always calls, None if it is another. Raises InvalidFieldError."""
    if not name.startswith(_FIXED):
        return None
    require_model_id("policy", name.removeprefix(_FIXED))
    return name.removeprefix(_FIXED)


def require_policy(name: str) -> None:
    """Raises InvalidFieldError unless there is a policy of this name."""
    if fixed_model(name) is None and name not in NAMED:
        raise InvalidFieldError(
            "policy",
            f"must be one of {', '.join(NAMED)} or fixed:MODEL, not {name[:80]!r}",
        )
