"""A world that tells of quality by a judge's score at once and by thumbs later, as far as it tells at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.domain import Router
from policy.log import Usage
from policy.simulation import Arrival, Round, World

JUDGE, THUMBS = "judge", "thumbs"
_JUDGE_NOISE = 0.3
_DELAY_ROUNDS = 200.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What is told. A judge sees the share `judged` of the answers, whichever they are, and its scores are too
    high by `judge_lean` in the mean. Users give a thumb on 1 - `missing` of the answers they find bad, and on
    `up_share` of that share of those they find good: unless it is 1, what is missing depends on the answer.
    """

    missing: float
    judged: float = 0.5
    judge_lean: float = 0.0
    up_share: float = 1.0 / 3.0


class SignalWorld(World):
    """The judge's score is the quality and a noise that is uniform within 0.3, or less where the score would
    leave [0, 1], so that it adds nothing in the mean; at once.

    A thumb is up with a probability of the quality, and comes after an exponential delay of 200 rounds in the
    mean. All of it follows from the seed, whatever is chosen. Usage always comes at once.
    """

    def __init__(self, router: Router, rounds: Sequence[Round], feedback: Feedback, seed: int) -> None:
        super().__init__(router, rounds)
        self._column = {model.id: column for column, model in enumerate(router.models)}
        self._feedback = feedback
        generator = np.random.default_rng([seed, len(rounds)])
        shape = (len(rounds), len(router.models))
        self._noise = generator.uniform(-1.0, 1.0, shape)
        self._judged = generator.random(shape)
        self._mood = generator.random(shape)
        self._given = generator.random(shape)
        self._delay = generator.exponential(_DELAY_ROUNDS, shape)

    def arrivals(self, position: int, model: str) -> Sequence[Arrival]:
        at = position, self._column[model]
        outcome = self.rounds[position].outcomes[model]
        feedback, quality = self._feedback, outcome.quality
        noise = float(self._noise[at]) * min(_JUDGE_NOISE, quality, 1.0 - quality)
        score = min(1.0, max(0.0, quality + noise + feedback.judge_lean))
        signals = {JUDGE: score} if self._judged[at] < feedback.judged else {}
        usage = Usage(outcome.input_tokens, outcome.output_tokens, outcome.cost_usd)
        reports = [Arrival(signals=signals, usage=usage)]
        up = bool(self._mood[at] < quality)
        if self._given[at] < (1.0 - feedback.missing) * (feedback.up_share if up else 1.0):
            delay = 1 + int(self._delay[at])
            reports.append(Arrival(delay, signals={THUMBS: float(up)}))
        return reports
