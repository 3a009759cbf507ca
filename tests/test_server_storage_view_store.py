"""Views in PostgreSQL: a newer one is taken, an older one never, whoever comes last."""

from __future__ import annotations

import random as randomness

from engines import BOTH_ENGINES
from servers import Disk, seeded

from server.storage.view_store import LearnerHead, StoredView, publish_views, read_board, read_views

pytestmark = BOTH_ENGINES


def test_an_older_view_never_replaces_a_newer_one(disk: Disk) -> None:
    random: randomness.Random = seeded("views")
    newest: dict[tuple[str, bool], StoredView] = {}
    farthest = 0
    for _ in range(60):
        seq = random.randrange(1, 100)
        state = random.choice((None, random.randbytes(8)))
        view = StoredView(random.choice("ab"), random.random() < 0.5, "", seq, state)
        head = random.randrange(1, 100)
        publish_views(disk.engine, [view], LearnerHead(head, "one"), disk.now_us)
        farthest = max(farthest, head)
        if view.key not in newest or newest[view.key].seq < seq:
            newest[view.key] = view
        board = read_board(disk.engine, 0)
        assert board.positions == {key: each.seq for key, each in newest.items()}
        assert board.learner == LearnerHead(farthest, "one")
        stored = {each.key: each.state for each in read_views(disk.engine, newest)}
        assert stored == {key: each.state for key, each in newest.items()}
