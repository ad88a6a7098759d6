"""Piles of values that are larger than the memory, read back in order.

Theory. Up to :data:`MOST` values wait in memory; then they are sorted and appended, as a run, to a file that has no
name: it is gone with this process, however that ends. A pile is read by merging its runs. Where a level has
:data:`WIDE` of them they are merged into one of the next level, so that few are ever read together. What is in memory
is bounded, whatever was added; a small pile makes no file at all.

Each reading has its own place in the file, so a pile is read as often as one likes, and in forked processes too.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from heapq import merge
from itertools import groupby, islice
from typing import Any, BinaryIO, Generic, TypeVar

from smfix.errors import WriteFailed

MOST = 2048
WIDE = 32
_AT_ONCE = 32  # values written and read together
_HEAD = 4  # bytes that say how long they are

T = TypeVar("T")
_Run = tuple[int, int]  # bytes of the file: first, behind the last


class Pile(Generic[T]):
    """Values that compare with each other; iterating gives them sorted. `once`: of equal ones only one.

    :meth:`add` raises WriteFailed where the temporary folder takes no more.
    """

    def __init__(self, *, most: int = 0, once: bool = False) -> None:
        self._most = most or MOST
        self._once = once
        self._waiting: list[T] = []
        self._levels: list[list[_Run]] = []
        self._file: BinaryIO | None = None
        self._added = 0

    def __del__(self) -> None:
        """Give the file's room back."""
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """How many were added."""
        return self._added

    def add(self, value: T) -> None:
        """One value more."""
        self._added += 1
        self._waiting.append(value)
        if len(self._waiting) >= self._most:
            self._keep(self._write(self._sorted()), 0)
            self._waiting = []

    def __iter__(self) -> Iterator[T]:
        """Every value, the least first."""
        here = self._sorted()
        if not self._levels:
            return iter(here)
        return self._merged([run for level in self._levels for run in level], here)

    def _sorted(self) -> list[T]:
        values: Any = set(self._waiting) if self._once else self._waiting
        return sorted(values)

    def _merged(self, runs: list[_Run], here: list[T]) -> Iterator[T]:
        values: Any = merge(*(self._read(run) for run in runs), here)
        return (value for value, _ in groupby(values)) if self._once else values

    def _keep(self, run: _Run, level: int) -> None:
        if level == len(self._levels):
            self._levels.append([])
        runs = self._levels[level]
        runs.append(run)
        if len(runs) == WIDE:
            together = self._write(self._merged(runs, []))
            runs.clear()
            self._keep(together, level + 1)

    def _write(self, values: Any) -> _Run:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the pile
            start = self._file.tell()
            left = iter(values)
            while some := list(islice(left, _AT_ONCE)):
                data = pickle.dumps(some, pickle.HIGHEST_PROTOCOL)
                self._file.write(len(data).to_bytes(_HEAD, "little"))
                self._file.write(data)
            self._file.flush()
            return start, self._file.tell()
        except OSError as error:
            words = f"the temporary folder cannot be written to ({error.strerror}); TMPDIR names another one"
            raise WriteFailed(words) from error

    def _read(self, run: _Run) -> Iterator[T]:
        if self._file is None:  # there is no run without it
            return
        (at, end), descriptor = run, self._file.fileno()
        while at < end:
            length = int.from_bytes(os.pread(descriptor, _HEAD, at), "little")
            yield from pickle.loads(os.pread(descriptor, length, at + _HEAD))  # noqa: S301 - our own; it has no name
            at += _HEAD + length
