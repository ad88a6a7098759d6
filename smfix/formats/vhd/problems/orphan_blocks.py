"""Blocks that no BAT entry names, and the places in the file in which they could be. Pure.

Theory. A block leaves a shape: a sector bitmap, then its data on a page boundary, in which every sector
that the bitmap calls unwritten is NUL. A run of bytes between blocks (or after the last) that has this shape
was written as a block. If a BAT entry is lost or wrong, the block is usually still there, and shape, size
and batmap together often leave one answer.

Source: ``allocate_block`` (libvhd.c), ``allocate_block``/``aio_write`` (tapdisk block-vhd.c), qemu vpc.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import MARK, VhdImage
from smfix.formats.vhd.structs import FOOTER_COOKIE, FOOTER_SIZE, PAGE, Header
from smfix.values import SECTOR, Extent, Sound

SEEN = 64
"""Orphans that are looked for at most."""
SPOTS = 4096
"""Places that are looked at for them at most: 8 GiB of unnamed bytes."""
WEIGHED = 1 << 28
"""Unnamed bytes that are searched for anything but NUL at most."""
RUNS = 16
"""Runs of clear bits of one block that are looked into at most."""
_CHUNK = 1 << 18
_NUL = bytes(_CHUNK)


@dataclass(frozen=True, slots=True)
class Orphan:
    """Block-shaped bytes without a BAT entry; `full`: its bitmap marks every sector as written."""

    offset: int
    full: bool


def block_limit(image: VhdImage) -> int:
    """The offset at which blocks must end: the footer's if there is one, else the end of the view."""
    if not image.view.growable:
        return image.size - FOOTER_SIZE
    return image.end.where.offset // SECTOR * SECTOR if isinstance(image.end, Sound) else image.size


def block_shaped(image: VhdImage, header: Header, at: int, limit: int | None = None) -> bool:
    """A block could start at `at`: its bitmap marks something, and what it leaves out is NUL as far as `limit`."""
    bits = image.bitmap(header, at)
    if len(bits) < header.block_size // SECTOR // 8 or not any(bits) or bits[:8] == FOOTER_COOKIE:
        return False
    if bits.count(0xFF) == len(bits):
        return True
    return clear_is_nul(image, header, at, limit)


def written_sector(image: VhdImage, at: int) -> tuple[int, int] | None:
    """(block, offset in the guest disk) of the written guest sector that begins at byte `at`; None: there is none."""
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return None
    for start, block in image.bat.value.covering(Extent(at, SECTOR), header.block_space):
        data = start + header.bitmap_size
        if at < data:
            continue
        index = (at - data) // SECTOR
        guest = block * header.block_size + index * SECTOR
        written = image.full(block) or structs.bit(image.bitmap(header, start), index)
        if written and (image.footer is None or guest < image.footer.current_size):
            return block, guest
    return None


