"""The parts of the learned policy's distribution, one by one, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy import shares
from policy.domain import FloatArray
from policy.policies import Outlook


def inverse_gap_weighting(scores: Sequence[float], gamma: float) -> list[float]:
    """What it gives each model."""
    column = np.array([scores]).T
    best, first, found = np.empty(1), np.empty(1, np.int64), np.empty_like(column)
    shares.inverse_gap_weighting(column, gamma, best, first, found)
    return [float(each) for each in found[:, 0]]


def limited(probabilities: Sequence[float], scores: Sequence[float], loss_max: float) -> list[float]:
    """The probabilities, kept to so much expected loss."""
    column, found = np.array([scores]).T, np.array([probabilities]).T
    shares.limit(column, column.max(axis=0), column.argmax(axis=0), loss_max, found)
    return [float(each) for each in found[:, 0]]


def burn_in_of(outlook: Outlook) -> list[float]:
    """The burn-in's extra probabilities."""
    scores, costs, extra = _columns(outlook)
    known, rules = outlook.experience, outlook.rules.numbers
    best, first = scores.max(axis=0), scores.argmax(axis=0)
    shares.burn_in(scores, costs, known, rules, best, first, outlook.money, outlook.unit_usd, extra)
    return [float(each) for each in extra[:, 0]]


def trials_of(outlook: Outlook) -> list[float]:
    """The extra probabilities of trials."""
    scores, costs, extra = _columns(outlook)
    known, rules = outlook.experience, outlook.rules.numbers
    best = scores.max(axis=0)
    shares.trials(scores, costs, known, rules, best, outlook.money, outlook.unit_usd, extra)
    return [float(each) for each in extra[:, 0]]


def retrials_of(outlook: Outlook) -> list[float]:
    """The extra probabilities of retrials."""
    scores, costs, extra = _columns(outlook)
    best = scores.max(axis=0)
    shares.retrials(scores, costs, outlook.experience, outlook.rules.numbers, best, outlook.unit_usd, extra)
    return [float(each) for each in extra[:, 0]]


def _columns(outlook: Outlook) -> tuple[FloatArray, FloatArray, FloatArray]:
    scores = np.array([outlook.scores]).T
    return scores, np.array([outlook.costs_usd]).T, np.empty_like(scores)


# What is compiled when it is first called is so before a test whose time is looked at.
inverse_gap_weighting([0.0], 1.0)
limited([1.0], [0.0], 1.0)
