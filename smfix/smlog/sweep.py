"""One pass over the blocks of the logs: an engine finds, the readers read, the window moves.

Pure. Blocks go in, events come out, both in the order of the logs; what was found is told only
when enough text lies behind it for every search ahead. Lines that prove an incident over are looked
for only once there is an incident, and only for the VDIs in question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from smfix.smlog.engine import Engine, hits
from smfix.smlog.events import EventReader, Failure, Quote
from smfix.smlog.lines import REACH_AHEAD, Block, Window
from smfix.smlog.proofs import PROOF_ANCHORS, Proof, Strength, read_proofs
from smfix.smlog.rules import ANCHORS


class Tally(NamedTuple):
    """How many lines were set aside as noise, by the reason."""

    place: int
    noise: tuple[tuple[str, int], ...]
    evidence: tuple[Quote, ...] = ()


Event = Failure | Proof | Tally
_EIGHT_DIGITS = re.compile(rb"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])")
_PROOF_BEFORE, _PROOF_BEHIND = 100, 4000  # bytes around an anchor in which a VDI is named
_MOST_WANTED = 100_000  # VDIs in question; a log that names more is no log
_MOST_TOLD = 20_000  # commands remembered, so that no repetition is read again
_RELINKING = b"Relinking "


class Looking(Enum):
    """What a pass looks for."""

    BOTH = "reports, and from the first one on what proves an incident over"
    PROOFS = "what proves the incidents over that an earlier part reported"


@dataclass(slots=True)
class _Proved:
    """What has been proved of one VDI since its last report, and by which commands."""

    keys: set[tuple[object, ...]] = field(default_factory=set)
    strengths: set[Strength] = field(default_factory=set)
    commands: set[bytes] = field(default_factory=set)


class Sweep:
    """The pass over one set of logs (`origin` tells sets without host names apart).

    `place` is where the first block lies in the logical text of all logs (bytes); events before
    `begin`, and in what is fed after `close`, belong to somebody else's pass and are not told. Of
    what proves the same of a VDI, the first after each report is told. `wanted` are the VDIs (eight
    digits) that were reported so far; the pass adds to it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        looking: Looking = Looking.BOTH,
        wanted: set[str] | None = None,
        origin: int = 0,
        place: int = 0,
        begin: int = 0,
    ) -> None:
        self._engine = engine
        self._window = Window(place, engine)
        self._reader = EventReader(self._window, origin)
        self._only_proofs = looking is Looking.PROOFS
        self._origin = origin
        self._begin = begin
        self._end: int | None = None
        self._wanted = set() if wanted is None else wanted
        self._asked = {digits.encode("ascii") for digits in self._wanted}
        self._proved: dict[str, _Proved] = {}
        self._told: set[bytes] = set()  # commands that prove nothing new
        self._dull: set[bytes] = set()  # commands about VDIs that are not in question
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
        reports = [] if self._only_proofs else hits(self._engine, ANCHORS, block.data, block.size)
        if self._asked:
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
            if self._asked:
                yield from self._both_of(serial, block, reports[index + 1 :], done)
                return

    def _both_of(self, serial: int, block: Block, reports: list[int], done: int = -1) -> Iterator[Event]:
        proofs = hits(self._engine, PROOF_ANCHORS, block.data, block.size)
        for hit, is_proof in sorted([*((h, 0) for h in reports), *((p, 1) for p in proofs)]):
            if hit < done:
                continue
            if is_proof:
                command = self._of_interest(block, hit)
                if command is not None:
                    yield from self._proofs_at(serial, hit, command)
            else:
                line = self._window.line_around(serial, hit)
                done = self._window.line_end(line.at)
                for event in self._reader.read(line):
                    yield from self._tell(event)

    def _of_interest(self, block: Block, hit: int) -> bytes | None:
        """The text from `hit` to the line's end, None where it proves nothing new: most often, so no decoding."""
        data, limit = block.data, min(hit + _PROOF_BEHIND, block.size)
        end = data.find(b"\n", hit, limit)
        if end < 0:
            end = limit
        command = bytes(data[hit:end])
        if command in self._told or command in self._dull:
            return None
        digits = _digits_of(command) or _EIGHT_DIGITS.findall(data, max(0, hit - _PROOF_BEFORE), end)
        if self._asked.isdisjoint(digits):
            if len(self._dull) >= _MOST_TOLD:
                self._dull.clear()
            self._dull.add(command)
            return None
        is_known = command.startswith(_RELINKING) and self._is_checked(digits)
        return None if is_known else command

    def _is_checked(self, digits: list[bytes]) -> bool:
        """True where the images in question of a coalesce have passed a check since: it proves no more."""
        asked = [self._proved.get(one.decode("ascii")) for one in digits[-2:] if one in self._asked]
        return all(proved is not None and proved.strengths for proved in asked)

    def _proofs_at(self, serial: int, hit: int, command: bytes) -> Iterator[Event]:
        line = self._window.line_around(serial, hit)
        for proof in read_proofs(self._window, line, self._wanted, self._origin):
            if proof.vdi[:8] in self._wanted:  # a coalesce proves two
                yield from self._prove(proof, command)

    def _prove(self, proof: Proof, command: bytes) -> Iterator[Event]:
        key = (proof.voice, proof.vdi, proof.sr, proof.strength)
        proved = self._proved.setdefault(proof.vdi[:8], _Proved())
        if len(proof.vdi) == 36:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(command)
            proved.commands.add(command)
            proved.strengths.add(proof.strength)
        if key not in proved.keys:
            proved.keys.add(key)
            yield from self._tell(proof)

    def _tell(self, event: Failure | Proof) -> Iterator[Event]:
        if isinstance(event, Failure) and event.vdi:
            digits = event.vdi[:8]
            if digits not in self._wanted and len(self._wanted) < _MOST_WANTED:
                self._dull.clear()
                self._wanted.add(digits)
                self._asked.add(digits.encode("ascii"))
            if proved := self._proved.pop(digits, None):
                self._told -= proved.commands
        if event.place >= self._begin and (self._end is None or event.place < self._end):
            yield event


def _digits_of(command: bytes) -> list[bytes]:
    """The first eight digits in the name of the image that a command is about; nothing if it is about none.

    ``/run/sr-mount/<SR>/<VDI>.vhd``, ``/dev/VG_XenStorage-<SR>/VHD-<VDI>``: behind the last slash.
    """
    name = command[command.rfind(b"/") + 1 :][:16]
    if name[8:9] != b"-":
        name = name.partition(b"-")[2]
    digits = name[:8]
    return [digits] if _EIGHT_DIGITS.fullmatch(digits) else []
