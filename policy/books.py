"""The books of exploration: what it has cost against always taking the best known, and what it still may."""

from __future__ import annotations

from dataclasses import dataclass

from policy.choices import Candidate, Choice
from policy.quick import quick

_CREDIT_DECISIONS = 500.0
_SPREAD_DECISIONS = 50.0


@quick
@dataclass(frozen=True, slots=True)
class Explored:
    """The decisions whose draw was not the best known, and what they gave up, as predicted when they were made.

    `quality` is in the unit of the reward, `cost_usd` in USD, both against the model of the best score, and
    so either may be below 0: a draw is cheaper and worse, or dearer and better, or both for the worse.
    In shadow mode it is not the best known that they are held against but the incumbent.
    `utility` is the difference of the scores, which is what the draw was weighed by, and never below 0.
    """

    decisions: int = 0
    utility: float = 0.0
    quality: float = 0.0
    cost_usd: float = 0.0

    def plus(self, other: Explored) -> Explored:
        """The books with those in them."""
        return Explored(
            self.decisions + other.decisions,
            self.utility + other.utility,
            self.quality + other.quality,
            self.cost_usd + other.cost_usd,
        )


def gives_up(choice: Choice) -> Explored | None:
    """The books of this decision alone; None if its draw was the best known."""
    if choice.probability >= 1.0:
        return None
    best, drawn = _baseline(choice), choice.chosen
    if drawn.score >= best.score:
        return None
    return Explored(1, best.score - drawn.score, best.quality - drawn.quality, drawn.cost_usd - best.cost_usd)


def expected_loss(choice: Choice) -> float:
    """The utility that the draw gives up on average against the best known; 0 where nothing was drawn.

    In shadow mode against the incumbent, and nothing where the draw is the better: see
    `policy.shadow.affordable_share`.
    """
    if choice.probability >= 1.0:
        return 0.0
    best, loss = _baseline(choice).score, 0.0
    for each in choice.candidates:
        if each.probability and each.score < best:
            loss += each.probability * (best - each.score)
    return loss


def _baseline(choice: Choice) -> Candidate:
    """What would be called without exploring: the best known, or in shadow mode the incumbent."""
    if choice.shadow is not None:
        incumbent = choice.shadow.incumbent_model
        return next(each for each in choice.candidates if each.model == incumbent)
    best = None
    for each in choice.candidates:
        if each.exclusion is None and (best is None or each.score > best.score):
            best = each
    return best or choice.candidates[0]  # There always is one: what was drawn is not excluded.


def owed_after(owed: float, loss: float, loss_max: float) -> float:
    """What a router owes once a decision has given up `loss`, where it may give up `loss_max` on average."""
    return max(0.0, owed + loss - loss_max)


def loss_limit(owed: float, loss_max: float) -> float:
    """The most utility that a decision's exploration may give up on average, when this much is owed.

    A credit of 500 decisions' worth, since a new model costs most while nothing is known of it, and of it a
    fiftieth a decision, since many decisions may be under way before the books know of the first. So any
    `n` decisions in a row give up at most `(n + 500) * loss_max` in expectation, and in the long run
    `loss_max` each.
    """
    return max(0.0, _CREDIT_DECISIONS * loss_max - owed) / _SPREAD_DECISIONS
