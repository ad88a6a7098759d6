"""The block allocation table: the place of each block of the guest disk in the file.

Theory. A BAT entry is a sector number; the block (its sector bitmap, then its data) starts there. All
questions about the layout (the end of data, blocks over the headers, overlaps) become
linear once the allocated blocks are put in the order of their places, so that is done once, at reading.
``vhd-util check`` compares every pair instead, in O(n^2). A disk of 2 TB has a million blocks, so what is
asked of every image is answered by loops that run inside the interpreter (``map``, ``min``, ``bytes.find``).

Like :mod:`smfix.formats.vhd.structs` this module converts sectors; everything that leaves it is in bytes.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from heapq import nsmallest
from operator import sub

from smfix.formats.vhd.structs import UNUSED
from smfix.values import SECTOR, ByteView, Damaged, Extent, Sound

BAT_LIMIT = 1 << 24
"""Entries that are read at most: 32 TiB of guest disk in 2 MiB blocks, 64 MiB of memory."""
CROWD = 1 << 21
"""Blocks in use that are believed of any file, 4 TiB of them; of more, a quarter must have room in it."""
NAMED = 16
"""Overlapping blocks, and entries behind the disk's end, that are named one by one."""
GAPS = 64
"""Gaps between blocks that are named one by one."""
_CHUNK = 1 << 20
_UNUSED = UNUSED.to_bytes(4, "big")
_FAR = 1 << 32
"""More sectors than lie between any two entries."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two blocks that share bytes of the file; offsets in bytes."""

    block: int
    offset: int
    other: int
    other_offset: int


