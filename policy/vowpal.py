"""Vowpal Wabbit as the learner of quality; the only module that touches it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import vowpalwabbit

from policy.array_state import ArrayState
from policy.domain import FloatArray
from policy.quality import Parts, Predictor, QualityLearner

_BITS = 18
_OPTIONS = f"--quiet -q dm --ignore_linear d --coin --noconstant -b {_BITS}"
_PRIOR = 1.0
_PAIR_PRIME = 16_777_619  # VW hashes a pair of features as prime * first ^ second.


class VowpalQuality(QualityLearner):
    """One regression on every pair of model and feature, by coin betting (Orabona and Pal 2016).

    It learns reward - 1, so that a model without rewards is taken to be as good as can be.
    Removing a model sets its weights back to what they were before it. All models share one table, so
    that some of its places may be another model's too; those are left, since they are the other's.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._models: list[str] = []
        self._workspace = vowpalwabbit.Workspace(f"{_OPTIONS} --save_resume")

    def add(self, model: str) -> None:
        self._models.append(model)

    def remove(self, model: str) -> None:
        self._models.remove(model)
        places = np.setdiff1d(self._places(model), np.concatenate([[], *map(self._places, self._models)]))
        for place in places.astype(int).tolist():
            for offset in range(self._workspace.get_stride()):
                self._workspace.set_weight(place, offset, 0.0)

    def rename(self, names: Mapping[str, str]) -> None:
        """Moves the weights to the places of the new names. Where two models share a place, one's is lost."""
        moved = {old: new for old, new in names.items() if _name(old) != _name(new)}
        workspace, offsets = self._workspace, range(self._workspace.get_stride())
        found = {}
        for old in moved:
            places = self._places(old).astype(int).tolist()
            found[old] = [[workspace.get_weight(place, offset) for offset in offsets] for place in places]
            for place in places:
                for offset in offsets:
                    workspace.set_weight(place, offset, 0.0)
        for old, new in moved.items():
            for place, weights in zip(self._places(new).astype(int).tolist(), found[old], strict=True):
                for offset, weight in enumerate(weights):
                    workspace.set_weight(place, offset, weight)
        self._models = [names[model] for model in self._models]

    def _places(self, model: str) -> npt.NDArray[np.uint64]:
        """Where the model's weights are in the table: its own, and those of its pairs with a feature."""
        workspace = self._workspace
        own = np.uint64(workspace.hash_feature(_name(model), workspace.hash_space("m")))
        features = np.uint64(workspace.hash_space("d")) + np.arange(self._size, dtype=np.uint64)
        pairs = (features * np.uint64(_PAIR_PRIME)) ^ own
        return np.append(pairs, own) & np.uint64((1 << _BITS) - 1)

    def learn(self, features: FloatArray, model: str, reward: float) -> None:
        if model not in self._models:
            raise KeyError(model)
        workspace = self._workspace
        with _example(workspace, features) as example:
            example.set_label_string(repr(reward - _PRIOR))
            with _model(workspace, example, model):
                workspace.learn(example)

    def revise(self, features: FloatArray, model: str, old: float, new: float) -> None:  # noqa: ARG002
        """Learns `new` as a further example: what was learned online cannot be taken back.

        So this is not what relearning would give. The old value stays an example beside the new one, which
        draws the prediction back towards it, at most halfway; and a query whose reward was revised
        counts more than one whose reward was not. (Examples that would cancel the old value exactly,
        `2 * new - old` or the prediction moved by `new - old`, came out further from relearning.)
        """
        self.learn(features, model, new)

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        return _predict(self._workspace, features, models)

    def predictor(self) -> Predictor:
        return FrozenVowpal(_saved(self._workspace))

    def state(self) -> ArrayState:
        return {
            "workspace": np.frombuffer(_saved(self._workspace), dtype=np.uint8),
            "models": np.array(self._models, dtype=np.str_),
        }

    def restore(self, state: ArrayState) -> None:
        self._workspace.finish()
        self._workspace = _loaded(state["workspace"].tobytes(), "--save_resume")
        self._models = [str(model) for model in state["models"]]

    def evidence(self) -> ArrayState:
        # Saved files of equal workspaces differ in their headers; a prediction reads a weight.
        probes = np.eye(self._size)
        return {
            "models": np.array(self._models, dtype=np.str_),
            "weights": self.predict(probes, self._models),
        }


class FrozenVowpal:
    """A copy of a workspace, loaded when it is first asked: most views are never decided with."""

    def __init__(self, saved: bytes) -> None:
        self._saved = saved
        self._workspace: vowpalwabbit.Workspace | None = None

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        if self._workspace is None:
            self._workspace = _loaded(self._saved, "-t")
        return _predict(self._workspace, features, models)

    def parts(self, features: FloatArray, models: Sequence[str]) -> Parts | None:  # noqa: ARG002
        """None: coin betting keeps no weights, but makes them when it predicts, and VW gives the sum, clipped."""
        return None

    def state(self) -> ArrayState:
        """Everything, for `restored`."""
        return {"workspace": np.frombuffer(self._saved, dtype=np.uint8)}

    @classmethod
    def restored(cls, state: ArrayState) -> FrozenVowpal:
        """The predictor that gave `state`."""
        return cls(state["workspace"].tobytes())


def _predict(workspace: vowpalwabbit.Workspace, features: FloatArray, models: Sequence[str]) -> FloatArray:
    if features.ndim == 2:
        return np.array([_predict(workspace, row, models) for row in features])
    found = np.empty(len(models))
    with _example(workspace, features) as example:
        for index, model in enumerate(models):
            with _model(workspace, example, model):
                found[index] = workspace.predict(example) + _PRIOR
    return found


@contextmanager
def _example(workspace: vowpalwabbit.Workspace, features: FloatArray) -> Iterator[vowpalwabbit.Example]:
    """The query alone. Numbers and not text: writing and reading that was two thirds of what VW took."""
    values = features.astype(np.float32).tolist()
    # A feature that is named by a number is hashed to the sum.
    space = workspace.hash_space("d")
    example = workspace.example()
    example.push_features("d", [(space + index, value) for index, value in enumerate(values) if value])
    try:
        yield example
    finally:
        workspace.finish_example(example)


@contextmanager
def _model(workspace: vowpalwabbit.Workspace, example: vowpalwabbit.Example, model: str) -> Iterator[None]:
    """The query for this model, ready to be learned or predicted."""
    example.push_features("m", [(workspace.hash_feature(_name(model), workspace.hash_space("m")), 1.0)])
    example.setup_example()
    yield
    example.unsetup_example()
    example.pop_namespace()


def _name(model: str) -> str:
    """The model's uid: ids may hold characters that mean something in VW's text format."""
    return "u" + model.rpartition("#")[2]


def _saved(workspace: vowpalwabbit.Workspace) -> bytes:
    with _Scratch() as path:
        workspace.save(str(path))
        return path.read_bytes()


def _loaded(saved: bytes, options: str) -> vowpalwabbit.Workspace:
    with _Scratch() as path:
        path.write_bytes(saved)
        return vowpalwabbit.Workspace(f"--quiet -i {path} {options}")


class _Scratch:
    """A file that exists as long as the block: pyvw saves to and loads from files only."""

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(suffix=".vw")
        os.close(handle)
        self._path = Path(name)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
