"""systemd is told, where there is one."""

from __future__ import annotations

import os
import socket

import pytest

from smfix.follow.sd_notify import notify, watchdog_seconds


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_manager_is_told(tmp_path, monkeypatch, is_abstract):
    name = f"smfix-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if is_abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if is_abstract else name)
        assert notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/socket"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("limit", "pid", "seconds"),
    [(None, None, None), ("20000000", None, 10.0), ("20000000", "1", None), ("x", None, None), ("0", None, None)],
)
def test_how_often_the_watchdog_wants_to_hear(monkeypatch, limit, pid, seconds):
    for name, value in (("WATCHDOG_USEC", limit), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds
