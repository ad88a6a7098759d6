"""Damage to the header, the BAT and the batmap."""

from __future__ import annotations

import struct

from matrix.damage import Catalogue, Damaged, Make, Sample, changed, flipped, seal_header
from matrix.reader import SECTOR
from matrix.writer import seal_batmap

KINDS = Catalogue()
TABLE, VERSION, ENTRIES, BLOCK, SUM, PARENT, RESERVED, NAME, LOCATORS = 16, 24, 28, 32, 36, 40, 60, 64, 576


def _header(change) -> Make:
    return lambda s: s.with_bytes((s.found.header_at, change(s)))


def _number(at: int, number: int, *, size: int = 4) -> Make:
    return _header(lambda s: changed(s.header, at, number.to_bytes(size, "big")))


for _name, _text, _make in (
    ("zeroed", "overwritten with NUL", _header(lambda s: bytes(1024))),
    ("garbage", "overwritten with random data", _header(lambda s: s.rng.randbytes(1024))),
    ("cookie", "one bit of its cookie flipped", _header(lambda s: flipped(s.header, 1))),
    ("checksum", "one bit of its checksum flipped", _header(lambda s: flipped(s.header, SUM + 3))),
    ("data-offset", "data offset 0, checksum as it was", _number(8, 0, size=8)),
    ("version", "version 2, checksum as it was", _number(VERSION, 0x00020000)),
    ("table-bit", "one bit of the table offset flipped", _header(lambda s: flipped(s.header, TABLE + 6, 0x08))),
    ("table-zero", "table offset 0, checksum as it was", _number(TABLE, 0, size=8)),
    ("entries-bit", "one bit of max_bat_size flipped", _header(lambda s: flipped(s.header, ENTRIES + 2, 0x01))),
    ("entries-zero", "max_bat_size 0, checksum as it was", _number(ENTRIES, 0)),
    ("block-size-bit", "one bit of the block size flipped", _header(lambda s: flipped(s.header, BLOCK + 2, 0x02))),
    ("block-size-zero", "block size 0, checksum as it was", _number(BLOCK, 0)),
    ("reserved", "a byte set in the reserved area", _header(lambda s: changed(s.header, 800, b"\x55"))),
    ("two-fields", "cookie and version lost", _header(lambda s: changed(changed(s.header, 0, bytes(8)), 24, bytes(4)))),
    ("fields-wiped", "its first 40 bytes overwritten", _header(lambda s: bytes(40) + s.header[40:])),
    ("first-sector", "its first sector overwritten with NUL", _header(lambda s: bytes(SECTOR) + s.header[SECTOR:])),
    ("second-sector", "its second sector overwritten with random data",
     _header(lambda s: s.header[:SECTOR] + s.rng.randbytes(SECTOR))),
    ("sealed-entries", "max_bat_size halved, with a good checksum",
     _header(lambda s: seal_header(changed(s.header, ENTRIES, struct.pack(">I", max(1, s.found.bat_entries // 2)))))),
    ("sealed-entries-more", "max_bat_size 2,097,152 more, with a good checksum",
     _header(lambda s: seal_header(changed(s.header, ENTRIES, struct.pack(">I", s.found.bat_entries | 1 << 21))))),
    ("sealed-block-size", "block size 1 MiB, with a good checksum",
     _header(lambda s: seal_header(changed(s.header, BLOCK, struct.pack(">I", 1 << 20))))),
    ("and-backup", "backup footer and header overwritten (the first 1536 bytes)",
     lambda s: s.with_bytes((0, bytes(1536)))),
):  # fmt: skip
    KINDS.add(f"header-{_name}", f"header: {_text}", _make)


@KINDS.kind("header-sealed-table", "header: table offset one sector on, with a good checksum")
def _sealed_table(s: Sample) -> Damaged:
    raw = s.with_bytes(
        (s.found.header_at, seal_header(changed(s.header, TABLE, struct.pack(">Q", s.found.table_at + SECTOR))))
    )
    told = s.is_tap
    return Damaged(bytes(raw), silent=None if told else "without a batmap only the header says where the BAT is")


def _differencing(make: Make) -> Make:
    return lambda s: make(s) if s.is_differencing else None


for _name, _text, _make in (
    ("parent-uuid", "one bit of the parent's UUID flipped", _header(lambda s: flipped(s.header, PARENT + 4))),
    ("parent-name", "the parent's name lost", _header(lambda s: changed(s.header, NAME, bytes(512)))),
    ("parent-locator", "the first locator lost", _header(lambda s: changed(s.header, LOCATORS, bytes(24)))),
):
    KINDS.add(f"header-{_name}", f"header: {_text}, checksum as it was", _differencing(_make))


@KINDS.kind("header-footers-too", "footer gone, backup footer and header overwritten")
def _all_gone(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_bytes((0, bytes(1536)))))


# --------------------------------------------------------------------------- BAT


def _middle(s: Sample) -> int | None:
    """A block that is neither the lowest nor the highest in the file."""
    placed = s.by_place()
    return placed[len(placed) // 2 - (len(placed) % 2 == 0)][1] if len(placed) > 2 else None


def _entry(change, *, last: bool = False) -> Make:
    """Replace the entry of the middle (or highest) block by what `change` makes of it."""

    def make(s: Sample) -> bytearray | None:
        block = s.last[1] if last else _middle(s)
        return None if block is None else s.with_entries({block: change(s, s.entry(block))})

    return make


def _sectors(s: Sample) -> int:
    return s.size // SECTOR


for _name, _text, _make in (
    ("last-lost", "the highest block's entry lost", _entry(lambda s, e: 0xFFFFFFFF, last=True)),
    ("middle-lost", "a middle block's entry lost", _entry(lambda s, e: 0xFFFFFFFF)),
    ("last-zero", "the highest block's entry 0", _entry(lambda s, e: 0, last=True)),
    ("middle-zero", "a middle block's entry 0", _entry(lambda s, e: 0)),
    ("headers", "a middle block's entry points into the headers", _entry(lambda s, e: 3)),
    ("last-headers", "the highest block's entry points into the BAT",
     _entry(lambda s, e: s.found.table_at // SECTOR, last=True)),
    ("past-end", "a middle block's entry points far past the end", _entry(lambda s, e: _sectors(s) + 100_000)),
    ("past-end-near", "a middle block's entry points just past the end", _entry(lambda s, e: _sectors(s) + 7)),
    ("last-past-end", "the highest block's entry points far past the end",
     _entry(lambda s, e: _sectors(s) + 77_777, last=True)),
    ("high-bit", "the high bit of a middle block's entry flipped", _entry(lambda s, e: e ^ 0x20000000)),
    ("last-high-bit", "the high bit of the highest block's entry flipped",
     _entry(lambda s, e: e ^ 0x10000000, last=True)),
    ("all-ones-but-one", "a middle block's entry 0xFFFFFFFE", _entry(lambda s, e: 0xFFFFFFFE)),
    ("off-by-one", "a middle block's entry one sector on", _entry(lambda s, e: e + 1)),
    ("off-by-minus-one", "a middle block's entry one sector back", _entry(lambda s, e: e - 1)),
    ("last-off-by-one", "the highest block's entry one sector on", _entry(lambda s, e: e + 1, last=True)),
    ("off-by-seven", "a middle block's entry seven sectors on", _entry(lambda s, e: e + 7)),
    ("little-endian", "a middle block's entry with its bytes reversed",
     _entry(lambda s, e: int.from_bytes(e.to_bytes(4, "big"), "little"))),
):  # fmt: skip
    KINDS.add(f"bat-{_name}", _text, _make)


@KINDS.kind("bat-duplicate", "the highest block's entry repeats the lowest one's")
def _duplicate(s: Sample) -> bytearray:
    return s.with_entries({s.last[1]: s.entry(s.by_place()[0][1])})


@KINDS.kind("bat-duplicate-middle", "a middle block's entry repeats the next one's")
def _duplicate_middle(s: Sample) -> bytearray | None:
    block = _middle(s)
    if block is None:
        return None
    places = [number for _, number in s.by_place()]
    return s.with_entries({block: s.entry(places[places.index(block) + 1])})


@KINDS.kind("bat-half-overlap", "a middle block's entry half a block on")
def _half_overlap(s: Sample) -> bytearray | None:
    block = _middle(s)
    return None if block is None else s.with_entries({block: s.entry(block) + 2048})


@KINDS.kind("bat-two-lost", "two entries lost")
def _two_lost(s: Sample) -> bytearray | None:
    placed = s.by_place()
    return s.with_entries({placed[-1][1]: 0xFFFFFFFF, placed[1][1]: 0xFFFFFFFF}) if len(placed) > 2 else None


@KINDS.kind("bat-swapped", "two entries exchanged")
def _swapped(s: Sample) -> Damaged:
    (_, one), (_, two) = s.by_place()[0], s.last
    raw = s.with_entries({one: s.entry(two), two: s.entry(one)})
    told = s.is_tap and s.found.full(one) != s.found.full(two)
    return Damaged(bytes(raw), silent=None if told else "both blocks are well-formed, nothing names which is which")


@KINDS.kind("bat-free-garbage", "an unused entry set to a place far past the end")
def _free_garbage(s: Sample) -> bytearray | None:
    block = s.free_block()
    return None if block is None else s.with_entries({block: _sectors(s) + 55_555})


@KINDS.kind("bat-free-headers", "an unused entry set to 1")
def _free_headers(s: Sample) -> bytearray | None:
    block = s.free_block()
    return None if block is None else s.with_entries({block: 1})


@KINDS.kind("bat-free-duplicate", "an unused entry repeats the highest block's")
def _free_duplicate(s: Sample) -> bytearray | None:
    block = s.free_block()
    return None if block is None else s.with_entries({block: s.entry(s.last[1])})


@KINDS.kind("bat-all-ones", "the whole BAT overwritten with ones")
def _all_ones(s: Sample) -> bytearray:
    return s.with_entries(dict.fromkeys(range(len(s.found.bat)), 0xFFFFFFFF))


@KINDS.kind("bat-all-zero", "the whole BAT overwritten with NUL")
def _all_zero(s: Sample) -> bytearray:
    return s.with_entries(dict.fromkeys(range(len(s.found.bat)), 0))


@KINDS.kind("bat-garbage", "the BAT overwritten with random data")
def _garbage(s: Sample) -> bytearray:
    return s.with_entries({n: s.rng.getrandbits(32) for n in range(len(s.found.bat))})


@KINDS.kind("bat-last-lost-no-footer", "the highest block's entry lost, and the footer")
def _last_lost_no_footer(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_entries({s.last[1]: 0xFFFFFFFF})))


@KINDS.kind("bat-last-zero-no-footer", "the highest block's entry 0, and the footer gone")
def _last_zero_no_footer(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_entries({s.last[1]: 0})))


@KINDS.kind("bat-high-bit-no-footer", "the high bit of the highest block's entry flipped, and the footer gone")
def _high_bit_no_footer(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_entries({s.last[1]: s.entry(s.last[1]) ^ 0x10000000})))


# --------------------------------------------------------------------------- batmap


def _batmap(change) -> Make:
    """`change` gets a copy of the image and damages its batmap; None where there is none."""

    def make(s: Sample) -> bytearray | None:
        if not s.is_tap:
            return None
        raw = bytearray(s.raw)
        return None if change(s, raw, s.found.batmap_at, s.found.batmap_map_at) is False else raw

    return make


def _put(data: bytes, *, behind: int = 0, map_itself: bool = False):
    def change(s: Sample, raw: bytearray, at: int, map_at: int) -> None:
        start = (map_at if map_itself else at) + behind
        raw[start : start + len(data)] = data

    return change


def _free_bits(s: Sample, raw: bytearray, at: int, map_at: int, *, seal: bool) -> bool:
    block = s.free_block()
    if block is None:
        return False
    raw[map_at + (block >> 3)] |= 0x80 >> (block & 7)
    if seal:
        seal_batmap(raw, s.found)
    return True


def _partial_bit(s: Sample, raw: bytearray, at: int, map_at: int) -> bool:
    block = next((b for b, _ in s.found.allocated() if not s.found.full(b)), None)
    if block is None:
        return False
    raw[map_at + (block >> 3)] |= 0x80 >> (block & 7)
    seal_batmap(raw, s.found)
    return True


def _cleared(s: Sample, raw: bytearray, at: int, map_at: int) -> None:
    raw[map_at : map_at + SECTOR] = bytes(SECTOR)
    seal_batmap(raw, s.found)


def _key_hash(s: Sample, raw: bytearray, at: int, map_at: int) -> None:
    raw[at + 29 : at + 94] = bytes(range(65))
    raw[at + 28] = 1
    raw[at + 24] ^= 0xFF


for _name, _text, _change in (
    ("checksum", "its checksum wrong", lambda s, raw, at, m: raw.__setitem__(at + 27, raw[at + 27] ^ 0x40)),
    ("cookie", "its cookie lost", _put(bytes(8))),
    ("header-zeroed", "its header overwritten with NUL", _put(bytes(SECTOR))),
    ("header-garbage", "its header overwritten with 0xA5", _put(b"\xa5" * SECTOR)),
    ("size-zero", "its size 0 (vhd-util aborts)", _put(bytes(4), behind=16)),
    ("size-large", "its size 1 GiB", _put(b"\0\x20\0\0", behind=16)),
    ("offset", "its offset inside the blocks", _put((1 << 20).to_bytes(8, "big"), behind=8)),
    ("version", "its version 9", _put(b"\0\x09\0\0", behind=20)),
    ("map-garbage", "the map overwritten with 0x5A, checksum as it was", _put(b"\x5a" * SECTOR, map_itself=True)),
    ("map-ones", "the map overwritten with ones, checksum as it was", _put(b"\xff" * SECTOR, map_itself=True)),
    ("interrupted", "a bit set, checksum not yet (killed coalesce)",
     lambda s, raw, at, m: _free_bits(s, raw, at, m, seal=False)),
    ("unallocated-bit", "a bit over an unallocated block, checksum good",
     lambda s, raw, at, m: _free_bits(s, raw, at, m, seal=True)),
    ("key-hash", "an encrypted disk's batmap, checksum wrong", _key_hash),
    ("both-zeroed", "header and map overwritten with NUL", _put(bytes(2 * SECTOR))),
):  # fmt: skip
    KINDS.add(f"batmap-{_name}", f"batmap: {_text}", _batmap(_change))
KINDS.add("batmap-cleared", "batmap: every bit cleared, checksum good: harmless", _batmap(_cleared))


@KINDS.kind("batmap-partial-bit", "batmap: a bit over a block that is not full, checksum good")
def _partial(s: Sample) -> Damaged | None:
    made = _batmap(_partial_bit)(s)
    return made if made is None else Damaged(bytes(made))


@KINDS.kind("batmap-checksum-no-footer", "batmap: checksum wrong, and the footer gone (killed coalesce)")
def _checksum_no_footer(s: Sample) -> bytearray | None:
    if not s.is_tap:
        return None
    at = s.found.batmap_at or 0
    return s.without_footer(bytes(s.with_bytes((at + 24, b"\0\0\0\0"))))