def clear_is_nul(image: VhdImage, header: Header, at: int, limit: int | None = None) -> bool:
    """The sectors that the bitmap at `at` calls unwritten are NUL up to the end (or `limit`), as writers leave them."""
    bits = image.bitmap(header, at)
    if any(image.view.read(Extent(at + len(bits), header.bitmap_size - len(bits)))):
        return False
    data = at + header.bitmap_size
    for low, high in clear_runs(bits, header.block_size // SECTOR):
        stop = min(data + high * SECTOR, block_limit(image) if limit is None else limit)
        for start in range(data + low * SECTOR, stop, _CHUNK):
            raw = image.view.read(Extent(start, min(_CHUNK, stop - start)))
            if raw != _NUL[: len(raw)]:  # any(raw) takes a hundred times as long
                return False
    return True


def holds_unmarked(image: VhdImage, header: Header, at: int, bits: bytes) -> bool:
    """The sectors that the bitmap `bits` of the block at `at` calls unwritten hold data of a guest.

    Of an empty bitmap all is looked at; of another one the beginnings of :data:`RUNS` runs. tapdisk's mark, a footer
    and padding are left from a former end of the file: they are no guest's.
    """
    runs = clear_runs(bits, header.block_size // SECTOR)
    whole = not any(bits)
    for low, high in runs[:: max(1, len(runs) // RUNS)]:
        first = at + header.bitmap_size + low * SECTOR
        stop = min(first + (high - low if whole else min(high - low, 8)) * SECTOR, block_limit(image))
        for start in range(first, stop, _CHUNK):
            raw = image.view.read(Extent(start, min(_CHUNK, stop - start)))
            if raw != _NUL[: len(raw)] and any(map(_of_guest, _sectors(raw))):
                return True
    return False


def _sectors(raw: bytes) -> Iterator[bytes]:
    return (raw[at : at + SECTOR] for at in range(0, len(raw), SECTOR))


def _of_guest(raw: bytes) -> bool:
    return raw.strip(b"\0") != b"" and raw != MARK and raw.strip(b"0") != b"" and raw[:8] != FOOTER_COOKIE


def is_padding(image: VhdImage, at: int) -> bool:
    """The file is NUL from byte `at` on, or the wiki's ASCII `0`. More than :data:`WEIGHED` bytes are not."""
    if image.size - at > WEIGHED:
        return False
    raws = (image.view.read(Extent(start, _CHUNK)) for start in range(at, image.size, _CHUNK))
    return all(raw == _NUL[: len(raw)] or not raw.strip(b"0\0") for raw in raws)


def clear_runs(bits: bytes, sectors: int) -> list[tuple[int, int]]:
    """[start, end) of the runs of clear bits among the first `sectors`."""
    text = format(int.from_bytes(bits, "big"), f"0{len(bits) * 8}b")[:sectors]
    runs: list[tuple[int, int]] = []
    low = text.find("0")
    while low >= 0:
        high = text.find("1", low)
        high = sectors if high < 0 else high
        runs.append((low, high))
        low = text.find("0", high)
    return runs


def stray_bits(image: VhdImage) -> list[int]:
    """Blocks of the disk that a sound batmap calls full and the BAT does not place."""
    if not isinstance(image.batmap, Sound) or not isinstance(image.bat, Sound):
        return []
    bat, bits = image.bat.value, image.batmap.value.bits
    if bat.allocated == len(bat):
        return []
    return [
        block
        for index, byte in enumerate(bits[: -(-len(bat) // 8)])
        if byte
        for block in range(index * 8, min(index * 8 + 8, len(bat)))
        if structs.bit(bits, block) and bat.offset(block) is None
    ]


def orphans(image: VhdImage, without: frozenset[int] = frozenset()) -> list[Orphan]:
    """Block-shaped runs of bytes that no BAT entry names, by place; at most :data:`SEEN`.

    Entries over the headers, and those of the blocks `without`, name nothing. Behind the highest block of a
    device only the next block's place is looked at: bytes further on are left from other volumes.
    """
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound) or header.block_size < PAGE:
        return []
    bat, space, end = image.bat.value, header.block_space, _horizon(image, header, image.bat.value)
    found: list[Orphan] = []
    left = SPOTS
    for gap in bat.gaps(space, image.end_of_headers, end, without=without):
        at = gap.offset
        while at + space <= gap.end and len(found) < SEEN and left > 0:
            left -= 1
            aligned = header.next_block(at)
            spots = [spot for spot in dict.fromkeys((aligned, at)) if spot + space <= gap.end]
            spot = next((spot for spot in spots if block_shaped(image, header, spot)), None)
            if spot is not None:
                bits = image.bitmap(header, spot)
                found.append(Orphan(spot, bits.count(0xFF) == len(bits)))
            at = (aligned if spot is None else spot) + space
    return found


def remnant(image: VhdImage, places: list[Orphan]) -> Orphan | None:
    """The beginning of a block after the last one (of the BAT and of `places`), cut off by the end of the file.

    The sectors that its bitmap leaves out are NUL; of those that it marks one is not NUL, or all are gone.
    """
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound) or not image.view.growable or header.block_size < PAGE:
        return None
    space, end = header.block_space, min([block_limit(image), *(footer.where.offset for footer in image.tail)])
    if image.view.read(Extent(end - 1, 1)) == b"0" or image.view.read(Extent(end - SECTOR, SECTOR)) == MARK:
        end -= SECTOR  # the wiki's padding, over the rest of a sector; or tapdisk's mark, at a former end of the file
    ends = (place.offset + space for place in places)
    at = max(image.end_of_headers, image.bat.value.highest_end(space, below=image.size), *ends)
    for spot in dict.fromkeys((header.next_block(at), at)):
        data = spot + header.bitmap_size
        if data + SECTOR > end or spot + space <= end or not block_shaped(image, header, spot, end):
            continue
        bits = image.bitmap(header, spot)
        marked = (n for n in range((end - data) // SECTOR) if structs.bit(bits, n))
        there = [_of_guest(image.view.read(Extent(data + n * SECTOR, SECTOR))) for n in islice(marked, RUNS)]
        if any(there) or not there:
            return Orphan(spot, bits.count(0xFF) == len(bits))
    return None


def _horizon(image: VhdImage, header: Header, bat: Bat) -> int:
    """How far unnamed bytes may be this image's own."""
    if image.view.growable:
        return block_limit(image)
    highest = max(image.end_of_headers, bat.highest_end(header.block_space, below=image.size))
    return min(block_limit(image), highest + header.block_space + PAGE)


def unclear(image: VhdImage, places: list[Orphan], without: frozenset[int] = frozenset()) -> bool:
    """There is :func:`unnamed` room, not NUL, or more of it than is searched."""
    return unnamed(image, places, without) is not None


def unnamed(
    image: VhdImage, places: list[Orphan], without: frozenset[int] = frozenset(), most: int = WEIGHED
) -> tuple[int, bool] | None:
    """Room for a block beside the unnamed orphans `places`: (offset at which it is not NUL, whether it was seen so).

    Of it `most` bytes are read.

    A block whose bitmap was overwritten may be there, so `places` need not be all there are. Bytes after
    the highest block of a device do not count, nor do footers in the tail.
    """
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return None
    bat, space, end = image.bat.value, header.block_space, _horizon(image, header, image.bat.value)
    if not image.view.growable:
        end -= space + PAGE
    taken = [Extent(place.offset, space) for place in places] + [footer.where for footer in image.tail]
    left = most
    for gap in bat.gaps(space, image.end_of_headers, end, without=without):
        edges = sorted(extent for extent in taken if extent.overlaps(gap))
        for low, high in pairwise((Extent(gap.offset, 0), *edges, Extent(gap.end, 0))):
            if high.offset - low.end < space:
                continue
            for at in range(low.end, high.offset, _CHUNK):
                raw = image.view.read(Extent(at, min(_CHUNK, high.offset - at)))
                left -= len(raw)
                if left < 0 or raw.count(0) != len(raw):
                    return at, left >= 0
    return None


def forced(image: VhdImage, blocks: list[int], places: list[Orphan]) -> dict[int, int]:
    """Block -> offset if the evidence leaves one place for every one of `blocks`; else empty.

    A block that a sound batmap calls full can only be one whose bitmap is all ones. One assignment is
    forced when step by step some block has a single place left.
    """
    if len(places) != len(blocks):
        return {}
    left = {block: [p for p in places if p.full or not image.full(block)] for block in blocks}
    answer: dict[int, int] = {}
    while left:
        block = next((b for b, spots in left.items() if len(spots) == 1), None)
        if block is None:
            return {}
        spot = left.pop(block)[0]
        answer[block] = spot.offset
        left = {b: [p for p in spots if p != spot] for b, spots in left.items()}
    return answer
