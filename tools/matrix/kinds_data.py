"""Damage to bitmaps, files cut short, and what crashes leave behind."""

from __future__ import annotations

from matrix.damage import Catalogue, Damaged, Sample, changed, flipped
from matrix.kinds_footer import MARK
from matrix.reader import SECTOR, runs
from matrix.writer import seal_batmap

KINDS = Catalogue()
NO_SUM = "a sector bitmap has no checksum, and data under clear bits is also what a crash leaves: never acknowledged"
GONE = "the bytes of a sector carry no checksum: no reader can see that they were changed"


def _partial(s: Sample) -> tuple[int, int] | None:
    """(offset, block) of the highest block whose bitmap is not full."""
    return next(((at, b) for at, b in reversed(s.by_place()) if s.bits(at).count(0xFF) != len(s.bits(at))), None)


# --------------------------------------------------------------------------- bitmaps


@KINDS.kind("bitmap-full-zeroed", "the bitmap of a block that the batmap calls full overwritten with NUL")
def _full_zeroed(s: Sample) -> bytearray | None:
    spot = next((at for at, b in s.by_place() if s.found.full(b)), None)
    return None if spot is None else s.with_bytes((spot, bytes(s.found.bitmap_size)))


@KINDS.kind("bitmap-partial-zeroed", "the bitmap of a partly written block overwritten with NUL")
def _partial_zeroed(s: Sample) -> Damaged | None:
    spot = _partial(s)
    return None if spot is None else Damaged(bytes(s.with_bytes((spot[0], bytes(s.found.bitmap_size)))), silent=NO_SUM)


@KINDS.kind("bitmap-garbage", "the bitmap of a partly written block overwritten with random data")
def _garbage(s: Sample) -> Damaged | None:
    spot = _partial(s)
    if spot is None:
        return None
    return Damaged(bytes(s.with_bytes((spot[0], s.rng.randbytes(s.found.bitmap_size)))), silent=NO_SUM)


@KINDS.kind("bitmap-ones", "the bitmap of a partly written block overwritten with ones")
def _ones(s: Sample) -> Damaged | None:
    spot = _partial(s)
    if spot is None:
        return None
    raw = s.with_bytes((spot[0], b"\xff" * s.found.bitmap_size))
    return Damaged(bytes(raw), silent="a block may be written whole with NUL; only a parent's data would differ")


# --------------------------------------------------------------------------- cut short


def _written_end(s: Sample, at: int, block: int) -> int:
    """End of the last sector that the highest block's readers read."""
    bits = b"\xff" * 512 if s.found.full(block) else s.bits(at)
    sectors = min(s.found.block_size, s.found.size - block * s.found.block_size) // SECTOR
    return at + s.found.bitmap_size + max((high for _, high in runs(bits, sectors)), default=1) * SECTOR


@KINDS.kind("cut-behind-data", "cut inside the last block, after its last written sector")
def _behind_data(s: Sample) -> bytes | None:
    at, block = s.last
    end = _written_end(s, at, block)
    return s.raw[:end] if end < at + s.found.space else None


@KINDS.kind("cut-behind-data-odd", "as before, 100 bytes further")
def _behind_data_odd(s: Sample) -> bytes | None:
    at, block = s.last
    end = _written_end(s, at, block) + 100
    return s.raw[:end] if end < at + s.found.space else None


@KINDS.kind("cut-one-sector", "cut before the last written sector of the last block")
def _one_sector(s: Sample) -> bytes:
    return s.raw[: _written_end(s, *s.last) - SECTOR]


