"""Who is timed: Pointsman's core, and ParetoBandit by its public interface, on the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policy.choices import Query
from policy.decide import decide
from policy.domain import FloatArray, Model, ModelSpec, Objective, Router, RouterSpec
from policy.layout import HASHED, STRUCTURE
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage
from scripts.decisions.pareto import ParetoBandit

_TOKENS = 75
_NOISE = 0.1
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is played: `contexts` (rounds, features) with a last one of 1, and what each model would earn and cost,
    `rewards` and `costs_usd` (rounds, models). `budget_usd` is what a request may cost on average.
    """

    contexts: FloatArray
    rewards: FloatArray
    costs_usd: FloatArray
    budget_usd: float

    @classmethod
    def drawn(cls, rounds: int, features: int, models: int, seed: int) -> Rounds:
        """Contexts of length 1, noisy rewards that are linear in them, prices that differ fourfold."""
        generator = np.random.default_rng(seed)
        contexts = generator.normal(size=(rounds, features - 1))
        contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
        quality = (
            0.5 + 0.1 * np.arange(models) + contexts @ generator.normal(0.0, 0.5, size=(features - 1, models))
        )
        rewards = (quality + generator.normal(0.0, _NOISE, size=quality.shape)).clip(0.0, 1.0)
        costs = 1e-4 * 4.0 ** np.arange(models) * generator.uniform(0.5, 1.5, size=quality.shape)
        return cls(
            np.concatenate([contexts, np.ones((rounds, 1))], axis=1), rewards, costs, float(costs.mean(axis=0)[1])
        )


Play = Callable[[int], float]
"""Plays one round, by its number, from the decision until its outcome is learned; gives the reward."""


def pointsman(rounds: Rounds, page: int) -> Play:
    """Decides with a view that is `page` rounds old at most, and learns every round, as a server does."""
    size = rounds.contexts.shape[1] - 1
    models = [Model(f"model-{each}", each + 2, ModelSpec()) for each in range(rounds.rewards.shape[1])]
    objective = Objective(budget_usd_per_request=rounds.budget_usd)
    router = Router("default", RouterSpec(objective=objective, embedding_dimensions=size), tuple(models), uid=1)
    learner = RouterLearner(router)
    places = {model.id: place for place, model in enumerate(models)}
    vectors = np.zeros((len(rounds.contexts), size + STRUCTURE + HASHED + 1), dtype=np.float32)
    vectors[:, :size], vectors[:, -1] = rounds.contexts[:, :-1], 1.0
    view = learner.view(0)

    def play(number: int) -> float:
        nonlocal view
        if number % page == 0:
            view = learner.view(2 * number)
        vector, now_us, decision_id = vectors[number], number * _SECOND_US, f"{number:032x}"
        choice = decide(view, router, Query(vector, _TOKENS), decision_id, now_us)
        seq, place = 2 * number + 1_000, places[choice.model]
        decision = DecisionRecord(
            seq, now_us, now_us, router.id, decision_id, choice, vector, _TOKENS, _TOKENS, 0, router_uid=1
        )
        learner.on_decision(decision)
        reward, cost_usd = float(rounds.rewards[number, place]), float(rounds.costs_usd[number, place])
        report = ReportRecord(
            seq + 1,
            now_us,
            decision_id,
            reward=reward,
            usage=Usage(cost_usd=cost_usd),
            subject=choice.model,
            learned_reward=reward,
            charged_usd=cost_usd,
            settles=True,
        )
        learner.on_report(report, decision)
        return reward

    return play


def paretobandit(rounds: Rounds, seed: int) -> Play:
    """A cold start with the settings and the pacer it publishes."""
    models = [Model(f"model-{each}", each + 2, ModelSpec()) for each in range(rounds.rewards.shape[1])]
    means = rounds.costs_usd.mean(axis=0)
    bandit = ParetoBandit(
        rounds.budget_usd, seed, {model.id: float(usd) * 1e4 for model, usd in zip(models, means, strict=True)}
    )
    bandit.set_models(models)
    places = {model.id: place for place, model in enumerate(models)}

    def play(number: int) -> float:
        pick = bandit.choose(rounds.contexts[number])
        place = places[pick.model]
        reward, cost_usd = float(rounds.rewards[number, place]), float(rounds.costs_usd[number, place])
        bandit.charge(pick, cost_usd)
        bandit.learn(pick, reward, cost_usd)
        return reward

    return play


def played(play: Play, numbers: Sequence[int]) -> float:
    """The mean reward of these rounds."""
    return sum(map(play, numbers)) / max(1, len(numbers))
