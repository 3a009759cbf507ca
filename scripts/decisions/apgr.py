"""APGR, RouteLLM's measure of how well scores tell which queries need the strong model."""

from __future__ import annotations

import numpy as np

from policy.domain import FloatArray


def apgr(gaps: FloatArray, weak: FloatArray, strong: FloatArray) -> float:
    """The average performance gap recovered (Ong et al. 2024, "RouteLLM"), over all thresholds.

    `gaps` are the scores by which the strong model is ahead, `weak` and `strong` the qualities of
    the two models; all (queries,). At each share s = 0, 1/n, ..., 1 of calls to the strong model,
    the queries with the largest gaps go to it; the gap recovered is then
    (quality(s) - quality of weak) / (quality of strong - quality of weak), and APGR is the area under
    it by the trapezoid rule. Random is 0.5 in the mean; it is not defined, and NaN, where the two
    models are equally good.
    """
    gain = float(strong.mean() - weak.mean())
    if gain == 0.0:
        return float("nan")
    order = np.argsort(-gaps, kind="stable")
    recovered = np.concatenate([[0.0], np.cumsum((strong - weak)[order])]) / len(gaps) / gain
    return float((recovered[1:] + recovered[:-1]).sum() / 2 / len(gaps))
