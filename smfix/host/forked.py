"""Do one work on many things in several processes; the results come back in order.

Theory. A forked process has its parent's memory: it imports nothing anew, and no work is sent to it. Each process
takes every n-th piece, so that difficult neighbours are shared, and sends its results over a pipe. If the pipe is full,
it waits, so the memory holds no more results than are taken. If a process dies (out of memory?), this one does the
rest of its work, and raises its error. A process whose storage hangs is killed and not waited for (decision 25), which
concurrent.futures would do at its end. Only a process without threads forks: a fork copies their locks, and not them.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_F_SETPIPE_SZ = 1031
_PIPE = 1 << 20  # bytes of a pipe that may wait
_ENDED: list[int] = []
"""Not waited for: the kernel takes milliseconds to clear a process away, or for ever if its storage hangs."""


def in_order(work: Callable[[int], T], count: int, ways: int) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)``, by `ways` processes. Raises what `work` raises."""
    workers: list[_Worker] = []
    ways = max(1, min(ways, count))
    try:
        if ways > 1 and threading.active_count() == 1:
            # If no more processes may be made, fewer do the work; this process does the rest.
            with contextlib.suppress(OSError):
                workers.extend(_Worker(work, range(way, count, ways)) for way in range(ways))
        lost = set(range(len(workers), ways))
        for number in range(count):
            way = number % ways
            if way not in lost:
                try:
                    result: T = workers[way].result()
                except EOFError:
                    lost.add(way)
                else:
                    yield result
                    continue
            yield work(number)
    finally:
        for worker in workers:
            worker.end()


def wait(how: int = 0) -> None:
    """Wait until the processes that were ended are gone; with ``os.WNOHANG`` only see which are."""
    _ENDED[:] = [pid for pid in _ENDED if not _is_gone(pid, how)]


def _is_gone(pid: int, how: int) -> bool:
    try:
        return os.waitpid(pid, how) != (0, 0)
    except ChildProcessError:  # its end was taken note of elsewhere
        return True


class _Worker:
    """A process that does `work` on each of `numbers`. Raises OSError if no process can be made."""

    def __init__(self, work: Callable[[int], object], numbers: range) -> None:
        receiving, sending = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(receiving)
            os.close(sending)
            raise
        if self._pid == 0:
            try:  # pragma: no cover - in another process
                os.close(receiving)
                _send_results(work, numbers, sending)
            finally:
                os._exit(0)
        os.close(sending)
        self._pipe = os.fdopen(receiving, "rb")

    def result(self) -> Any:
        """Return its next result. Raises EOFError if it has ended, even in the middle of one."""
        import pickle  # few commands fork

        try:
            return pickle.load(self._pipe)  # noqa: S301 - between our own processes
        except pickle.UnpicklingError as error:
            raise EOFError from error

    def end(self) -> None:
        """End it at once: it only reads."""
        self._pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        _ENDED.append(self._pid)
        wait(os.WNOHANG)


def _send_results(
    work: Callable[[int], object], numbers: range, sending: int
) -> None:  # pragma: no cover - in another process
    import pickle

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is for the parent
    nothing = os.memfd_create("smfix-nothing")
    for stream in (1, 2):  # an inherited stdout would keep the parent's reader waiting
        os.dup2(nothing, stream)
    gc.freeze()  # its parent's objects are not its to collect
    _ENDED.clear()
    with contextlib.suppress(OSError):  # pipe-max-size forbids it: then it waits sooner
        fcntl.fcntl(sending, _F_SETPIPE_SZ, _PIPE)
    with os.fdopen(sending, "wb", buffering=0) as pipe:
        for number in numbers:
            pickle.dump(work(number), pipe, pickle.HIGHEST_PROTOCOL)
