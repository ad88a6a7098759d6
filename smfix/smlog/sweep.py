"""One pass over the blocks of the logs: an engine finds, the readers read, the window moves.

Pure. Blocks go in, events come out, both in the order of the logs; what was found is told only
when enough text lies behind it for every search ahead. Lines that prove an incident over are looked
for only once there is an incident, and only for the VDIs in question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import chain
from typing import NamedTuple

from smfix.smlog.engine import Data, Engine, Net
from smfix.smlog.events import EventReader, Failure, Quote
from smfix.smlog.lines import REACH_AHEAD, Block, Line, Window
from smfix.smlog.names import FILES, Disk
from smfix.smlog.patterns import pattern
from smfix.smlog.proofs import PROOF_ANCHORS, Proof, Strength, read_proofs
from smfix.smlog.rules import ANCHORS


class Tally(NamedTuple):
    """How many lines were set aside as noise, by the reason."""

    place: int
    noise: tuple[tuple[str, int], ...]
    evidence: tuple[Quote, ...] = ()


Event = Failure | Proof | Tally


class Sought(NamedTuple):
    """A disk in question: None where several share its digits. What lies up to `since` (a place) proves nothing."""

    disk: Disk | None
    since: int = -1


InQuestion = dict[str, Sought]
"""By the first eight digits."""
_EIGHT_DIGITS = pattern(rb"(?<![0-9a-f])[0-9a-f]{8}(?![0-9a-f])")
_PROOF_BEFORE, _PROOF_BEHIND = 100, 4000  # bytes around an anchor in which a VDI is named
_MOST_WANTED = 100_000  # VDIs in question; a log that names more is no log
_MOST_KEPT = 50_000  # anchors of proofs, and blocks, that a memory holds
_MOST_TOLD = 20_000  # commands remembered, so that no repetition is read again
_RELINKING = b"Relinking "


def _in_path(command: bytes, _data: Data, _hit: int) -> tuple[bytes, ...]:
    """The start of the file's or the volume's name in a command: behind its last slash."""
    return (command.partition(b"]")[0].rpartition(b"/")[2][:8],)


def _relinked(command: bytes, _data: Data, _hit: int) -> tuple[bytes, ...]:
    """The two images of a coalesce, in "Relinking C from *A(..) to *P(..)"."""
    child, _, parent = command.partition(b" from ")[2].partition(b" to ")
    return child.removeprefix(b"*")[:8], parent.removeprefix(b"*")[:8]


def _anywhere(command: bytes, data: Data, hit: int) -> tuple[bytes, ...]:
    """Whatever looks like the start of a VDI's UUID around the anchor."""
    return tuple(_EIGHT_DIGITS.findall(data, max(0, hit - _PROOF_BEFORE), hit + len(command)))


# How the VDI is found that an anchor of a proof is about, in the line from there on or before; by default: somehow.
_NAMED_BY = {b"'check'": _in_path, b"lvremove": _in_path, _RELINKING: _relinked}
_NAMING = tuple((anchor, _NAMED_BY.get(anchor, _anywhere)) for anchor in PROOF_ANCHORS)
# What several anchors have in common is looked for once. Bytes that are rare in traffic, or nothing is gained.
_SHARED = (b"appear", b"err", b"link")
_REPORTS, _PROOFS, _BOTH = (Net(some, _SHARED) for some in (ANCHORS, PROOF_ANCHORS, ANCHORS + PROOF_ANCHORS))
_OF_FILES = Net(ANCHORS + PROOF_ANCHORS, _SHARED, without=(b"lvremove",))
# A device-mapper name starts alike for all: always of interest.
_ALWAYS = frozenset({b"VG_XenSt"})
_KINDS_OF_NAME = [
    f"{volume}{temporary}" for volume in ("", "VHD-", "LV-", "QCOW2-") for temporary in ("", "OLD_", "DELETED_")
]


def _keys_of(digits: str) -> set[bytes]:
    """The eight bytes with which the name of a VDI's file, volume or temporary file can start."""
    return {f"{kind}{digits}"[:8].encode("ascii") for kind in _KINDS_OF_NAME}


def in_question(asked: Mapping[Disk, int]) -> InQuestion:
    """The disks `asked`, each with the place since when, by their digits."""
    found: InQuestion = {}
    for disk, since in asked.items():
        put_in_question(found, disk, since)
    return found


