"""What a server says of its health, by service."""

from __future__ import annotations

from collections.abc import Sequence

from server.alarm_watch import AlarmWatch
from server.learner_process import LearnerProcess
from server.learning import Learning
from server.metrics.endpoint import Metrics
from server.registry import Registry
from server.settings import Role
from server.view_publisher import holder
from server.view_watch import ViewWatch

LEARNER = "pointsman.v1.learner"
EVALUATION = "pointsman.v1.evaluation"
LIVE_POLICY = "pointsman.v1.live_policy"


class Statuses:
    """A server that shares its database, and so has a `watch`, serves once it knows what was learned, here or
    elsewhere, and goes on with that when nothing more comes; one that has its own, as long as it learns.
    """

    def __init__(
        self,
        role: Role,
        services: Sequence[str],
        registry: Registry,
        learning: Learning,
        watch: ViewWatch | None,
        alarms: AlarmWatch,
        learner_process: LearnerProcess | None,
        metrics: Metrics,
    ) -> None:
        self._role = role
        self._services = services
        self._registry = registry
        self._learning = learning
        self._watch = watch
        self._alarms = alarms
        self._learner_process = learner_process
        self._metrics = metrics
        self._ready = False

    def __call__(self) -> dict[str, bool]:
        """Whether each service, and the whole, which has no name, is healthy."""
        learning, shared = self._learning, self._watch is not None
        if not learning.active:
            self._metrics.forget()
        if not self._ready and (learning.learns or self._knows_all_views()):
            self._ready = True
            self._metrics.level()
        serves = learning.learns
        if shared:
            serves = not learning.died and (self._ready or self._role is Role.LEARNER)
        return {
            **dict.fromkeys(("", *self._services), serves),
            LEARNER: learning.learns or self._learns_beside(),
            # Of a server that has no turn to evaluate there is nothing to complain of.
            EVALUATION: learning.evaluates or (serves and shared and not learning.active),
            LIVE_POLICY: self._alarms.satisfied if learning.satisfied is None else learning.satisfied,
        }

    def _learns_beside(self) -> bool:
        """Whether the learner's process has published what it knows, and still learns, and this server has views.

        A router that was created a moment ago has none yet, which is no failure of the learner's.
        """
        pid = self._learner_process.pid if self._learner_process else None
        watch = self._watch
        if pid is None or watch is None:
            return False
        return watch.learner == holder(pid) and not watch.late and self._ready

    def _knows_all_views(self) -> bool:
        watch = self._watch
        return watch is not None and watch.knows(each.router.id for each in self._registry.entries())
