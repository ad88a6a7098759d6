"""New images, as ``vhd-util create`` and tapdisk lay them out. Pure: the result is a list of writes.

For the demo and for tests: smfix never makes an image on a host's SR. Source: ``__vhd_create``,
``vhd_create_batmap``, ``vhd_write_parent_locators``, ``allocate_block`` (blktap ``vhd/lib/libvhd.c``).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace

from smfix.formats.vhd import structs
from smfix.formats.vhd.structs import (
    BATMAP_COOKIE,
    BATMAP_HEADER_SIZE,
    BATMAP_VERSION_CURRENT,
    BLOCK_SIZE,
    FOOTER_COOKIE,
    FOOTER_SIZE,
    HEADER_COOKIE,
    LOCATORS,
    NO_OFFSET,
    TAP_VERSION_CURRENT,
    UNUSED,
    BatmapHeader,
    DiskType,
    Footer,
    Header,
    ParentLocator,
    PlatformCode,
    geometry_for,
    round_up,
)
from smfix.values import SECTOR, Write

Blocks = Mapping[int, Mapping[int, bytes]]
"""Guest data: block number -> sector in the block -> its 512 bytes."""


@dataclass(frozen=True, slots=True)
class ParentRef:
    """The parent of a differencing image: its UUID (16 bytes), and its file name in the same folder, or a path."""

    uuid: bytes
    name: str
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A new image: `size` bytes, NUL outside of the writes; `places` is block -> offset."""

    size: int
    writes: tuple[Write, ...]
    footer: Footer
    header: Header | None
    places: Mapping[int, int]

    def to_bytes(self) -> bytes:
        """The whole image in memory: for small ones."""
        raw = bytearray(self.size)
        for write in self.writes:
            raw[write.offset : write.extent.end] = write.data
        return bytes(raw)


def footer_of(size: int, disk_type: DiskType, uuid: bytes, *, timestamp: int = 0, hidden: int = 0) -> Footer:
    """The footer that libvhd gives a guest disk of `size` bytes (``vhd_initialize_footer``)."""
    return Footer(
        cookie=FOOTER_COOKIE,
        features=2,
        version=0x00010000,
        data_offset=NO_OFFSET if disk_type is DiskType.FIXED else FOOTER_SIZE,
        timestamp=timestamp,
        creator_app=b"tap\0",
        creator_version=TAP_VERSION_CURRENT,
        creator_os=0,
        original_size=size,
        current_size=size,
        geometry=geometry_for(size),
        type=disk_type,
        checksum=0,
        uuid=uuid,
        saved=0,
        hidden=hidden,
    ).sealed()


def fixed(size: int, uuid: bytes, data: bytes = b"", *, timestamp: int = 0) -> Made:
    """A fixed disk of `size` bytes (a multiple of 512) that begins with `data`."""
    footer = footer_of(size, DiskType.FIXED, uuid, timestamp=timestamp)
    writes = (Write(0, data), Write(size, footer.encode()))
    return Made(size + FOOTER_SIZE, tuple(w for w in writes if w.data), footer, None, {})


def sparse(
    size: int,
    uuid: bytes,
    blocks: Blocks,
    *,
    parent: ParentRef | None = None,
    bat_blocks: int | None = None,
    timestamp: int = 0,
    hidden: int = 0,
) -> Made:
    """A dynamic disk (with `parent`: a differencing one) of `size` bytes that holds `blocks`.

    Blocks are placed in the order of the mapping, their data on page boundaries; a block with every
    sector has its batmap bit set. `bat_blocks` makes the BAT for a larger disk, as ``create -S`` does.
    """
    disk_type = DiskType.DIFFERENCING if parent else DiskType.DYNAMIC
    footer = footer_of(size, disk_type, uuid, timestamp=timestamp, hidden=hidden)
    entries = bat_blocks or -(-size // BLOCK_SIZE)
    header = Header(HEADER_COOKIE, NO_OFFSET, 3 * SECTOR, 0x00010000, entries, BLOCK_SIZE, 0)
    batmap_at = header.bat_extent.end
    map_size = round_up(-(-entries // 8)) or SECTOR
    at = batmap_at + BATMAP_HEADER_SIZE + map_size
    writes: list[Write] = []
    if parent is not None:
        header, located, at = _with_parent(header, parent, at)
        writes += located
    bat = array("I", [UNUSED]) * entries
    bits = bytearray(map_size)
    places: dict[int, int] = {}
    for block, sectors in blocks.items():
        at = header.next_block(at)
        places[block] = at
        bat[block] = at // SECTOR
        writes.append(Write(at, _bitmap(sectors, header)))
        writes += [Write(at + header.bitmap_size + n * SECTOR, data) for n, data in sorted(sectors.items())]
        if len(sectors) == BLOCK_SIZE // SECTOR:
            bits[block >> 3] |= 0x80 >> (block & 7)
        at += header.block_space
    summed = bytes(bits[: structs.batmap_summed_size(size)])
    batmap = BatmapHeader(
        BATMAP_COOKIE,
        batmap_at + BATMAP_HEADER_SIZE,
        map_size,
        BATMAP_VERSION_CURRENT,
        structs.batmap_checksum(summed, BATMAP_VERSION_CURRENT),
    )
    header = header.sealed()
    if sys.byteorder == "little":
        bat.byteswap()
    table = bat.tobytes().ljust(header.bat_extent.length, b"\0")
    head = [
        Write(0, footer.encode()),
        Write(FOOTER_SIZE, header.encode()),
        Write(header.table_offset, table),
        Write(batmap_at, batmap.encode() + bytes(bits)),
    ]
    end = [Write(at, footer.encode())]
    return Made(at + FOOTER_SIZE, (*head, *writes, *end), footer, header, places)


def _bitmap(sectors: Mapping[int, bytes], header: Header) -> bytes:
    bits = bytearray(header.bitmap_size)
    for index in sectors:
        bits[index >> 3] |= 0x80 >> (index & 7)
    return bytes(bits)


def _with_parent(header: Header, parent: ParentRef, at: int) -> tuple[Header, list[Write], int]:
    """The header with name and locators of `parent`, the locators' data, and the end of it."""
    path = parent.name if parent.name.startswith("/") else f"./{parent.name}"
    url = f"file://{path}".encode()
    windows = path.replace("/", "\\").encode("utf-16-le")
    writes: list[Write] = []
    locators: list[ParentLocator] = []
    for code, data in ((PlatformCode.MACX, url), (PlatformCode.W2KU, windows), (PlatformCode.W2RU, windows)):
        space = round_up(len(data))
        locators.append(ParentLocator(code, space, len(data), 0, at))
        writes.append(Write(at, data))
        at += space
    unused = [ParentLocator(0, 0, 0, 0, 0)] * (LOCATORS - len(locators))
    named = replace(
        header,
        parent_uuid=parent.uuid,
        parent_timestamp=parent.timestamp,
        parent_name=parent.name.rpartition("/")[2].encode("utf-16-be").ljust(512, b"\0"),
        locators=(*locators, *unused),
    )
    return named, writes, at
