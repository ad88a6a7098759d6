"""Packed logs unpacked ahead, in threads: the decompressors let go of Python's lock, so both cores work.

Only the blocks are handed over, in their order: one reader interprets them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from queue import Empty, Queue

from smfix.smlog.parse.window import Block

_DEPTH = 4  # blocks that wait, for each log
_PATIENCE = 1.0  # seconds: a thread whose storage hangs is abandoned
Blocks = Callable[[], Iterator[Block]]


class _Ahead:
    """Read one log's blocks in a thread. An error in the thread is raised when the block is taken."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._ready: Queue[Block | Exception | None] = Queue(_DEPTH)
        self._is_wanted = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last: Exception | None = None
        try:
            for block in self._blocks():
                self._ready.put(block)
                if not self._is_wanted:
                    break
        except Exception as error:  # noqa: BLE001 - raised when the blocks are taken
            last = error
        self._ready.put(last)

    def __iter__(self) -> Iterator[Block]:
        while isinstance(block := self._ready.get(), Block):
            yield block
        self._thread.join()
        if block is not None:
            raise block

    def stop(self) -> None:
        """Stop the thread: no more blocks are taken."""
        self._is_wanted = False
        for _ in range(_DEPTH + 1):
            with suppress(Empty):
                self._ready.get_nowait()
        self._thread.join(_PATIENCE)


def read_ahead(logs: Sequence[tuple[Blocks, bool]]) -> Generator[Iterator[Block], None, None]:
    """Yield the blocks of each of `logs`, in their order; with several cores, packed logs are unpacked ahead."""
    ways = len(os.sched_getaffinity(0))
    ahead: deque[_Ahead] = deque()
    packed = iter([blocks for blocks, is_packed in logs if is_packed])
    try:
        for blocks, is_packed in logs:
            if not is_packed or ways < 2:
                yield blocks()
                continue
            while len(ahead) < ways and (following := next(packed, None)) is not None:
                ahead.append(_Ahead(following))
            yield iter(ahead[0])
            ahead.popleft()
    finally:
        for one in ahead:
            one.stop()
