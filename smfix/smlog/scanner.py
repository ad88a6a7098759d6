"""One reader for whole and for growing logs: blocks in, events out, both in the order of the logs.

Pure. All literals that rules and resolutions begin with are looked for in one pass; a line that holds one waits
until it is settled: enough later text was read, or enough time has passed since it came, because the lines of one
record are written within milliseconds of each other. Then it is read, once, in order. So any blocks, any pace and any
rotation give the same events, as far as a search ahead can reach.

Proofs that an incident is over are read only for disks in question. The end of a command may come minutes after it
(`vhd-util check` of a large disk): the command waits for it as long as the window holds its line.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from smfix.smlog.correlate.failures import TOO_SLOW, EventReader, Failure, GcEnded
from smfix.smlog.parse.literal_search import Data, Engine, LiteralSearch, PlainEngine
from smfix.smlog.parse.window import REACH_AHEAD, Block, Line, Window, pid_needles
from smfix.smlog.patterns import pattern
from smfix.smlog.rules.messages import ANCHORS
from smfix.smlog.rules.resolutions import RESOLUTION_ANCHORS, Proof, Renamed, read_proofs

SETTLE = 0.25
"""Seconds after which a record is taken to be complete."""
_MERGED = 256 << 10  # bytes up to which one block of a growing log takes in the next ones
_MOST_OPEN = 256  # commands whose end is waited for
_MOST_WANTED = 100_000  # disks in question; a log that names more is no log
_DIGITS = pattern(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?![0-9a-fA-F])")
_SHARED = (b"err", b"link")  # of several literals, and rare in traffic

Event = Failure | Proof | Renamed


class _Waiting(NamedTuple):
    """A line with a literal: its block, the literal's offset in it (bytes), and its arrival time (seconds).

    `is_report`: the literal is a rule's, else a resolution's.
    """

    serial: int
    offset: int
    is_report: bool
    came: float


class Scanner:
    """The pass over one set of logs; `origin` distinguishes sets without host names.

    `place` is the first fed byte's place in the logical text of all logs (bytes). Failures before `begin` were
    reported by an earlier run; only their evidence about later lines is read. `wanted` are the first eight digits of
    the disks in question: each report adds its own, and the caller takes out what is proved. `grows`: more may be
    written after the last line. `spare` are buffers of blocks that are no longer used.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        wanted: set[str] | None = None,
        origin: int = 0,
        place: int = 0,
        begin: int = 0,
        grows: bool = False,
    ) -> None:
        engine = engine or PlainEngine()
        self.wanted: set[str] = set() if wanted is None else wanted
        self.spare: list[Data] = []
        self._reports = LiteralSearch(ANCHORS, engine, _SHARED)
        self._resolutions = LiteralSearch(RESOLUTION_ANCHORS, engine, _SHARED)
        self._is_troubled = bool(self.wanted)  # a report may have come: from then on resolutions are looked for
        self._window = Window(place, engine, grows=grows)
        self._reader = EventReader(self._window, origin)
        self._origin, self._begin = origin, begin
        self._waiting: deque[_Waiting] = deque()
        self._open: deque[Line] = deque(maxlen=_MOST_OPEN)
        self._fresh: list[bytes] = []  # text read since the open commands were looked at
        self._next_line: tuple[int, int, int] | None = None  # file, next line, serial of the newest block
        self._read_up_to = (-1, 0)  # block and offset

    @property
    def end(self) -> int:
        """Return the place after the last byte fed."""
        return self._window.end

    @property
    def settled(self) -> int:
        """Return the place up to which every failure has been reported."""
        if not self._waiting:
            return self.end
        first = self._waiting[0]
        return self._window.place(self._window.line_around(first.serial, first.offset).at)

    @property
    def is_waiting(self) -> bool:
        """Return True while a line waits for the rest of its record."""
        return bool(self._waiting)

    @property
    def noise(self) -> Counter[str]:
        """Return how many reports of trouble were set aside, by the reason."""
        return self._reader.noise

    def gc_ended(self) -> list[GcEnded]:
        """Return the GCs that ended at a held lock, by the lines read since the last call."""
        ended = [one for one in self._reader.gc_ended if one.place >= self._begin]
        self._reader.gc_ended.clear()
        return ended

    # ---------------------------------------------------------------- in

    def push(self, block: Block, now: float = 0.0) -> None:
        """Take the next block of whole lines, at `now` (seconds of any clock that never goes back)."""
        serial = self._window.push(block)
        found = self._find(block.data, block.size)
        self._waiting.extend(_Waiting(serial, offset, is_report, now) for offset, is_report in found)
        if not found and (data := block.let_go()) is not None:
            self.spare.append(data)

    def feed(self, data: bytes, file: int, first_line: int, now: float) -> None:
        """Take `data`, whole lines of a growing log; the first is line `first_line` of the file with that index."""
        if not data:
            return
        lines = data.count(b"\n")
        if self._open:
            self._fresh.append(data)
        serial = self._next_line[2] if self._next_line and self._next_line[:2] == (file, first_line) else -1
        base = self._window.block(serial).size if serial >= 0 else _MERGED
        if base < _MERGED and self._window.block(serial).data.endswith(b"\n"):
            self._window.extend(data)
            found = self._find(data, len(data))
            self._waiting.extend(_Waiting(serial, base + offset, is_report, now) for offset, is_report in found)
        else:
            self.push(Block(bytearray(data), len(data), file, first_line, lines), now)
            serial = self._window.last
        self._next_line = (file, first_line + lines, serial)

    def _find(self, data: Data, size: int) -> list[tuple[int, bool]]:
        """Return the places of literals of reports (True) and of resolutions (False), in the order of the text."""
        found = [(hit.offset, True) for hit in self._reports.find_all(data, size)]
        self._is_troubled = self._is_troubled or bool(found) or bool(self.wanted)
        if self._is_troubled:
            found += [(hit.offset, False) for hit in self._resolutions.find_all(data, size)]
            found.sort()
        return found

    # ---------------------------------------------------------------- out

    def tell(self, now: float = 0.0, *, flush: bool = False) -> Iterator[Event]:
        """Yield the events settled at `now`; with `flush` all, because nothing will follow."""
        yield from self._completed()
        while self._waiting and (flush or self._is_settled(self._waiting[0], now)):
            yield from self._read(self._waiting.popleft())
        self._forget(self._waiting[0].serial if self._waiting else self._window.last)

    def _is_settled(self, waiting: _Waiting, now: float) -> bool:
        return now - waiting.came >= SETTLE or self._window.ahead_of(waiting.serial) >= REACH_AHEAD

    def _read(self, waiting: _Waiting) -> Iterator[Event]:
        if (waiting.serial, waiting.offset) < self._read_up_to:
            return
        if not waiting.is_report:
            if self._is_in_question(waiting):
                yield from self._prove(self._window.line_around(waiting.serial, waiting.offset))
            return
        line = self._window.line_around(waiting.serial, waiting.offset)
        self._read_up_to = (waiting.serial, self._window.line_end(line.at))
        for failure in self._reader.read(line):
            if failure.place >= self._begin:
                if failure.vdi and len(self.wanted) < _MOST_WANTED:
                    self.wanted.add(failure.vdi[:8])
                yield failure

    def _is_in_question(self, waiting: _Waiting) -> bool:
        """Return True if the line names a disk in question. Most lines with such a literal are about others."""
        if not self.wanted:
            return False
        found = _DIGITS.findall(self._window.raw_line(waiting.serial, waiting.offset))
        return not self.wanted.isdisjoint(digits.decode("ascii").lower() for digits in found)

    def _prove(self, line: Line) -> Iterator[Event]:
        try:
            proofs = read_proofs(self._window, line, self.wanted, self._origin)
        except TimeoutError:
            self.noise[TOO_SLOW] += 1
            return
        if not proofs and line.pid is not None:
            self._open.append(line)
        yield from proofs

    def _completed(self) -> Iterator[Event]:
        """Yield the proofs that the text since the last time has completed."""
        fresh, self._fresh = self._fresh, []
        for line in list(self._open) if fresh else ():
            needles = pid_needles(line)
            if not any(needle in data for data in fresh for needle in needles):
                continue
            proofs = read_proofs(self._window, line, self.wanted, self._origin)
            if proofs:
                self._open.remove(line)
            yield from proofs

    def _forget(self, serial: int) -> None:
        """Let go of the text that no search from block `serial` on can reach."""
        if serial < 0:
            return
        if dropped := self._window.forget(serial):
            self._reader.forget(self._window.first)
            self.spare[:0] = [data for block in dropped if (data := block.take()) is not None]
        while self._open and self._is_past(self._open[0]):
            self._open.popleft()

    def _is_past(self, line: Line) -> bool:
        return line.at.block < self._window.first or self.end - self._window.place(line.at) > REACH_AHEAD
