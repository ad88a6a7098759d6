"""Text as a window that moves over the logs: blocks of whole lines, searched, decoded on demand.

Pure. A log has millions of lines and a handful that matter, so lines are not parsed on the way in:
a caller has an engine find the bytes that may matter, and asks the window for the lines
around them: the next or the previous one, or the next or the previous of the same process.

Blocks follow each other in the logical order of the logs (SMlog.1 before SMlog), so a process is
followed across a rotation. A search reaches :data:`REACH_BACK` and :data:`REACH_AHEAD` bytes and no
further: that bounds memory, time, and how old a process' evidence can be.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from smfix.smlog.parse.journald import read_entry
from smfix.smlog.parse.literal_search import Data, Engine, PlainEngine
from smfix.smlog.parse.prefixes import is_of_storage, read_prefix, unescape, unquote
from smfix.smlog.parse.quoted_text import without_quoted_text
from smfix.smlog.parse.timestamps import Stamp

REACH_BACK = 8 << 20  # bytes; some 70,000 lines
REACH_AHEAD = 4 << 20
LINE_LIMIT = 64 << 10  # bytes of a line that are decoded; the rest is not read
_EVERY_LINE_PREFIXED = frozenset({"syslog", "iso", "rfc5424", "journal"})
_CACHED = 2048  # lines kept decoded, if short
_CACHED_LENGTH = 1 << 12
# Searches may read the text this often, and this much (bytes) besides, before their reach shrinks. A line that is
# found is decoded and judged, which takes as long as searching so many bytes of others.
_SEARCHES = 16
_SEARCHED_FREELY = 4 << 30
_A_LINE = 8 << 10
_REACH_WHEN_SPENT = 8 << 10
# Most hits are near: search first in so many bytes, then in eight times as many, ...
_FIRST_STRIDE, _WIDER = 16 << 10, 8
_NEAR = 256 << 10  # bytes that are searched to join known stretches
_NEEDLES = 64  # words whose lines are remembered
_BEFORE, _BEHIND = 56, 42  # bytes around the digits of an image: "/run/sr-mount/", an SR; a UUID and ".qcow2"


class Position(NamedTuple):
    """The start of a line: the serial number of its block, and its offset in it (bytes)."""

    block: int
    offset: int


class Block:
    """Whole lines of one file. `size` bytes of `data` are in use and end with a line's end.

    `file` is the index of the file among the logs, `first_line` the number of the block's first
    line in it, counted from 1; it holds `lines` line ends. `numbers` are the lines' numbers if
    they do not count up by one (a mended paste). `again` reads the text once more, for a block that
    was let go of.
    """

    __slots__ = ("_again", "_data", "file", "first_line", "lines", "numbers", "size")

    def __init__(
        self,
        data: Data,
        size: int,
        file: int,
        first_line: int,
        lines: int,
        numbers: tuple[int, ...] = (),
        again: Callable[[], Data] | None = None,
    ) -> None:
        self._data: Data | None = data
        self._again = again
        self.size = size
        self.file = file
        self.first_line = first_line
        self.lines = lines
        self.numbers = numbers

    @property
    def data(self) -> Data:
        """Return the text, read again if it was let go of; NULs if it cannot be read again."""
        if self._data is None:
            self._data = bytearray(self.size) if self._again is None else self._again()
        return self._data

    def let_go(self) -> Data | None:
        """Give up the buffer to another block, while this one is not needed. None if it cannot be read again."""
        return None if self._again is None else self.take()

    def take(self) -> Data | None:
        """Take the buffer, if it is still here: the block is not used any more."""
        data, self._data = self._data, None
        return data

    def grow(self, data: bytes) -> None:
        """Append `data`, whole lines, to the block."""
        text = self.data
        text += data  # in place: a growing block's text is a bytearray
        self._data = text
        self.size += len(data)
        self.lines += data.count(b"\n")


class Line(NamedTuple):
    """One physical line. `raw` is all of it, `text` the message after its prefix, without the text it quotes.

    `form` is the name of the prefix's row in formats.py, ``""`` if the line has none; then
    `stamp`, `host` and `pid` are None and `ident` is empty.
    """

    at: Position
    raw: str
    text: str
    form: str = ""
    stamp: Stamp | None = None
    host: str | None = None
    ident: str = ""
    pid: int | None = None
    thread: str | None = None

    @property
    def has_prefix(self) -> bool:
        """Return False for a continuation or a terminal's output."""
        return bool(self.form)

    def is_of_process(self, other: Line) -> bool:
        """Return True if the process of the storage manager that wrote `other` wrote this line too."""
        return self.pid == other.pid and self.host == other.host and is_of_storage(self.ident)

    def is_of_thread(self, other: Line) -> bool:
        """Return True if one thread of one process wrote both lines: threads log between each other's records."""
        return (self.pid, self.thread, self.host) == (other.pid, other.thread, other.host)


