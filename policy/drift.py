"""Notices that something has changed from what was learned of it, and by how much."""

from __future__ import annotations

import math

import numpy as np

from policy.compiled import compiled
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

    @property
    def variance(self) -> float:
        """Of the misses."""
        return float(self._state[_VARIANCE])

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
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._normal = 0.0
        self._since = 0
        self._evidence = 0.0
        self._test = ChangeTest(variance=FIRST_VARIANCE)

    @property
    def variance(self) -> float:
        """Of what its predictions miss by."""
        return self._test.variance

    @property
    def fallen(self) -> float:
        """How far the offset lies below that before the fall; 0 within what is chance."""
        below = self._normal - self.offset
        return below if below > _CHANCE * math.sqrt(self.variance) else 0.0

    @property
    def return_evidence(self) -> float:
        """The logarithm of the likelihood ratio of its return to that it is still fallen; 0 at least."""
        return self._evidence

    def learn(self, miss: float) -> bool:
        """Takes a reward less what was predicted, offset included; says whether the level has changed."""
        if self._since:
            self._since += 1
            self.offset += miss / min(self._since + self._doubt, _WINDOW)
        since = self._test.add(miss)
        if self._has_returned(miss):
            since, by = self._since_return(), self.fallen
        elif since:
            by = self._test.mean(since) * since / (since + self._doubt)
        else:
            return False
        if by < 0.0 and not self.fallen:
            self._normal = self.offset
        self.offset += by
        self._normal = max(self._normal, self.offset)
        self._since, self._evidence = since, 0.0
        self._test.forget()
        return True

    @property
    def _doubt(self) -> float:
        """How many misses weigh as much as what was thought of a change before any."""
        return self._test.variance / _CHANGE_VARIANCE

    def _has_returned(self, miss: float) -> bool:
        if not self.fallen:
            self._evidence = 0.0
            return False
        deviation = math.sqrt(self._test.variance)
        scaled = min(_CLIP, max(-_CLIP, miss / deviation))
        fallen = self.fallen / deviation
        self._evidence = max(0.0, self._evidence + fallen * (scaled - fallen / 2.0))
        return self._evidence > _RETURN_THRESHOLD

    def _since_return(self) -> int:
        """How many rewards the test for the return takes in the mean."""
        return max(1, round(2.0 * _RETURN_THRESHOLD * self._test.variance / self.fallen**2))

    def state(self) -> FloatArray:
        """Everything, for `restore`."""
        return np.array([self.offset, self._normal, self._since, self._evidence, *self._test.state()])

    def restore(self, state: FloatArray) -> None:
        """Takes back what `state` gave."""
        self.offset, self._normal, since, self._evidence = state[:4].tolist()
        self._since = int(since)
        self._test.restore(state[4:])
