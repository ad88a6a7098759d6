"""The sectors of a guest that one image holds: as the guest wrote them, and no others."""

from __future__ import annotations

from images import MIB, UUID, base, put, seen
from smfix.formats.base import NewImage
from smfix.formats.vhd import build
from smfix.formats.vhd.format import VHD
from smfix.values import SECTOR, Extent

BLOCK = 2 * MIB


def sector(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SECTOR // 4)


def test_a_sparse_disk_gives_back_what_was_written_and_nothing_else():
    written = {number: sector(number) for number in (4096 * 2 + 7, 0, 5, 4095, *range(4096 * 3, 4096 * 4))}
    raw = VHD.build(NewImage(8 * MIB, UUID, written))
    image = seen(raw)
    assert VHD.read_guest(image, Extent(0, 8 * MIB)) == {number * SECTOR: data for number, data in written.items()}
    assert image.full(3)
    assert VHD.read_guest(image, Extent(5 * SECTOR, SECTOR)) == {5 * SECTOR: sector(5)}
    assert VHD.read_guest(image, Extent(BLOCK, BLOCK)) == {}
    assert VHD.read_guest(image, Extent(1 << 40, BLOCK)) == {}


def test_a_fixed_disk_holds_every_sector():
    image = seen(build.fixed(2 * SECTOR, UUID, sector(1)).to_bytes())
    assert VHD.read_guest(image, Extent(0, MIB)) == {0: sector(1), SECTOR: bytes(SECTOR)}


def test_without_header_or_bat_nothing_is_read():
    assert VHD.read_guest(seen(put(base(), 512, b"x" * 1024)), Extent(0, BLOCK)) == {}
