"""What a learner of quality is: add and remove models, predict, learn, and be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policy.array_state import ArrayState
from policy.domain import FloatArray


@dataclass(frozen=True, slots=True)
class Parts:
    """What the predicted quality of each model is the sum of, for one row of features.

    `difficulty` (models,) is what a regression adds that all models share, to each in its measure;
    `products` (models, features) are the model's own weights times the features.
    """

    difficulty: FloatArray
    products: FloatArray


class Predictor(Protocol):
    """Predicts quality and never changes; decisions are made with it while the learner goes on."""

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        """Quality of each model; (models,) for one row of features, (rows, models) for many.

        A model that the learner did not know is given the learner's prior.
        """
        ...

    def parts(self, features: FloatArray, models: Sequence[str]) -> Parts | None:
        """What each model's `predict` is the sum of, for one row of features; None if that cannot be told."""
        ...

    def state(self) -> ArrayState:
        """Everything, for the `restored` of its kind: that predicts the same, to the last bit."""
        ...


class QualityLearner(ABC):
    """Learns from rewards in [0, 1] how good each model's answers are. Models are named by uid.

    Not safe to use from two threads. Features are float64 rows whose last entry is 1.
    """

    @abstractmethod
    def add(self, model: str) -> None:
        """Begins to learn about a model."""

    @abstractmethod
    def remove(self, model: str) -> None:
        """Forgets a model; nothing else changes."""

    @abstractmethod
    def rename(self, names: Mapping[str, str]) -> None:
        """What is known of each of these models is known of the other from here on; all have to be there."""

    @abstractmethod
    def learn(self, features: FloatArray, model: str, reward: float) -> None:
        """Learns one reward. Raises KeyError for a model that was not added."""

    @abstractmethod
    def revise(self, features: FloatArray, model: str, old: float, new: float) -> None:
        """A reward that was learned with these features as `old` is `new` after all.

        The caller answers for it that it was learned. Raises KeyError for a model that was not added.
        """

    @abstractmethod
    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        """As Predictor.predict, with what is known now, of models that were added."""

    def expected(self, features: FloatArray, model: str) -> float:
        """As `predict` of one row of features and one model, to within rounding."""
        return float(self.predict(features, [model])[0])

    @abstractmethod
    def predictor(self) -> Predictor:
        """What is known now, to be used from one other thread."""

    @abstractmethod
    def state(self) -> ArrayState:
        """Everything, for `restore`."""

    @abstractmethod
    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave."""

    def evidence(self) -> ArrayState:
        """Arrays that are equal for two learners exactly if they have learned the same."""
        return self.state()