def put_in_question(found: InQuestion, disk: Disk, since: int = -1) -> None:
    """`disk` is one of those in question."""
    digits = disk[0][:8]
    if (known := found.get(digits)) is not None:
        found[digits] = Sought(disk if known.disk == disk else None, min(since, known.since))
    elif len(found) < _MOST_WANTED:
        found[digits] = Sought(disk, since)


class Looking(Enum):
    """What a pass looks for."""

    BOTH = "reports, and from the first one on what proves an incident over"
    PROOFS = "what proves the incidents over that an earlier part reported"


class _Proved:
    """What has been proved since the last report, and by which commands: of one VDI, or of more that share its digits.

    `strengths`: of the one disk that was reported with these digits, if it is one.
    """

    def __init__(self) -> None:
        self.keys: set[tuple[object, ...]] = set()
        self.strengths: set[Strength] = set()
        self.commands: set[bytes] = set()


class _Near(NamedTuple):
    """An anchor of a proof, at `hit`, and what else of it is needed before its line is decoded.

    `names`: what may be the starts of VDIs' names. `command`: the line from the anchor on.
    """

    hit: int
    names: tuple[bytes, ...]
    command: bytes


def _beside(names: set[bytes], found: Iterable[_Near]) -> list[_Near]:
    """Those of `found` that stand beside one of `names`; most do not."""
    is_apart = names.isdisjoint
    return [near for near in found if not is_apart(near.names)]


class Memory:
    """Where the anchors of proofs stand in a part, and the names beside them: of VDIs that nobody has asked for yet.

    So that what a part proves of an earlier part's reports is looked up, and not searched for once more. It `holds`
    until there is too much of it, or a block that cannot be read again.
    """

    def __init__(self, *, origin: int = 0, place: int = 0, begin: int = 0) -> None:
        self.origin, self.place, self.begin = origin, place, begin
        self.end: int | None = None
        self.holds = True
        self.blocks: list[Block] = []
        self.spare: list[Data] = []  # where the buffers come from that its blocks are read into again
        self._found: list[list[_Near]] = []  # of each block
        self._count = 0

    def keep(self, block: Block, found: list[_Near]) -> None:
        """The next block, and what was found in it."""
        if not self.holds:
            return
        self._count += len(found)
        self.holds = block.can_be_read_again and self._count <= _MOST_KEPT and len(self.blocks) < _MOST_KEPT
        if self.holds:
            self.blocks.append(block)
            self._found.append(found)
        else:
            self.blocks, self._found = [], []

    def about(self, names: set[bytes]) -> Iterator[tuple[int, list[_Near]]]:
        """In their order, with the number of their block: the anchors beside one of `names`."""
        for serial, found in enumerate(self._found):
            if about := _beside(names, found):
                yield serial, about


class _Hits(NamedTuple):
    """Where the anchors stand in a block: those of reports, and of proofs (None: not asked yet); ascending.

    `of_volumes`: what is said of volumes was asked for too.
    """

    reports: list[int]
    proofs: list[_Near] | None
    of_volumes: bool = True


