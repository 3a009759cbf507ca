"""Notices that something has changed from what was learned of it, and by how much."""

from __future__ import annotations

import math

import numpy as np

from policy.compiled import compiled, part_of_compiled
from policy.domain import FloatArray

FIRST_VARIANCE = 0.05
_WINDOW = 256
_CLIP = 2.0
_THRESHOLD = 10.0
_SEEN_BEFORE = 30
_VARIANCE_MEMORY = 500.0
_VARIANCE_PRIOR_SEEN = 10.0
_RETURN_THRESHOLD = 4.0
_CHANGE_VARIANCE = 0.15**2
_CHANCE = 0.25
# What a test has in its state, and where: last the misses, the newest first, 0 where there was none yet.
_VARIANCE, _SEEN, _MISSES = 0, 1, 2
# And what a level has: last its test. `_NORMAL` is the offset before changes for the worse, `_SINCE` how many
# rewards there were since the last change, 0 before any.
_OFFSET, _NORMAL, _SINCE, _EVIDENCE, _TEST = 0, 1, 2, 3, 4


class ChangeTest:
    """The generalised likelihood ratio test for a change of mean (Lorden 1971), on what predictions miss by.

    After each miss the hypothesis that the mean has moved with one of the last 256 is held against
    that it is 0. The threshold of 10 is passed by chance about once in 20,000 misses, and by a change of one
    standard deviation after about 20. Misses are in units of their standard deviation, which is followed
    with a memory of 500, and cut off at 2, so that a few failures of a model that seldom fails are
    no change.
    """

    def __init__(self, variance: float) -> None:
        self._state: FloatArray = np.zeros(_MISSES + _WINDOW)
        self._state[_VARIANCE] = variance

    def add(self, miss: float) -> int:
        """Takes the next miss. Returns how many ago the mean changed, this one included; 0 if it did not."""
        since: int = _changed(self._state, miss)
        return since

    def mean(self, count: int) -> float:
        """The mean of the last `count` misses."""
        return float(self._state[_MISSES : _MISSES + count].mean())

    def forget(self) -> None:
        """What was missed so far was explained: only misses from here on tell of a change."""
        self._state[_MISSES:] = 0.0

    def state(self) -> FloatArray:
        """Everything, for `restore`."""
        return self._state

    def restore(self, state: FloatArray) -> None:
        """Takes back what `state` gave."""
        self._state = state.copy()


@compiled("i8(f8[::1], f8)")
def _changed(state: FloatArray, miss: float) -> int:
    """Puts the miss before the others. Returns how many of them, the newest, tell most of another mean; 0 if
    they do not tell enough.
    """
    state[_SEEN] += 1.0
    weight = 1.0 / min(state[_SEEN] + _VARIANCE_PRIOR_SEEN, _VARIANCE_MEMORY)
    state[_VARIANCE] += weight * (miss * miss - state[_VARIANCE])
    if state[_SEEN] <= _SEEN_BEFORE:
        return 0
    misses = state[_MISSES:]
    for index in range(len(misses) - 1, 0, -1):
        misses[index] = misses[index - 1]
    misses[0] = miss
    limit = _CLIP * math.sqrt(state[_VARIANCE])
    longest, most, total = 0, 2.0 * _THRESHOLD * state[_VARIANCE], 0.0
    for index in range(len(misses)):
        total += min(max(misses[index], -limit), limit)
        ratio = total * total / (index + 1)
        if ratio > most:
            longest, most = index + 1, ratio
    return longest


