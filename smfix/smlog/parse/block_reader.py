"""Streams cut into blocks of whole lines, into buffers that are used again.

Pure: it is handed something to read from. A block ends with a line's end; only a line longer than
:data:`LONGEST` is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from smfix.smlog.parse.literal_search import Data, Engine
from smfix.smlog.parse.window import Block

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 8 << 20  # bytes of a line
Again = Callable[[int, memoryview], None]
_ROOM = 16  # a buffer has so much of a block more, for the beginnings of lines of any length


class Cutter:
    """Cuts streams into blocks. `spare` are buffers that may be used again, the one that was used last at its end."""

    def __init__(self, engine: Engine, spare: list[Data]) -> None:
        self._engine = engine
        self._spare = spare

    def cut(self, stream: Any, file: int, first_line: int = 1) -> Iterator[Block]:
        """Yield the blocks of `stream`, the log with index `file`. `stream` has ``readinto``.

        One that also has ``again(at, view)``, which fills `view` with the bytes it gave from its `at`-th on, gives
        blocks that can be let go of. If reading fails, the text read so far is handed out before the error is.
        """
        again: Again | None = getattr(stream, "again", None)
        carry, at = b"", 0
        while True:
            wanted = len(carry) + BLOCK
            buffer = self._buffer(wanted)
            buffer[: len(carry)] = carry
            count, failure = _fill(stream, memoryview(buffer)[len(carry) : wanted])
            size = len(carry) + count
            end = size
            if size == wanted:  # more may follow: the last line waits for its end
                end = buffer.rfind(b"\n", 0, size) + 1
                if not end and size >= LONGEST:
                    end = size
            carry = bytes(memoryview(buffer)[end:size])
            if end:
                lines = self._engine.lines(buffer, 0, end)
                more = None if again is None else partial(self._reread, again, at, end)
                yield Block(buffer, end, file, first_line, lines, again=more)
                first_line += lines
                at += end
            if failure is not None:
                raise failure
            if size < wanted:
                return

    def _reread(self, again: Again, at: int, size: int) -> Data:
        buffer = self._buffer(size)
        again(at, memoryview(buffer)[:size])
        return buffer

    def _buffer(self, size: int) -> bytearray:
        """Return a buffer of at least `size` bytes, a used one if it is not much larger."""
        while self._spare:
            try:
                data = self._spare.pop()
            except IndexError:  # another thread took it
                break
            if isinstance(data, bytearray) and size <= len(data) <= size + BLOCK:
                return data
        return bytearray(size + BLOCK // _ROOM)


def _fill(stream: Any, view: memoryview) -> tuple[int, Exception | None]:
    """Read until `view` is full, the stream ends or fails; return how much (bytes), and why it failed."""
    filled = 0
    while filled < len(view):
        try:
            count = stream.readinto(view[filled:])
        except Exception as error:  # noqa: BLE001 - raised again, after the text read so far is handed out
            return filled, error
        if not count:
            break
        filled += count
    return filled, None
