"""host.forked: the results of all pieces in order, whatever becomes of who did them."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from smfix.host import forked


@pytest.fixture(autouse=True)
def nothing_is_left():
    descriptors = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == descriptors
    forked.wait()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("ways", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_order(count, ways):
    assert list(forked.in_order(lambda number: number * number, count, ways)) == [n * n for n in range(count)]


def test_they_are_done_elsewhere_and_in_turns():
    pids = list(forked.in_order(lambda _number: os.getpid(), 6, 2))
    assert os.getpid() not in pids
    assert pids == pids[:2] * 3
    assert pids[0] != pids[1]


def test_more_than_a_pipe_holds_comes_through():
    results = forked.in_order(lambda number: bytes([number]) * (3 << 20), 4, 2)
    assert [(len(each), each[0]) for each in results] == [(3 << 20, number) for number in range(4)]


def test_what_a_killed_process_left_undone_is_done_here():
    here = os.getpid()

    def work(number):
        if number == 2 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, os.getpid() == here

    assert list(forked.in_order(work, 6, 2)) == [
        (0, False), (1, False), (2, True), (3, False), (4, True), (5, False),
    ]  # fmt: skip


def test_what_goes_wrong_is_raised_here():
    def work(number):
        if number == 3:
            raise LookupError(number)
        return number

    results = forked.in_order(work, 6, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError):
        next(results)


def test_who_stops_listening_leaves_no_process():
    results = forked.in_order(lambda number: number, 1000, 2)
    assert next(results) == 0
    results.close()


@pytest.mark.parametrize("fails_at", [0, 1])
def test_where_no_process_can_be_made_fewer_do(monkeypatch, fails_at):
    fork, forks = os.fork, []

    def failing():
        forks.append(None)
        if len(forks) > fails_at:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", failing)
    assert list(forked.in_order(lambda number: -number, 5, 2)) == [0, -1, -2, -3, -4]


def test_beside_threads_nothing_is_forked():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert set(forked.in_order(lambda _number: os.getpid(), 4, 2)) == {os.getpid()}
    finally:
        done.set()
        thread.join()


class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_in_the_middle_of_a_result_loses_nothing():
    here = os.getpid()

    def work(number):
        return [b"x" * 300_000, Deadly()] if number == 1 and os.getpid() != here else number

    assert list(forked.in_order(work, 4, 2)) == [0, 1, 2, 3]


def test_an_interrupt_is_not_for_it():
    def work(number):
        if number < 2:
            os.kill(os.getpid(), signal.SIGINT)
        return os.getpid()

    assert os.getpid() not in list(forked.in_order(work, 4, 2))


def test_a_process_that_hangs_is_ended():
    here = os.getpid()
    results = forked.in_order(lambda number: os.getpid() if number < 2 else time.sleep(60), 4, 2)
    pids = [next(results), next(results)]
    results.close()
    forked.wait()
    assert here not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_whose_end_was_seen_elsewhere_is_gone():
    results = forked.in_order(lambda _number: os.getpid(), 2, 2)
    pids = list(results)
    forked._ENDED.extend(pids)
    forked.wait()
    forked._ENDED.extend(pids)
    forked.wait()
    assert forked._ENDED == []


def test_no_descriptor_is_left_if_no_process_can_be_made(monkeypatch):
    def fail():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", fail)
    before = os.listdir("/proc/self/fd")
    assert list(forked.in_order(lambda number: number, 4, 2)) == [0, 1, 2, 3]
    assert os.listdir("/proc/self/fd") == before
