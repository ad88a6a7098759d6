"""Damages that leave no trace only together: the other sound disk that would have become the very same bytes.

Two damages can meet so that a disk with other contents, damaged by the same kinds, is the same file. What is said of
that file is then right of one disk and wrong of the other, and nobody can tell which it was. So it is held against
the other one: what its guest reads must be read in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from matrix import reader
from matrix.damage import Sample
from matrix.reader import SECTOR, UNUSED
from matrix.writer import seal_batmap


def other_disk(s: Sample, raw: bytes, orphans: Sequence[tuple[int, int]]) -> bytes | None:
    """The sound image of the other disk; None: there is none by these rules.

    * A block without an entry and without a batmap bit, of which no byte is in the file any more, might never have
      been.
    * A place that an entry nobody used names, while its own block's is lost or wrong, might always have been that
      other block's.
    * So might the only block without an entry (lost, or left so by a crash: `orphans`), where the only wild entry is
      one that nobody used.
    * Where a sound batmap does not call a block full that it did, the bitmap was asked, whatever it says.
    """
    found = s.found
    if found.kind == reader.FIXED or len(raw) < found.end_of_headers:
        return None
    spots = (found.table_at + 4 * block for block in range(len(found.bat)))
    entries = [int.from_bytes(raw[at : at + 4]) for at in spots]
    changed, lost = _unseen(s, raw, entries)
    other = bytearray(s.sound)
    places = {at // SECTOR for _, at in found.allocated()}
    wild = [n for n, at in enumerate(found.bat) if at is None and entries[n] not in {UNUSED, *places}]
    if len(wild) == len(lost) == 1 and not orphans:
        changed |= {lost[0][0]: UNUSED, wild[0]: lost[0][1] // SECTOR}
    if len(wild) == len(orphans) == 1 and not lost and sum(orphans[0]) <= len(raw):
        at, space = orphans[0]
        other[-SECTOR:] = bytes(max(0, at - len(other) + SECTOR))
        other[at : at + space] = raw[at : at + space]
        other += found.footer
        changed[wild[0]] = at // SECTOR
    other = s.with_entries(changed, other)
    own = _by_bitmap(s, raw)
    for at in own.values():
        other[at : at + found.bitmap_size] = raw[at : at + found.bitmap_size]
    if not changed and not own:
        return None
    for block in (*changed, *own) if s.is_tap else ():
        other[found.batmap_map_at + (block >> 3)] &= ~(0x80 >> (block & 7))
    if s.is_tap:
        seal_batmap(other, found)
    return bytes(other)


def _unseen(s: Sample, raw: bytes, entries: list[int]) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """(block -> entry of the other disk, (block, offset) of those whose entry is lost and that are still there)."""
    bits = raw[s.found.batmap_map_at :] if s.is_tap else b""
    named = {block for block in range(len(entries)) if bits and bits[block >> 3] & (0x80 >> (block & 7))}
    changed: dict[int, int] = {}
    lost: list[tuple[int, int]] = []
    for block, at in s.found.allocated():
        if entries[block] == s.entry(block):
            continue
        heirs = [n for n, entry in enumerate(entries) if entry == s.entry(block)]
        if len(heirs) == 1 and s.found.bat[heirs[0]] is None and heirs[0] not in named:
            changed |= {block: UNUSED, heirs[0]: s.entry(block)}
        elif entries[block] == UNUSED and block not in named:
            if at >= len(raw):
                changed[block] = UNUSED
            else:
                lost.append((block, at))
    return changed, lost


def _by_bitmap(s: Sample, raw: bytes) -> dict[int, int]:
    """Block -> offset of those that were full by the batmap, and by a batmap that is still sound are not."""
    read_by = reader.layout(raw)
    if read_by is None or read_by.batmap_bits is None or read_by.table_at != s.found.table_at:
        return {}
    inside = len(raw) - s.found.bitmap_size
    return {n: at for n, at in s.found.allocated() if s.found.full(n) and not read_by.full(n) and at <= inside}
