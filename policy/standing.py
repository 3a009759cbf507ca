"""Candidates that go by the logged choice alone, answered for many decisions at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.candidates import INCUMBENT, CandidateSpec
from policy.domain import FloatArray
from policy.policies import Fixed, Policy, cheapest, parse_policy, uniform


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Decisions on the same models as they were logged, before their draws: no outcome, nor which model was drawn.

    `propensities` are the live policy's probabilities, `costs_usd` what it predicted, 0 where it did not, and
    `scores` those logged, -inf for an excluded model: (decisions, models). `incumbents` are the callers' own
    choices by the place among the models, -1 for none, and `imported` tells the decisions that nothing was
    predicted in: (decisions,).
    """

    models: tuple[str, ...]
    propensities: FloatArray
    costs_usd: FloatArray
    scores: FloatArray
    incumbents: npt.NDArray[np.int64]
    imported: npt.NDArray[np.bool_]


class Standing:
    """A candidate without rules and learner. It has no state, so that it is of no matter when it is asked.

    Its answers are those of `contenders.Plain`, which goes by the same policies one decision at a time.
    """

    def __init__(self, spec: CandidateSpec) -> None:
        self._policy: Policy | None = None if spec.policy == INCUMBENT else parse_policy(spec.policy)

    def answers(self, block: Block) -> FloatArray:
        """The probability of each model, (decisions, models)."""
        if self._policy is uniform:
            eligible = block.scores > -np.inf
            shares: FloatArray = eligible / eligible.sum(axis=1, keepdims=True)
            return shares
        chosen = self._chosen(block)[:, None]
        return np.where(chosen < 0, block.propensities, chosen == np.arange(len(block.models)))

    def _chosen(self, block: Block) -> npt.NDArray[np.int64]:
        """The place of the one model that is chosen, -1 where the decision is left as it was: (decisions,)."""
        if self._policy is None:
            return block.incumbents
        if isinstance(self._policy, Fixed):
            best = np.where(block.imported, -1, block.scores.argmax(axis=1))
            if self._policy.model not in block.models:
                return best
            place = block.models.index(self._policy.model)
            return np.where(block.scores[:, place] > -np.inf, place, best)
        excluded = block.scores == -np.inf
        if self._policy is cheapest:
            found = np.where(excluded, np.inf, block.costs_usd).argmin(axis=1)
        else:
            found = np.where(excluded, -np.inf, block.costs_usd).argmax(axis=1)
        return np.where(block.imported, -1, found)
