"""An independent reader of VHD chains, in the order in which tapdisk asks: BAT, batmap, sector bitmap, parent.

Shares no code with smfix, so that a mistake there cannot hide itself here. Offsets in bytes, sectors of 512 bytes.
It forgives nothing that keeps libvhd from opening an image: no sound footer, no sound header, a BAT that is not
there. What can be opened but not read (a block behind the end) is `unreadable`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

SECTOR = 512
UNUSED = 0xFFFFFFFF
GUEST_LIMIT = 256 << 20
"""A damaged footer may promise a disk of any size; no base is larger than this."""


def byte_sum(raw: bytes) -> int:
    return ~sum(raw) & 0xFFFFFFFF


def footer_is_sound(raw: bytes) -> bool:
    """Cookie and checksum, the last byte of a 511-byte footer taken as NUL."""
    raw = raw.ljust(SECTOR, b"\0")
    (said,) = struct.unpack_from(">I", raw, 64)
    return raw[:8] == b"conectix" and byte_sum(raw[:64] + bytes(4) + raw[68:]) == said


def header_is_sound(raw: bytes) -> bool:
    if len(raw) < 1024:
        return False
    (said,) = struct.unpack_from(">I", raw, 36)
    return raw[:8] == b"cxsparse" and byte_sum(raw[:36] + bytes(4) + raw[40:]) == said


@dataclass
class Layout:
    """What an opened image says of itself: bytes, and BAT entries as byte offsets (None: not allocated)."""

    footer: bytes
    header_at: int
    size: int
    kind: int
    table_at: int
    bat_entries: int
    block_size: int
    bat: list[int | None]
    batmap_at: int | None
    batmap_map_at: int
    batmap_bits: bytes | None
    file_size: int
    locators: list[tuple[int, int]] = field(default_factory=list)

    @property
    def bitmap_size(self) -> int:
        return max(SECTOR, -(-self.block_size // SECTOR // 8 // SECTOR) * SECTOR)

    @property
    def space(self) -> int:
        return self.bitmap_size + self.block_size

    @property
    def end_of_headers(self) -> int:
        ends = [self.header_at + 1024, self.table_at + -(-self.bat_entries * 4 // SECTOR) * SECTOR]
        if self.batmap_at is not None:
            size = -(-self.bat_entries // 8 // SECTOR) * SECTOR or SECTOR
            ends.append(max(self.batmap_at + SECTOR, self.batmap_map_at + size))
        return max(*ends, *(at + length for at, length in self.locators), 0)

    @property
    def end_of_data(self) -> int:
        """End of the highest block that begins inside the file, else of the headers."""
        inside = [at + self.space for at in self.bat if at is not None and at < self.file_size]
        return max([self.end_of_headers, *inside])

    def full(self, block: int) -> bool:
        """The batmap calls the block full (a damaged batmap says nothing)."""
        bits = self.batmap_bits
        return bits is not None and block >> 3 < len(bits) and bool(bits[block >> 3] & (0x80 >> (block & 7)))

    def allocated(self) -> Iterator[tuple[int, int]]:
        for block, at in enumerate(self.bat):
            if at is not None:
                yield block, at


def layout(raw) -> Layout | None:
    """The layout of a dynamic or differencing image; None: it cannot be opened. `raw` is bytes or an mmap."""
    size = len(raw)
    length = SECTOR if size % SECTOR == 0 else SECTOR - 1
    footer = next((f for f in (bytes(raw[max(0, size - length) :]), bytes(raw[:SECTOR])) if footer_is_sound(f)), None)
    if footer is None:
        return None
    (data_offset,) = struct.unpack_from(">Q", footer, 16)
    (current,) = struct.unpack_from(">Q", footer, 48)
    (kind,) = struct.unpack_from(">I", footer, 60)
    if kind not in (3, 4):
        return None
    header = bytes(raw[data_offset : data_offset + 1024])
    if not header_is_sound(header):
        return None
    table_at, _, entries, block_size = struct.unpack_from(">QIII", header, 16)
    if not block_size or block_size % SECTOR or current > GUEST_LIMIT:
        return None
    blocks = -(-current // block_size)
    if blocks > entries or table_at + blocks * 4 > size:
        return None
    numbers = struct.unpack_from(f">{blocks}I", raw[table_at : table_at + blocks * 4])
    bat = [None if n == UNUSED else n * SECTOR for n in numbers]
    batmap_at, map_at, bits = _batmap(raw, footer, table_at + -(-entries * 4 // SECTOR) * SECTOR, current)
    locators = []
    for index in range(8):
        code, space, _, _, at = struct.unpack_from(">IIIIQ", header, 576 + 24 * index)
        if code and at < size:
            locators.append((at, space * SECTOR if space < SECTOR else space))
    return Layout(
        footer.ljust(SECTOR, b"\0"), data_offset, current, kind, table_at, entries, block_size, bat,
        batmap_at, map_at, bits, size, locators if kind == 4 else [],
    )  # fmt: skip


def _batmap(raw, footer: bytes, at: int, current: int) -> tuple[int | None, int, bytes | None]:
    """(place of the batmap's header, of the map, the bits where both are sound)."""
    (version,) = struct.unpack_from(">I", footer, 32)
    if footer[28:31] != b"tap" or version < 0x00010002:
        return None, 0, None
    header = bytes(raw[at : at + SECTOR]).ljust(SECTOR, b"\0")
    map_at, sectors, batmap_version, said = struct.unpack_from(">QIII", header, 8)
    summed = -(-(current >> 24) // SECTOR) * SECTOR or SECTOR
    bits = bytes(raw[map_at : map_at + min(sectors * SECTOR, 1 << 20)])
    sound = header[:8] == b"tdbatmap" and batmap_version == 0x00010002 and len(bits) >= summed
    if not sound or byte_sum(bits[:summed]) != said:
        return at, map_at, None
    return at, map_at, bits


@dataclass
class Guest:
    """What the guest reads: its disk, and the sectors that cannot be read at all."""

    data: bytearray
    unreadable: set[int]


def guest(raw, parent: bytes | None = None) -> Guest | None:
    """The guest disk of `raw` over its parent's disk; None: nothing opens it.

    `parent` are the bytes of the parent's guest disk (NUL behind its end).
    """
    found = layout(raw)
    return None if found is None else read_by(found, raw, parent)


def read_by(found: Layout, raw, parent: bytes | None) -> Guest:
    data = bytearray(found.size)
    unreadable: set[int] = set()
    if found.kind == 4 and parent is not None:
        shared = min(len(parent), found.size)
        data[:shared] = parent[:shared]
    for block, at in found.allocated():
        for low, high in written(found, raw, block, at):
            start = block * found.block_size + low * SECTOR
            stop = min(block * found.block_size + high * SECTOR, found.size)
            from_file = at + found.bitmap_size + low * SECTOR
            piece = bytes(raw[from_file : from_file + stop - start])
            data[start : start + len(piece)] = piece
            if len(piece) < stop - start:
                unreadable.update(range((start + len(piece)) // SECTOR, -(-stop // SECTOR)))
    return Guest(data, unreadable)


def written(found: Layout, raw, block: int, at: int) -> list[tuple[int, int]]:
    """[first, behind the last) sector of the runs of the block that the guest reads from this image."""
    sectors = found.block_size // SECTOR
    if found.full(block):
        return [(0, sectors)]
    bits = bytes(raw[at : at + -(-sectors // 8)])
    if len(bits) < -(-sectors // 8):
        return [(0, sectors)]  # no bitmap to ask: a reader fails on the whole block
    return runs(bits, sectors)


def runs(bits: bytes, count: int) -> list[tuple[int, int]]:
    """[first, behind the last) of the runs of set bits among the first `count`."""
    if bits.count(0xFF) == len(bits):
        return [(0, count)]
    text = format(int.from_bytes(bits, "big"), f"0{len(bits) * 8}b")[:count]
    found, low = [], text.find("1")
    while low >= 0:
        high = text.find("0", low)
        high = count if high < 0 else high
        found.append((low, high))
        low = text.find("1", high)
    return found


def wrong_sectors(got: Guest | None, truth: bytes) -> set[int]:
    """The guest sectors that `got` does not read as `truth` has them; all where nothing opens it."""
    everything = -(-len(truth) // SECTOR)
    if got is None:
        return set(range(everything))
    wrong = {sector for sector in got.unreadable if sector < everything}
    step = 1 << 16
    for start in range(0, max(len(truth), len(got.data)), step):
        if got.data[start : start + step] == truth[start : start + step]:
            continue
        for at in range(start, start + step, SECTOR):
            if got.data[at : at + SECTOR] != truth[at : at + SECTOR]:
                wrong.add(at // SECTOR)
    return wrong
