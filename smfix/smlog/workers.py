"""Parts read side by side: this process reads the first group, forked ones read the others.

A forked reader hands its events over a pipe, in order; when the pipe is full it waits. It writes
nothing else, and ends with this process. Small logs, one core, or a process with threads: one pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from smfix.errors import Unreadable
from smfix.smlog.parts import Part, Reading, Seen, cost, divide, placed, read_part
from smfix.smlog.sweep import Event, Looking

_WORTH_IT = 48 << 20  # bytes of plain text: below, a second process costs more than it saves
_AT_ONCE = 64  # events handed over together
_PIPE = 1 << 20  # bytes of a pipe that may wait
F_SETPIPE_SZ = 1031

Take = Callable[[Event], None]


def read_everything(reading: Reading, take: Take) -> dict[int, Seen]:
    """Give every event to `take`, in order; what was seen of each log."""
    groups = divide(reading, _ways(reading)) or [[]]
    others: list[tuple[int, BinaryIO]] = []
    try:
        others.extend(_fork(reading, group) for group in groups[1:])
        seen: dict[int, Seen] = {}
        wanted: set[str] = set()
        for part in groups[0]:
            for event in read_part(reading, part, Looking.BOTH, seen, wanted):
                take(event)
        for _, pipe in others:
            lines_before = {index: view.lines for index, view in seen.items()}
            for event in _received(pipe, seen):
                take(placed(event, lines_before))
        return seen
    finally:
        for pid, pipe in others:
            pipe.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # it only reads; after its last word it is gone anyway
            os.waitpid(pid, 0)


def _ways(reading: Reading) -> int:
    if sum(cost(log) for log in reading.logs) < _WORTH_IT or threading.active_count() > 1:
        return 1
    return max(1, len(os.sched_getaffinity(0)))


def _fork(reading: Reading, parts: list[Part]) -> tuple[int, BinaryIO]:
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:  # pragma: no cover - in another process
            os.close(receiving)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with os.fdopen(sending, "wb", buffering=0) as pipe:
                _widen(sending)
                _send_all(pipe, reading, parts)
        finally:
            os._exit(0)
    os.close(sending)
    return pid, os.fdopen(receiving, "rb")


def _widen(descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # pipe-max-size forbids it: then it waits sooner
        fcntl.fcntl(descriptor, F_SETPIPE_SZ, _PIPE)


def _send_all(pipe: Any, reading: Reading, parts: list[Part]) -> None:
    import pickle

    seen: dict[int, Seen] = {}
    reading.read = lambda _count: None
    batch: list[Event] = []
    try:
        for part in parts:
            for event in read_part(reading, part, Looking.ALL, seen, set()):
                batch.append(event)
                if len(batch) >= _AT_ONCE:
                    pickle.dump(("events", batch), pipe)
                    batch = []
        pickle.dump(("events", batch), pipe)
        pickle.dump(("seen", seen), pipe)
    except Unreadable as error:
        pickle.dump(("unreadable", str(error)), pipe)


def _received(pipe: BinaryIO, seen: dict[int, Seen]) -> Iterator[Event]:
    """The events of a forked reader; what it saw is joined to `seen` at the end."""
    import pickle

    while True:
        try:
            what, content = pickle.load(pipe)  # noqa: S301 - from our own fork
        except (EOFError, pickle.UnpicklingError) as error:
            raise Unreadable("a part of the logs could not be read: its reader died (out of memory?)") from error
        if what == "events":
            yield from content
        elif what == "unreadable":
            raise Unreadable(content)
        else:
            for index, view in content.items():
                _join(seen.setdefault(index, Seen()), view)
            return


def _join(whole: Seen, later: Seen) -> None:
    whole.first = whole.first or later.first
    whole.last = later.last or whole.last
    whole.size += later.size
    whole.lines += later.lines
    whole.failure = whole.failure or later.failure
