"""Build what the repairs of one run share: the pool's XAPI, the wait for GC, guard, locks and journals."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from smfix.errors import UsageError
from smfix.xapi import login as login_module

if TYPE_CHECKING:
    from smfix.sm.gc_lock import GcWait
    from smfix.xapi import client


def gc_wait(text: str | None, draw: Callable[[str], None]) -> GcWait:
    """How long a run waits for the end of GC, by ``--gc-wait``. Raises UsageError for what is no duration."""
    from smfix.sm.gc_lock import GC_WAIT, GcWait

    if text is None:
        return GcWait(GC_WAIT, draw=draw)
    from smfix.usecases.durations import seconds

    found = seconds(text)
    if found is None:
        raise UsageError(f"--gc-wait {text}: not a duration such as 0s, 90s, 15m, 2h or 1d")
    return GcWait(float(found), draw=draw)


def pool_at(file: str | None) -> client.Pool | None:
    """The pool's XAPI: as `file` or the environment says, else this host's own, else None.

    One that the operator named must answer, else Unreadable; this host's own is asked when it is needed. Raises
    UsageError as :func:`smfix.xapi.login.login` does.
    """
    login = login_module.login(file, os.environ, socket=login_module.SOCKET)
    if login is None:
        return None
    from smfix.xapi import client

    pool = client.Pool(login, here=client.this_host())
    if login.socket is None:
        pool.hosts()
    return pool
