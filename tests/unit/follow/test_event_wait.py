"""What wakes a follower: a line, a new file, a signal, time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from smfix.follow import event_wait as waking
from smfix.follow.event_wait import POLL, POLL_BLIND, EventWait


def took(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


def later(seconds, action):
    threading.Timer(seconds, action).start()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "SMlog"
    path.write_text("x\n", encoding="utf-8")
    return path


def identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def append(path):
    with open(path, "a", encoding="utf-8") as file:
        file.write("line\n")


def test_a_line_and_a_new_file_wake(log):
    pytest.importorskip("inotify_simple")
    with EventWait(str(log.parent)) as wake:
        assert wake.sees
        wake.watch(str(log), identity(log))
        wake.wait(0)
        later(0.1, lambda: append(log))
        assert took(wake.wait) < POLL / 2
        wake.wait(0)
        later(0.1, (log.parent / "other").touch)
        assert took(wake.wait) < POLL / 2
        log.rename(f"{log}.1")
        append(log)
        wake.watch(str(log), identity(log))
        wake.watch(str(log), identity(log))
        wake.wait(0)
        later(0.1, lambda: append(log))
        assert took(wake.wait) < POLL / 2
        wake.watch(None, None)
        wake.watch("/nonexistent", (1, 2))


def test_without_inotify_it_is_time_that_wakes(log, monkeypatch):
    monkeypatch.setitem(sys.modules, "inotify_simple", None)
    with EventWait(str(log.parent)) as wake:
        assert not wake.sees
        wake.watch(str(log), identity(log))
        assert POLL_BLIND * 0.8 < took(wake.wait) < POLL
        assert took(lambda: wake.wait(0.05)) < POLL_BLIND / 2


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, False)])
def test_signals_wake_and_are_remembered(log, number, stops):
    before = signal.getsignal(number)
    with EventWait(str(log.parent), use_inotify=False) as wake:
        later(0.1, lambda: os.kill(os.getpid(), number))
        assert took(lambda: wake.pause(5)) < 2
        assert (wake.stopping, wake.reload) == (stops, not stops)
        os.kill(os.getpid(), number)
        assert took(wake.wait) < POLL_BLIND / 2
        wake.pause(0)
    assert signal.getsignal(number) is before


def test_a_limit_of_inotify_is_no_error(log, monkeypatch):
    module = pytest.importorskip("inotify_simple")

    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module, "INotify", refuse)
    assert waking._inotify() is None
    with EventWait(str(log.parent)) as wake:
        assert not wake.sees
