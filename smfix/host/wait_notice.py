"""Say that a run waits for storage: a run that is silent for minutes looks like one that hangs.

Theory. A thread that waits in the kernel cannot speak, and a signal's handler in Python runs only when it is back. So a
second thread looks at the first one: if it is not running, and the kernel counts no switch of it to another thread
since, it has waited for one and the same thing all that time. A long computation, or storage that is slow but
answers, changes the count. A program of the host that this thread waits for is named in place of the storage: which
of its disks the program waits for, if for any, is not known.

Source: proc(5), /proc/self/task/TID/status (``State``, ``voluntary_ctxt_switches``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]

SECONDS = 5.0
"""How long one wait goes on before a line names it."""
_STEP = 0.5  # seconds between two looks
_PROGRAMS: dict[int, str] = {}
"""Threads that wait for a program of the host, and what is said of it."""


def words(what: str) -> str:
    """The line for people."""
    return (
        f"smfix: still waiting for the storage of {what}, which has not answered for {SECONDS:g} s; see whether its "
        "server and its paths are up"
    )


@contextmanager
def program(name: str, pid: int, limit: float) -> Iterator[None]:
    """While the block runs, this thread waits for a program, for at most `limit` seconds."""
    thread = threading.get_native_id()
    _PROGRAMS[thread] = (
        f"smfix: still waiting for {name} (pid {pid}), which has not ended for {SECONDS:g} s; it is given up after "
        f"{limit:g} s"
    )
    try:
        yield
    finally:
        del _PROGRAMS[thread]


@contextmanager
def watched(what: str, say: Say | None) -> Iterator[None]:
    """While the block runs, `say` once if this thread waits for one thing for SECONDS; None: do nothing."""
    if say is None:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(threading.get_native_id(), what, say, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(_STEP)  # bounded: stderr may be a pipe that takes nothing


def _watch(thread: int, what: str, say: Say, over: threading.Event) -> None:
    before, since = None, time.monotonic()
    while not over.wait(_STEP):
        now = _standing(thread)
        if now is None or now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since >= SECONDS:
            say(_PROGRAMS.get(thread) or words(what))
            return


def _standing(thread: int) -> str | None:
    """How often the thread has stopped for something; None while it runs, or if the kernel does not say."""
    try:
        with open(f"/proc/self/task/{thread}/status", encoding="ascii", errors="replace") as status:
            told = dict(line.split(":", 1) for line in status if ":" in line)
    except OSError:
        return None
    return None if told.get("State", "").lstrip().startswith("R") else told.get("voluntary_ctxt_switches")
