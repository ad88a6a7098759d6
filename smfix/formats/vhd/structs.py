"""The on-disk structures of VHD 1.0, as blktap treats them: decode, encode, checksum, field rules.

Theory. A structure on disk is a run of big-endian fields with a cookie and a checksum. *Sound* means
that both are right: these are the bytes that a program meant to write. Whether their meaning is
allowed is another question, answered by the field rules (:data:`FOOTER_RULES`, :data:`HEADER_RULES`),
each in the words and the order of ``vhd-util check``.

This is the only module that knows sectors: everything that leaves it is in bytes.

Sources: Microsoft "Virtual Hard Disk Image Format Specification" 1.0 (2006); xapi-project/blktap
``include/vhd.h``, ``vhd/lib/libvhd.c``, ``vhd/lib/vhd-util-check.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Generic, TypeVar

from smfix.values import SECTOR, Damaged, Extent, Sound

FOOTER_SIZE = 512
SHORT_FOOTER_SIZE = 511
HEADER_SIZE = 1024
BATMAP_HEADER_SIZE = 512
LOCATORS = 8

FOOTER_COOKIE = b"conectix"
POISON_COOKIE = b"v_poison"
HEADER_COOKIE = b"cxsparse"
BATMAP_COOKIE = b"tdbatmap"

BLOCK_SIZE = 2 << 20
"""Default block size in bytes; also the largest that libvhd opens."""
PAGE = 4096
"""Bytes. libvhd and tapdisk place a block so that its data begins a page."""
UNUSED = 0xFFFFFFFF
"""A BAT entry without a block."""
NO_OFFSET = 0xFFFFFFFFFFFFFFFF
NULL_UUID = bytes(16)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TAP_VERSION_1_1 = 0x00010001
TAP_VERSION_1_2 = 0x00010002
TAP_VERSION_CURRENT = 0x00010003
TAP_VERSION_REFUSED = 0x00000001
BATMAP_VERSION_SIGNED = 0x00010001
BATMAP_VERSION_CURRENT = 0x00010002


class DiskType(IntEnum):
    """The footer's type field."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


_TYPES = frozenset(int(each) for each in DiskType)


