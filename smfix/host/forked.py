"""Do one work on many things in several processes; the results come back in order.

Theory. A forked process has its parent's memory: it imports nothing anew, and no work is sent to it. Each process
takes every n-th piece, so that difficult neighbours are shared, and sends its results over a pipe. If the pipe is full,
it waits, so the memory holds no more results than are taken. If a process dies (out of memory?), this one does the
rest of its work, and raises its error. A process whose storage hangs is killed and not waited for (decision 25), as
concurrent.futures does at its end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from smfix.host.readers import Asked, Reader, Tell

T = TypeVar("T")

_PIPE = 1 << 20  # bytes of a pipe that may wait


def in_order(work: Callable[[int], T], count: int, ways: int) -> Iterator[T]:
    """``work(0)`` to ``work(count - 1)``, by `ways` processes. Raises what `work` raises."""
    readers: list[Reader] = []
    ways = max(1, min(ways, count))
    try:
        if ways > 1 and threading.active_count() == 1:
            # If no more processes may be made, fewer do the work; this process does the rest.
            with contextlib.suppress(OSError):
                readers.extend(Reader(partial(_do, work, range(way, count, ways)), room=_PIPE) for way in range(ways))
        lost = set(range(len(readers), ways))
        for number in range(count):
            way = number % ways
            if way not in lost:
                try:
                    result: T = readers[way].hear()
                except EOFError:
                    lost.add(way)
                else:
                    yield result
                    continue
            yield work(number)
    finally:
        for reader in readers:
            reader.end()


def _do(work: Callable[[int], T], share: range, tell: Tell, _asked: Asked) -> None:
    for number in share:
        tell(work(number))
