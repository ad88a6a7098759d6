"""Images for tests: views of bytes, builders over `smfix.formats.vhd.build`, and ways to damage what they build.

The base images are small but have what matters: a full block (batmap bit set), a block with some sectors
written, an unallocated one, blocks out of order, a tail, and for the child a parent with three locators.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

from smfix.formats.problem import Context
from smfix.formats.vhd.build import Blocks, Made, ParentRef, fixed, sparse
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.structs import (
    BLOCK_SIZE,
    Footer,
    Header,
    batmap_checksum,
    geometry_for,
    parse_footer,
    parse_header,
)
from smfix.repair.plan import Planned, plan
from smfix.values import SECTOR, Edit, Extent, Resize, Verdict, Write

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONTEXT = Context(NOW)
UUID = bytes(range(16))
PARENT_UUID = bytes(range(16, 32))
SECTORS = BLOCK_SIZE // SECTOR
MIB = 1 << 20
LARGEST_READ = 80 * MIB
"""What a single read may ask for that really exists: a view is never read whole."""


# --------------------------------------------------------------------------- views


@dataclass
class Buffer:
    """Bytes in memory."""

    data: bytes | bytearray
    growable: bool = True

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, extent: Extent) -> bytes:
        assert extent.offset >= 0, extent
        assert extent.length >= 0, extent
        return bytes(self.data[extent.offset : extent.end])


@dataclass
class Holes:
    """`size` bytes that are NUL but for `pieces` (offset -> bytes, not overlapping): terabytes cost nothing.

    `asked` counts the bytes that were read: a test can bound them.
    """

    size: int
    pieces: dict[int, bytes]
    growable: bool = True
    asked: int = 0
    _order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._order = sorted(self.pieces)

    def read(self, extent: Extent) -> bytes:
        assert extent.offset >= 0, extent
        assert extent.length >= 0, extent
        length = max(0, min(extent.end, self.size) - extent.offset)
        assert length <= LARGEST_READ, extent
        self.asked += length
        raw = bytearray(length)
        for at in self._order:
            if at >= extent.offset + length:
                break
            piece = self.pieces[at]
            if at + len(piece) > extent.offset:
                low, high = max(at, extent.offset), min(at + len(piece), extent.offset + length)
                raw[low - extent.offset : high - extent.offset] = piece[low - at : high - at]
        return bytes(raw)


def applied(raw: bytes, edits: Iterable[Edit]) -> bytes:
    """`raw` after `edits`, by the plainest code there is; a write behind the end is a mistake."""
    data = bytearray(raw)
    for edit in edits:
        if isinstance(edit, Resize):
            assert edit.size >= len(data), "an edit shrinks"
            data.extend(bytes(edit.size - len(data)))
        else:
            assert isinstance(edit, Write)
            assert 0 <= edit.offset <= len(data), "a write leaves a hole"
            data[edit.offset : edit.offset + len(edit.data)] = edit.data
    return bytes(data)


# --------------------------------------------------------------------------- builders


def sector(block: int, index: int) -> bytes:
    """The 512 bytes that the test disks hold in that sector: never NUL, all different."""
    return struct.pack(">HI", block + 1, index) * 85 + b"\x5a\xa5"


def some(block: int, indexes: Iterable[int]) -> dict[int, bytes]:
    """Guest data for the sectors `indexes` of `block`."""
    return {index: sector(block, index) for index in indexes}


PARTIAL = (0, 1, 2, 5, 7, 8, 100, 4094, 4095)
DISK_SIZE = 4 * BLOCK_SIZE


def blocks_of_base() -> Blocks:
    """Block 2 (some sectors) lies before block 0 (full); 1 and 3 are not allocated."""
    return {2: some(2, PARTIAL), 0: some(0, range(SECTORS))}


@cache
def base_made() -> Made:
    """A dynamic disk of four blocks; see :func:`blocks_of_base`."""
    return sparse(DISK_SIZE, UUID, blocks_of_base(), timestamp=1000)


@cache
def base() -> bytes:
    """:func:`base_made` as bytes (about 4 MiB)."""
    return base_made().to_bytes()


@cache
def small() -> bytes:
    """A dynamic disk of two blocks, the second allocated with some sectors (about 2 MiB)."""
    return sparse(2 * BLOCK_SIZE, UUID, {1: some(1, PARTIAL)}, timestamp=1000).to_bytes()


@cache
def empty() -> bytes:
    """A dynamic disk of four blocks, none allocated."""
    return sparse(DISK_SIZE, UUID, {}, timestamp=1000).to_bytes()


@cache
def parent_disk() -> bytes:
    """The disk that :func:`child` hangs on: hidden, one block."""
    return sparse(DISK_SIZE, PARENT_UUID, {0: some(0, PARTIAL)}, timestamp=900, hidden=1).to_bytes()


@cache
def child() -> bytes:
    """A differencing disk with one block, child of ``parent.vhd``."""
    parent = ParentRef(PARENT_UUID, "parent.vhd", 900)
    return sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, parent=parent, timestamp=1000).to_bytes()


@cache
def qemu() -> bytes:
    """A disk as qemu makes it: no batmap, blocks back to back behind the BAT, a partial last block."""
    size = 2 * BLOCK_SIZE + 3 * SECTOR
    footer = replace(
        footer_of(base()),
        creator_app=b"qem2",
        creator_version=0x00050003,
        original_size=size,
        current_size=size,
        geometry=geometry_for(size),
    ).sealed()
    header = replace(header_of(base()), max_bat_size=3).sealed()
    order, at = {2: some(2, (0, 2)), 0: some(0, PARTIAL)}, 2048
    raw = bytearray(at + len(order) * header.block_space)
    raw[1536:2048] = b"\xff" * 512
    for block, sectors in order.items():
        struct.pack_into(">I", raw, 1536 + 4 * block, at // SECTOR)
        bits = sum(1 << (4095 - index) for index in sectors)
        raw[at : at + 512] = bits.to_bytes(512, "big")
        for index, data in sectors.items():
            raw[at + 512 + index * 512 : at + 1024 + index * 512] = data
        at += header.block_space
    raw[:512] = footer.encode()
    raw[512:1536] = header.encode()
    return bytes(raw) + footer.encode()


@cache
def fixed_disk() -> bytes:
    """A fixed disk of 64 KiB."""
    return fixed(65536, UUID, sector(0, 0) * 3, timestamp=1000).to_bytes()


def seen(raw: bytes, *, growable: bool = True) -> VhdImage:
    """The image of `raw`."""
    return inspect(Buffer(raw, growable))


def device(raw: bytes, slack: int = 3 * MIB) -> bytes:
    """`raw` as it would lie in a logical volume: its footer in the last sector, `slack` bytes later."""
    return raw[:-SECTOR] + bytes(slack) + raw[-SECTOR:]


# --------------------------------------------------------------------------- damage


def put(raw: bytes, offset: int, data: bytes) -> bytes:
    """`raw` with `data` at `offset` (negative: from the end)."""
    at = offset if offset >= 0 else len(raw) + offset
    assert at + len(data) <= len(raw)
    return raw[:at] + data + raw[at + len(data) :]


def footer_of(raw: bytes) -> Footer:
    """The footer in the last 512 bytes, sound or not."""
    return parse_footer(raw[-SECTOR:])


def header_of(raw: bytes) -> Header:
    """The header at byte 512, sound or not."""
    return parse_header(raw[512:1536])


def with_end(raw: bytes, footer: Footer) -> bytes:
    """`raw` with `footer` as its last 512 bytes."""
    return put(raw, -SECTOR, footer.encode())


def with_backup(raw: bytes, footer: Footer) -> bytes:
    """`raw` with `footer` at offset 0."""
    return put(raw, 0, footer.encode())


def refooted(raw: bytes, *, where: str = "both", **changes: object) -> bytes:
    """`raw` with fields of its footers changed and their checksums made right again."""
    footer = replace(footer_of(raw), **changes).sealed()  # type: ignore[arg-type]
    raw = with_end(raw, footer) if where in ("both", "end") else raw
    return with_backup(raw, footer) if where in ("both", "backup") else raw


def reheaded(raw: bytes, **changes: object) -> bytes:
    """`raw` with fields of its header changed and the checksum made right again."""
    return put(raw, 512, replace(header_of(raw), **changes).sealed().encode())  # type: ignore[arg-type]


def bat_entry(raw: bytes, block: int) -> int:
    """The BAT entry of `block`, a sector number."""
    return int(struct.unpack_from(">I", raw, header_of(raw).table_offset + 4 * block)[0])


def with_entry(raw: bytes, block: int, entry: int) -> bytes:
    """`raw` with `entry` (a sector number) in its BAT."""
    return put(raw, header_of(raw).table_offset + 4 * block, struct.pack(">I", entry))


def batmap_at(raw: bytes) -> int:
    """Where the batmap's header stands."""
    return header_of(raw).bat_extent.end