@KINDS.kind("cut-mid-block", "cut in the middle of the last block's data")
def _mid_block(s: Sample) -> bytes:
    return s.raw[: s.last[0] + s.found.space // 2 // SECTOR * SECTOR]


@KINDS.kind("cut-mid-block-odd", "cut in the middle of the last block, at no sector boundary")
def _mid_block_odd(s: Sample) -> bytes:
    return s.raw[: s.last[0] + s.found.space // 3 + 77]


@KINDS.kind("cut-behind-bitmap", "cut right after the last block's bitmap")
def _behind_bitmap(s: Sample) -> bytes:
    return s.raw[: s.last[0] + s.found.bitmap_size]


@KINDS.kind("cut-in-bitmap", "cut inside the last block's bitmap")
def _in_bitmap(s: Sample) -> bytes:
    return s.raw[: s.last[0] + 100]


@KINDS.kind("cut-before-block", "cut where the last block begins")
def _before_block(s: Sample) -> bytes:
    return s.raw[: s.last[0]]


@KINDS.kind("cut-two-blocks", "cut inside the last block but one")
def _two_blocks(s: Sample) -> bytes:
    return s.raw[: s.by_place()[-2][0] + s.found.space // 2 // SECTOR * SECTOR]


@KINDS.kind("cut-all-blocks", "cut after the headers")
def _all_blocks(s: Sample) -> bytes:
    return s.raw[: s.found.end_of_headers]


@KINDS.kind("cut-in-bat", "cut inside the BAT")
def _in_bat(s: Sample) -> bytes:
    return s.raw[: s.found.table_at + 20]


@KINDS.kind("cut-then-footer", "cut mid-block, then a footer appended: it is inside the block")
def _then_footer(s: Sample) -> bytes:
    return bytes(_mid_block(s)) + s.footer


@KINDS.kind("cut-then-seed", "cut mid-block at an odd place, padded with '0', footer appended")
def _then_seed(s: Sample) -> bytes:
    raw = bytes(_mid_block_odd(s))
    return raw + b"0" * (-len(raw) % SECTOR) + s.footer


@KINDS.kind("cut-mark", "cut mid-block, 0xC7 over the last sector left")
def _cut_mark(s: Sample) -> bytes:
    return bytes(_mid_block(s))[:-SECTOR] + MARK


# --------------------------------------------------------------------------- crashes


@KINDS.kind("crash-orphan", "a block written, its BAT entry not, no footer (tapdisk died)")
def _orphan(s: Sample) -> Damaged | None:
    block = s.free_block()
    if block is None:
        return None
    raw, at = s.with_block(block, ((0, 300), (1000, 4000)), entry=False)
    return Damaged(bytes(raw), orphans=((at, s.found.space),))


@KINDS.kind("crash-orphan-footer", "a block written, its BAT entry not, footer after it")
def _orphan_footer(s: Sample) -> Damaged | None:
    block = s.free_block()
    if block is None:
        return None
    raw, at = s.with_block(block, ((5, 3000),), entry=False)
    return Damaged(bytes(raw) + s.footer, orphans=((at, s.found.space),))


@KINDS.kind("crash-orphan-empty", "a block zeroed, its BAT entry not written, no footer")
def _orphan_empty(s: Sample) -> bytes | None:
    block = s.free_block()
    if block is None:
        return None
    raw, _ = s.with_block(block, (), entry=False)
    return bytes(raw)


@KINDS.kind("crash-entry-only", "BAT entry written, block not (killed coalesce)")
def _entry_only(s: Sample) -> bytes | None:
    block = s.free_block()
    if block is None:
        return None
    raw, at = s.with_block(block, (), entry=True)
    return bytes(raw[: min(at, s.found.end_of_data)]) + s.footer


@KINDS.kind("crash-entry-only-no-footer", "BAT entry written, block not, footer overwritten")
def _entry_only_no_footer(s: Sample) -> bytes | None:
    block = s.free_block()
    if block is None:
        return None
    raw, _ = s.with_block(block, (), entry=True)
    return bytes(raw[: s.found.end_of_data])


@KINDS.kind("crash-entry-and-bitmap", "BAT entry and an empty bitmap written, no data, no footer")
def _entry_and_bitmap(s: Sample) -> bytes | None:
    block = s.free_block()
    if block is None:
        return None
    raw, at = s.with_block(block, (), entry=True)
    return bytes(raw[: at + s.found.bitmap_size])


@KINDS.kind("crash-data-no-bits", "BAT entry, data, empty bitmap (killed between data and bitmap), no footer")
def _data_no_bits(s: Sample) -> bytes | None:
    block = s.free_block()
    if block is None:
        return None
    raw, at = s.with_block(block, ((100, 600),), entry=True)
    raw[at : at + s.found.bitmap_size] = bytes(s.found.bitmap_size)
    return bytes(raw)


@KINDS.kind("crash-block-no-footer", "a new block whole, its entry written, no footer: nothing is lost")
def _block_no_footer(s: Sample) -> Damaged | None:
    block = s.free_block()
    if block is None:
        return None
    raw, _ = s.with_block(block, (), entry=True)
    return Damaged(bytes(raw))


@KINDS.kind("crash-orphan-batmap", "block and batmap bit written, BAT entry lost, no footer")
def _orphan_batmap(s: Sample) -> Damaged | None:
    block = s.free_block()
    if block is None or not s.is_tap:
        return None
    raw, at = s.with_block(block, ((0, 4096),), entry=False)
    raw[s.found.batmap_map_at + (block >> 3)] |= 0x80 >> (block & 7)
    seal_batmap(raw, s.found)
    data = at + s.found.bitmap_size
    gained = ((block * s.found.block_size, data, bytes(raw[data : data + s.found.block_size])),)
    return Damaged(bytes(raw), orphans=((at, s.found.space),), gained=gained)


@KINDS.kind("crash-everything", "footer gone, batmap checksum wrong, one BAT entry 0")
def _everything(s: Sample) -> bytearray:
    raw = s.with_entries({s.by_place()[0][1]: 0})
    if s.is_tap:
        raw[(s.found.batmap_at or 0) + 27] ^= 1
    return s.without_footer(bytes(raw))


@KINDS.kind("crash-footer-and-header", "footer gone, one bit of the header's cookie flipped")
def _footer_and_header(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_bytes((s.found.header_at, flipped(s.header, 2)))))


@KINDS.kind("crash-footer-and-hidden", "footer gone, backup with a changed byte and its old checksum")
def _footer_and_hidden(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_bytes((0, changed(s.footer, 85, b"\x01" if s.footer[85] == 0 else b"\0")))))


@KINDS.kind("crash-guest-data", "4 KiB of guest data overwritten")
def _guest_data(s: Sample) -> Damaged | None:
    at = s.by_place()[0][0] + s.found.bitmap_size
    low = next((low for low, _ in runs(s.bits(s.by_place()[0][0]), 4096)), None)
    if low is None:
        return None
    return Damaged(bytes(s.with_bytes((at + low * SECTOR, b"\x99" * SECTOR))), silent=GONE)
