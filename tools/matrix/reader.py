"""An independent reader of VHD chains, in the order in which tapdisk asks: BAT, batmap, sector bitmap, parent.

A fixed disk is read as one block that is written whole and begins at byte 0, without a bitmap.

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
FIXED = 2
GUEST_LIMIT = 256 << 20
"""A damaged footer may promise a disk of any size; a larger one than this is never read as the base was."""


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
        return 0 if self.kind == FIXED else max(SECTOR, -(-self.block_size // SECTOR // 8 // SECTOR) * SECTOR)

    @property
    def space(self) -> int:
        return self.bitmap_size + self.block_size

    @property
    def end_of_headers(self) -> int:
        if self.kind == FIXED:
            return 0
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
        bits = b"\x80" if self.kind == FIXED else self.batmap_bits
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
    if kind == FIXED and current:
        return Layout(footer.ljust(SECTOR, b"\0"), 0, current, kind, 0, 0, current, [0], None, 0, None, size)
    if kind not in (3, 4):
        return None
    header = bytes(raw[data_offset : data_offset + 1024])
    if not header_is_sound(header):
        return None
    table_at, _, entries, block_size = struct.unpack_from(">QIII", header, 16)
    if not block_size or block_size % SECTOR:
        return None
    blocks = -(-current // block_size)
    if blocks > entries or table_at + blocks * 4 > size:
        return None
    numbers = struct.unpack_from(f">{blocks}I", raw[table_at : table_at + blocks * 4])
    bat = [None if n == UNUSED else n * SECTOR for n in numbers]
    batmap_at, map_at, bits = batmap(raw, footer, table_at + -(-entries * 4 // SECTOR) * SECTOR, current)
    locators = []
    for index in range(8):
        code, space, _, _, at = struct.unpack_from(">IIIIQ", header, 576 + 24 * index)
        if code and at < size:
            locators.append((at, space * SECTOR if space < SECTOR else space))
    return Layout(
        footer.ljust(SECTOR, b"\0"), data_offset, current, kind, table_at, entries, block_size, bat,
        batmap_at, map_at, bits, size, locators if kind == 4 else [],
    )  # fmt: skip


def batmap(raw, footer: bytes, at: int, current: int) -> tuple[int | None, int, bytes | None]:
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


def guest(raw, parent: bytes | None = None) -> bytes | None:
    """The guest disk of `raw` over its parent's disk; None: nothing opens it, or some of it cannot be read.

    `parent` are the bytes of the parent's guest disk (NUL behind its end).
    """
    found = layout(raw)
    if found is None:
        return None
    pieces = [read_block(found, raw, parent, block) for block in range(-(-found.size // found.block_size))]
    return None if any(missing for _, missing in pieces) else b"".join(piece for piece, _ in pieces)


def read_block(found: Layout, raw, parent: bytes | None, block: int) -> tuple[bytes, set[int]]:
    """What the guest reads of one block, and the guest sectors that cannot be read at all."""
    start = block * found.block_size
    length = min(found.block_size, found.size - start)
    at = found.bat[block]
    under = b"" if found.kind != 4 or parent is None else parent[start : start + length]
    if at is None:
        return under.ljust(length, b"\0"), set()
    data = bytearray(under.ljust(length, b"\0"))
    missing: set[int] = set()
    for low, high in written(found, raw, block, at):
        first, stop = low * SECTOR, min(high * SECTOR, length)
        piece = bytes(raw[at + found.bitmap_size + first : at + found.bitmap_size + stop])
        data[first : first + len(piece)] = piece
        if len(piece) < stop - first:
            missing.update(range((start + first + len(piece)) // SECTOR, -(-(start + stop) // SECTOR)))
    return bytes(data), missing


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


def wrong_sectors(found: Layout | None, raw, parent: bytes | None, truth: bytes) -> set[int]:
    """The guest sectors that do not read as `truth` has them; all of them where nothing opens it."""
    if found is None or found.size > GUEST_LIMIT:
        return set(range(-(-len(truth) // SECTOR)))
    wrong = set(range(min(found.size, len(truth)) // SECTOR, -(-max(found.size, len(truth)) // SECTOR)))
    for block in range(-(-found.size // found.block_size)):
        start = block * found.block_size
        piece, missing = read_block(found, raw, parent, block)
        right = truth[start : start + len(piece)]
        wrong |= missing
        if piece == right:
            continue
        for at in range(0, len(piece), SECTOR):
            if piece[at : at + SECTOR] != right[at : at + SECTOR]:
                wrong.add((start + at) // SECTOR)
    return wrong
