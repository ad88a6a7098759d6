"""One work on many things, in as many processes as are wanted; the results come back in order.

Theory. A forked process has what its parent had: nothing is imported anew, and nothing is handed to it. Each one
takes every n-th piece, so that a stretch of difficult ones is shared, and sends its results over a pipe; where the
pipe is full it waits, so no more is held in memory than is asked for. A process that dies (out of memory?) loses
nothing: what it left undone is done here, and whatever was wrong is raised here.
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
            # Where no more processes may be made, fewer do; what nobody does is done here.
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