def rebatted(raw: bytes, *, reseal: bool = True, bits: bytes | None = None, **changes: int | bytes) -> bytes:
    """`raw` with fields of its batmap's header (or its `bits`) changed and the checksum made right again."""
    names = ("cookie", "offset", "sectors", "version", "checksum", "marker", "key_hash")
    at = batmap_at(raw)
    fields = dict(zip(names, struct.unpack_from(">8sQIIIB65s", raw, at), strict=True))
    if bits is not None:
        raw = put(raw, fields["offset"], bits)
    fields.update(changes)
    if reseal and "checksum" not in changes:
        summed = (footer_of(raw).current_size >> 24) + 511 >> 9 << 9 or SECTOR
        whole = raw[fields["offset"] : fields["offset"] + summed]
        fields["checksum"] = batmap_checksum(whole, fields["version"])
    return put(raw, at, struct.pack(">8sQIIIB65s", *(fields[name] for name in names)))


def lost_footer(raw: bytes) -> bytes:
    """`raw` without the footer at its end."""
    return raw[:-SECTOR]


# --------------------------------------------------------------------------- plans


def planned(raw: bytes, *consent: str, context: Context = CONTEXT, growable: bool = True) -> Planned:
    """The plan for `raw` with consent to the codes."""
    return plan(Buffer(raw, growable), context, frozenset(consent))


def codes(made: Planned) -> list[str]:
    """What was found, in order."""
    return [finding.code for finding in made.diagnosis.findings]


def repaired(raw: bytes, *consent: str, context: Context = CONTEXT, growable: bool = True) -> bytes:
    """`raw` after its plan, which must not be refused; planning again finds no error and makes no edit."""
    made = planned(raw, *consent, context=context, growable=growable)
    assert made.plan.refusal is None, made.plan.refusal
    assert made.plan.edits
    after = applied(raw, made.plan.edits)
    again = planned(after, *consent, context=context, growable=growable)
    assert again.diagnosis.verdict is Verdict.VALID, codes(again)
    assert again.plan.edits == ()
    assert again.diagnosis.findings == made.plan.remaining
    return after
