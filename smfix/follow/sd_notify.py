"""Notify systemd of the state of a service of ``Type=notify``: a datagram to the socket that it names.

Source: sd_notify(3). Without that socket nothing is sent.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from smfix.host.bundle import manager_pids


def notify(*lines: str) -> bool:
    """Send lines to the service manager, ``READY=1`` for example; return True if they were sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.settimeout(1.0)  # a manager that hangs must not hang us
        to.sendto("\n".join(lines).encode(), address)
        return True
    return False


def watchdog_seconds() -> float | None:
    """Return the seconds between two ``WATCHDOG=1`` (half the manager's limit); None if it wants none."""
    try:
        limit = int(os.environ.get("WATCHDOG_USEC", "0"))
        meant = int(os.environ.get("WATCHDOG_PID", os.getpid())) in manager_pids()
    except ValueError:
        return None
    return limit / 2e6 if limit > 0 and meant else None