def round_up(size: int, unit: int = SECTOR) -> int:
    """`size` bytes rounded up to a whole number of `unit` bytes."""
    return -(-size // unit) * unit


def checksum(raw: bytes, at: int) -> int:
    """One's complement of the byte sum of `raw`, its 4 checksum bytes at `at` counted as zero.

    Source: ``vhd_checksum_footer``, ``vhd_checksum_header`` (libvhd.c).
    """
    return ~(byte_sum(raw) - sum(raw[at : at + 4])) & 0xFFFFFFFF


def byte_sum(raw: bytes) -> int:
    """The sum of all bytes. Most are 0x00 or 0xFF, and those are counted instead of added: many times as fast."""
    return 255 * raw.count(0xFF) + sum(raw.translate(None, b"\0\xff"))


def vhd_time(moment: datetime) -> int:
    """Seconds since 2000-01-01T00:00:00Z of an aware datetime."""
    return int((moment - EPOCH).total_seconds())


def from_vhd_time(seconds: int) -> datetime:
    """The aware datetime (UTC) of a VHD timestamp in seconds."""
    return EPOCH + timedelta(seconds=seconds)


def geometry_for(size: int) -> int:
    """The CHS geometry (C << 16 | H << 8 | S) that the specification gives a disk of `size` bytes.

    Source: specification, appendix "CHS Calculation"; ``vhd_chs`` (libvhd.c), whose sector count is
    32 bits wide.
    """
    sectors = min((-(-size // SECTOR) & 0xFFFFFFFF) or 1, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        spt, heads = 255, 16
        tracks = sectors // spt
    else:
        spt = 17
        tracks = sectors // spt
        heads = max((tracks + 1023) // 1024, 4)
        if tracks >= heads * 1024 or heads > 16:
            spt, heads = 31, 16
            tracks = sectors // spt
        if tracks >= heads * 1024:
            spt, heads = 63, 16
            tracks = sectors // spt
    return (tracks // heads) << 16 | heads << 8 | spt


# --------------------------------------------------------------------------- field rules

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class FieldRule(Generic[S]):
    """One thing that ``vhd-util check`` demands of a structure: `why` is what it says."""

    key: str
    why: str
    broken: Callable[[S], bool]


# --------------------------------------------------------------------------- footer

_FOOTER = struct.Struct(">8sIIQI4sIIQQIII16sBB426s")


@dataclass(frozen=True, slots=True)
class Footer:
    """A footer, field by field (specification, "Hard Disk Footer Format"). Sizes in bytes.

    `timestamp` is in seconds since 2000-01-01 UTC, `geometry` is C << 16 | H << 8 | S. `hidden` is
    blktap's own field: 1 marks a base copy that only its children use.
    """

    cookie: bytes
    features: int
    version: int
    data_offset: int
    timestamp: int
    creator_app: bytes
    creator_version: int
    creator_os: int
    original_size: int
    current_size: int
    geometry: int
    type: int
    checksum: int
    uuid: bytes
    saved: int
    hidden: int
    reserved: bytes = bytes(426)

    @property
    def by_tap(self) -> bool:
        """Written by tapdisk or libvhd."""
        return self.creator_app[:3] == b"tap"

    @property
    def has_batmap(self) -> bool:
        """Made by a tap that always adds a batmap (``vhd_has_batmap``); one of 1.1 may have one or not."""
        return self.by_tap and self.creator_version >= TAP_VERSION_1_2

    @property
    def is_sparse(self) -> bool:
        """Dynamic or differencing: header, BAT and blocks follow."""
        return self.type in (DiskType.DYNAMIC, DiskType.DIFFERENCING)

    @property
    def is_differencing(self) -> bool:
        """Has a parent."""
        return self.type == DiskType.DIFFERENCING

    @property
    def is_poisoned(self) -> bool:
        """SM's journaled resize has begun and not ended."""
        return self.cookie == POISON_COOKIE

    @property
    def hidden_unsummed(self) -> bool:
        """Written by an old tap that set `hidden` without updating the checksum (libvhd.c)."""
        old = self.creator_version in (TAP_VERSION_REFUSED, TAP_VERSION_1_1)
        return self.hidden != 0 and self.by_tap and old

    def encode(self) -> bytes:
        """The 512 bytes on disk, with the checksum field as it is."""
        return _FOOTER.pack(
            self.cookie,
            self.features,
            self.version,
            self.data_offset,
            self.timestamp,
            self.creator_app,
            self.creator_version,
            self.creator_os,
            self.original_size,
            self.current_size,
            self.geometry,
            self.type,
            self.checksum,
            self.uuid,
            self.saved,
            self.hidden,
            self.reserved,
        )

    def sealed(self) -> Footer:
        """The same footer with the checksum that its bytes demand."""
        return replace(self, checksum=checksum(self.encode(), 64))


def _footer_sum_ok(footer: Footer, raw: bytes | None = None) -> bool:
    """The checksum is right; `raw` are the footer's 512 bytes, if they are at hand."""
    if checksum(raw or footer.encode(), 64) == footer.checksum:
        return True
    return footer.hidden_unsummed and checksum(replace(footer, hidden=0).encode(), 64) == footer.checksum


FOOTER_RULES: tuple[FieldRule[Footer], ...] = (
    FieldRule("cookie", "invalid cookie", lambda f: f.cookie != FOOTER_COOKIE),
    FieldRule("checksum", "invalid checksum", lambda f: not _footer_sum_ok(f)),
    FieldRule("features", "invalid 'reserved' feature", lambda f: not f.features & 2),
    FieldRule("extra-features", "invalid extra features", lambda f: bool(f.features & ~3)),
    FieldRule("version", "invalid file format version", lambda f: f.version != 0x00010000),
    FieldRule("data-offset", "invalid data offset", lambda f: not f.is_sparse and f.data_offset != NO_OFFSET),
    FieldRule(
        "creator-version",
        "unsupported tap creator version",
        lambda f: f.by_tap and f.creator_version > TAP_VERSION_CURRENT,
    ),
    FieldRule("geometry", "geometry too large", lambda f: geometry_for(f.current_size) < f.geometry),
    FieldRule("type", "invalid type", lambda f: f.type not in _TYPES),
    FieldRule("saved", "invalid 'saved' state", lambda f: f.saved > 1),
    FieldRule("hidden", "invalid 'hidden' state", lambda f: f.hidden > 1),
    FieldRule("reserved", "invalid 'reserved' bits", lambda f: f.reserved.strip(b"\0") != b""),
    FieldRule("uuid", "invalid (NULL) uuid", lambda f: f.uuid == NULL_UUID),
)
"""``vhd_util_check_validate_footer``, in its order, less the clock (which is no property of the bytes)."""


def parse_footer(raw: bytes) -> Footer:
    """The fields of up to 512 bytes (a 511-byte footer lacks the last reserved byte: NUL)."""
    return Footer(*_FOOTER.unpack(raw[:FOOTER_SIZE].ljust(FOOTER_SIZE, b"\0")))


def decode_footer(raw: bytes, at: int) -> Sound[Footer] | Damaged:
    """Decode the footer at byte `at`; `raw` are its 511 or 512 bytes, fewer = damaged.

    The poison cookie of an interrupted journaled resize is sound if its checksum is (libvhd accepts
    it; ``vhd-util check`` does not). Never raises.
    """
    where = Extent(at, len(raw))
    if len(raw) < SHORT_FOOTER_SIZE:
        return Damaged(raw, ("file too short for a footer",), where)
    whole = raw[:FOOTER_SIZE].ljust(FOOTER_SIZE, b"\0")
    footer = parse_footer(whole)
    if footer.cookie in (FOOTER_COOKIE, POISON_COOKIE) and _footer_sum_ok(footer, whole):
        return Sound(footer, where)
    return Damaged(raw, tuple(rule.why for rule in FOOTER_RULES if rule.broken(footer)), where)


# --------------------------------------------------------------------------- parent locators


class PlatformCode(IntEnum):
    """The platform codes that libvhd knows (``vhd.h``)."""

    NONE = 0
    WI2R = 0x57693272
    WI2K = 0x5769326B
    W2RU = 0x57327275
    W2KU = 0x57326B75
    MAC = 0x4D616320
    MACX = 0x4D616358


_CODES = frozenset(int(code) for code in PlatformCode)
PATH_CODES = (PlatformCode.MACX, PlatformCode.W2KU, PlatformCode.W2RU)
"""The locators that libvhd reads a path from."""
_LOCATOR = struct.Struct(">IIIIQ")


@dataclass(frozen=True, slots=True)
class ParentLocator:
    """One of the header's eight parent locators. `data_space` is as on disk: see :attr:`space`."""

    code: int
    data_space: int
    data_length: int
    reserved: int
    data_offset: int

    @property
    def space(self) -> int:
        """Bytes reserved for the locator's data.

        Below 512 the field counts sectors (the specification), else bytes, as Microsoft and blktap
        write it; a value that is neither gives 0. Source: ``vhd_parent_locator_size`` (libvhd.h).
        """
        if self.data_space < SECTOR:
            return self.data_space * SECTOR
        return self.data_space if self.data_space % SECTOR == 0 else 0

    @property
    def extent(self) -> Extent:
        """The bytes of its data."""
        return Extent(self.data_offset, self.space)

    def encode(self) -> bytes:
        """The 24 bytes on disk."""
        return _LOCATOR.pack(self.code, self.data_space, self.data_length, self.reserved, self.data_offset)

    def decode_path(self, data: bytes) -> str | None:
        """The parent path that `data` (the locator's bytes on disk) holds; None: not decodable.

        MACX is a UTF-8 ``file://`` URL, W2KU and W2RU are UTF-16LE with backslashes. libvhd accepts
        ASCII only and stops at the first NUL. Source: ``vhd_macx_decode_location``,
        ``vhd_w2u_decode_location`` (libvhd.c).
        """
        raw = data[: self.data_length]
        if self.code == PlatformCode.MACX:
            text = _ascii(raw, "utf-8")
            return text[7:] if text is not None and text.startswith("file://") else None
        text = _ascii(raw, "utf-16-le")
        return None if text is None else _without_drive(text.replace("\\", "/"))


def _ascii(raw: bytes, encoding: str) -> str | None:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    return text.split("\0", 1)[0] if text.isascii() else None


def _without_drive(path: str) -> str:
    return path[2:] if path[:2] in ("C:", "c:") else path


NO_LOCATORS = (ParentLocator(0, 0, 0, 0, 0),) * LOCATORS
"""Those of a header without a parent."""

# --------------------------------------------------------------------------- header

_HEADER = struct.Struct(">8sQQIIII16sII512s192s256s")


@dataclass(frozen=True, slots=True)
class Header:
    """The dynamic disk header, `cxsparse` (specification, "Dynamic Disk Header Format").

    `table_offset` and `block_size` in bytes; `max_bat_size` in BAT entries; `parent_timestamp` in
    seconds since 2000-01-01 UTC; `parent_name` is UTF-16BE, NUL-padded to 512 bytes.
    """

    cookie: bytes
    data_offset: int
    table_offset: int
    version: int
    max_bat_size: int
    block_size: int
    checksum: int
    parent_uuid: bytes = NULL_UUID
    parent_timestamp: int = 0
    reserved1: int = 0
    parent_name: bytes = bytes(512)
    locators: tuple[ParentLocator, ...] = NO_LOCATORS
    reserved2: bytes = bytes(256)

    @property
    def bat_extent(self) -> Extent:
        """The bytes of the BAT, padded to a sector."""
        return Extent(self.table_offset, round_up(self.max_bat_size * 4) or SECTOR)

    @property
    def bitmap_size(self) -> int:
        """Bytes of one sector bitmap, padded to a sector."""
        return round_up(self.block_size // SECTOR // 8) or SECTOR

    @property
    def block_space(self) -> int:
        """Bytes of one block in the file: its sector bitmap and its data."""
        return self.bitmap_size + self.block_size

    def next_block(self, end: int) -> int:
        """The offset of a block that libvhd or tapdisk places after byte `end`: its data begins a page."""
        return round_up(end + self.bitmap_size, PAGE) - self.bitmap_size

    def blocks_of(self, size: int) -> int:
        """Blocks of a guest disk of `size` bytes, the partial last one counted."""
        return -(-size // self.block_size) if self.block_size else 0

    def parent_name_text(self, encoding: str = "utf-16-be") -> str | None:
        """The parent's file name; None if it is not ASCII in UTF-16BE (``vhd_header_decode_parent``)."""
        text = _ascii(self.parent_name, encoding)
        return None if text is None else _without_drive(text.replace("\\", "/"))

    def encode(self) -> bytes:
        """The 1024 bytes on disk, with the checksum field as it is."""
        return _HEADER.pack(
            self.cookie,
            self.data_offset,
            self.table_offset,
            self.version,
            self.max_bat_size,
            self.block_size,
            self.checksum,
            self.parent_uuid,
            self.parent_timestamp,
            self.reserved1,
            self.parent_name,
            b"".join(locator.encode() for locator in self.locators),
            self.reserved2,
        )

    def sealed(self) -> Header:
        """The same header with the checksum that its bytes demand."""
        return replace(self, checksum=checksum(self.encode(), 36))


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


HEADER_RULES: tuple[FieldRule[Header], ...] = (
    FieldRule("cookie", "invalid cookie", lambda h: h.cookie != HEADER_COOKIE),
    FieldRule("checksum", "invalid checksum", lambda h: checksum(h.encode(), 36) != h.checksum),
    FieldRule("version", "invalid header version", lambda h: h.version != 0x00010000),
    FieldRule("data-offset", "invalid data offset", lambda h: h.data_offset != NO_OFFSET),
    FieldRule("table-offset", "invalid table offset", lambda h: h.table_offset == 0 or h.table_offset % SECTOR != 0),
    FieldRule("block-size", "invalid block size", lambda h: not _power_of_two(h.block_size)),
    FieldRule("reserved", "invalid reserved bits", lambda h: h.reserved1 != 0 or h.reserved2.strip(b"\0") != b""),
    FieldRule("block-size-large", "block size too large", lambda h: h.block_size > BLOCK_SIZE),
    FieldRule(
        "platform-code",
        "invalid platform code",
        lambda h: any(loc.code not in _CODES for loc in h.locators),
    ),
)
"""``vhd_util_check_validate_header``, then ``vhd_validate_header`` (which prints nothing), in order."""


def parse_header(raw: bytes) -> Header:
    """The fields of 1024 bytes."""
    fields: tuple[Any, ...] = _HEADER.unpack(raw)
    raw_locators = fields[11]
    locators = NO_LOCATORS
    if raw_locators.count(0) != len(raw_locators):
        locators = tuple(ParentLocator(*_LOCATOR.unpack_from(raw_locators, 24 * i)) for i in range(LOCATORS))
    return Header(*(*fields[:11], locators, fields[12]))


def decode_header(raw: bytes, at: int) -> Sound[Header] | Damaged:
    """Decode the header at byte `at`; fewer than 1024 bytes are damaged. Never raises."""
    where = Extent(at, len(raw))
    if len(raw) < HEADER_SIZE:
        return Damaged(raw, ("file too short for a header",), where)
    header = parse_header(raw)
    if header.cookie == HEADER_COOKIE and checksum(raw, 36) == header.checksum:
        return Sound(header, where)
    return Damaged(raw, tuple(rule.why for rule in HEADER_RULES if rule.broken(header)), where)


# --------------------------------------------------------------------------- batmap

_BATMAP = struct.Struct(">8sQIIIB65s418s")


@dataclass(frozen=True, slots=True)
class BatmapHeader:
    """The batmap's header, `tdbatmap` (blktap's own). `map_offset`, `map_size` in bytes.

    `marker` and `key_hash` (cookie, nonce, SHA-256 of the encryption key) are outside the checksum and
    must survive every repair. Source: ``struct dd_batmap_hdr`` (vhd.h).
    """

    cookie: bytes
    map_offset: int
    map_size: int
    version: int
    checksum: int
    marker: int = 0
    key_hash: bytes = bytes(65)
    reserved: bytes = bytes(418)

    def encode(self) -> bytes:
        """The 512 bytes on disk."""
        return _BATMAP.pack(
            self.cookie,
            self.map_offset,
            self.map_size // SECTOR,
            self.version,
            self.checksum,
            self.marker,
            self.key_hash,
            self.reserved,
        )

    @property
    def map_extent(self) -> Extent:
        """The bytes of the map, as the header claims."""
        return Extent(self.map_offset, self.map_size)


def parse_batmap_header(raw: bytes) -> BatmapHeader:
    """The fields of 512 bytes."""
    cookie, offset, sectors, *rest = _BATMAP.unpack(raw)
    return BatmapHeader(cookie, offset, sectors * SECTOR, *rest)


def batmap_checksum(bits: bytes, version: int) -> int:
    """One's complement of the byte sum of the map; version 1.1 sums signed bytes.

    Source: ``vhd_checksum_batmap`` (libvhd.c).
    """
    total = byte_sum(bits)
    if version == BATMAP_VERSION_SIGNED:
        total -= 256 * sum(1 for byte in bits if byte > 127)
    return ~total & 0xFFFFFFFF


def batmap_summed_size(current_size: int) -> int:
    """Bytes of the map that libvhd reads and sums for a guest disk of `current_size` bytes."""
    return round_up(current_size >> 24) or SECTOR


def bit(bits: bytes, index: int) -> bool:
    """Bit `index` of a bitmap or batmap, most significant first; False after its end."""
    byte = index >> 3
    return byte < len(bits) and bool(bits[byte] & (0x80 >> (index & 7)))


def first_bit(bits: bytes, start: int) -> int | None:
    """The first set bit at or after `start`; None: there is none."""
    byte = start >> 3
    head = bits[byte : byte + 1]
    rest = bytes(each & 0xFF >> (start & 7) for each in head) + bits[byte + 1 :]
    filled = rest.lstrip(b"\0")
    if not filled:
        return None
    return (byte + len(rest) - len(filled)) * 8 + 8 - filled[0].bit_length()