class Level:
    """How far a model's quality now lies from what its learner predicts, in the mean over queries.

    The learner of quality goes on remembering all it ever heard: that is right for which queries a model
    is good at, and for all models that did not change. When the level changes, `offset` moves by the mean
    miss since, and follows the misses after it; the learner is taught rewards without the offset. So what
    was known is kept, and nothing is discounted while nothing changes. Before any miss a change is taken to be
    of about 0.15: a few wrong answers in a row may be chance, and in a model whose answers are right or wrong
    they move the level by about half of what they say, until more is known.

    `fallen` is how far the level lies below what it was before changes for the worse; a quarter of a standard
    deviation of the misses is chance. That all of it has come back is tested for by itself (Page 1954): a
    change whose size is known is found with a third of the rewards, and a model that has fallen gets few.
    `return_evidence` is the logarithm of the likelihood ratio of its return to that it is still fallen, 0 at
    least; `variance` is that of what its predictions miss by.
    """

    def __init__(self) -> None:
        self._state: FloatArray = np.zeros(_TEST + _MISSES + _WINDOW)
        self._state[_TEST + _VARIANCE] = FIRST_VARIANCE
        self.offset, self.fallen, self.return_evidence, self.variance = _standing(self._state)

    def learn(self, miss: float) -> bool:
        """Takes a reward less what was predicted, offset included; says whether the level has changed."""
        changed: bool = _level_changed(self._state, miss)
        self.offset, self.fallen, self.return_evidence, self.variance = _standing(self._state)
        return changed

    def state(self) -> FloatArray:
        """Everything, for `restore`."""
        return self._state

    def restore(self, state: FloatArray) -> None:
        """Takes back what `state` gave."""
        self._state = state.copy()
        self.offset, self.fallen, self.return_evidence, self.variance = _standing(self._state)


@part_of_compiled()
def _fallen(state: FloatArray) -> float:
    """How far the offset lies below that before the fall; 0 within what is chance."""
    below = state[_NORMAL] - state[_OFFSET]
    return float(below) if below > _CHANCE * math.sqrt(state[_TEST + _VARIANCE]) else 0.0


@part_of_compiled()
def _has_returned(state: FloatArray, miss: float) -> bool:
    deviation, fallen = math.sqrt(state[_TEST + _VARIANCE]), _fallen(state)
    if fallen == 0.0:
        state[_EVIDENCE] = 0.0
        return False
    scaled, fallen = min(_CLIP, max(-_CLIP, miss / deviation)), fallen / deviation
    state[_EVIDENCE] = max(0.0, state[_EVIDENCE] + fallen * (scaled - fallen / 2.0))
    return bool(state[_EVIDENCE] > _RETURN_THRESHOLD)


@compiled("UniTuple(f8, 4)(f8[::1])")
def _standing(state: FloatArray) -> tuple[float, float, float, float]:
    """The offset, how far it has fallen, the evidence of its return, and the variance of the misses."""
    return state[_OFFSET], _fallen(state), state[_EVIDENCE], state[_TEST + _VARIANCE]


@compiled("b1(f8[::1], f8)")
def _level_changed(state: FloatArray, miss: float) -> bool:
    """See `Level.learn`."""
    test = state[_TEST:]
    if state[_SINCE] > 0.0:
        state[_SINCE] += 1.0
        state[_OFFSET] += miss / min(state[_SINCE] + test[_VARIANCE] / _CHANGE_VARIANCE, _WINDOW)
    since, variance = _changed(test, miss), test[_VARIANCE]
    fallen = _fallen(state)
    if _has_returned(state, miss):
        since, by = max(1, round(2.0 * _RETURN_THRESHOLD * variance / fallen**2)), fallen
    elif since:
        # How many misses weigh as much as what was thought of a change before any.
        doubt = variance / _CHANGE_VARIANCE
        by = test[_MISSES : _MISSES + since].sum() / (since + doubt)
    else:
        return False
    if by < 0.0 and fallen == 0.0:
        state[_NORMAL] = state[_OFFSET]
    state[_OFFSET] += by
    state[_NORMAL] = max(state[_NORMAL], state[_OFFSET])
    state[_SINCE], state[_EVIDENCE] = since, 0.0
    test[_MISSES:] = 0.0
    return True
