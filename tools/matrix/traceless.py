"""Damages that leave no trace only together: the other sound disk that would have become the very same bytes.

Two damages can meet so that a disk with other contents, damaged by the same kinds, is the same file. What is said of
that file is then right of one disk and wrong of the other, and nobody can tell which it was. So it is held against
the other one: what its guest reads must be read in the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matrix import reader
from matrix.damage import Sample, changed, seal_header
from matrix.reader import SECTOR, UNUSED
from matrix.writer import seal_batmap


def other_disk(s: Sample, raw: bytes, orphans: Sequence[tuple[int, int]]) -> bytes | None:
    """The sound image of the other disk; None: there is none by these rules.

    * A place that only one entry names might always have been that block's, unless a sound batmap calls the block
      full and it is not full there; the block that was there has none then.
    * A block without an entry and without a bit of a sound batmap, of which no byte is in the file any more, might
      never have been. Nor might one of which the file's last sector is left: it is as a footer that was overwritten.
    * The only place without an entry (lost, or left so by a crash: `orphans`) might be that of the only block with a
      wild entry, or with another block's, and no place.
    * Where the only footer left says that the disk is larger, and neither header nor batmap could deny it, it may be.
    * Where a sound batmap does not call a block full that it did, the bitmap was asked, whatever it says.
    """
    found = s.found
    if found.kind == reader.FIXED or len(raw) < found.end_of_headers:
        return None
    larger = _larger(s, raw)
    if larger is not None:
        return other_disk(Sample(s.name, larger), raw, orphans) or larger
    spots = (found.table_at + 4 * block for block in range(len(found.bat)))
    entries = [int.from_bytes(raw[at : at + 4]) for at in spots]
    moved, open_ = _unseen(s, raw, entries)
    other = bytearray(s.sound)
    places, counts = {at // SECTOR for _, at in found.allocated()}, Counter(entries)
    wild = [
        n
        for n, entry in enumerate(entries)
        if (found.bat[n] is None or moved.get(n) == UNUSED)
        and (entry not in {UNUSED, *places} or (entry in places and counts[entry] > 1))
    ]
    if len(wild) == len(open_) == 1 and not orphans:
        moved |= {block: UNUSED for block, _ in open_ if block not in moved}
        moved[wild[0]] = open_[0][1] // SECTOR
    if len(wild) == len(orphans) == 1 and not open_ and sum(orphans[0]) <= len(raw):
        at, space = orphans[0]
        other[-SECTOR:] = bytes(max(0, at - len(other) + SECTOR))
        other[at : at + space] = raw[at : at + space]
        other += found.footer
        moved[wild[0]] = at // SECTOR
    other = s.with_entries(moved, other)
    own = _by_bitmap(s, raw)
    for at in own.values():
        other[at : at + found.bitmap_size] = raw[at : at + found.bitmap_size]
    if not moved and not own:
        return None
    for block in (*moved, *own) if s.is_tap else ():
        other[found.batmap_map_at + (block >> 3)] &= ~(0x80 >> (block & 7))
    if s.is_tap:
        seal_batmap(other, found)
    return bytes(other)


def _larger(s: Sample, raw: bytes) -> bytes | None:
    """The sound image with the size that the footer at the end gives it; None: it gives no larger one, or not alone."""
    found, end = s.found, raw[-SECTOR:]
    header = raw[found.header_at : found.header_at + 1024]
    if not reader.footer_is_sound(end) or reader.footer_is_sound(raw[:SECTOR]) or reader.header_is_sound(header):
        return None
    entries = -(-int.from_bytes(end[48:56]) // found.block_size)
    room = min(at for _, at in found.allocated()) - found.table_at
    if s.is_tap or entries <= found.bat_entries or entries * 4 > room:
        return None
    other = bytearray(s.sound)
    other[found.header_at : found.header_at + 1024] = seal_header(changed(s.header, 28, entries.to_bytes(4)))
    other[:SECTOR] = other[-SECTOR:] = end
    return bytes(other)


def _named(s: Sample, raw: bytes) -> set[int]:
    """The blocks that the batmap in `raw` calls full, if it is sound."""
    if s.found.batmap_at is None:
        return set()
    bits = reader.batmap(raw, s.found.footer, s.found.batmap_at, s.found.size)[2] or b""
    return {block for block in range(min(len(s.found.bat), len(bits) * 8)) if bits[block >> 3] & (0x80 >> (block & 7))}


def _unseen(s: Sample, raw: bytes, entries: list[int]) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """(block -> entry of the other disk, (block, offset) of the places that no entry names and that are there)."""
    owners = {at // SECTOR: block for block, at in s.found.allocated()}
    named, counts = _named(s, raw), Counter(entries)
    claims = {entry: n for n, entry in enumerate(entries) if entry in owners and counts[entry] == 1}
    changed = {n: entry for entry, n in claims.items() if owners[entry] != n}
    if any(n in named and s.bits(entry * SECTOR).strip(b"\xff") for n, entry in changed.items()):
        return {}, []
    open_: list[tuple[int, int]] = []
    for block, at in s.found.allocated():
        if at // SECTOR in claims:
            if claims[at // SECTOR] != block and block not in changed:
                changed[block] = UNUSED
        elif block in changed:
            open_.append((block, at))
        elif entries[block] == UNUSED and block not in named:
            if at >= len(raw) - SECTOR:
                changed[block] = UNUSED
            else:
                open_.append((block, at))
    return changed, open_


def _by_bitmap(s: Sample, raw: bytes) -> dict[int, int]:
    """Block -> offset of those that were full by the batmap, and by a batmap that is still sound are not."""
    read_by = reader.layout(raw)
    if read_by is None or read_by.batmap_bits is None or read_by.table_at != s.found.table_at:
        return {}
    inside = len(raw) - s.found.bitmap_size
    return {n: at for n, at in s.found.allocated() if s.found.full(n) and not read_by.full(n) and at <= inside}
