"""The log of decisions: silent unless asked for, one logger a module, for people or with journald's priorities."""

from __future__ import annotations

import logging
import os

import pytest

from smfix.host import log_output
from smfix.values import Log


@pytest.fixture(autouse=True)
def _silent_again(monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    Log.write = None


def log_two(lines, *, is_debug):
    log_output.start(lines.append, is_debug=is_debug)
    log = Log("smfix.sm.resolve")
    log.info("found %s", "100 %")
    log.debug("looked at %d places", 3)
    return lines


def test_it_is_silent_and_formats_nothing_unless_asked_for():
    Log("smfix.sm.resolve").info("%d", "this would be an error")
    Log("smfix.sm.resolve").debug("%d", "this would be an error")


def test_verbose_and_debug():
    assert log_two([], is_debug=False) == ["smfix: sm.resolve: found 100 %"]
    assert log_two([], is_debug=True) == ["smfix: sm.resolve: found 100 %", "smfix: sm.resolve: looked at 3 places"]
    assert not logging.getLogger().handlers or logging.getLogger("smfix").propagate is False


def test_a_service_writes_the_priorities_of_journald(monkeypatch):
    about = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
    assert log_two([], is_debug=True) == ["<6>sm.resolve: found 100 %", "<7>sm.resolve: looked at 3 places"]


@pytest.mark.parametrize("stream", ["", "8:1", "x:y", "8"])
def test_another_stream_is_not_the_journal(monkeypatch, stream):
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    assert not log_output.is_journal()
