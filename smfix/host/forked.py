"""One work on many things, in as many processes as are wanted; the results come back in order.

Theory. A forked process has what its parent had: nothing is imported anew, and nothing is handed to it. Each one
takes every n-th piece, so that a stretch of difficult ones is shared, and sends its results over a pipe; where the
pipe is full it waits, so no more is held in memory than is asked for. A process that dies (out of memory?) loses
nothing: what it left undone is done here, and whatever was wrong is raised here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

T = TypeVar("T")

_PIPE = 1 << 20  # bytes of a pipe that may wait
_F_SETPIPE_SZ = 1031


def in_order(work: Callable[[int], T], count: int, ways: int) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)``, by `ways` processes. Raises what `work` raises."""
    children: list[tuple[int, BinaryIO]] = []
    ways = max(1, min(ways, count))
    try:
        if ways > 1 and threading.active_count() == 1:
            # Where no more processes may be made, fewer do; what nobody does is done here.
            with contextlib.suppress(OSError):
                children.extend(_forked(work, range(way, count, ways)) for way in range(ways))
        lost = set(range(len(children), ways))
        for number in range(count):
            way = number % ways
            if way not in lost:
                try:
                    result: T = pickle.load(children[way][1])  # noqa: S301 - from our own fork
                except (EOFError, pickle.UnpicklingError):
                    lost.add(way)
                else:
                    yield result
                    continue
            yield work(number)
    finally:
        for pid, pipe in children:
            pipe.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # it only reads; after its last word it is gone anyway
            os.waitpid(pid, 0)


def _forked(work: Callable[[int], T], share: range) -> tuple[int, BinaryIO]:
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(receiving)
        os.close(sending)
        raise
    if pid == 0:
        try:  # pragma: no cover - in another process
            os.close(receiving)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            gc.freeze()  # what the parent has made is not its to collect
            _widen(sending)
            with os.fdopen(sending, "wb") as pipe:
                for number in share:
                    pickle.dump(work(number), pipe, pickle.HIGHEST_PROTOCOL)
                    pipe.flush()
        finally:
            os._exit(0)
    os.close(sending)
    return pid, os.fdopen(receiving, "rb")


def _widen(descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # pipe-max-size forbids it: then it waits sooner
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE)