def decode(raw: bytes) -> str:
    """Decode a line's text: UTF-8, with U+FFFD for invalid bytes; no line end, no leading NULs.

    A crash leaves runs of NUL in front of the first line written after it.
    """
    return raw.rstrip(b"\r\n").lstrip(b"\0").decode("utf-8", "replace")


def parse_line(raw: bytes, at: Position) -> Line:
    """Return the line that `raw` (bytes, its first LINE_LIMIT count) is."""
    text = decode(raw[:LINE_LIMIT])
    plain = unescape(text)
    if plain.startswith("{") and (entry := read_entry(plain)):
        message = without_quoted_text(entry.text)
        return Line(at, text, message, "journal", entry.stamp, entry.host, entry.ident, entry.pid, entry.thread)
    prefix = read_prefix(plain)
    if prefix is None:
        return Line(at, text, without_quoted_text(unquote(plain)))
    message = without_quoted_text(plain[prefix.start : prefix.stop])
    return Line(at, text, message, prefix.form, prefix.stamp, prefix.host, prefix.ident, prefix.pid, prefix.thread)


class _Sightings:
    """The lines that hold one needle, as far as the text was searched for it: no text is searched twice."""

    def __init__(self, window: Window, needle: bytes, place: int) -> None:
        self._window = window
        self._needle = needle
        self._low = self._high = place
        self._lines: list[Position] = []  # those that begin at places from `_low` to before `_high`
        self._places: list[int] = []

    def is_near(self, place: int) -> bool:
        """Return True if a search from `place` on is faster with the known places than without."""
        if self._low < self._window.start:
            gone = bisect_left(self._places, self._window.start)
            del self._lines[:gone], self._places[:gone]
            self._low, self._high = self._window.start, max(self._high, self._window.start)
        return self._low <= place <= self._high + _NEAR

    def after(self, place: int, stop: int) -> Position | None:
        """Return the first line that begins after `place` and before `stop`; None if there is none."""
        stop, stride = min(stop, self._window.end), _FIRST_STRIDE
        while True:
            index = bisect_right(self._places, place)
            if index < len(self._places) and self._places[index] < stop:
                return self._lines[index]
            if self._high >= stop:
                return None
            high = min(stop, self._high + stride)
            self._put(len(self._places), self._window.search(self._needle, self._high, high))
            self._high, stride = high, stride * _WIDER

    def before(self, place: int, floor: int) -> Position | None:
        """Return the last line that begins before `place` and not before `floor`; None if there is none."""
        floor, stride = max(floor, self._window.start), _FIRST_STRIDE
        if self._high < place:
            self._put(len(self._places), self._window.search(self._needle, self._high, place))
            self._high = place
        while True:
            index = bisect_left(self._places, place)
            if index and self._places[index - 1] >= floor:
                return self._lines[index - 1]
            if self._low <= floor or index:
                return None
            low = max(floor, self._low - stride)
            self._put(0, self._window.search(self._needle, low, self._low))
            self._low, stride = low, stride * _WIDER

    def _put(self, index: int, lines: list[Position]) -> None:
        self._lines[index:index] = lines
        self._places[index:index] = map(self._window.place, lines)


