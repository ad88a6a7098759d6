"""A log while it grows: lines in as they are written, events out as soon as they are whole.

Pure. What a sweep knows by the text behind a line, a live reader knows by time: the lines of one
record are written within milliseconds of each other, so a line that matters is read when it has
settled, or when enough text lies behind it. What ends a command may come minutes after the command
(`vhd-util check` of a large disk): a proof waits for it as long as the window holds its line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from smfix.smlog.events import EventReader, Failure, GcEnded
from smfix.smlog.lines import REACH_AHEAD, Block, Line, Window, pid_needles
from smfix.smlog.patterns import pattern
from smfix.smlog.proofs import PROOF_ANCHORS, Proof, read_proofs
from smfix.smlog.rules import ANCHORS

SETTLE = 0.25
"""Seconds after which a record is taken to be complete."""
_ENOUGH = 256 << 10  # bytes behind a line that complete its record as well
_MERGED = 256 << 10  # bytes up to which one block takes in what follows
_MOST_OPEN = 256  # commands whose end is waited for
_MOST_WANTED = 100_000
_DIGITS = pattern(r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?![0-9a-fA-F])")

Event = Failure | Proof


@dataclass(frozen=True, slots=True)
class _Hit:
    """An anchor: the serial number of its block, its offset there (bytes), when it came (seconds)."""

    serial: int
    offset: int
    came: float
    is_proof: bool


class _Growing(Window):
    """A window whose newest block takes in more lines: a tail hands on a few at a time."""

    grows = True

    def extend(self, data: bytes) -> int:
        """The newest block (its data a bytearray) grows by `data`, whole lines; its serial number."""
        block = self._blocks[-1]
        block.grow(data)
        self._end += len(data)
        self._pushed += len(data)
        return self._first + len(self._blocks) - 1


class LiveReader:
    """Reads what a tail hands on. Times are seconds of any clock that never goes back.

    `place` is where the first byte fed lies in the logical text of all logs (bytes). Failures before
    `begin` were told by an earlier run and are read for what they say of later lines only. `wanted`
    are the first eight digits of the VDIs whose proofs are asked for; failures add to it.
    """

    def __init__(self, *, place: int = 0, begin: int = 0) -> None:
        self.wanted: set[str] = set()
        self._window = _Growing(place)
        self._reader = EventReader(self._window)
        self._begin = begin
        self._end = place
        self._hits: deque[_Hit] = deque()
        self._open: deque[Line] = deque(maxlen=_MOST_OPEN)
        self._fresh: list[bytes] = []
        self._newest: tuple[int, int, int] | None = None  # file, next line, serial of the newest block
        self._done = (-1, 0)  # block and offset up to which lines were read

    @property
    def end(self) -> int:
        """The place behind the last byte fed."""
        return self._end

    @property
    def settled(self) -> int:
        """The place up to which every failure has been told."""
        if not self._hits:
            return self._end
        first = self._hits[0]
        return self._window.place(self._window.line_around(first.serial, first.offset).at)

    @property
    def is_waiting(self) -> bool:
        """True while a line waits for the rest of its record."""
        return bool(self._hits)

    def feed(self, data: bytes, file: int, first_line: int, now: float) -> None:
        """Take `data`, whole lines; the first is line `first_line` of the file with that index."""
        if not data:
            return
        lines = data.count(b"\n")
        serial, base = self._append(data, file, first_line, lines)
        self._newest = (file, first_line + lines, serial)
        self._end += len(data)
        self._fresh.append(data)
        found = [(hit, False) for hit in _hits(data, ANCHORS)]
        found += [(hit, True) for hit in _hits(data, PROOF_ANCHORS)]
        self._hits.extend(_Hit(serial, base + hit, now, proof) for hit, proof in sorted(found))

    def _append(self, data: bytes, file: int, first_line: int, lines: int) -> tuple[int, int]:
        """Put `data` into the window; its block, and its offset there."""
        if self._newest is not None and self._newest[:2] == (file, first_line):
            block = self._window.block(self._newest[2])
            base = block.size
            if base < _MERGED and block.data.endswith(b"\n"):
                return self._window.extend(data), base
        return self._window.push(Block(bytearray(data), len(data), file, first_line, lines)), 0

    def tell(self, now: float, *, flush: bool = False) -> Iterator[Event]:
        """What can be told at `now`; `flush`: everything, for nothing will follow."""
        yield from self._answered()
        while self._hits and (flush or self._is_ripe(self._hits[0], now)):
            yield from self._read(self._hits.popleft())
        if self._newest is not None:
            self._forget(self._hits[0].serial if self._hits else self._newest[2])

    def gc_ended(self) -> list[GcEnded]:
        """The GCs that ended at a held lock, by the lines told of since the last call."""
        ended = [one for one in self._reader.gc_ended if one.place >= self._begin]
        self._reader.gc_ended.clear()
        return ended

    def _is_ripe(self, hit: _Hit, now: float) -> bool:
        return now - hit.came >= SETTLE or self._window.ahead_of(hit.serial) >= _ENOUGH

    def _read(self, hit: _Hit) -> Iterator[Event]:
        if not hit.is_proof and (hit.serial, hit.offset) < self._done:
            return
        line = self._window.line_around(hit.serial, hit.offset)
        if hit.is_proof:
            yield from self._prove(line)
            return
        self._done = (hit.serial, self._window.line_end(line.at))
        for failure in self._reader.read(line):
            if failure.place >= self._begin:
                if failure.vdi and len(self.wanted) < _MOST_WANTED:
                    self.wanted.add(failure.vdi[:8])
                yield failure

    # ---------------------------------------------------------------- proofs

    def _prove(self, line: Line) -> Iterator[Event]:
        if not self._is_wanted(line):
            return
        proofs = read_proofs(self._window, line, self.wanted, 0)
        if not proofs and line.pid is not None:
            self._open.append(line)
        yield from proofs

    def _is_wanted(self, line: Line) -> bool:
        return any(found.lower() in self.wanted for found in _DIGITS.findall(line.text))

    def _answered(self) -> Iterator[Event]:
        """The proofs that what came since the last time has completed."""
        fresh, self._fresh = self._fresh, []
        for line in list(self._open) if fresh else ():
            needles = pid_needles(line.pid or 0)
            if not any(needle in data for data in fresh for needle in needles):
                continue
            proofs = read_proofs(self._window, line, self.wanted, 0)
            if proofs:
                self._open.remove(line)
            yield from proofs

    def _forget(self, serial: int) -> None:
        """Let go of what no search from block `serial` on can reach."""
        if self._window.forget(serial):
            self._reader.forget(self._window.first)
        while self._open and self._is_past(self._open[0]):
            self._open.popleft()

    def _is_past(self, line: Line) -> bool:
        return line.at.block < self._window.first or self._end - self._window.place(line.at) > REACH_AHEAD


def _hits(data: bytes, anchors: tuple[bytes, ...]) -> Iterator[int]:
    """Where one of `anchors` stands in `data`. A tail's trickle needs no faster engine."""
    for anchor in anchors:
        hit = data.find(anchor)
        while hit >= 0:
            yield hit
            hit = data.find(anchor, hit + len(anchor))
