"""The learned views that decisions are made with: the learner publishes, the servers read."""

from __future__ import annotations

from policy.learner import PolicyView


class Views:
    """The newest view of each router. A view is immutable, so a swap is one assignment."""

    def __init__(self) -> None:
        self._views: dict[str, PolicyView] = {}

    def get(self, router_id: str) -> PolicyView | None:
        """The router's newest view, None before the learner has seen the router."""
        return self._views.get(router_id)

    def publish(self, router_id: str, view: PolicyView | None) -> None:
        """Swaps the router's view; None forgets it."""
        if view is None:
            self._views.pop(router_id, None)
        else:
            self._views[router_id] = view
