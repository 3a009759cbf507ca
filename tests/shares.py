"""The parts of the learned policy's distribution, one by one, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy import shares
from policy.policies import Outlook


def inverse_gap_weighting(scores: Sequence[float], gamma: float) -> list[float]:
    """What it gives each model."""
    found = np.empty(len(scores))
    shares.inverse_gap_weighting(np.array(scores), gamma, found)
    return [float(each) for each in found]


def limited(probabilities: Sequence[float], scores: Sequence[float], loss_max: float) -> list[float]:
    """The probabilities, kept to so much expected loss."""
    found = np.array(probabilities)
    shares.limit(np.array(scores), int(np.argmax(scores)), loss_max, found)
    return [float(each) for each in found]


def burn_in_of(outlook: Outlook) -> list[float]:
    """The burn-in's extra probabilities, zeros where there is nothing to try."""
    scores, costs, extra = _columns(outlook)
    first = int(np.argmax(scores))
    found = shares.burn_in(
        scores, costs, outlook.experience, _rules(outlook), first, outlook.money, outlook.unit_usd, extra
    )
    return _extra(found, extra)


def trials_of(outlook: Outlook) -> list[float]:
    """The extra probabilities of trials, zeros where there is nothing to try."""
    scores, costs, extra = _columns(outlook)
    best, money, unit_usd = float(scores.max()), outlook.money, outlook.unit_usd
    found = shares.trials(scores, costs, outlook.experience, _rules(outlook), best, money, unit_usd, extra)
    return _extra(found, extra)


def retrials_of(outlook: Outlook) -> list[float]:
    """The extra probabilities of retrials, zeros where there is nothing to try."""
    scores, costs, extra = _columns(outlook)
    best, unit_usd = float(scores.max()), outlook.unit_usd
    found = shares.retrials(scores, costs, outlook.experience, _rules(outlook), best, unit_usd, extra)
    return _extra(found, extra)


def _columns(outlook: Outlook) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array(outlook.scores), np.array(outlook.costs_usd), np.empty(len(outlook.ids))


def _rules(outlook: Outlook) -> tuple[float, float, float, float, float]:
    return shares.Rules.of(outlook.exploration, outlook.rewards_total, outlook.loss_max).numbers


def _extra(found: int, extra: np.ndarray) -> list[float]:
    return [float(each) for each in extra] if found else [0.0] * len(extra)
