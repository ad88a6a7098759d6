"""The first and the last time that a log names: they give the whole log its year.

Pure. Most lines are not parsed: only those with the characters that every prefix's time has.
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.smlog.parse.literal_search import Data
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.parse.window import LINE_LIMIT, Block, Position, parse_line
from smfix.smlog.patterns import pattern

_CLOCK = pattern(rb":(?<=[T ][0-9]{2}:)[0-5][0-9]:[0-9]{2}")  # the literal comes first, for speed
_JOURNALS = b"__REALTIME_TIMESTAMP"
_TRIED = 500  # lines of a block with one of these that turns out to be no prefix's
_FIRST_STRIDE, _WIDER = 4 << 10, 8  # bytes looked through for the last time: so many, then eight times as many, ...


def first_time(block: Block) -> Stamp | None:
    """Return the first time that `block` names."""
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


def last_time(block: Block) -> Stamp | None:
    """Return the last time that `block` names: mostly in its last line, so it is looked for from its end."""
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
    """Yield the offsets in ``data[start:stop]`` at which a line may carry a time, in their order."""
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
    """Return the time of the line that holds byte `hit` and ends at `end`."""
    start = data.rfind(b"\n", 0, hit) + 1
    return parse_line(bytes(data[start : min(end, start + LINE_LIMIT)]), Position(0, 0)).stamp
