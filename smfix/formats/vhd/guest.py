"""Read the guest's sectors that one image holds, as tapdisk does. Pure."""

from __future__ import annotations

from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.values import SECTOR, Extent, Sound


def read_guest(image: VhdImage, extent: Extent) -> dict[int, bytes]:
    """Return offset in the guest's disk -> 512 bytes, for every sector of `extent` that `image` itself holds.

    A set bit of the batmap means the whole block, else the sector bitmap decides. A sector that is not returned is the
    parent's, or NUL. `extent` begins and ends between sectors.
    """
    held: dict[int, bytes] = {}
    if image.header is None:
        raw = image.view.read(Extent(extent.offset, max(0, min(extent.end, image.end_of_data) - extent.offset)))
        return {extent.offset + at: raw[at : at + SECTOR] for at in range(0, len(raw), SECTOR)}
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return held
    size, bat = header.block_size, image.bat.value
    for block in range(extent.offset // size, min(len(bat), -(-extent.end // size))):
        at = bat.offset(block)
        if at is None:
            continue
        raw = image.view.read(Extent(at + header.bitmap_size, size))
        bits = b"\xff" * (size // SECTOR // 8) if image.full(block) else image.bitmap(header, at)
        for index in range(size // SECTOR):
            offset = block * size + index * SECTOR
            if extent.offset <= offset < extent.end and structs.bit(bits, index):
                held[offset] = raw[index * SECTOR : (index + 1) * SECTOR]
    return held
