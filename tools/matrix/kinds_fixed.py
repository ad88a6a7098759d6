"""Damage to fixed disks: nothing but data, and one footer behind it."""

from __future__ import annotations

import struct

from matrix.damage import Catalogue, Damaged, Sample, changed, flipped, seal_footer
from matrix.kinds_footer import GEOMETRY, MARK, SIZE, TYPE, UUID, chs
from matrix.reader import SECTOR

KINDS = Catalogue()
MIB = 1 << 20


def _ended(s: Sample, raw: bytes) -> bytes:
    """The disk with `raw` for a footer."""
    return s.raw[: s.found.size] + raw


def _sized(s: Sample, size: int, *, geometry: bool = True) -> bytes:
    raw = changed(s.footer, SIZE, struct.pack(">Q", size))
    return seal_footer(changed(raw, GEOMETRY, struct.pack(">I", chs(size))) if geometry else raw)


for _name, _text, _change in (
    ("zeroed", "overwritten with NUL", lambda s: bytes(SECTOR)),
    ("garbage", "overwritten with random data", lambda s: s.rng.randbytes(SECTOR)),
    ("mark", "overwritten with 0xC7", lambda s: MARK),
    ("cookie", "one bit of its cookie flipped", lambda s: flipped(s.footer, 3)),
    ("checksum", "one bit of its checksum flipped", lambda s: flipped(s.footer, 66)),
    ("size-bit", "one bit of its size flipped, checksum as it was", lambda s: flipped(s.footer, SIZE + 5)),
    ("type", "type 0, checksum as it was", lambda s: changed(s.footer, TYPE, bytes(4))),
    ("offset", "data offset 512, checksum as it was", lambda s: changed(s.footer, 16, struct.pack(">Q", 512))),
    ("uuid-bit", "one bit of its UUID flipped, checksum as it was", lambda s: flipped(s.footer, UUID + 2)),
    ("half", "its second half lost (torn write)", lambda s: s.footer[:40] + bytes(SECTOR - 40)),
    ("first-half", "its first 48 bytes lost", lambda s: bytes(48) + s.footer[48:]),
    ("dynamic", "type dynamic, with a good checksum",
     lambda s: seal_footer(changed(s.footer, TYPE, struct.pack(">I", 3)))),
):  # fmt: skip
    KINDS.add(f"fixed-footer-{_name}", f"fixed: footer {_text}", lambda s, change=_change: _ended(s, change(s)))

KINDS.add("fixed-missing", "fixed: footer gone, the file ends with the data", lambda s: s.raw[: s.found.size])
KINDS.add("fixed-511", "fixed: footer one byte short", lambda s: s.raw[:-1])
KINDS.add("fixed-cut-odd", "fixed: footer cut to 100 bytes", lambda s: s.raw[:-412])
KINDS.add("fixed-one-byte", "fixed: one byte after the footer", lambda s: s.raw + b"\0")
KINDS.add("fixed-sector", "fixed: one NUL sector after the footer", lambda s: s.raw + bytes(SECTOR))
KINDS.add("fixed-preallocated", "fixed: footer, then 2 MiB + 4 KiB of NUL", lambda s: s.raw + bytes(2 * MIB + 4096))
KINDS.add("fixed-twice", "fixed: the footer appended a second time", lambda s: s.raw + s.footer)
KINDS.add("fixed-cut", "fixed: cut in its middle", lambda s: s.raw[: s.found.size // 2 // SECTOR * SECTOR])
KINDS.add(
    "fixed-cut-footer",
    "fixed: cut in its middle, the footer put at the new end",
    lambda s: s.raw[: s.found.size // 2 // SECTOR * SECTOR] + s.footer,
)
KINDS.add(
    "fixed-cut-sector",
    "fixed: cut by one sector, the footer put at the new end",
    lambda s: s.raw[: s.found.size - SECTOR] + s.footer,
)
KINDS.add(
    "fixed-cut-odd-footer",
    "fixed: cut at no sector boundary, the footer put at the new end",
    lambda s: s.raw[: s.found.size // 2 + 100] + s.footer,
)
KINDS.add("fixed-cut-all", "fixed: nothing but the footer left", lambda s: s.footer)
KINDS.add(
    "fixed-larger", "fixed: footer of a disk 4 MiB larger", lambda s: _ended(s, _sized(s, s.found.size + 4 * MIB))
)
KINDS.add(
    "fixed-larger-wild",
    "fixed: size 1 TiB with a good checksum, geometry as it was",
    lambda s: _ended(s, _sized(s, 1 << 40, geometry=False)),
)
KINDS.add("fixed-smaller", "fixed: footer of before a resize", lambda s: _ended(s, _sized(s, s.found.size // 2)))


@KINDS.kind("fixed-guest-data", "fixed: 512 bytes of guest data overwritten")
def _guest_data(s: Sample) -> Damaged:
    return Damaged(
        bytes(s.with_bytes((2048, b"\x99" * SECTOR))),
        silent="the bytes of a sector carry no checksum: no reader can see that they were changed",
    )
