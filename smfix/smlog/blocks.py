"""Streams cut into blocks of whole lines, into buffers that are used again.

Pure: it is handed something to read from. A block ends with a line's end; only a line longer than
:data:`LONGEST` is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from smfix.smlog.engine import Engine
from smfix.smlog.lines import Block

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 8 << 20  # bytes of a line


class Cutter:
    """Cuts streams into blocks. `spare` are blocks whose buffers may be used again."""

    def __init__(self, engine: Engine, spare: list[Block]) -> None:
        self._engine = engine
        self._spare = spare

    def cut(self, stream: Any, file: int, first_line: int = 1) -> Iterator[Block]:
        """The blocks of `stream`, the log with index `file`. `stream` has ``readinto``."""
        carry = b""
        while True:
            buffer = self._buffer(len(carry) + BLOCK)
            buffer[: len(carry)] = carry
            size = len(carry) + _fill(stream, memoryview(buffer)[len(carry) :])
            ended = size < len(buffer)
            end = size
            if not ended:
                end = buffer.rfind(b"\n", 0, size) + 1
                if not end and size >= LONGEST:
                    end = size
            carry = bytes(memoryview(buffer)[end:size])
            if end:
                lines = self._engine.count(buffer, b"\n", 0, end)
                yield Block(buffer, end, file, first_line, lines)
                first_line += lines
            if ended:
                return

    def _buffer(self, size: int) -> bytearray:
        while self._spare:
            data = self._spare.pop().data
            if isinstance(data, bytearray) and size <= len(data) <= size + BLOCK:
                return data
        return bytearray(size + (64 << 10 if size < 2 * BLOCK else 0))


def _fill(stream: Any, view: memoryview) -> int:
    """Read until `view` is full or the stream ends; how much (bytes)."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])
        if not count:
            break
        filled += count
    return filled