class Sweep:
    """The pass over one set of logs (`origin` tells sets without host names apart).

    `place` is where the first block lies in the logical text of all logs (bytes); events before
    `begin`, and in what is fed after `close`, belong to somebody else's pass and are not told. Of
    what proves the same of a VDI, the first after each report is told. `wanted` are the VDIs that were
    reported so far; the pass adds to it. A `memory` is filled.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        looking: Looking = Looking.BOTH,
        wanted: InQuestion | None = None,
        origin: int = 0,
        place: int = 0,
        begin: int = 0,
        memory: Memory | None = None,
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._window = Window(place, engine)
        self._reader = EventReader(self._window, origin)
        self._only_proofs = looking is Looking.PROOFS
        self._origin = origin
        self._begin = begin
        self._end: int | None = None
        self._wanted: InQuestion = {} if wanted is None else wanted
        self._volumes = bool(self._wanted) or memory is not None  # whether a VDI in question may be one
        self._keys = {*_ALWAYS, *(key for digits in self._wanted for key in _keys_of(digits))}
        self._proved: dict[str, _Proved] = {}
        self._told: set[bytes] = set()  # commands that prove nothing new
        self._waiting: deque[tuple[int, _Hits]] = deque()  # blocks, until enough lies behind them
        self.spare: list[Data] = [] if memory is None else memory.spare  # buffers of blocks that are no longer used

    def close(self) -> None:
        """What is fed from now on belongs to the next pass: it is searched, not told of."""
        self._end = self._window.end
        if self._memory is not None:
            self._memory.end = self._end

    def tally(self) -> Iterator[Event]:
        """What was set aside."""
        yield Tally(self._begin, tuple(sorted(self._reader.noise.items())))

    def feed(self, block: Block) -> Iterator[Event]:
        """Take the next block; tell what can be told by now."""
        found = self._search(block)
        self._waiting.append((self._window.push(block), found))
        if self._memory is not None:
            self._memory.keep(block, found.proofs or [])
        is_asked = found.reports or any(map(self._matters, _beside(self._keys, found.proofs or ())))
        if not is_asked and (data := block.let_go()) is not None:
            self.spare.append(data)
        while self._waiting and self._window.ahead_of(self._waiting[0][0]) >= REACH_AHEAD:
            yield from self._work_off(*self._waiting.popleft())

    def finish(self) -> Iterator[Event]:
        """No block follows: tell the rest."""
        while self._waiting:
            yield from self._work_off(*self._waiting.popleft())

    def _search(self, block: Block) -> _Hits:
        """Where the anchors stand; asked at once, while the block is in the processor's cache."""
        if self._only_proofs:
            return _Hits([], self._all_proofs_in(block))
        with_proofs = bool(self._wanted) or self._memory is not None
        net = _REPORTS if not with_proofs else _BOTH if self._volumes else _OF_FILES
        rows = net.cast(self._engine, block.data, block.size)
        reports = sorted(chain.from_iterable(rows[: len(ANCHORS)]))
        return _Hits(reports, self._proofs_in(block, rows[len(ANCHORS) :]) if with_proofs else None, self._volumes)

    def _all_proofs_in(self, block: Block) -> list[_Near]:
        return self._proofs_in(block, _PROOFS.cast(self._engine, block.data, block.size))

    @staticmethod
    def _proofs_in(block: Block, rows: list[list[int]]) -> list[_Near]:
        """The anchors of proofs, which lie at `rows`: most lines with one are about others, and are not decoded."""
        data, size = block.data, block.size
        found = []
        for (_, named), hits in zip(_NAMING, rows, strict=True):
            for hit in hits:
                end = data.find(b"\n", hit, hit + _PROOF_BEHIND)
                if not 0 < end < size:
                    end = min(hit + _PROOF_BEHIND, size)
                command = bytes(data[hit:end])
                found.append(_Near(hit, named(command, data, hit), command))
        found.sort()
        return found

    def _matters(self, near: _Near) -> bool:
        """It is about a VDI in question, and may be new."""
        if near.command in self._told or self._keys.isdisjoint(near.names):
            return False
        return not (near.command.startswith(_RELINKING) and self._is_checked(near.command))

    def _work_off(self, serial: int, found: _Hits) -> Iterator[Event]:
        block = self._window.block(serial)
        if self._wanted:
            yield from self._both_of(serial, block, found)
        else:
            yield from self._reports_of(serial, block, found)
        if dropped := self._window.forget(serial):
            self._reader.forget(self._window.first)
            self.spare[:0] = [data for block in dropped if (data := block.take()) is not None]

    def _reports_of(self, serial: int, block: Block, found: _Hits) -> Iterator[Event]:
        """No incident so far: with the first one the rest of the block is asked for proofs too."""
        done = -1
        for hit in found.reports:
            if hit < done:
                continue
            line = self._window.line_around(serial, hit)
            done = self._window.line_end(line.at)
            yield from self._reports_at(line)
            if self._wanted:
                yield from self._both_of(serial, block, found, done)
                return

    def _both_of(self, serial: int, block: Block, found: _Hits, done: int = 0) -> Iterator[Event]:
        """Reports and proofs from offset `done` on, in their order."""
        anchors = found.proofs
        if anchors is None or (self._volumes and not found.of_volumes):
            anchors = self._all_proofs_in(block)
        proofs = deque(anchors)
        for hit in found.reports:
            if hit < done:
                continue
            while proofs and proofs[0].hit < hit:
                yield from self._proofs_at(serial, proofs.popleft(), done)
            of_files = not self._volumes
            line = self._window.line_around(serial, hit)
            done = self._window.line_end(line.at)
            yield from self._reports_at(line)
            if of_files and self._volumes:  # with the first volume the rest of the block is asked for those too
                proofs = deque(self._all_proofs_in(block))
        for near in _beside(self._keys, proofs):
            yield from self._proofs_at(serial, near, done)

    def _reports_at(self, line: Line) -> Iterator[Event]:
        """What is reported at `line`. What is set aside outside of this part is another part's to count."""
        noise = None if self._is_ours(self._window.place(line.at)) else self._reader.noise.copy()
        for event in self._reader.read(line):
            yield from self._tell(event)
        if noise is not None:
            self._reader.noise = noise

    def _proofs_at(self, serial: int, near: _Near, done: int) -> Iterator[Event]:
        """What is proved at `near`, if it is about a VDI in question, and new."""
        if near.hit < done or not self._matters(near):
            return
        line = self._window.line_around(serial, near.hit)
        if not self._is_ours(self._window.place(line.at)):
            return  # nor is all of what speaks against it at hand
        for proof in read_proofs(self._window, line, self._wanted, self._origin):
            sought = self._wanted.get(proof.vdi[:8])  # a coalesce proves two
            if sought is not None and proof.place > sought.since:
                yield from self._prove(proof, near.command)

    def _is_checked(self, command: bytes) -> bool:
        """True where the images in question of a coalesce have passed checks since that prove no less of them."""
        names = _EIGHT_DIGITS.findall(command)[-2:]  # the child, which is checked in full, and its parent
        enough = ({Strength.CHECKED}, {Strength.CHECKED, Strength.CHECKED_FAST})
        asked = [
            (self._proved.get(name.decode("ascii")), strengths)
            for name, strengths in zip(names, enough, strict=False)
            if name in self._keys
        ]
        return all(proved is not None and proved.strengths & strengths for proved, strengths in asked)

    def _prove(self, proof: Proof, command: bytes) -> Iterator[Event]:
        sought = self._wanted[proof.vdi[:8]]
        if self._only_proofs and sought.disk is None:  # disks that share their digits, each since another place
            yield from self._tell(proof)
            return
        key = (proof.voice, proof.vdi, proof.sr, proof.strength)
        proved = self._proved.setdefault(proof.vdi[:8], _Proved())
        if len(proof.vdi) == 36:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(command)
            proved.commands.add(command)
            if (proof.vdi, proof.sr) == sought.disk:  # and not a namesake
                proved.strengths.add(proof.strength)
        if key not in proved.keys:
            proved.keys.add(key)
            yield from self._tell(proof)

    def _tell(self, event: Failure | Proof) -> Iterator[Event]:
        if isinstance(event, Failure) and event.vdi:
            digits = event.vdi[:8]
            self._volumes |= event.path is None or FILES not in event.path
            is_new = digits not in self._wanted
            put_in_question(self._wanted, (event.vdi, event.sr))
            if is_new and digits in self._wanted:
                self._keys.update(_keys_of(digits))
            if proved := self._proved.pop(digits, None):
                self._told -= proved.commands
        elif isinstance(event, Failure):  # a volume that is known by its path: it may be any of those in question
            self._proved.clear()
            self._told.clear()
        if self._is_ours(event.place):
            yield event

    def _is_ours(self, place: int) -> bool:
        """It lies in this part, and not in the text around it."""
        return place >= self._begin and (self._end is None or place < self._end)

    # ---------------------------------------------------------------- memory

    def recall(self, memory: Memory) -> Iterator[Event]:
        """Instead of feeding: what the pass that filled `memory` saw of the VDIs that are wanted now."""
        self._end = memory.end
        for block in memory.blocks:
            self._window.push(block)
        for serial, about in memory.about(self._keys):
            for near in about:
                yield from self._proofs_at(serial, near, 0)
            memory.spare += [data for block in self._window.around(serial) if (data := block.let_go()) is not None]


def recall(engine: Engine, memory: Memory, asked: Mapping[Disk, int]) -> Iterator[Event]:
    """What a part, whose `memory` this is, proves of the disks `asked`, each since a place."""
    sweep = Sweep(
        engine,
        looking=Looking.PROOFS,
        wanted=in_question(asked),
        origin=memory.origin,
        place=memory.place,
        begin=memory.begin,
    )
    yield from sweep.recall(memory)