@dataclass(frozen=True, slots=True)
class Bat:
    """The entries of the blocks that the guest disk has, and the entries in use after them.

    `beyond` are the indexes (at most :data:`NAMED`) of entries in use after the guest disk's last block.
    """

    _entries: array[int]
    _starts: array[int]
    _owners: array[int]
    beyond: tuple[int, ...]
    _nearest: int
    _widest: int
    _overlaps: dict[int, tuple[list[Overlap], int]] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def allocated(self) -> int:
        """How many blocks have a place."""
        return len(self._starts)

    def offset(self, block: int) -> int | None:
        """The offset of the block's bitmap, with which it starts, in bytes; None: not allocated."""
        entry = self._entries[block] if block < len(self._entries) else UNUSED
        return None if entry == UNUSED else entry * SECTOR

    def unplaced_among(self, blocks: range) -> bool:
        """At least one of the blocks (of those that the disk has) has no place."""
        return UNUSED in self._entries[blocks.start : blocks.stop]

    def _index(self, at: int) -> int:
        """Index of the first block that starts at or after byte `at`."""
        return bisect_left(self._starts, -(-at // SECTOR))

    def placements(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """(offset, block) of the blocks that start in [start, end), by place; bytes."""
        high = len(self._starts) if end is None else self._index(end)
        for index in range(self._index(start), high):
            yield self._starts[index] * SECTOR, self._owners[index]

    def highest_end(self, space: int, below: int | None = None) -> int:
        """End of the highest block of `space` bytes (of those that start before `below`); 0: none."""
        high = len(self._starts) if below is None else self._index(below)
        return self._starts[high - 1] * SECTOR + space if high else 0

    def differing(self, other: Bat) -> list[int]:
        """The blocks that `other` places elsewhere, or not, or more than this one does."""
        if self._entries == other._entries:
            return []
        short, long = sorted((self._entries, other._entries), key=len)
        more = [block for block in range(len(short), len(long)) if long[block] != UNUSED]
        return [block for block, entry in enumerate(short) if entry != long[block]] + more

    def gaps(self, space: int, start: int, end: int, *, without: frozenset[int] = frozenset()) -> list[Extent]:
        """Runs of at least `space` bytes in [start, end) without a block of that size; the first :data:`GAPS`.

        Blocks that start before `start`, and those of `without`, do not count.
        """
        low = self._index(start)
        starts = self._starts[low:] if low else self._starts
        widest = self._widest
        if without:
            kept = (at for at, block in zip(starts, self._owners[low:], strict=True) if block not in without)
            starts, widest = array("I", kept), _FAR
        if not starts:
            return [Extent(start, end - start)] if end - start >= space else []
        wide = [0]
        if widest * SECTOR >= 2 * space:
            step = 2 * space // SECTOR
            wide += [n for n, gap in enumerate(map(sub, starts[1:], starts), 1) if gap >= step]
        found: list[Extent] = []
        for index in wide[:GAPS]:
            at = starts[index - 1] * SECTOR + space if index else start
            stop = min(end, starts[index] * SECTOR)
            if stop - at >= space:
                found.append(Extent(at, stop - at))
        at = starts[-1] * SECTOR + space
        if end - at >= space and len(found) < GAPS:
            found.append(Extent(at, end - at))
        return found

    def narrow(self, space: int, least: int, start: int) -> Iterator[tuple[Extent, int]]:
        """Runs of `least` bytes or more after `start`, too small for a block of `space`, and the block after each.

        Only between blocks, and before the first; the first :data:`GAPS`.
        """
        low = self._index(start)
        starts = self._starts[low:] if low else self._starts
        wide = [0] if starts else []
        if self._widest * SECTOR >= space + least:
            few, many = (space + least) // SECTOR, 2 * space // SECTOR
            wide += [n for n, gap in enumerate(map(sub, starts[1:], starts), 1) if few <= gap < many]
        for index in wide[:GAPS]:
            at = starts[index - 1] * SECTOR + space if index else start
            run = Extent(at, starts[index] * SECTOR - at)
            if least <= run.length < space:
                yield run, self._owners[low + index]

    def off_page(self, lead: int, page: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(offset, block) of blocks in [start, end) that do not have a page boundary `lead` bytes after their start.

        `page` is at most 128 KiB and a power of two: the lowest byte of the sector number decides.
        """
        lowest = self._starts.tobytes()[0 if sys.byteorder == "little" else self._starts.itemsize - 1 :: 4]
        odd = lowest.translate(_fitting(lead, page))
        high = self._index(end)
        index = odd.find(0, self._index(start), high)
        while index >= 0:
            yield self._starts[index] * SECTOR, self._owners[index]
            index = odd.find(0, index + 1, high)

    def detached(self, space: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(offset, block) of blocks in [start, end) that do not begin at the end of the one before (or at `start`)."""
        low, high = self._index(start), self._index(end)
        if low < high and self._starts[low] * SECTOR != start:
            yield self._starts[low] * SECTOR, self._owners[low]
        if self._nearest != self._widest or self._nearest * SECTOR != space:
            for index in range(low + 1, high):
                if (self._starts[index] - self._starts[index - 1]) * SECTOR != space:
                    yield self._starts[index] * SECTOR, self._owners[index]

    def covering(self, extent: Extent, space: int) -> list[tuple[int, int]]:
        """(offset, block) of the blocks of `space` bytes that share a byte with `extent`."""
        return list(self.placements(max(0, extent.offset - space + 1), extent.end))

    def behind(self, end: int, space: int, most: int) -> tuple[list[tuple[int, int]], int]:
        """Blocks of `space` bytes that reach past byte `end`: (offset, block) of the lowest numbers, and how many.

        At most `most` are named, in the order of their numbers.
        """
        low = self._index(max(0, end - space + 1))
        owners = nsmallest(most, self._owners[low:])
        return [(self._entries[block] * SECTOR, block) for block in owners], len(self._owners) - low

    def overlaps(self, space: int) -> tuple[list[Overlap], int]:
        """Blocks of `space` bytes that share bytes with another one: the first :data:`NAMED`, and how many.

        In the order and with the partner that ``vhd-util check`` names: lowest block number first,
        its partner the lowest other one.
        """
        if self._nearest * SECTOR >= space:
            return [], 0
        if space not in self._overlaps:
            self._overlaps[space] = self._find_overlaps(space)
        return self._overlaps[space]

    def _find_overlaps(self, space: int) -> tuple[list[Overlap], int]:
        # In the order of places, who overlaps anybody overlaps a neighbour.
        touched = bytearray(len(self._entries))
        for index, gap in enumerate(map(sub, self._starts[1:], self._starts), 1):
            if gap * SECTOR < space:
                touched[self._owners[index - 1]] = touched[self._owners[index]] = 1
        found: list[Overlap] = []
        block = touched.find(1)
        while block >= 0 and len(found) < NAMED:
            at = self._entries[block] * SECTOR
            low, high = self._index(max(0, at - space + 1)), self._index(at + space)
            other = next(b for b in nsmallest(2, self._owners[low:high]) if b != block)
            found.append(Overlap(block, at, other, self._entries[other] * SECTOR))
            block = touched.find(1, block + 1)
        return found, touched.count(1)


@cache
def _fitting(lead: int, page: int) -> bytes:
    """For each lowest byte of a sector number: 1 if a page boundary is `lead` bytes after it."""
    return bytes((at * SECTOR + lead) % page == 0 for at in range(256))


def read_bat(
    view: ByteView, table_offset: int, blocks: int, max_entries: int, space: int = 2 * SECTOR
) -> Sound[Bat] | Damaged:
    """Read the BAT at `table_offset` (bytes) of a guest disk of `blocks` blocks of `space` bytes in the file.

    Damaged when the entries in use are not wholly inside the view, or when the BAT has fewer than
    `blocks` entries, or more than :data:`BAT_LIMIT`, or when it places more blocks than :data:`CROWD` and
    than a file four times as long would hold. Memory and time are bounded by that.
    """
    where = Extent(table_offset, max_entries * 4)
    if blocks > max_entries:
        why = f"the disk has {blocks} blocks, the BAT only {max_entries} entries"
        return Damaged(b"", ("error reading bat", why), where)
    if blocks > BAT_LIMIT:
        return Damaged(b"", (f"{blocks} BAT entries are more than smfix reads ({BAT_LIMIT})",), where)
    if table_offset + blocks * 4 > view.size:
        return Damaged(b"", ("error reading bat", "the BAT reaches past the end of the file"), where)
    entries = array("I")
    owners = array("I")
    beyond: list[int] = []
    last = min(max_entries, BAT_LIMIT)
    at = 0
    while at < last and not (at >= blocks and len(beyond) >= NAMED):
        chunk = _entries(view, Extent(table_offset + at * 4, min(_CHUNK, (last - at) * 4)))
        if not chunk:
            break
        mine = chunk[: max(0, blocks - at)]
        entries.extend(mine)
        owners.extend(_used(mine, at))
        beyond.extend(_used(chunk[len(mine) :], at + len(mine)))
        if len(owners) > max(CROWD, 4 * view.size // max(space, 2 * SECTOR)):
            why = f"it places {len(owners)} blocks or more, in a file of {view.size} bytes"
            return Damaged(b"", ("error reading bat", why), where)
        at += len(chunk)
    if len(entries) < blocks:
        return Damaged(b"", ("error reading bat", "the BAT could not be read to its end"), where)
    return Sound(_ordered(entries, owners, tuple(beyond[:NAMED])), where)


def _entries(view: ByteView, extent: Extent) -> array[int]:
    """The whole entries in `extent`, as far as the view goes."""
    raw = view.read(extent)
    chunk = array("I", raw[: len(raw) // 4 * 4])
    if sys.byteorder == "little":
        chunk.byteswap()
    return chunk


def _used(chunk: array[int], first: int) -> Iterator[int] | range:
    """The numbers of the blocks in use in a chunk that begins with block `first`."""
    raw = chunk.tobytes()
    if raw.count(0xFF) == len(raw):
        return range(0)
    if _UNUSED not in raw:
        return range(first, first + len(chunk))
    return (block for block, entry in enumerate(chunk, first) if entry != UNUSED)


def _ordered(entries: array[int], owners: array[int], beyond: tuple[int, ...]) -> Bat:
    starts = array("I", map(entries.__getitem__, owners))
    if len(starts) < 2:
        return Bat(entries, starts, owners, beyond, _FAR, 0)
    nearest = min(map(sub, starts[1:], starts))
    if nearest < 0:
        # Keys that are floats sort twice as fast as integers of 32 bits, and are as exact.
        order = array("I", sorted(range(len(starts)), key=array("d", starts).__getitem__))
        owners = array("I", map(owners.__getitem__, order))
        starts = array("I", map(starts.__getitem__, order))
        nearest = min(map(sub, starts[1:], starts))
    widest = max(map(sub, starts[1:], starts))
    return Bat(entries, starts, owners, beyond, nearest, widest)
