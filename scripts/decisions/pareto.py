"""ParetoBandit as a peer, from its published package, by its public interface."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy.domain import FloatArray, Model
from scripts.decisions.peer import Peer, Pick


def why_missing() -> str | None:
    """Why ParetoBandit cannot be played, None if it can."""
    if importlib.util.find_spec("pareto_bandit") is None:
        return "the package paretobandit is not installed"
    return None


def published_registry() -> dict[str, dict[str, Any]]:
    """The models its package knows, with their list prices."""
    package = importlib.import_module("pareto_bandit")
    text = (Path(str(package.__file__)).parent / "config" / "models.json").read_text(encoding="utf-8")
    return {each["model_id"]: each for each in json.loads(text)["models"]}


class ParetoBandit(Peer):
    """Its router with its adaptive pacer, cold, with the settings it publishes for a start without priors.

    It must know prices before it calls: those of its own registry where it has the model, else the
    model's list price here. As its own experiments do, the pacer is told what each call really cost.
    """

    def __init__(self, budget_usd: float, seed: int, prices_usd_per_million_tokens: dict[str, float]) -> None:
        logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
        self._package = importlib.import_module("pareto_bandit")
        self._budget_usd, self._seed = budget_usd, seed
        self._list_prices = prices_usd_per_million_tokens
        self._published = published_registry()
        self._router: Any = None
        self._models: dict[str, Model] = {}

    def set_models(self, models: Sequence[Model]) -> None:
        before, self._models = self._models, {model.id: model for model in models}
        if self._router is None:
            return
        for model in models:
            old = before.get(model.id)
            if old is None:
                self._router.register_model(model.id, **self._prices(model))
            elif old.spec.prices != model.spec.prices:
                self._router.update_model_pricing(model.id, **self._prices(model))

    def choose(self, features: FloatArray) -> Pick:
        if self._router is None:
            self._router = self._create(len(features))
        model, _ = self._router.route(features)
        return Pick(features, str(model))

    def charge(self, pick: Pick, cost_usd: float) -> None:
        self._router.budget_pacer.observe(cost_usd)

    def learn(self, pick: Pick, reward: float, cost_usd: float) -> None:
        # What its process_feedback does, but that there the pacer waits for the reward too.
        self._router.update(pick.model, pick.features, reward, advance_time=False)

    def _create(self, dimension: int) -> Any:
        service = importlib.import_module("pareto_bandit.feature_service").FeatureService
        pacing = importlib.import_module("pareto_bandit.budget_pacer")
        settings = importlib.import_module("pareto_bandit.config").BEST_K3_TABULA_RASA_HPARAMS
        pacer = pacing.BudgetPacer(target_avg_spend_usd=self._budget_usd, mode=pacing.PacingMode.ADAPTIVE)
        return self._package.BanditRouter.create(
            model_registry={model.id: self._prices(model) for model in self._models.values()},
            feature_service=service.for_precomputed(dimension),
            priors="none",
            alpha=settings["alpha"],
            forgetting_factor=settings["forgetting_factor"],
            cost_penalty=0.0,
            budget_pacer=pacer,
            bandit_seed=self._seed,
        )

    def _prices(self, model: Model) -> dict[str, float]:
        """Its published price, moved as the registry's is; else the registry's; else the list price."""
        listed = self._list_prices.get(model.id)
        prices = model.spec.prices
        known = self._published.get(model.id)
        factor = prices.input_usd_per_million_tokens / listed if prices.known and listed else 1.0
        if known is not None:
            inp, out = float(known["input_cost_per_m"]), float(known["output_cost_per_m"])
            return {"input_cost_per_m": inp * factor, "output_cost_per_m": out * factor}
        if listed is not None:
            return {"input_cost_per_m": listed * factor, "output_cost_per_m": listed * factor}
        return {
            "input_cost_per_m": prices.input_usd_per_million_tokens,
            "output_cost_per_m": prices.output_usd_per_million_tokens,
        }
