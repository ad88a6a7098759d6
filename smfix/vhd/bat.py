"""The block allocation table: which block of the guest disk lies where in the file.

Theory. A BAT entry is a sector number; the block (its sector bitmap, then its data) starts there. All
questions about the layout (what is the end of data, what lies over the headers, what overlaps) become
linear once the allocated blocks are put in the order of their places, so that is done once, at reading.
``vhd-util check`` compares every pair instead, in O(n^2).

Like :mod:`smfix.vhd.structs` this module converts sectors; everything that leaves it is in bytes.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from smfix.model import SECTOR, ByteView, Damaged, Extent, Sound
from smfix.vhd.structs import UNUSED

BAT_LIMIT = 1 << 24
"""Entries that are read at most: 32 TiB of guest disk in 2 MiB blocks, 64 MiB of memory."""
_CHUNK = 1 << 20
_BLOCK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two blocks that share bytes of the file; offsets in bytes."""

    block: int
    offset: int
    other: int
    other_offset: int


@dataclass(frozen=True, slots=True)
class Bat:
    """The entries of the blocks that the guest disk has, and what is set behind them.

    `beyond` are the indexes (at most 16) of entries in use behind the guest disk's last block.
    """

    _entries: array[int]
    _placed: list[int]
    beyond: tuple[int, ...]
    _overlaps: dict[int, tuple[list[Overlap], int]] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def allocated(self) -> int:
        """How many blocks have a place."""
        return len(self._placed)

    def offset(self, block: int) -> int | None:
        """Where the block starts (its bitmap), in bytes; None: not allocated."""
        entry = self._entries[block] if block < len(self._entries) else UNUSED
        return None if entry == UNUSED else entry * SECTOR

    def placements(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """(offset, block) of the blocks that start in [start, end), by place; bytes."""
        placed = self._placed
        low = bisect_left(placed, -(-start // SECTOR) << 32)
        high = len(placed) if end is None else bisect_left(placed, -(-end // SECTOR) << 32)
        for index in range(low, high):
            key = placed[index]
            yield (key >> 32) * SECTOR, key & _BLOCK

    def highest_end(self, space: int, below: int | None = None) -> int:
        """End of the highest block of `space` bytes (of those that start before `below`); 0: none."""
        placed = self._placed
        high = len(placed) if below is None else bisect_left(placed, -(-below // SECTOR) << 32)
        return (placed[high - 1] >> 32) * SECTOR + space if high else 0

    def differing(self, other: Bat) -> list[int]:
        """The blocks that `other` places elsewhere, or not, or more than this one does."""
        if self._entries == other._entries:
            return []
        size = max(len(self), len(other))
        return [block for block in range(size) if self.offset(block) != other.offset(block)]

    def gaps(self, space: int, start: int, end: int, *, without: frozenset[int] = frozenset()) -> list[Extent]:
        """Runs of at least `space` bytes in [start, end) without a block of that size; the first 64.

        Blocks that start before `start`, and those of `without`, do not count.
        """
        found: list[Extent] = []
        step = 2 * space // SECTOR << 32
        last = (start - space) // SECTOR << 32
        for key in self._placed[bisect_left(self._placed, start // SECTOR << 32) :]:
            if without and key & _BLOCK in without:
                continue
            if key - last >= step and len(found) < 64:
                stop = min(end, (key >> 32) * SECTOR)
                at = (last >> 32) * SECTOR + space
                if stop - at >= space:
                    found.append(Extent(at, stop - at))
            last = key & ~_BLOCK
        at = (last >> 32) * SECTOR + space
        if end - at >= space and len(found) < 64:
            found.append(Extent(at, end - at))
        return found

    def covering(self, extent: Extent, space: int) -> list[tuple[int, int]]:
        """(offset, block) of the blocks of `space` bytes that share a byte with `extent`."""
        return list(self.placements(max(0, extent.offset - space + 1), extent.end))

    def overlaps(self, space: int, limit: int = 16) -> tuple[list[Overlap], int]:
        """As :meth:`_find_overlaps`, once for each `space`."""
        if space not in self._overlaps:
            self._overlaps[space] = self._find_overlaps(space, limit)
        return self._overlaps[space]

    def _find_overlaps(self, space: int, limit: int) -> tuple[list[Overlap], int]:
        """Blocks of `space` bytes that share bytes with another one: the first `limit`, and how many.

        In the order and with the partner that ``vhd-util check`` names: lowest block number first,
        its partner the lowest other one.
        """
        placed = self._placed
        gap = (space // SECTOR) << 32
        touched: set[int] = set()
        for index in range(1, len(placed)):
            here = placed[index] & ~_BLOCK
            if here - (placed[index - 1] & ~_BLOCK) < gap:
                back = index - 1
                while back >= 0 and here - (placed[back] & ~_BLOCK) < gap and index - back <= 64:
                    touched.add(placed[back] & _BLOCK)
                    back -= 1
                touched.add(placed[index] & _BLOCK)
        found: list[Overlap] = []
        for block in sorted(touched)[:limit]:
            at = self._entries[block] * SECTOR
            others = [b for _, b in self.covering(Extent(at, space), space) if b != block]
            other = min(others)
            found.append(Overlap(block, at, other, self._entries[other] * SECTOR))
        return found, len(touched)


def read_bat(view: ByteView, table_offset: int, blocks: int, max_entries: int) -> Sound[Bat] | Damaged:
    """Read the BAT at `table_offset` (bytes) of a guest disk of `blocks` blocks.

    Damaged when the entries in use do not lie wholly inside the view, or when the BAT has fewer than
    `blocks` entries, or when there are more of them than :data:`BAT_LIMIT`. Memory is bounded by that.
    """
    where = Extent(table_offset, max_entries * 4)
    if blocks > max_entries:
        why = f"the disk has {blocks} blocks, the BAT only {max_entries} entries"
        return Damaged(b"", ("error reading bat", why), where)
    if blocks > BAT_LIMIT:
        return Damaged(b"", (f"{blocks} BAT entries are more than smfix reads ({BAT_LIMIT})",), where)
    if table_offset + blocks * 4 > view.size:
        return Damaged(b"", ("error reading bat", "the BAT reaches past the end of the file"), where)
    entries: array[int] = array("I")
    placed: list[int] = []
    beyond: list[int] = []
    last = min(max_entries, BAT_LIMIT)
    at = 0
    while at < last:
        wanted = min(_CHUNK, (last - at) * 4)
        raw = view.read(Extent(table_offset + at * 4, wanted))
        raw = raw[: len(raw) // 4 * 4]
        if not raw:
            break
        chunk = array("I", raw)
        used = max(0, min(len(chunk), blocks - at))
        if raw.count(0xFF) == len(raw):
            entries.extend(chunk[:used])
        else:
            if sys.byteorder == "little":
                chunk.byteswap()
            entries.extend(chunk[:used])
            placed.extend([e << 32 | n for n, e in enumerate(chunk[:used], at) if e != UNUSED])
            if len(beyond) < 16 and used < len(chunk):
                beyond.extend(n for n, e in enumerate(chunk[used:], at + used) if e != UNUSED)
        at += len(chunk)
    if len(entries) < blocks:
        return Damaged(b"", ("error reading bat", "the BAT could not be read to its end"), where)
    placed.sort()
    return Sound(Bat(entries, placed, tuple(beyond[:16])), where)
