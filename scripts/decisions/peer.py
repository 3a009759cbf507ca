"""What a peer is, and how it is played against the same worlds as Pointsman."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from policy.domain import FloatArray, Model
from policy.simulation import Arrival, World


@dataclass(frozen=True, slots=True)
class Pick:
    """A peer's choice for one query. `features` is (features,), as the peer was shown them."""

    features: FloatArray
    model: str
    probability: float = 1.0


class Peer(ABC):
    """Another router. It knows its budget from the start, and learns costs and rewards as they come."""

    @abstractmethod
    def set_models(self, models: Sequence[Model]) -> None:
        """These are the models from now on; called before the first choice and at every change."""

    @abstractmethod
    def choose(self, features: FloatArray) -> Pick:
        """Chooses a model for a query. Axes of `features`: (features,); the last is 1."""

    @abstractmethod
    def charge(self, pick: Pick, cost_usd: float) -> None:
        """The call has cost this."""

    @abstractmethod
    def learn(self, pick: Pick, reward: float, cost_usd: float) -> None:
        """The call has earned this reward, at this cost as far as it is known (else 0)."""


def play(world: World, peer: Peer, features: FloatArray) -> Iterator[str]:
    """Plays the world's rounds; yields each round's chosen model when what came at once is learned.

    `features` (rounds, features) are what the peer is shown of each query, in the order of play.

    A peer has no notion of an error: it is told a reward of 0 for a failed call.
    """
    coming = _Coming(peer)
    router = None
    for position in range(len(world.rounds)):
        if world.router(position) is not router:
            router = world.router(position)
            peer.set_models(router.models)
        coming.deliver(position)
        pick = peer.choose(features[position])
        coming.add(position, pick, world.arrivals(position, pick.model))
        coming.deliver(position)
        yield pick.model


class _Coming:
    """The reports still on their way to a peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._heap: list[tuple[int, int, int, Pick, Arrival]] = []
        self._costs_usd: dict[int, float] = {}

    def add(self, position: int, pick: Pick, arrivals: Sequence[Arrival]) -> None:
        for number, arrival in enumerate(arrivals):
            heappush(self._heap, (position + arrival.delay, position, number, pick, arrival))

    def deliver(self, now: int) -> None:
        while self._heap and self._heap[0][0] <= now:
            _, position, _, pick, arrival = heappop(self._heap)
            if arrival.usage is not None and arrival.usage.cost_usd is not None:
                self._costs_usd[position] = arrival.usage.cost_usd
                self._peer.charge(pick, arrival.usage.cost_usd)
            reward = 0.0 if arrival.error is not None else arrival.reward
            if reward is not None:
                self._peer.learn(pick, reward, self._costs_usd.get(position, 0.0))
