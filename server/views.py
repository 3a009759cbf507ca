"""The learned views that decisions are made with: the learner publishes, the servers read."""

from __future__ import annotations

from policy.domain import Router
from policy.learner import RouterLearner
from policy.view import PolicyView

_BLANK_MAX = 64


class Views:
    """The newest view of each router. A view is immutable, so a swap is one assignment."""

    def __init__(self) -> None:
        self._views: dict[str, PolicyView] = {}
        self._blank: dict[str, PolicyView] = {}

    def get(self, router: Router) -> PolicyView:
        """The router's newest view, a blank one before the learner has seen the router."""
        view = self._views.get(router.id) or self._blank.get(router.id)
        if view is not None and view.embedding_dimensions != router.spec.embedding_dimensions:
            return RouterLearner(router).view(0)  # The learner has yet to hear of the router's new features.
        return self._blank_view(router) if view is None else view

    def _blank_view(self, router: Router) -> PolicyView:
        """One for all requests, but not kept for ever: the router may be gone before the learner has seen it."""
        if len(self._blank) >= _BLANK_MAX:
            self._blank.clear()
        return self._blank.setdefault(router.id, RouterLearner(router).view(0))

    def publish(self, router_id: str, view: PolicyView | None) -> None:
        """Swaps the router's view; None forgets it."""
        if view is None:
            self._views.pop(router_id, None)
        else:
            self._views[router_id] = view
        self._blank.pop(router_id, None)


class CandidateViews:
    """The newest view of each router's canary, if it learns: the evaluation publishes, the servers read."""

    def __init__(self) -> None:
        self._views: dict[str, tuple[str, PolicyView]] = {}

    def get(self, router_id: str, candidate: str) -> PolicyView | None:
        """What this candidate of the router knows; None before the evaluation has published it."""
        name, view = self._views.get(router_id, ("", None))
        return view if name == candidate else None

    def publish(self, router_id: str, candidate: str, view: PolicyView | None) -> None:
        """Swaps the router's view; None forgets it."""
        if view is None:
            self._views.pop(router_id, None)
        else:
            self._views[router_id] = (candidate, view)
