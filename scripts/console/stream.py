"""The requests that are replayed, each with what every model would make of it: of a file, or made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.simulation import Outcome
from server.replay.file import read_replay

_TOPICS = {
    "code": [
        "Fix this function: def {a}_{b}(values): return sorted({a}, key={b})[0]",
        "Why does `{a}.{b}()` raise a TypeError in Python 3.11?",
        "Write a unit test for the class {a} with a mock of {b}.",
    ],
    "facts": [
        "Which year was {a} founded, and by whom?",
        "What is the capital of the region of {a}?",
        "Who wrote {a}, and when was {b} published?",
    ],
    "maths": [
        "Solve for x: {n}x + {m} = {k}. Show each step.",
        "A train leaves {a} at {n}:00 with {m} km/h. When does it arrive, {k} km away?",
        "Prove by induction that the sum of the first {n} odd numbers is {m}.",
    ],
    "letters": [
        "Write a kind answer to a customer whose {a} arrived broken, and offer {b}.",
        "Make this letter to {a} shorter and friendlier, please.",
        "Draft an announcement of the new {a} for the {b} team.",
    ],
    "translation": [
        "Translate into French: the {a} is on the {b}.",
        "Translate into German: where can I find the {a}?",
        "What does the Spanish sentence about {a} and {b} mean?",
    ],
}
_WORDS = [
    *("lamp", "order", "river", "market", "station", "garden", "ticket", "invoice"),
    *("museum", "bridge", "parcel", "window", "engine", "harbour", "folder"),
]
# Mean quality by topic, in the order above, and mean cost in USD.
_MODELS = {
    "atlas-large": ((0.93, 0.95, 0.95, 0.93, 0.95), 0.0120),
    "atlas-medium": ((0.78, 0.93, 0.66, 0.90, 0.91), 0.0024),
    "atlas-small": ((0.42, 0.93, 0.25, 0.88, 0.92), 0.0003),
    "forge-coder": ((0.96, 0.40, 0.70, 0.35, 0.35), 0.0018),
}
_NOISE = 0.08


@dataclass(frozen=True, slots=True)
class Request:
    """A query, and what every model would make of it."""

    prompt: str
    outcomes: dict[str, Outcome]


def made_up(count: int, seed: int) -> list[Request]:
    """Requests of five topics to four models, of which each is good at some."""
    random = np.random.default_rng(seed)
    return [_request(random) for _ in range(count)]


def _request(random: np.random.Generator) -> Request:
    topic = int(random.choice(len(_TOPICS), p=(0.25, 0.25, 0.15, 0.2, 0.15)))
    template = str(random.choice(list(_TOPICS.values())[topic]))
    a, b = random.choice(_WORDS, 2)
    n, m, k = random.integers(2, 90, 3)
    hard = random.normal(0.0, _NOISE)
    outcomes = {
        model: Outcome(
            quality=float(np.clip(random.normal(means[topic] + hard, _NOISE), 0.0, 1.0)),
            cost_usd=float(cost_usd * random.lognormal(-0.08, 0.4)),
        )
        for model, (means, cost_usd) in _MODELS.items()
    }
    return Request(template.format(a=a, b=b, n=n, m=m, k=k), outcomes)


def of_file(path: Path, count: int, seed: int) -> list[Request]:
    """Rows of a replay file, in an order by the seed. Raises ReplayFileError."""
    rows = read_replay(path).rows
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [Request(rows[index].prompt, rows[index].outcomes) for index in order]
