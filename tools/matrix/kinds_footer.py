"""Damage to footers and to the tail of the file."""

from __future__ import annotations

import struct

from matrix.damage import Catalogue, Damaged, Make, Sample, changed, flipped, seal_footer
from matrix.reader import SECTOR

KINDS = Catalogue()
MARK = b"\xc7" * SECTOR
HIDDEN, SAVED, UUID, TYPE, SIZE, TIME, GEOMETRY = 85, 84, 68, 60, 48, 24, 56


def _puts(change, *, end: bool = False, start: bool = False) -> Make:
    """Put what `change` makes of a sample (None: not this base) at the end, the start, or both."""

    def make(s: Sample) -> bytearray | None:
        raw = change(s)
        if raw is None:
            return None
        return s.with_bytes(*(((s.size - SECTOR, raw),) if end else ()), *(((0, raw),) if start else ()))

    return make


def _primary(change) -> Make:
    return _puts(change, end=True)


def _backup(change) -> Make:
    return _puts(change, start=True)


def _both(change) -> Make:
    return _puts(change, end=True, start=True)


def _garbage(sample: Sample) -> bytes:
    return sample.rng.randbytes(SECTOR)


def _field(at: int, data: bytes, *, seal: bool = True):
    def change(sample: Sample) -> bytes:
        raw = changed(sample.footer, at, data)
        return seal_footer(raw) if seal else raw

    return change


