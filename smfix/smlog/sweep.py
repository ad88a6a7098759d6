"""One pass over the blocks of the logs: an engine finds, the readers read, the window moves.

Pure. Blocks go in, events come out, both in the order of the logs; what was found is told only
when enough text lies behind it for every search ahead. Lines that prove an incident over are looked
for only once there is an incident, and only for the VDIs in question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from smfix.smlog.engine import Engine, hits
from smfix.smlog.events import EventReader, Failure, Quote
from smfix.smlog.lines import REACH_AHEAD, Block, Window
from smfix.smlog.proofs import PROOF_ANCHORS, Proof, Wanted, read_proofs
from smfix.smlog.rules import ANCHORS


@dataclass(frozen=True, slots=True)
class Tally:
    """How many lines were set aside as noise, by the reason."""

    place: int
    noise: tuple[tuple[str, int], ...]
    evidence: tuple[Quote, ...] = ()


Event = Failure | Proof | Tally
_EIGHT_DIGITS = re.compile(rb"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])")
_PROOF_LINE = 4000  # bytes around an anchor in which a VDI is named
_MOST_WANTED = 100_000  # VDIs in question; a log that names more is no log


class Looking(Enum):
    """What a pass looks for."""

    FAILURES = "reports only"
    BOTH = "reports, and from the first one on what proves an incident over"
    ALL = "reports, and every proof about any VDI"
    PROOFS = "proofs about the VDIs that are asked for"


class Sweep:
    """The pass over one set of logs (`origin` tells sets without host names apart).

    `place` is where the first block lies in the logical text of all logs (bytes); events before
    `begin`, and in what is fed after `close`, belong to somebody else's pass and are not told.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        looking: Looking = Looking.BOTH,
        wanted: frozenset[str] = frozenset(),
        origin: int = 0,
        place: int = 0,
        begin: int = 0,
    ) -> None:
        self._engine = engine
        self._window = Window(place, engine)
        self._reader = EventReader(self._window, origin)
        self._looking = looking
        self._origin = origin
        self._begin = begin
        self._end: int | None = None
        self._wanted: set[str] = set(wanted)
        self._waiting: list[int] = []
        self.spare: list[Block] = []  # blocks that are no longer used

    def close(self) -> None:
        """What is fed from now on belongs to the next pass: it is searched, not told of."""
        self._end = self._window.end

    def tally(self) -> Iterator[Event]:
        """What was set aside."""
        yield Tally(self._begin, tuple(sorted(self._reader.noise.items())))

    def feed(self, block: Block) -> Iterator[Event]:
        """Take the next block; tell what can be told by now."""
        self._waiting.append(self._window.push(block))
        while self._waiting and self._window.ahead_of(self._waiting[0]) >= REACH_AHEAD:
            yield from self._work_off(self._waiting.pop(0))

    def finish(self) -> Iterator[Event]:
        """No block follows: tell the rest."""
        for serial in self._waiting:
            yield from self._work_off(serial)
        self._waiting.clear()

    def _work_off(self, serial: int) -> Iterator[Event]:
        block = self._window.block(serial)
        reports = [] if self._looking is Looking.PROOFS else hits(self._engine, ANCHORS, block.data, block.size)
        if self._looking in (Looking.ALL, Looking.PROOFS) or self._wanted:
            yield from self._both_of(serial, block, reports)
        else:
            yield from self._reports_of(serial, block, reports)
        if dropped := self._window.forget(serial):
            self._reader.forget(self._window.first)
            self.spare.extend(dropped)

    def _reports_of(self, serial: int, block: Block, reports: list[int]) -> Iterator[Event]:
        """No incident so far: with the first one the rest of the block is asked for proofs too."""
        done = -1
        for index, hit in enumerate(reports):
            if hit < done:
                continue
            line = self._window.line_around(serial, hit)
            done = self._window.line_end(line.at)
            for event in self._reader.read(line):
                yield from self._tell(event)
            if self._wanted:
                yield from self._both_of(serial, block, reports[index + 1 :], done)
                return

    def _both_of(self, serial: int, block: Block, reports: list[int], done: int = -1) -> Iterator[Event]:
        proofs = hits(self._engine, PROOF_ANCHORS, block.data, block.size)
        wanted: Wanted = None if self._looking is Looking.ALL else self._wanted
        for hit, is_proof in sorted([*((h, 0) for h in reports), *((p, 1) for p in proofs)]):
            if hit < done:
                continue
            if is_proof and not self._is_asked(block, hit):
                continue
            line = self._window.line_around(serial, hit)
            if is_proof:
                for proof in read_proofs(self._window, line, wanted, self._origin):
                    yield from self._tell(proof)
            else:
                done = self._window.line_end(line.at)
                for event in self._reader.read(line):
                    yield from self._tell(event)

    def _is_asked(self, block: Block, hit: int) -> bool:
        """False where the line around `hit` names no VDI in question: most lines, so no decoding."""
        if self._looking is Looking.ALL:
            return True
        start = block.data.rfind(b"\n", max(0, hit - _PROOF_LINE), hit) + 1
        end = block.data.find(b"\n", hit, hit + _PROOF_LINE)
        text = block.data[start : end if end >= 0 else hit + _PROOF_LINE].lower()
        return any(digits.decode("ascii") in self._wanted for digits in _EIGHT_DIGITS.findall(text))

    def _tell(self, event: Event) -> Iterator[Event]:
        if (
            self._looking is Looking.BOTH
            and isinstance(event, Failure)
            and event.vdi
            and len(self._wanted) < _MOST_WANTED
        ):
            self._wanted.add(event.vdi[:8])
        if event.place >= self._begin and (self._end is None or event.place < self._end):
            yield event
