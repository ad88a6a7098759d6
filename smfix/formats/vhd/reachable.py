"""Find the bytes of the file that a guest can read after a repair and could not before. Pure.

Theory. An edit of a footer or a checksum leaves the map from guest sector to place in the file as it was: what a
guest writes afterwards survives an undo. An edit of the BAT, a bitmap, the batmap or the header can give the guest a
place that it did not have. Data that it writes there afterwards is gone when the edit is undone, although not one
edited byte has changed. So an undo needs to know these places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from smfix.formats.base import MOST_PLACES
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.structs import Header
from smfix.values import SECTOR, Edit, Extent, Placed, Resize


def reachable(before: VhdImage, after: VhdImage, edits: Sequence[Edit]) -> tuple[Placed, ...]:
    """The places that `edits` of `before` give the guest in `after`, by place in the file, none beyond its end.

    At most :data:`~smfix.formats.base.MOST_PLACES` and one more. On a device the BAT is among them if an edit is in
    the room for blocks: an undo would overwrite a block that is placed there later, which only the BAT shows.
    """
    found = chain(_fixed(before, after), _room(after, edits), _blocks(before, after, edits))
    size = after.size
    return tuple(
        Placed(Extent(one.place.offset, min(one.place.end, size) - one.place.offset), one.guest)
        for one in sorted(islice(found, MOST_PLACES + 1))
        if one.place.offset < size
    )


def _fixed(before: VhdImage, after: VhdImage) -> Iterator[Placed]:
    """Of a fixed disk: what it has more than before."""
    if after.footer is None or after.footer.is_sparse:
        return
    start = 0 if before.footer is None or before.footer.is_sparse else before.footer.current_size
    if start < after.footer.current_size:
        run = Extent(start, after.footer.current_size - start)
        yield Placed(run, run)


def _blocks(before: VhdImage, after: VhdImage, edits: Sequence[Edit]) -> Iterator[Placed]:
    """Of a sparse disk: blocks that are placed or moved, and sectors that become readable in those that stay."""
    old, new = before.layout, after.layout
    if new is None:
        return
    header, bat = new
    if old is None or old[0].block_size != header.block_size:
        for at, block in bat.placements():
            yield _whole(header, at, block)
        return
    placed = set()
    for block in old[1].differing(bat):
        place = bat.offset(block)
        if place is not None:
            placed.add(block)
            yield _whole(header, place, block)
    for at, block in _reread(before, after, header, bat, edits):
        if block not in placed:
            yield from _sectors(before, after, header, at, block)


def _whole(header: Header, at: int, block: int) -> Placed:
    return Placed(Extent(at, header.block_space), Extent(block * header.block_size, header.block_size))


def _reread(
    before: VhdImage, after: VhdImage, header: Header, bat: Bat, edits: Sequence[Edit]
) -> Iterator[tuple[int, int]]:
    """(offset, block) of blocks whose bitmap is edited, or that the batmap now calls full."""
    edited = {
        spot for edit in edits if not isinstance(edit, Resize) for spot in bat.covering(edit.extent, header.bitmap_size)
    }
    yield from edited
    if before.batmap != after.batmap:
        yield from (
            (at, block)
            for at, block in bat.placements()
            if after.full(block) and not before.full(block) and (at, block) not in edited
        )


def _sectors(before: VhdImage, after: VhdImage, header: Header, at: int, block: int) -> Iterator[Placed]:
    """The runs of sectors of a block that can be read after, and not before."""
    count = header.block_size // SECTOR
    was, now = (_readable(image, header, at, block, count) for image in (before, after))
    fresh = f"{now & ~was:0{count}b}"
    start = fresh.find("1")
    while start >= 0:
        end = fresh.find("0", start)
        end = count if end < 0 else end
        run = Extent(start * SECTOR, (end - start) * SECTOR)
        yield Placed(
            Extent(at + header.bitmap_size + run.offset, run.length),
            Extent(block * header.block_size + run.offset, run.length),
        )
        start = fresh.find("1", end)


def _readable(image: VhdImage, header: Header, at: int, block: int, count: int) -> int:
    """The sectors of the block that are read from it: one bit each, the first one the highest."""
    if image.full(block):
        return (1 << count) - 1
    length = -(-count // 8)
    bits = image.bitmap(header, at)[:length].ljust(length, b"\0")
    return int.from_bytes(bits, "big") >> (length * 8 - count)


def _room(after: VhdImage, edits: Sequence[Edit]) -> Iterator[Placed]:
    """Yield the BAT, if an edit of a device is in free room for blocks."""
    layout = after.layout
    if after.view.growable or layout is None:
        return
    header, bat = layout
    room = Extent(after.end_of_headers, after.footer_home - after.end_of_headers)
    written = [edit.extent for edit in edits if not isinstance(edit, Resize)]
    if any(spot.overlaps(room) and not bat.covering(spot, header.block_space) for spot in written):
        yield Placed(header.bat_extent, Extent(0, 0))
