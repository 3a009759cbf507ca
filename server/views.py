"""The learned views that decisions are made with: the learner publishes, the servers read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from policy.domain import Router
from policy.learner import RouterLearner
from policy.view import PolicyView

_BLANK_MAX = 64

NewViews = Mapping[str, tuple[str, PolicyView | None]]
"""Of each router the name of the candidate, empty for the live policy, and its view, None if it has none."""
OnViews = Callable[[int, NewViews, bool], object]
"""Takes a position of the log, the views that are new there, and whether no more of the log is there."""


class Views:
    """The newest view of each router. A view is immutable, so a swap is one assignment."""

    def __init__(self, clock_seconds: Callable[[], float] = time.monotonic) -> None:
        self._clock_seconds = clock_seconds
        self._views: dict[str, PolicyView] = {}
        self._blank: dict[str, PolicyView] = {}
        self._born: dict[str, float] = {}

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

    def publish(self, router_id: str, view: PolicyView | None, age_seconds: float = 0.0) -> None:
        """Swaps the router's view, which is so old already; None forgets it. One of an earlier position of the log
        changes nothing: a learner that begins again, here or elsewhere, has yet to come to where another was.
        """
        self._blank.pop(router_id, None)
        if view is None:
            self._views.pop(router_id, None)
            self._born.pop(router_id, None)
            return
        known = self._views.get(router_id)
        if known is None or known.snapshot <= view.snapshot:
            self._views[router_id] = view
            self._born[router_id] = self._clock_seconds() - age_seconds

    def age_seconds(self, router_id: str) -> float | None:
        """How long ago the router's view was published; None before one was."""
        born = self._born.get(router_id)
        return None if born is None else self._clock_seconds() - born


class CandidateViews:
    """The newest view of each router's canary, if it learns: the evaluation publishes, the servers read."""

    def __init__(self) -> None:
        self._views: dict[str, tuple[str, PolicyView]] = {}

    def get(self, router_id: str, candidate: str) -> PolicyView | None:
        """What this candidate of the router knows; None before the evaluation has published it."""
        name, view = self._views.get(router_id, ("", None))
        return view if name == candidate else None

    def publish(self, router_id: str, candidate: str, view: PolicyView | None) -> None:
        """Swaps the router's view; None forgets it. One of an earlier position of the log changes nothing."""
        if view is None:
            self._views.pop(router_id, None)
            return
        name, known = self._views.get(router_id, ("", view))
        if name != candidate or known.snapshot <= view.snapshot:
            self._views[router_id] = (candidate, view)
