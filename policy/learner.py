"""A router's learner: folds decisions, reports and closed windows into what is known of its models."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.array_state import json_array, loaded, part_of, prefixed
from policy.books import expected_loss, gives_up, loss_limit, owed_after
from policy.cost import CostLearner
from policy.domain import FloatArray, LearnerKind, Model, Router
from policy.drift import Level
from policy.exploration import Rules
from policy.join import Joined
from policy.layout import HASHED, STRUCTURE
from policy.log import DecisionRecord, ReportRecord
from policy.pacer import ContextWindow
from policy.pacing import Pacing
from policy.planning import Outlooks
from policy.quality import QualityLearner
from policy.recall import Learned, Span, forgotten, matched, taken_over
from policy.ridge import RidgeQuality
from policy.view import ModelRecord, PolicyView, RouterRecord, experience_of
from policy.vowpal import VowpalQuality

STATE_VERSION = 18

_PLAN_EVERY = 32
_PLAN_EVERY_EARLY = 4
_EARLY = 64


class StateVersionError(ValueError):
    """A saved state that another version of the learner wrote."""


class RouterLearner:
    """Learns one router's models from its part of the log, one record after another."""

    def __init__(self, router: Router) -> None:
        self._router = Router(router.id, router.spec, (), router.uid)
        size = router.spec.embedding_dimensions + STRUCTURE + HASHED + 1
        self._window = ContextWindow(size)
        self._quality = _new_quality(router.spec.learner, size)
        self._cost = CostLearner()
        self._pacing = Pacing(router.spec.objective)
        self._record = RouterRecord()
        self._told_seq = 0
        self._forgotten: list[Span] = []
        self._models: dict[str, ModelRecord] = {}
        self._levels: dict[str, Level] = {}
        self._by_id: dict[str, Model] = {}
        self.on_registry(router)

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed. What is known of the models that stay is kept."""
        old, self._router = self._router, router
        if router.spec.learner is not old.spec.learner or (
            router.spec.embedding_dimensions != old.spec.embedding_dimensions
        ):
            self._restart_quality()
        wanted = {model.key: model for model in router.models}
        for key in [key for key in self._models if key not in wanted]:
            del self._models[key]
            del self._levels[key]
            self._quality.remove(key)
            self._cost.remove(key)
        for key in wanted:
            if key not in self._models:
                self._models[key] = ModelRecord(joined_at=self._record.rewards)
                self._levels[key] = Level()
                self._quality.add(key)
                self._cost.add(key)
        self._by_id = {model.id: model for model in router.models}
        self._pacing.change(router.spec.objective)
        self._plan()

    def recall(self, router: Router, known: RouterLearner, *, own: bool) -> None:
        """The router is this from here on, and what is known of its models is what `known` knows: see
        `policy.recall`. It must have the router's kind of learner and its features; it is used up.

        With `own` it is this router's learner as it was before. A reward that is revised later and is not in what
        is known then, is as new to it as a first.
        """
        learned = taken_over(known._learned, matched(known._router, router, own=own), self._learned)
        self._quality, self._cost = learned.quality, learned.cost
        self._levels, self._models, self._record.rewards = learned.levels, learned.records, learned.rewards
        self._forgotten = forgotten(known._forgotten if own else [], known._told_seq if own else 0, self._told_seq)
        self._router = replace(self._router, spec=router.spec)
        self.on_registry(router)

    @property
    def _learned(self) -> Learned:
        record = self._record
        return Learned(self._quality, self._cost, self._levels, self._models, record.decisions, record.rewards)

    def on_decision(self, decision: DecisionRecord) -> None:
        """A decision was logged."""
        if not self._fits(decision):
            return
        self._window.add(decision.features, decision.charged_input_tokens)
        chosen = self._record_of(decision)
        if decision.choice.imported:
            self._record.imported += 1
            if chosen is not None:
                chosen.imported += 1
        else:
            if chosen is not None:
                chosen.circuit = chosen.circuit.decided(decision)
            if not decision.deferred:
                self._activate(decision, decision.time_us)
        added = self._window.added
        every = _PLAN_EVERY_EARLY if added < _EARLY else _PLAN_EVERY
        if added % every == 0 or self._pacing.due:
            self._plan()

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged."""
        if report.late:
            return
        if report.learned_reward is not None:
            self._told_seq = report.seq
        if not self._fits(decision):
            return
        own = not decision.choice.imported
        if own:
            self._account(report, decision)
        model = self._model_at(report.subject, decision.seq)
        if model is None:
            return
        record = self._models[model.key]
        if own:
            record.errors += report.error is not None
            record.circuit = record.circuit.reported(report, decision)
        if report.latency_seconds is not None:
            record.add_latency(report.latency_seconds)
        if report.usage is None and report.learned_reward is None:
            return
        vector = decision.features.astype(np.float64)
        if report.usage is not None:
            self._cost.learn(vector, decision.charged_input_tokens, model, report.usage, report.charged_usd)
            if report.charged_usd is not None:
                record.calls_charged += 1
                record.cost_sum_usd += report.charged_usd
        if report.learned_reward is not None:
            self._learn_reported(vector, model, report, report.learned_reward)

    def _account(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """What a report on one of the router's own decisions has to do with money and the statistics.

        A second call has books of its own: it is paid for apart, and serves nobody.
        """
        if report.activates:
            self._activate(decision, report.time_us)
        if report.second:
            self._record.second = self._record.second.reported(report)
            return
        if report.charged_usd is not None:
            self._charge(report.charged_usd, report, decision)
        if decision.incumbent_model:
            self._record.compared = self._record.compared.reported(report, decision)

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """A decision's window has closed: what never came is settled now. Imported ones have no window."""
        if not joined.active or not self._fits(decision):
            return
        if joined.charged_usd is None:
            self._record.charged += 1
            self._record.spent_usd += decision.choice.predicted_cost_usd
            self._pacing.close(decision, decision.choice.predicted_cost_usd)
        model = self._model_at(joined.served_model or decision.choice.model, decision.seq)
        if model is not None:
            record = self._models[model.key]
            record.closed += 1
            if joined.reward is None:
                record.missing += 1
                self._learn_missing(decision, model)
        self._close_second(decision, joined)

    def _close_second(self, decision: DecisionRecord, joined: Joined) -> None:
        """One of which nothing was reported was not made, as far as is known."""
        told = joined.call(second=True)
        self._record.second = self._record.second.closed(decision.choice, len(told.reports), told.charged_usd)
        model = self._model_at(told.served_model or decision.choice.second_model, decision.seq)
        if model is not None and told.reports and told.reward is None:
            self._learn_missing(decision, model)

    def _learn_missing(self, decision: DecisionRecord, model: Model) -> None:
        missing_reward = self._router.spec.reward_rule.missing_reward
        if missing_reward is not None:
            self._learn(decision.features.astype(np.float64), model, missing_reward)

    def view(self, snapshot: int) -> PolicyView:
        """What is known now, for decisions; `snapshot` is the position of the log it stands for."""
        return PolicyView(
            snapshot=snapshot,
            embedding_dimensions=self._router.spec.embedding_dimensions,
            quality=self._quality.predictor(),
            cost=self._cost.predictor(),
            pacer_price=self._pacing.price,
            router=RouterRecord(**vars(self._record)),
            models={key: ModelRecord(**vars(record)) for key, record in self._models.items()},
            typical_features=self._window.mean_features(),
            budget_usd_per_request=self._pacing.budget_usd or 0.0,
            standing=self._pacing.standing,
        )

    def _fits(self, decision: DecisionRecord) -> bool:
        """Whether it is this router's, with its features: not another's of the same name, nor one that
        was on its way to the log when the router's features were changed.
        """
        same_size = len(decision.features) == self._window.features.shape[1]
        return same_size and decision.router_uid == self._router.uid

    def _model_at(self, model_id: str, seq: int) -> Model | None:
        """The model of this id then, None if it was removed since, whether or not another has its name now."""
        model = self._by_id.get(model_id)
        return None if model is None or model.uid > seq else model

    def _record_of(self, decision: DecisionRecord) -> ModelRecord | None:
        """That of the chosen model, None if it is gone."""
        model = self._model_at(decision.choice.model, decision.seq)
        return None if model is None else self._models[model.key]

    def _activate(self, decision: DecisionRecord, time_us: int) -> None:
        given_up = gives_up(decision.choice)
        self._record.decisions += 1
        if given_up is not None:
            self._record.explored = self._record.explored.plus(given_up)
        self._record.second = self._record.second.entered(decision.choice)
        loss_max = self._router.spec.exploration.max_utility_loss
        loss = expected_loss(decision.choice)
        self._record.exploration_owed = owed_after(self._record.exploration_owed, loss, loss_max)
        if decision.incumbent_model:
            self._record.compared = self._record.compared.entered(decision)
        record = self._record_of(decision)
        if record is not None:
            record.decisions += 1
            if given_up is not None:
                record.explored = record.explored.plus(given_up)
        self._pacing.commit(decision, time_us, decision.choice.predicted_cost_usd)

    def _charge(self, charged_usd: float, report: ReportRecord, decision: DecisionRecord) -> None:
        self._record.spent_usd += charged_usd
        self._record.charged += report.settles
        if report.settles:
            time_us = report.time_us if report.activates else decision.time_us
            self._pacing.settle(decision, time_us, decision.choice.predicted_cost_usd, charged_usd)
        else:
            self._pacing.charge(decision, charged_usd)

    def _learn_reported(self, vector: FloatArray, model: Model, report: ReportRecord, reward: float) -> None:
        """Learns the reward that a report has brought, or revises the one that it replaces.

        If that one was learned before the learner of quality was restarted, or went back, it is gone, and the
        reward is as new as a first.
        """
        replaced = report.replaces_reward
        if replaced is None or any(after < report.replaces_seq <= upto for after, upto in self._forgotten):
            self._learn(vector, model, reward)
            return
        self._quality.revise(vector, model.key, replaced, reward)
        self._models[model.key].reward_sum += reward - replaced

    def _learn(self, vector: FloatArray, model: Model, reward: float) -> None:
        record, level = self._models[model.key], self._levels[model.key]
        miss = reward - self._quality.expected(vector, model.key) - level.offset
        changed = level.learn(miss)
        record.follow(level)
        self._quality.learn(vector, model.key, reward - level.offset)
        if changed:
            record.changed_at = self._record.decisions
            self._plan()
        record.rewards += 1
        record.reward_sum += reward
        self._record.rewards += 1

    def _restart_quality(self) -> None:
        """Another kind of learner, or other features: rewards before this are not known to it."""
        self._forgotten = [(0, self._told_seq)]
        size = self._router.spec.embedding_dimensions + STRUCTURE + HASHED + 1
        self._window = ContextWindow(size)
        self._quality = _new_quality(self._router.spec.learner, size)
        for key, record in self._models.items():
            self._quality.add(key)
            level = self._levels[key] = Level()
            record.rewards, record.reward_sum = 0, 0.0
            record.follow(level)
            record.changed_at = record.joined_at = 0
            record.decisions_before = record.decisions

    def _plan(self) -> None:
        """Solves for the price of money on the recent queries, at today's prices."""
        rows = len(self._window)
        models = [model for model in self._router.models if model.spec.state == "active"]
        if not self._router.spec.objective.budgeted or not rows or not models:
            return
        terms = self._cost.predictor().terms(models)
        costs_usd = terms.predict(self._window.features[:rows], self._window.input_tokens[:rows])
        means: list[float] = (costs_usd.sum(axis=1) / rows).tolist()
        budget = self._pacing.renew(min(means), max(means))
        if not budget:
            return
        quality = self._quality.predict(self._window.features[:rows], [model.key for model in models])
        records = [self._models[model.key] for model in models]
        exploration = self._router.spec.exploration
        outlooks = Outlooks(
            quality=np.add(quality.T, [[each.offset] for each in records], order="C"),
            costs_usd=costs_usd,
            experience=experience_of(records, terms.known, self._record.decisions),
            rules=Rules.of(
                exploration,
                self._record.rewards,
                loss_limit(self._record.exploration_owed, exploration.max_utility_loss),
            ),
            unit_usd=budget,
            value_usd=self._router.spec.objective.value_usd,
        )
        self._pacing.plan(outlooks.solve, max(means) / budget)

    @property
    def router(self) -> Router:
        """The router as the log last had it."""
        return self._router

    def fingerprint(self) -> str:
        """Equal for two learners exactly if they are in the same state, to the last bit."""
        digest = blake2b(json.dumps(self._meta(), sort_keys=True).encode(), digest_size=16)
        for name, array in sorted({**self._arrays(), **prefixed("quality", self._quality.evidence())}.items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def state(self) -> bytes:
        """The whole state but the router itself; `restore` gives a learner that goes on to the same bits."""
        buffer = io.BytesIO()
        arrays = {**self._arrays(), **prefixed("quality", self._quality.state())}
        np.savez(buffer, allow_pickle=False, meta=json_array(self._meta()), **arrays)
        return buffer.getvalue()

    def _meta(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "pacing": self._pacing.meta(),
            "record": asdict(self._record),
            "models": {key: asdict(record) for key, record in self._models.items()},
            "added": self._window.added,
            "told_seq": self._told_seq,
            "forgotten": self._forgotten,
        }

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        window = self._window
        return {
            **prefixed("cost", self._cost.state()),
            **prefixed("pacing", self._pacing.arrays()),
            **prefixed("level", {key: level.state() for key, level in self._levels.items()}),
            "window features": window.features,
            "window input_tokens": window.input_tokens,
        }

    @classmethod
    def restore(cls, router: Router, state: bytes) -> RouterLearner:
        """The learner that gave `state` when its router was this. Raises StateVersionError for another version."""
        arrays = loaded(state)
        meta = json.loads(arrays["meta"].tobytes())
        if meta["version"] != STATE_VERSION:
            raise StateVersionError(f"the snapshot has version {meta['version']}, this learner {STATE_VERSION}")
        learner = cls(router)
        learner._quality.restore(part_of(arrays, "quality"))
        learner._cost.restore(part_of(arrays, "cost"))
        for key, state_of_level in part_of(arrays, "level").items():
            learner._levels[key].restore(state_of_level)
        window = learner._window
        window.features, window.input_tokens = arrays["window features"], arrays["window input_tokens"]
        window.added = meta["added"]
        learner._pacing.restore(meta["pacing"], part_of(arrays, "pacing"))
        learner._told_seq = meta["told_seq"]
        learner._forgotten = [(after, upto) for after, upto in meta["forgotten"]]
        learner._record = RouterRecord.restore(meta["record"])
        learner._models = {key: ModelRecord.restore(record) for key, record in meta["models"].items()}
        return learner


def _new_quality(kind: LearnerKind, size: int) -> QualityLearner:
    if kind is LearnerKind.VOWPAL_WABBIT:
        return VowpalQuality(size)
    return RidgeQuality(size)