def smaller(sample: Sample, blocks: int = 2) -> bytes:
    """The footer of the disk before it was resized: `blocks` short of the last block in use."""
    used = max(block for block, _ in sample.found.allocated())
    size = max(1, min(used, sample.found.size // sample.found.block_size - blocks)) * sample.found.block_size
    return resized(sample, size)


def resized(sample: Sample, size: int) -> bytes:
    """The footer with another size and the geometry that belongs to it."""
    raw = changed(sample.footer, SIZE, struct.pack(">Q", size))
    return seal_footer(changed(raw, GEOMETRY, struct.pack(">I", chs(size))))


def _larger(sample: Sample) -> bytes | None:
    blocks = sample.found.bat_entries + 2
    return resized(sample, blocks * sample.found.block_size) if blocks < 1 << 14 else None


def chs(size: int) -> int:
    """Geometry of a small disk (specification, CHS calculation)."""
    sectors = size // SECTOR
    heads = max(-(-(sectors // 17) // 1024), 4)
    if heads <= 16 and sectors // 17 < heads * 1024:
        return (sectors // 17 // heads) << 16 | heads << 8 | 17
    spt = 31 if sectors // 31 < 16 * 1024 else 63
    return (sectors // spt // 16) << 16 | 16 << 8 | spt


def _other_hidden(sample: Sample) -> bytes:
    return seal_footer(flipped(sample.footer, HIDDEN, 1))


def _other_type(sample: Sample) -> bytes:
    return seal_footer(changed(sample.footer, TYPE, struct.pack(">I", 7 - sample.found.kind)))


# --------------------------------------------------------------------------- the footer at the end

for _name, _text, _change in (
    ("zeroed", "overwritten with NUL", lambda s: bytes(SECTOR)),
    ("garbage", "overwritten with guest-like data", _garbage),
    ("mark", "tapdisk's 0xC7 mark left over, in a sector of its own", lambda s: MARK),
    ("cookie", "one bit of its cookie flipped", lambda s: flipped(s.footer, 3)),
    ("checksum", "one bit of its checksum flipped", lambda s: flipped(s.footer, 66)),
    ("size-bit", "one bit of its size flipped, checksum as it was", lambda s: flipped(s.footer, SIZE + 5)),
    ("uuid-bit", "one bit of its UUID flipped, checksum as it was", lambda s: flipped(s.footer, UUID + 2)),
    ("half", "its second half lost (torn write)", lambda s: s.footer[:40] + bytes(SECTOR - 40)),
):
    KINDS.add(f"footer-{_name}", f"footer {_text}", _primary(_change))

KINDS.add("footer-missing", "footer gone, the file ends with the data", lambda s: s.without_footer())
KINDS.add("footer-511", "footer one byte short, as Virtual PC wrote it", lambda s: s.raw[:-1])
KINDS.add("footer-cut-half", "footer cut in half: odd length", lambda s: s.raw[:-256])
KINDS.add("footer-cut-odd", "footer cut to 100 bytes: odd length", lambda s: s.raw[:-412])
KINDS.add("footer-and-slack-missing", "cut back to the end of data", lambda s: s.raw[: s.found.end_of_data])

# --------------------------------------------------------------------------- the backup at 0

for _name, _text, _change in (
    ("zeroed", "overwritten with NUL", lambda s: bytes(SECTOR)),
    ("garbage", "overwritten with random data", _garbage),
    ("cookie", "one bit of its cookie flipped", lambda s: flipped(s.footer, 0)),
    ("checksum", "one bit of its checksum flipped", lambda s: flipped(s.footer, 67)),
    ("size-bit", "one bit of its size flipped, checksum as it was", lambda s: flipped(s.footer, SIZE + 4)),
    ("mbr", "overwritten with an MBR (written to the wrong device)", lambda s: bytes(510) + b"\x55\xaa"),
):
    KINDS.add(f"backup-{_name}", f"backup footer {_text}", _backup(_change))

# --------------------------------------------------------------------------- both sound, they disagree

for _side, _make in (("footer", _primary), ("backup", _backup)):
    KINDS.add(f"both-stale-size-{_side}", f"{_side} of before a resize: too small", _make(smaller))
    KINDS.add(
        f"both-larger-{_side}",
        f"{_side} promises 2 blocks more than the BAT holds",
        _make(_larger),
    )
    KINDS.add(f"both-hidden-{_side}", f"{_side} with the other hidden mark", _make(_other_hidden))
    KINDS.add(f"both-type-{_side}", f"{_side} with the other type (dynamic, differencing)", _make(_other_type))
    KINDS.add(
        f"both-time-{_side}",
        f"{_side} with an older timestamp",
        _make(lambda s: seal_footer(changed(s.footer, TIME, b"\x10\0\0\0"))),
    )
    KINDS.add(
        f"both-uuid-{_side}",
        f"{_side} with another UUID",
        _make(lambda s: seal_footer(changed(s.footer, UUID, bytes(range(16))))),
    )
    KINDS.add(
        f"both-poison-{_side}",
        f"{_side} carries v_poison (interrupted journaled resize)",
        _make(lambda s: seal_footer(changed(s.footer, 0, b"v_poison"))),
    )

KINDS.add("both-poison", "both carry v_poison", _both(lambda s: seal_footer(changed(s.footer, 0, b"v_poison"))))
KINDS.add("both-zeroed", "both footers overwritten with NUL", _both(lambda s: bytes(SECTOR)))
KINDS.add("both-garbage", "both footers overwritten with random data", _both(_garbage))


@KINDS.kind("both-one-bit-each", "one bit flipped in each, in different fields")
def _one_bit_each(s: Sample) -> bytearray:
    return s.with_bytes((s.size - SECTOR, flipped(s.footer, 40)), (0, flipped(s.footer, UUID + 9)))


@KINDS.kind("both-cookie-and-checksum", "footer without its cookie, backup with a wrong checksum")
def _cookie_and_checksum(s: Sample) -> bytearray:
    return s.with_bytes((s.size - SECTOR, bytes(8) + s.footer[8:]), (0, flipped(s.footer, 65)))


@KINDS.kind("both-same-bit", "the same bit of the checksum flipped in both")
def _same_bit(s: Sample) -> bytearray:
    return s.with_bytes((s.size - SECTOR, flipped(s.footer, 65)), (0, flipped(s.footer, 65)))


@KINDS.kind("both-missing-and-zeroed", "footer gone, backup overwritten with NUL")
def _missing_and_zeroed(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_bytes((0, bytes(SECTOR)))))


@KINDS.kind("both-missing-and-bit", "footer gone, one bit of the backup's size flipped")
def _missing_and_bit(s: Sample) -> bytearray:
    return s.without_footer(bytes(s.with_bytes((0, flipped(s.footer, SIZE + 5)))))


KINDS.add("both-stale-size-same", "both of before a resize: too small, and alike", _both(smaller))
for _name, _text, _at, _data in (
    ("null-uuid", "a null UUID", UUID, bytes(16)),
    ("features", "the reserved feature bit clear", 8, bytes(4)),
    ("hidden-7", "hidden = 7", HIDDEN, b"\x07"),
    ("saved", "saved = 2", SAVED, b"\x02"),
    ("version", "another file format version", 12, b"\0\x02\0\0"),
    ("future", "a creation time in the future", TIME, b"\xf0\0\0\0"),
):
    KINDS.add(f"both-{_name}", f"both, with good checksums, say {_text}", _both(_field(_at, _data)))

# --------------------------------------------------------------------------- the tail


def _tail(change) -> Make:
    return lambda s: bytes(s.without_footer()) + change(s)


KINDS.add("tail-one-byte", "one byte after the footer", lambda s: s.raw + b"\0")
KINDS.add("tail-odd-nul", "100 NUL bytes after the footer", lambda s: s.raw + bytes(100))
KINDS.add("tail-odd-ascii", "100 times '0' after the footer", lambda s: s.raw + b"0" * 100)
KINDS.add("tail-sector", "one NUL sector after the footer", lambda s: s.raw + bytes(SECTOR))
KINDS.add("tail-page", "a page of NUL after the footer", lambda s: s.raw + bytes(4096))
KINDS.add("tail-preallocated", "footer, then 2 MiB + 4 KiB of NUL", lambda s: s.raw + bytes((2 << 20) + 4096))
KINDS.add("tail-lost-preallocated", "no footer, 5 MB of NUL at the end", _tail(lambda s: bytes(5_000_192)))
KINDS.add("tail-lost-odd", "no footer, 777 bytes of NUL at the end", _tail(lambda s: bytes(777)))
KINDS.add("tail-lost-ascii", "no footer, 300 times '0' at the end", _tail(lambda s: b"0" * 300))
KINDS.add("tail-lost-garbage", "no footer, 700 random bytes at the end", _tail(lambda s: s.rng.randbytes(700)))
KINDS.add(
    "tail-misaligned", "100 bytes, then the footer: at no sector boundary", _tail(lambda s: bytes(100) + s.footer)
)
KINDS.add("tail-twice", "the footer appended a second time", lambda s: s.raw + s.footer)
KINDS.add("tail-twice-then-lost", "two footers inside, NUL at the end", lambda s: s.raw + s.footer + bytes(1024))
KINDS.add("tail-stale", "the footer of before a resize appended", lambda s: s.raw + smaller(s))
KINDS.add(
    "tail-stale-inside",
    "no footer, the one of before a resize 4 KiB before the end",
    _tail(lambda s: smaller(s) + bytes(3584)),
)
KINDS.add(
    "tail-backup-lost-inside",
    "backup lost, footer inside the tail",
    lambda s: bytes(SECTOR) + s.raw[SECTOR:] + bytes(4096),
)
KINDS.add(
    "tail-seed-once", "the wiki's shell lines, interrupted before `vhd-util repair`",
    lambda s: s.raw[:-256] + b"0" * 256 + s.footer,
)  # fmt: skip


@KINDS.kind("tail-mark-over-block", "the file ends with the last block; 0xC7 over its last sector")
def _mark_over_block(s: Sample) -> Damaged | None:
    at, _ = s.last
    end = at + s.found.space
    return Damaged(s.raw[: end - SECTOR] + MARK)


@KINDS.kind("tail-mark-over-written", "as before, and that sector was written")
def _mark_over_written(s: Sample) -> Damaged | None:
    sectors = s.found.block_size // SECTOR
    at, block = s.last
    if not s.found.full(block) and not s.bits(at)[-1] & 1:
        # The file ends inside the last block, at its last written sector.
        data = at + s.found.bitmap_size
        written = [n for n in range(sectors) if s.bits(at)[n >> 3] & (0x80 >> (n & 7))]
        if not written:
            return None
        return Damaged(s.raw[: data + written[-1] * SECTOR] + MARK)
    return Damaged(s.raw[: at + s.found.space - SECTOR] + MARK)
