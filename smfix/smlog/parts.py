"""The logs divided into parts, and one part read.

A part is a run of bytes of one set of logs: whole logs, or the piece of a log between two offsets.
It is read with as much text around it as a search can reach, and tells only what lies in it: so the
parts together tell what one pass over everything would. Where lines are counted from something
that only an earlier part knows, the count is relative until :func:`placed` has seen that part.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smfix.errors import Unreadable
from smfix.smlog.archives import Log
from smfix.smlog.blocks import BLOCK, Cutter
from smfix.smlog.engine import Data, Engine
from smfix.smlog.lines import LINE_LIMIT, REACH_AHEAD, REACH_BACK, Block, Position, parse_line
from smfix.smlog.patterns import pattern
from smfix.smlog.stamps import Stamp
from smfix.smlog.sweep import Event, InQuestion, Looking, Memory, Sweep, Tally
from smfix.smlog.unpack import Damaged

_UNPACKS_TO = 12  # times its size, when the work is divided
_PACKED_COSTS = 3  # times what plain text costs, byte for byte
_ROOM = 1 << 50  # places of one part; half of them for the text before it
# A log's first and last time. What every prefix's time holds (the literal comes first, for speed), and a journal's.
_CLOCK = pattern(rb":(?<=[T ][0-9]{2}:)[0-5][0-9]:[0-9]{2}")
_JOURNALS = b"__REALTIME_TIMESTAMP"
_GLANCE = 64 << 10  # bytes read at a time where a line's end is looked for
_TRIED = 500  # lines of a block with one of these that turns out to be no prefix's
_FIRST_STRIDE, _WIDER = 4 << 10, 8  # bytes looked through for the last time: so many, then eight times as many, ...


class Segment(NamedTuple):
    """Bytes `begin` to `end` (None: its end) of the log with that index."""

    log: int
    begin: int = 0
    end: int | None = None


class Part(NamedTuple):
    """Neighbouring segments of one set; `origin` is the set's index.

    `place` is where it begins in the logical text of all logs (bytes): it orders what parts tell.
    """

    place: int
    origin: int
    segments: tuple[Segment, ...]


class Seen:
    """What a part saw of one log: its first and last time, bytes, lines, why it ended early."""

    def __init__(self) -> None:
        self.first: Stamp | None = None
        self.last: Stamp | None = None
        self.size = 0
        self.lines = 0
        self.failure: str | None = None


_AT_A_TIME = 4  # blocks; they lie within the window's reach, so their text is at hand
_AGAIN_AT_A_TIME = 64  # blocks whose text can be read again


class _Stamps:
    """A log's last time, looked for in its newest blocks only: now and then, and at the end."""

    def __init__(self) -> None:
        self.last: Stamp | None = None
        self._newest: list[Block] = []

    def add(self, block: Block) -> None:
        """The next block of the log."""
        self._newest.append(block)
        if len(self._newest) == (_AGAIN_AT_A_TIME if block.can_be_read_again else _AT_A_TIME):
            self.settle()

    def settle(self) -> Stamp | None:
        """The last time so far."""
        newest, self._newest = self._newest, []
        for block in reversed(newest):
            stamp = _last_stamp(block)
            block.let_go()
            if stamp:
                self.last = stamp
                break
        return self.last


@dataclass(slots=True)
class Reading:
    """The logs in their order, and in which set each is."""

    logs: list[Log]
    sets: list[list[int]]
    engine: Engine
    read: Callable[[int], None] = field(default=lambda _count: None)
    sizes: dict[int, int] = field(default_factory=dict)  # of plain text, once it has been read

    def size(self, segment: Segment) -> int:
        """The bytes of plain text in `segment`. Of a packed log they are known once it has been read."""
        log = self.logs[segment.log]
        if log.path is None:
            return self.sizes.get(segment.log, 0)
        return cost(log, segment)


def everything(reading: Reading) -> list[Part]:
    """One part for each set."""
    return numbered(
        [Part(0, origin, tuple(Segment(log) for log in members)) for origin, members in enumerate(reading.sets)]
    )


