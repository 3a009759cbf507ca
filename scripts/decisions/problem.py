"""A replay file made ready to be played many times: its features, budgets, prices and orders of play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from policy.domain import FloatArray
from policy.simulation import Round, Schedule, Table, schedule
from server.replay.file import ReplayFile, read_replay
from server.replay.run import budgets, featurised

# Where a file tells no tokens, a price is made of its cost by this, ParetoBandit's default for a reply.
_OUTPUT_TOKENS = 600.0
_COMPONENTS = 25


@dataclass(frozen=True)
class Problem:
    """One file. `rounds` are in the file's order; `splits` is None for each row of a file without any."""

    name: str
    models: tuple[str, ...]
    rounds: list[Round]
    splits: list[str | None]
    prompts: list[str]
    budget_low_usd: float
    budget_high_usd: float
    published_features: FloatArray | None = None
    """What ParetoBandit's own encoder makes of the prompts, (rows, 26), where it is to be played warm."""

    def plan(self, seed: int) -> Schedule:
        """The order of play for a seed."""
        return schedule(self.splits, seed)

    def table(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Table:
        """The outcomes of these rows."""
        picked = [self.rounds[row] for row in rows]
        quality = [[each.outcomes[model].quality for model in self.models] for each in picked]
        cost = [[each.outcomes[model].cost_usd for model in self.models] for each in picked]
        return Table(self.models, np.array(quality), np.array(cost))

    def budgets(self, count: int) -> list[float]:
        """Budgets in USD a request, as `server.replay.run.budgets` spaces them."""
        return [float(each) for each in np.geomspace(self.budget_low_usd, self.budget_high_usd, count)]

    @cached_property
    def columns(self) -> npt.NDArray[np.intp]:
        """The features that are not 0 in every row: to a linear learner the others say nothing."""
        used = np.zeros(len(self.rounds[0].features), dtype=bool)
        for each in self.rounds:
            used |= each.features != 0
        return np.flatnonzero(used)

    @cached_property
    def features(self) -> FloatArray:
        """What a linear learner is shown: (rows, features), the last of them 1."""
        return np.array([each.features[self.columns] for each in self.rounds], dtype=np.float64)

    @cached_property
    def components(self) -> FloatArray:
        """The features' first 25 principal components on the `learn` part, or the whole file without one,
        scaled to variance 1 there; and 1: (rows, 26). Outcomes have no part in it.
        """
        x = self.features[:, :-1]
        known = x[self._learn_rows]
        centre = known.mean(axis=0)
        _, deviations, directions = np.linalg.svd(known - centre, full_matrices=False)
        scale = np.sqrt(len(known)) / np.maximum(deviations[:_COMPONENTS], 1e-12)
        return np.column_stack([(x - centre) @ directions[:_COMPONENTS].T * scale, np.ones(len(x))])

    @property
    def _learn_rows(self) -> list[int]:
        return [row for row, split in enumerate(self.splits) if split in (None, "learn")]

    @cached_property
    def mean_costs_usd(self) -> dict[str, float]:
        """Mean cost of each model in USD a request over the `learn` part, or the whole file without one."""
        return {model: cost for model, (cost, _) in self.table(self._learn_rows).fixed().items()}

    @cached_property
    def prices_usd_per_million_tokens(self) -> dict[str, float]:
        """A list price of each model, the same for input and output, that explains its mean cost.

        For those who must know a price before they have called a model. It looks ahead, as a price
        list does.
        """
        tokens = float(np.mean([each.prompt_tokens for each in self.rounds])) + _OUTPUT_TOKENS
        return {model: cost / tokens * 1e6 for model, cost in self.mean_costs_usd.items()}

    def by_cost(self) -> list[str]:
        """The models, the cheapest first."""
        return sorted(self.models, key=lambda model: (self.mean_costs_usd[model], model))


def load(path: Path, on_round: Callable[[], object] = lambda: None) -> Problem:
    """Reads a file and makes its features. Raises ReplayFileError."""
    file = read_replay(path)
    return prepared(path.name.split(".")[0], file, featurised(file, on_round))


def prepared(name: str, file: ReplayFile, rounds: list[Round]) -> Problem:
    """A file with its rounds, as a problem."""
    low, high = budgets(file, 2)
    return Problem(
        name=name,
        models=file.models,
        rounds=rounds,
        splits=[row.split for row in file.rows],
        prompts=[row.prompt for row in file.rows],
        budget_low_usd=low,
        budget_high_usd=high,
    )
