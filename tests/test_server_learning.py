"""A turn to learn that begins while the server is being stopped."""

from __future__ import annotations

import threading
from typing import cast

from server.evaluation_loop import EvaluationLoop
from server.learner_loop import LearnerLoop
from server.learning import Learning


class Loop:
    """Notes what is asked of it; it starts when it is let."""

    def __init__(self) -> None:
        self.begun, self.let = threading.Event(), threading.Event()
        self.asked: list[str] = []

    def start(self) -> None:
        self.begun.set()
        assert self.let.wait(10.0)
        self.asked.append("start")

    def stop(self) -> None:
        self.asked.append("stop")


def learning_of(loop: Loop) -> Learning:
    return Learning(
        make_learner=lambda _heard: cast("LearnerLoop", loop),
        make_evaluation=lambda *_heard: cast("EvaluationLoop", loop),
        on_found=lambda _router, _found: None,
        on_change=lambda: None,
        find_stored=lambda _router: None,
        clock_us=lambda: 1,
    )


def test_a_stop_waits_for_a_turn_that_is_just_beginning() -> None:
    loop = Loop()
    learning = learning_of(loop)
    begins = threading.Thread(target=learning.begin)
    begins.start()
    assert loop.begun.wait(10.0)
    stops = threading.Thread(target=learning.stop)
    stops.start()
    stops.join(0.1)
    assert stops.is_alive()
    loop.let.set()
    for thread in (begins, stops):
        thread.join(10.0)
    assert loop.asked == ["start", "start", "stop", "stop"]
    assert not learning.active


def test_no_turn_begins_after_a_stop() -> None:
    loop = Loop()
    loop.let.set()
    learning = learning_of(loop)
    learning.stop()
    learning.begin()
    assert loop.asked == []
    assert not learning.active
