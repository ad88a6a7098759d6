"""Processes of our own that read: they tell in order, wait for who listens, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import time

import pytest

from smfix.host.readers import Reader, wait


def test_what_it_tells_comes_in_order():
    def work(tell, _asked):
        for number in range(1000):
            tell(str(number) * 100)

    reader = Reader(work, room=1 << 20)
    try:
        assert [reader.hear() for _ in range(1000)] == [str(number) * 100 for number in range(1000)]
        with pytest.raises(EOFError):
            reader.hear()
    finally:
        reader.end()


def test_one_that_dies_has_ended():
    def work(tell, _asked):
        tell("before")
        os.kill(os.getpid(), signal.SIGKILL)

    reader = Reader(work)
    assert reader.hear() == "before"
    with pytest.raises(EOFError):
        reader.hear()
    reader.end()


class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_dies_in_the_middle_of_a_word_has_ended():
    reader = Reader(lambda tell, _asked: tell([b"x" * 300_000, Deadly()]))
    with pytest.raises(EOFError):
        reader.hear()
    reader.end()


def test_it_is_ended_whatever_it_does():
    def work(tell, _asked):
        tell(os.getpid())
        while True:
            time.sleep(60)

    reader = Reader(work)
    pid = reader.hear()
    reader.end()
    wait()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_interrupt_is_not_for_it():
    def work(tell, _asked):
        tell(os.getpid())
        time.sleep(0.1)
        tell("still here")

    reader = Reader(work)
    os.kill(reader.hear(), signal.SIGINT)
    assert reader.hear() == "still here"
    reader.end()


def test_where_no_process_can_be_made_nothing_stays_open(monkeypatch):
    def fail():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", fail)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Resource temporarily"):
        Reader(print)
    assert os.listdir("/proc/self/fd") == before


def test_it_can_be_asked_until_nobody_asks():
    def work(tell, asked):
        try:
            while True:
                tell(asked() * 2)
        except EOFError:
            tell("nobody asks")

    reader = Reader(work)
    reader.ask(21)
    assert reader.hear() == 42
    reader.ask("ab")
    assert reader.hear() == "abab"
    reader._questions.close()
    assert reader.hear() == "nobody asks"
    reader.end()


def test_one_that_has_ended_is_asked_in_vain():
    reader = Reader(lambda tell, _asked: tell(1))
    assert reader.hear() == 1
    with pytest.raises(EOFError):
        reader.hear()
    reader.ask(2)
    with pytest.raises(EOFError):
        reader.hear()
    reader.end()


def test_one_that_somebody_else_saw_go_is_gone():
    reader = Reader(lambda tell, _asked: tell(os.getpid()))
    pid = reader.hear()
    os.waitpid(pid, 0)
    reader.end()
    wait()