def numbered(parts: list[Part]) -> list[Part]:
    """`parts` with places in their order, and room for any length between them."""
    return [part._replace(place=number * _ROOM + _ROOM // 2) for number, part in enumerate(parts)]


def cost(log: Log, segment: Segment | None = None) -> int:
    """What reading `log` (or a segment of it) costs, in bytes of plain text."""
    if log.path is None:
        return log.size * _UNPACKS_TO * _PACKED_COSTS
    begin, end = (segment.begin, segment.end) if segment else (0, None)
    return (log.size if end is None else end) - begin


def divide(reading: Reading, parts: list[Part], ways: int, ahead: int = 0) -> list[list[Part]]:
    """`parts` as up to `ways` groups of about the same cost; plain logs are cut between two lines.

    The first group costs `ahead` more than its share, or an eighth of everything where that is less. Places go on
    counting through what was cut: that is right where every log's size is what is read.
    """
    total = sum(cost(reading.logs[one.log], one) for part in parts for one in part.segments)
    groups: list[list[Part]] = [[]]
    spent = -min(ahead, total // 8)
    for part in parts:
        segments: list[Segment] = []
        place = part.place
        for whole in part.segments:
            log, rest = reading.logs[whole.log], whole
            while len(groups) < ways and spent + cost(log, rest) > total * len(groups) // ways:
                cut = _cut(log, rest, total * len(groups) // ways - spent)
                if cut is None:
                    break
                if cut > rest.begin:
                    segments.append(rest._replace(end=cut))
                if segments:
                    groups[-1].append(part._replace(place=place, segments=tuple(segments)))
                    place += sum(reading.size(one) for one in segments)
                    segments = []
                groups.append([])
                spent, rest = spent + cut - rest.begin, rest._replace(begin=cut)
                if log.path is None:
                    break
            segments.append(rest)
            spent += cost(log, rest)
        groups[-1].append(part._replace(place=place, segments=tuple(segments)))
    return [group for group in groups if group]


def _cut(log: Log, segment: Segment, goal: int) -> int | None:
    """Where to cut a segment, about `goal` bytes behind its begin; None: nowhere.

    A packed log is not cut: the next group starts with it, if most of it lies behind the goal.
    """
    if log.path is None:
        return segment.begin if 2 * goal < cost(log) else None
    end = log.size if segment.end is None else segment.end
    begin = segment.begin + max(0, goal)
    cut = _line_start(log, begin, begin + BLOCK)
    return cut if cut is not None and segment.begin <= cut < end else None


def _line_start(log: Log, goal: int, limit: int) -> int | None:
    """Where the first line behind byte `goal` of a plain log starts; None if none does before byte `limit`."""
    piece, buffer = _Piece(log, max(0, goal - 1), limit), bytearray(_GLANCE)
    try:
        while count := piece.readinto(memoryview(buffer)):
            found = buffer.find(b"\n", 0, count)
            if found >= 0:
                return piece.offset - count + found + 1
    except OSError as error:
        raise Unreadable(f"{log.name}: {error.strerror}") from error
    return None


# --------------------------------------------------------------------------- one part


def read_part(
    reading: Reading,
    part: Part,
    looking: Looking,
    wanted: InQuestion,
    seen: dict[int, Seen],
    memories: list[Memory] | None = None,
) -> Iterator[Event]:
    """What lies in `part`; events name the logs by index. `seen` is filled, `wanted` added to.

    `memories`, where there are any, get one more: for what is asked of the part later.
    """
    before = list(_text_before(reading, part))
    place = part.place - sum(block.size for block in before)
    memory = None
    if memories is not None:
        memory = Memory(origin=part.origin, place=place, begin=part.place)
        memories.append(memory)
    sweep = Sweep(
        reading.engine,
        looking=looking,
        wanted=wanted,
        origin=part.origin,
        place=place,
        begin=part.place,
        memory=memory,
    )
    for block in before:
        yield from sweep.feed(block)
    cutter = Cutter(reading.engine, sweep.spare)
    for segment in part.segments:
        log, view, stamps = reading.logs[segment.log], seen.setdefault(segment.log, Seen()), _Stamps()
        try:
            for block in _blocks(log, segment, cutter):
                _note(view, block)
                stamps.add(block)
                yield from sweep.feed(block)
                reading.read(block.size)
        except Damaged as error:
            view.failure = str(error)
        except OSError as error:
            raise Unreadable(f"{log.name}: {error.strerror}") from error
        view.last = stamps.settle() or view.last
    sweep.close()
    for block in _text_after(reading, part, cutter, seen):
        yield from sweep.feed(block)
    yield from sweep.finish()
    yield from sweep.tally()


def _blocks(log: Log, segment: Segment, cutter: Cutter) -> Iterator[Block]:
    """The blocks of a segment; a mended paste is one."""
    if log.mended is None:
        yield from cutter.cut(_open(log, segment), segment.log)
    else:
        data, numbers = log.mended
        yield Block(data, len(data), segment.log, 1, data.count(b"\n"), numbers)


def placed(event: Event, lines_before: dict[int, int]) -> Event:
    """`event` with its evidence counted from each log's start: `lines_before` lines lie there."""
    if isinstance(event, Tally) or not any(lines_before.get(quote.file) for quote in event.evidence):
        return event
    return event._replace(
        evidence=tuple(quote._replace(line=quote.line + lines_before.get(quote.file, 0)) for quote in event.evidence),
    )


def _open(log: Log, segment: Segment) -> Any:
    return log.open() if log.path is None else _Piece(log, segment.begin, segment.end)


class _Piece:
    """Bytes `begin` to `end` of the plain `log`. Holes are passed over, not read. `offset` is where it has come to."""

    def __init__(self, log: Log, begin: int, end: int | None) -> None:
        self._name = log.name
        self._stream: Any = log.open()
        self.offset = begin
        self._end = end
        self._given = 0  # bytes
        self._runs = [(0, begin)]  # from which of them on which offsets of the log were given: holes lie between

    def readinto(self, view: memoryview) -> int:
        """Fill `view`; 0 at the end."""
        while True:
            room = len(view) if self._end is None else min(len(view), self._end - self.offset)
            if room <= 0:
                return 0
            self._stream.seek(self.offset)
            count = int(self._stream.readinto(view[:room]))
            self.offset += count
            if count < room or view[0] or view[count - 1] or bytes(view[:count]).strip(b"\0"):
                self._given += count
                return count
            data = self._stream.next_data(self.offset)
            if data is None or (self._end is not None and data >= self._end):
                return 0
            if data <= self.offset:
                self._given += count
                return count
            self.offset = data
            self._runs.append((self._given, data))

    def again(self, at: int, view: memoryview) -> None:
        """Fill `view` with what was given from the `at`-th byte on; NUL where the log has been cut short since.

        Raises Unreadable: whoever asks for it is not prepared for what storage says.
        """
        size = len(view)
        ends = [*(given for given, _ in self._runs[1:]), self._given]
        for (begin, offset), end in zip(self._runs, ends, strict=True):
            start, stop = max(begin, at), min(end, at + size)
            if start < stop:
                try:
                    self._stream.seek(offset + start - begin)
                    count = int(self._stream.readinto(view[start - at : stop - at]))
                except OSError as error:
                    raise Unreadable(f"{self._name}: {error.strerror}") from error
                view[start - at + count : stop - at] = bytes(stop - start - count)


def _text_before(reading: Reading, part: Part) -> Iterator[Block]:
    """At least REACH_BACK bytes in front of the part, where there are as many; lines are counted back from their end.

    A report in the part may rest on a complaint that far back, and that on a line further back: the one that names a
    LINSTOR volume's VDI, or the SR of a volume without a path. That one is not read here. In what the storage manager
    logs it stands a few lines before the complaint.
    """
    first = part.segments[0]
    members = reading.sets[part.origin]
    kept: deque[Block] = deque()
    need = REACH_BACK
    for index in reversed(members[: members.index(first.log) + 1]):
        end = first.begin if index == first.log else None
        if need <= 0 or end == 0:
            continue
        tail = _tail(reading, index, end, need)
        number = 1 - sum(block.lines for block in tail)
        for block in tail:
            block.first_line = number
            number += block.lines
        kept.extendleft(reversed(tail))
        need -= sum(block.size for block in tail)
    yield from kept


def _tail(reading: Reading, index: int, end: int | None, need: int) -> list[Block]:
    """The last blocks of a log before `end`, of at least `need` bytes where it has as many."""
    log = reading.logs[index]
    cutter = Cutter(reading.engine, [])
    if log.path is None:
        return _last(cutter.cut(log.open(), index), need)
    stop = log.size if end is None else end
    back = need + LINE_LIMIT  # so the line is whole that `need` ends in
    while True:
        start = _line_start(log, stop - back, stop) if back < stop else 0
        tail = [] if start is None else _last(cutter.cut(_Piece(log, start, stop), index), need)
        if back >= stop or sum(block.size for block in tail) >= need:
            return tail
        back *= 2  # a hole lies there, and is passed over; or one line


def _last(blocks: Iterator[Block], need: int) -> list[Block]:
    """The last of `blocks`, of at least `need` bytes; those before damage, if they end in it."""
    tail: deque[Block] = deque()
    size = 0
    with contextlib.suppress(Damaged):
        for block in blocks:
            tail.append(block)
            size += block.size
            while size - tail[0].size >= need:
                size -= tail.popleft().size
    return list(tail)


def _text_after(reading: Reading, part: Part, cutter: Cutter, seen: dict[int, Seen]) -> Iterator[Block]:
    """At least REACH_AHEAD bytes behind the part, where there are as many."""
    last = part.segments[-1]
    members = reading.sets[part.origin]
    left = REACH_AHEAD
    for index in members[members.index(last.log) :]:
        begin, line = (last.end, seen[index].lines + 1) if index == last.log else (0, 1)
        if begin is None:
            continue
        try:
            for block in cutter.cut(_open(reading.logs[index], Segment(index, begin)), index, line):
                yield block
                left -= block.size
                if left <= 0:
                    return
        except (Damaged, OSError):
            continue


# --------------------------------------------------------------------------- times


def _note(view: Seen, block: Block) -> None:
    """Keep count, and the first time."""
    view.size += block.size
    view.lines = block.first_line - 1 + block.lines
    view.first = view.first or _first_stamp(block)


def _first_stamp(block: Block) -> Stamp | None:
    data, offset = block.data, 0
    tries = iter(range(_TRIED))
    for hit in _times_in(data, 0, block.size):
        if hit < offset:
            continue  # of a line that was asked
        offset = data.find(b"\n", hit, block.size) + 1 or block.size
        if stamp := _stamp_at(data, hit, offset):
            return stamp
        if next(tries, None) is None:
            break
    return None


def _last_stamp(block: Block) -> Stamp | None:
    """It is mostly in the last line: so the block is looked through from its end, in pieces of whole lines."""
    data, stop, stride = block.data, block.size, _FIRST_STRIDE
    tries = iter(range(_TRIED))
    while stop > 0:
        start = data.rfind(b"\n", 0, stop - stride) + 1 if stop > stride else 0
        end = stop
        for hit in reversed([*_times_in(data, start, stop)]):
            if hit >= end:
                continue
            if stamp := _stamp_at(data, hit, data.find(b"\n", hit, end) + 1 or end):
                return stamp
            if next(tries, None) is None:
                return None
            end = data.rfind(b"\n", start, hit) + 1
        stop, stride = start, stride * _WIDER
    return None


def _times_in(data: Data, start: int, stop: int) -> Iterator[int]:
    """Where in ``data[start:stop]`` a line may carry a time, in their order."""
    journal = data.find(_JOURNALS, start, stop)
    for found in _CLOCK.finditer(data, start, stop):
        while 0 <= journal < found.start():
            yield journal
            journal = data.find(_JOURNALS, journal + 1, stop)
        yield found.start()
    while journal >= 0:
        yield journal
        journal = data.find(_JOURNALS, journal + 1, stop)


def _stamp_at(data: Data, hit: int, end: int) -> Stamp | None:
    """The time of the line that holds byte `hit` and ends at `end`."""
    start = data.rfind(b"\n", 0, hit) + 1
    return parse_line(bytes(data[start : min(end, start + LINE_LIMIT)]), Position(0, 0)).stamp
