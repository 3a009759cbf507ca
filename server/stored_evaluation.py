"""What the evaluation had found when it last saved its state, for the servers that do not evaluate themselves."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from policy.evaluation import Evaluation
from policy.promotion import Promotion
from server.errors import StorageUnavailableError
from server.evaluation_loop import Found, found_of
from server.registry import Registry
from server.storage.evaluation_store import StoredEvaluation, evaluated_upto, load_evaluation

logger = logging.getLogger(__name__)

_KEPT = 32


class StoredEvaluations:
    """Reads a state once, and again when a later one was saved. May be asked from any thread.

    What is found for a caller who asks is kept, for who asks is likely to ask again.
    """

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[StoredEvaluation, Evaluation]] = OrderedDict()

    def find(self, router: str) -> Found | None:
        """What was known of a router; None if nothing was saved, or it was by another version. Raises
        StorageUnavailableError.
        """
        return self._find(router, keep=True)

    def glance(self, router: str) -> Found | None:
        """The same, and nothing more is kept in memory than was: a state can be of tens of megabytes."""
        return self._find(router, keep=False)

    def _find(self, router: str, *, keep: bool) -> Found | None:
        entry = self._registry.entry(router)
        requirements = (entry.promotion if entry else Promotion()).requirements
        try:
            with self._lock:
                known = self._newest(router, keep)
                if known is None or (entry is not None and entry.router.uid != known[0].router.uid):
                    return None  # What is saved may still be another router's that had the name.
                return found_of(known[1], known[0].seq, known[0].since_seq, requirements)
        except SQLAlchemyError as error:
            raise StorageUnavailableError from error
        except ValueError as error:
            logger.warning("the evaluation of routers/%s cannot be read: %s", router, error)
            return None

    def _newest(self, router: str, keep: bool) -> tuple[StoredEvaluation, Evaluation] | None:
        known = self._known.get(router)
        if known is not None and known[0].seq == evaluated_upto(self._engine, router):
            return known
        self._known.pop(router, None)
        stored = load_evaluation(self._engine, router)
        if stored is None:
            return None
        known = stored, Evaluation.restore(stored.router, stored.candidates, stored.state)
        if not keep:
            return known
        self._known[router] = known
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known
