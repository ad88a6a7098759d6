"""Work that may never come back: it asks, it is answered, it is left."""

from __future__ import annotations

import threading
import time

import pytest

from smfix.follow.worker_thread import WorkerThread


def test_it_asks_and_is_answered():
    errand = WorkerThread(lambda ask: [ask(1), ask(2)])
    assert errand.serve(5, lambda number: number == 2)
    assert errand.result() == [False, True]
    assert errand.has_permission
    assert errand.serve(0, lambda _number: True)


def test_who_is_late_is_left_and_asked_again_later():
    gate = threading.Event()

    def work(ask):
        gate.wait(10)
        return ask("may I?")

    errand = WorkerThread(work)
    began = time.monotonic()
    assert not errand.serve(0.05, lambda _asked: True)
    assert time.monotonic() - began < 1
    gate.set()
    assert errand.serve(5, lambda _asked: False)
    assert errand.result() is False
    assert not errand.has_permission


def test_what_it_raised_is_raised():
    def work(_ask):
        raise KeyError("x")

    errand = WorkerThread(work)
    assert errand.serve(5, lambda _asked: True)
    with pytest.raises(KeyError):
        errand.result()
