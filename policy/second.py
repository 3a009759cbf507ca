"""Second calls: in a small share of the decisions another model is called as well, so that two are compared on the
same query. Who is called is drawn by known probabilities, apart from the decision's own draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from policy.choices import Candidate, Choice, Query, Second
from policy.circuit import Phase
from policy.domain import Router
from policy.exploration import picked
from policy.view import PolicyView


def offered(
    view: PolicyView, router: Router, query: Query, choice: Choice, decision_id: str, now_us: int
) -> Second | None:
    """The offer of a second call that this choice comes with, by the router's setting; None without one.

    Any other model alike may be called that could have been chosen, is known to work and whose cost is known: else
    it could not be kept within the cap. Decisions in which nothing is drawn have no second call: those of a
    session that keeps its model, where another model's cache would be cold, and those that want no exploration.

    Whether there is an offer, and what it may cost, does not depend on which model was chosen: else decisions that
    offer one would not be like the others. So there is one even where the chosen model is the only one possible.
    """
    setting = router.spec.paid_shadow
    if not setting.share or choice.sticky or query.preference.exploit_only:
        return None
    aligned = view.aligned(router)
    columns = zip(choice.candidates, aligned.circuits, aligned.costs.known, strict=True)
    possible = [
        known and circuit.phase(now_us) is Phase.CLOSED and _may_be_called(each, setting.models)
        for each, circuit, known in columns
    ]
    if not any(possible):
        return None
    pool = _pool(choice, possible)
    costs = [each.cost_usd for each, may in zip(choice.candidates, possible, strict=True) if may]
    index = drawn_second(decision_id, setting.share, pool)
    return Second(setting.share, pool, max(costs), "" if index is None else choice.candidates[index].model)


def _may_be_called(candidate: Candidate, models: Sequence[str]) -> bool:
    return candidate.exclusion is None and (not models or candidate.model in models)


def _pool(choice: Choice, possible: Sequence[bool]) -> tuple[float, ...]:
    chosen = [each.model == choice.model for each in choice.candidates]
    others = [may and not own for may, own in zip(possible, chosen, strict=True)]
    pool = others if any(others) else chosen
    return tuple([each / sum(pool) for each in pool])


def drawn_second(decision_id: str, share: float, pool: Sequence[float]) -> int | None:
    """The index of the model that is called second in this decision; None where none is.

    Another hash than the decision's draws, so that it is independent of what was chosen.
    """
    digest = blake2b(decision_id.encode(), digest_size=8, person=b"pointsman.second").digest()
    unit = (int.from_bytes(digest, "big") >> 11) * 2.0**-53
    # Below the share it is uniform there.
    return picked(unit / share, pool) if unit < share else None
