"""One pass over the blocks of the logs: an engine finds, the readers read, the window moves.

Pure. Blocks go in, events come out, both in the order of the logs; what was found is told only
when enough text lies behind it for every search ahead. Lines that prove an incident over are looked
for only once there is an incident, and only for the VDIs in question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from smfix.smlog.engine import Engine
from smfix.smlog.events import EventReader, Failure
from smfix.smlog.lines import REACH_AHEAD, Block, Window
from smfix.smlog.proofs import Proof, Wanted, read_proofs

Event = Failure | Proof
_MOST_WANTED = 100_000  # VDIs in question; a log that names more is no log


class Sweep:
    """The pass. `wanted`: the VDIs (eight digits) in question from the start, None for all of them.

    `place` is where the first block lies in the logical text of all logs (bytes); events before
    `begin` and from `end` on belong to somebody else's pass and are not told.
    """

    def __init__(
        self,
        failures: Engine,
        proofs: Engine,
        *,
        place: int = 0,
        begin: int = 0,
        end: int | None = None,
        wanted: set[str] | None = frozenset(),  # type: ignore[assignment]
        only_proofs: bool = False,
    ) -> None:
        self._window = Window(place)
        self._reader = EventReader(self._window)
        self._failures = failures
        self._proofs = proofs
        self._begin = begin
        self._end = end
        self._all = wanted is None
        self._wanted: set[str] = set(wanted or ())
        self._only_proofs = only_proofs
        self._waiting: list[int] = []

    @property
    def noise(self) -> Counter[str]:
        """How many lines were set aside, by the reason."""
        return self._reader.noise

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
        hits = [] if self._only_proofs else self._failures.hits(block.data, block.size)
        if self._all or self._wanted:
            yield from self._merged(serial, block, hits)
        else:
            yield from self._failures_of(serial, block, hits)
        if self._window.forget(serial):
            self._reader.forget(self._window.first)

    def _failures_of(self, serial: int, block: Block, hits: list[int]) -> Iterator[Event]:
        """No incident so far: with the first one the rest of the block is asked for proofs too."""
        done = -1
        for index, hit in enumerate(hits):
            if hit < done:
                continue
            line = self._window.line_around(serial, hit)
            done = self._window.line_end(line.at)
            for event in self._reader.read(line):
                yield from self._tell(event)
            if self._wanted:
                yield from self._merged(serial, block, hits[index + 1 :], done)
                return

    def _merged(self, serial: int, block: Block, hits: list[int], done: int = -1) -> Iterator[Event]:
        proofs = self._proofs.hits(block.data, block.size)
        for hit, is_proof in sorted([*((h, 0) for h in hits), *((p, 1) for p in proofs)]):
            if hit < done:
                continue
            line = self._window.line_around(serial, hit)
            if is_proof:
                wanted: Wanted = None if self._all else self._wanted
                for proof in read_proofs(self._window, line, wanted):
                    yield from self._tell(proof)
            else:
                done = self._window.line_end(line.at)
                for event in self._reader.read(line):
                    yield from self._tell(event)

    def _tell(self, event: Event) -> Iterator[Event]:
        if isinstance(event, Failure) and event.vdi and len(self._wanted) < _MOST_WANTED:
            self._wanted.add(event.vdi[:8])
        if event.place >= self._begin and (self._end is None or event.place < self._end):
            yield event