class Window:
    """The blocks at hand, in order. Positions stay valid while their block is in the window.

    `start` is the place (bytes) of the window's first byte in the logical text of all logs. `grows`: more may be
    written after the last line.
    """

    def __init__(self, start: int = 0, engine: Engine | None = None, *, grows: bool = False) -> None:
        self.grows = grows
        self._engine = engine or PlainEngine()
        self._blocks: list[Block] = []
        self._first = 0  # the serial number of _blocks[0]
        self._starts: list[int] = []  # the start of each block in the logical text (bytes)
        self._end = start
        self._cache: OrderedDict[Position, Line] = OrderedDict()
        self._seen_at: OrderedDict[bytes, _Sightings] = OrderedDict()
        self._counted = (-1, 0, 0)  # block, offset and number of the line asked for last
        self._searched = 0
        self._pushed = 0

    # ---------------------------------------------------------------- moving

    def push(self, block: Block) -> int:
        """Add the next block; return its serial number."""
        self._starts.append(self._end)
        self._blocks.append(block)
        self._end += block.size
        self._pushed += block.size
        return self._first + len(self._blocks) - 1

    @property
    def first(self) -> int:
        """Return the serial number of the oldest block in the window."""
        return self._first

    @property
    def start(self) -> int:
        """Return the place of the first byte at hand."""
        return self._starts[0] if self._starts else self._end

    @property
    def end(self) -> int:
        """Return the place after the last block (bytes)."""
        return self._end

    @property
    def last(self) -> int:
        """Return the serial number of the newest block; -1 before the first."""
        return self._first + len(self._blocks) - 1

    def extend(self, data: bytes) -> None:
        """Grow the newest block (its data a bytearray) by `data`, whole lines."""
        self._blocks[-1].grow(data)
        self._end += len(data)
        self._pushed += len(data)

    def ahead_of(self, serial: int) -> int:
        """Return how many bytes of the window follow block `serial`."""
        index = serial - self._first
        return self._end - self._starts[index] - self._blocks[index].size

    def forget(self, serial: int) -> list[Block]:
        """Drop the blocks that no search from block `serial` on can reach; return them."""
        floor = self._starts[serial - self._first] - REACH_BACK
        count = 0
        while count < serial - self._first and self._starts[count + 1] <= floor:
            count += 1
        dropped = self._blocks[:count]
        if count:
            del self._blocks[:count], self._starts[:count]
            self._first += count
            self._cache.clear()
        return dropped

    def _reach(self, full: int) -> int:
        """Return how far a search may go (bytes): less when a hostile log makes searches pile up."""
        spent = self._searched > _SEARCHES * self._pushed + _SEARCHED_FREELY
        return min(full, _REACH_WHEN_SPENT) if spent else full

    # ---------------------------------------------------------------- lines

    def block(self, serial: int) -> Block:
        """Return the block with that serial number."""
        return self._blocks[serial - self._first]

    def line_around(self, serial: int, offset: int) -> Line:
        """Return the line that holds byte `offset` of block `serial`."""
        block = self.block(serial)
        start = block.data.rfind(b"\n", 0, offset) + 1
        return self.line(Position(serial, start))

    def raw_line(self, serial: int, offset: int) -> bytes:
        """Return the bytes of the line that holds byte `offset` of block `serial`."""
        block = self.block(serial)
        start = block.data.rfind(b"\n", 0, offset) + 1
        return bytes(block.data[start : min(self._line_end(block, offset), start + LINE_LIMIT)])

    def line(self, at: Position) -> Line:
        """Return the line that starts at `at`."""
        if cached := self._cache.get(at):
            return cached
        block = self.block(at.block)
        stop = min(self._line_end(block, at.offset), at.offset + LINE_LIMIT)
        line = parse_line(bytes(block.data[at.offset : stop]), at)
        if stop - at.offset <= _CACHED_LENGTH:
            self._cache[at] = line
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return line

    def number(self, at: Position) -> int:
        """Return the line's number in its file, counted from 1."""
        block = self.block(at.block)
        if block.numbers:
            return block.numbers[block.data.count(b"\n", 0, at.offset)]
        serial, offset, lines = self._counted
        if serial != at.block or offset > at.offset:
            offset, lines = 0, block.first_line
        lines += self._engine.lines(block.data, offset, at.offset)
        self._counted = (at.block, at.offset, lines)
        return lines

    def file(self, at: Position) -> int:
        """Return the index of the line's file."""
        return self.block(at.block).file

    def place(self, at: Position) -> int:
        """Return the line's start in the logical text of all logs (bytes)."""
        return self._starts[at.block - self._first] + at.offset

    def reached_from(self, at: Position) -> range:
        """Return the places (bytes) that a search from the line at `at` reaches."""
        place = self.place(at)
        return range(place - REACH_BACK, place + REACH_AHEAD + 1)

    def line_end(self, at: Position) -> int:
        """Return the offset in its block right after the line that starts at `at`."""
        return self._line_end(self.block(at.block), at.offset)

    @staticmethod
    def _line_end(block: Block, offset: int) -> int:
        found = block.data.find(b"\n", offset, block.size)
        return block.size if found < 0 else found + 1

    # ---------------------------------------------------------------- neighbours

    def after(self, at: Position) -> Iterator[Line]:
        """Yield the lines after the one at `at`, nearest first."""
        reach = self.place(at) + REACH_AHEAD
        serial, offset = at.block, self.line_end(at)
        while serial < self._first + len(self._blocks):
            block = self.block(serial)
            while offset < block.size:
                position = Position(serial, offset)
                if self.place(position) > reach:
                    return
                yield self.line(position)
                offset = self._line_end(block, offset)
            serial, offset = serial + 1, 0

    def before(self, at: Position) -> Iterator[Line]:
        """Yield the lines before the one at `at`, nearest first."""
        reach = self.place(at) - REACH_BACK
        serial, offset = at
        while serial >= self._first:
            block = self.block(serial)
            while offset > 0:
                offset = block.data.rfind(b"\n", 0, offset - 1) + 1
                position = Position(serial, offset)
                if self.place(position) < reach:
                    return
                yield self.line(position)
            serial -= 1
            offset = self.block(serial).size if serial >= self._first else 0

    def naming_after(self, at: Position, needles: tuple[bytes, ...]) -> Iterator[Line]:
        """Yield the lines after the one at `at` that hold one of `needles`, nearest first."""
        place, stop = self.place(at), self.place(at) + self._reach(REACH_AHEAD)
        while (found := self._next(needles, place, stop)) is not None:
            self._searched += _A_LINE
            yield self.line(found)
            place = self.place(found)

    def naming_before(self, at: Position, needles: tuple[bytes, ...]) -> Iterator[Line]:
        """Yield the lines before the one at `at` that hold one of `needles`, nearest first."""
        place, floor = self.place(at), self.place(at) - self._reach(REACH_BACK)
        while (found := self._previous(needles, place, floor)) is not None:
            self._searched += _A_LINE
            yield self.line(found)
            place = self.place(found)

    def texts_around(self, at: Position, needle: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield each `needle` within reach of the line at `at`: block, offset in it, text around it (bytes).

        Those before the line first, nearest first; then those after it.
        """
        place, reach, size = self.place(at), self._reach(REACH_BACK), len(needle)
        for serial, start, stop in reversed([*self._spans(place - reach, place)]):
            data, hit = self.block(serial).data, stop
            while (hit := self._engine.rfind(data, needle, start, hit)) >= 0:
                yield serial, hit, bytes(data[max(0, hit - _BEFORE) : hit + _BEHIND])
        for serial, start, stop in self._spans(place, place + min(reach, REACH_AHEAD)):
            data, hit = self.block(serial).data, start - size
            while (hit := self._engine.find(data, needle, hit + size, stop)) >= 0:
                yield serial, hit, bytes(data[max(0, hit - _BEFORE) : hit + _BEHIND])

    def _spans(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Yield the text from place `low` to `high`: the blocks, and the start and end in each (bytes)."""
        for index in range(max(0, bisect_right(self._starts, low) - 1), len(self._blocks)):
            base, size = self._starts[index], self._blocks[index].size
            start, stop = max(0, low - base), min(size, high - base)
            if start < stop:
                self._searched += stop - start
                yield self._first + index, start, stop

    def _next(self, needles: tuple[bytes, ...], place: int, stop: int) -> Position | None:
        """Return the first line after the one at `place` that holds one of `needles` and begins before `stop`."""
        hits = [hit for needle in needles if (hit := self._sightings(needle, place).after(place, stop)) is not None]
        return min(hits, default=None)

    def _previous(self, needles: tuple[bytes, ...], place: int, floor: int) -> Position | None:
        """Return the last line before the one at `place` that holds one of `needles`, not before `floor`."""
        hits = [hit for needle in needles if (hit := self._sightings(needle, place).before(place, floor)) is not None]
        return max(hits, default=None)

    def _sightings(self, needle: bytes, place: int) -> _Sightings:
        known = self._seen_at.pop(needle, None)
        if known is None or not known.is_near(place):
            known = _Sightings(self, needle, place)
        self._seen_at[needle] = known
        if len(self._seen_at) > _NEEDLES:
            self._seen_at.popitem(last=False)
        return known

    def search(self, needle: bytes, low: int, high: int) -> list[Position]:
        """Return the lines that begin at places ``[low, high)`` and hold `needle`, in their order."""
        found: list[Position] = []
        for serial, start, stop in self._spans(low, high):
            block, offset = self.block(serial), start
            end = self._line_end(block, stop - 1)  # the line that begins last goes on after `high`
            while (hit := self._engine.find(block.data, needle, offset, end)) >= 0:
                at = Position(serial, block.data.rfind(b"\n", 0, hit) + 1)
                if self.place(at) >= low:
                    found.append(at)
                offset = self._line_end(block, hit)
        return found

    # ---------------------------------------------------------------- processes

    def of_process_after(self, line: Line) -> Iterator[Line]:
        """Yield the later lines of the process that wrote `line`; nothing if it names no pid."""
        if line.pid is not None:
            for other in self.naming_after(line.at, pid_needles(line)):
                if other.is_of_process(line):
                    yield other

    def of_process_before(self, line: Line) -> Iterator[Line]:
        """Yield the earlier lines of the process that wrote `line`, nearest first."""
        if line.pid is not None:
            for other in self.naming_before(line.at, pid_needles(line)):
                if other.is_of_process(line):
                    yield other

    def voice_after(self, line: Line, limit: int) -> Iterator[Line]:
        """Yield the next lines of the writer of `line`, at most `limit`: a record's continuation.

        syslog gives each line of a record its prefix: the same process' next lines. A raw log gives
        none: the lines without a prefix, over which another process may have written.
        """
        if line.form in _EVERY_LINE_PREFIXED:
            yield from islice(filter(line.is_of_thread, self.of_process_after(line)), limit)
            return
        for other in islice(self.after(line.at), limit):
            if not other.has_prefix:
                yield other
            elif other.pid == line.pid or line.pid is None:
                return


def pid_needles(line: Line) -> tuple[bytes, ...]:
    """Return the spellings of the pid of `line` in its process' lines: ``[26919]``, in raw logs ``<26919>`` too."""
    brackets = b"[%d]" % (line.pid or 0)
    return (brackets,) if line.form in _EVERY_LINE_PREFIXED else (brackets, b"<%d>" % (line.pid or 0))
