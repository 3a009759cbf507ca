"""Traffic: how many requests are still to come, from what has come at the same times of the cycle before."""

from __future__ import annotations

import numpy as np

from policy.array_state import ArrayState
from policy.domain import FloatArray

_NEW = 0.5
_UNSEASONAL = 0.05
_WEIGHT_SHARE = 0.03
_WEIGHT_COUNT = 10.0
_MEMORY_CYCLES = 0.5
_FIRST_US = 10_000_000
_BUSIEST_OF = 7
_FOLLOWED_FROM = 0.5


class Traffic:
    """Counts arrivals in the slots of a cycle (of a day, or a week) and forecasts those to come.

    In the first cycle nothing is known of its shape, and the mean rate so far is taken to go on. From the
    second on it is seasonal: what came in each slot before, times how this cycle compares with it so far.
    Until this cycle has shown something itself it is taken to become as busy as the busiest of the last
    seven: to have expected too many requests is made good later in a budget's period, while money that was
    spent on too few is gone. A quiet time longer than a cycle says nothing of the traffic after it.
    """

    def __init__(self, slots: int, slot_us: int) -> None:
        self._slots, self._slot_us = slots, slot_us
        self._keep = 1.0 - 1.0 / (_MEMORY_CYCLES * slots)
        # What a slot is expected to bring, and what this cycle's have; nan where that is not known.
        self._profile: FloatArray = np.full(slots, np.nan)
        self._counts: FloatArray = np.full(slots, np.nan)
        self._busiest: FloatArray = np.zeros(0)
        self._slot, self._now_us = -1, 0
        self._count, self._from = 0.0, 0.0
        self._seen, self._expected = 0.0, 0.0
        self._first_count, self._first_slots = 0.0, 0.0

    def arrive(self, time_us: int) -> None:
        """A request has come. One of before the last is counted as if it came with it."""
        time_us = max(time_us, self._now_us)
        slot = time_us // self._slot_us
        if self._slot < 0:
            self._begin(time_us)
        elif slot - self._slot > self._slots:
            self._first_count += self._count
            self._first_slots += self._slots
            self._turn()
            self._begin(time_us)
        while self._slot < slot:
            self._complete()
        self._now_us = time_us
        self._count += 1.0

    def to_come(self, end_us: int) -> float:
        """How many requests are expected from the last arrival until `end_us`, which ends a slot."""
        end = end_us // self._slot_us
        if self._slot < 0 or end <= self._slot:
            return 0.0
        seasonal = self._seasonal()
        whole = seasonal[np.arange(self._slot + 1, end) % self._slots].sum()
        rest = (1.0 - self._passed) * seasonal[self._slot % self._slots]
        return self._level(seasonal) * float(whole + rest)

    @property
    def _passed(self) -> float:
        """How much of the slot has passed, from 0 to 1."""
        return self._now_us / self._slot_us - self._slot

    def _begin(self, time_us: int) -> None:
        self._slot = time_us // self._slot_us
        self._now_us = time_us
        self._count, self._from = 0.0, self._passed

    def _complete(self) -> None:
        """The slot is over, and the next begins. One of which only the end was followed says nothing."""
        place = self._slot % self._slots
        if self._from < _FOLLOWED_FROM:
            seasonal = self._seasonal()
            count = self._count / (1.0 - self._from)
            if np.isnan(self._profile[place]):
                self._profile[place] = count / self._level(seasonal)
            else:
                self._seen = self._keep * self._seen + count
                self._expected = self._keep * self._expected + seasonal[place]
            self._counts[place] = count
        self._first_count += self._count
        self._first_slots += 1.0 - self._from
        self._slot += 1
        self._now_us = self._slot * self._slot_us
        self._count, self._from = 0.0, 0.0
        if self._slot % self._slots == 0:
            self._turn()

    def _turn(self) -> None:
        """The cycle is over: its counts become part of what is expected. One without a request is passed over."""
        observed = ~np.isnan(self._counts)
        came, expected = self._counts[observed].sum(), self._profile[observed].sum()
        if came > 0:
            self._profile *= (came + _WEIGHT_COUNT) / (expected + _WEIGHT_COUNT)
            self._profile[observed] += _NEW * (self._counts - self._profile)[observed]
            total = np.append(self._busiest, self._seasonal().sum())
            self._busiest = total[-_BUSIEST_OF:]
        self._counts[:] = np.nan
        self._seen, self._expected = 0.0, 0.0

    def _seasonal(self) -> FloatArray:
        """What each slot is expected to bring at the level of the last cycle: (slots,).

        A part is spread evenly, so that what comes at another time than ever before is no surprise.
        """
        unknown = np.isnan(self._profile)
        profile = self._profile
        if unknown.any():
            slots = self._first_slots + self._passed - self._from + _FIRST_US / self._slot_us
            profile = np.where(unknown, (self._first_count + self._count) / slots, profile)
        return np.asarray((1.0 - _UNSEASONAL) * profile + _UNSEASONAL * profile.mean())

    def _level(self, seasonal: FloatArray) -> float:
        """How this cycle compares with the last, by its slots so far."""
        total = float(seasonal.sum())
        weight = _WEIGHT_SHARE * total + _WEIGHT_COUNT
        busiest = max(1.0, self._busiest.max() / total) if len(self._busiest) and total > 0 else 1.0
        seen, expected = self._seen, self._expected
        place = self._slot % self._slots
        if not self._from and not np.isnan(self._profile[place]):
            seen += self._count
            expected += self._passed * float(seasonal[place])
        return float((seen + weight) / (expected + weight / busiest))

    def state(self) -> dict[str, FloatArray]:
        """Everything; `restore` takes it."""
        numbers = [
            *(self._slot, self._now_us, self._count, self._from, self._seen, self._expected),
            *(self._first_count, self._first_slots),
        ]
        return {
            "profile": self._profile.copy(),
            "counts": self._counts.copy(),
            "busiest": self._busiest.copy(),
            "numbers": np.array(numbers, dtype=np.float64),
        }

    def restore(self, state: ArrayState) -> None:
        """Goes on to the same bits as the one that gave `state`."""
        self._profile, self._counts, self._busiest = state["profile"], state["counts"], state["busiest"]
        numbers = state["numbers"].tolist()
        self._slot, self._now_us = int(numbers[0]), int(numbers[1])
        self._count, self._from, self._seen, self._expected = numbers[2:6]
        self._first_count, self._first_slots = numbers[6:]
