"""The pieces of a VHD file: each structure, the runs of its blocks, the gaps between them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smfix.formats.diagram import Diagram, Part, Piece
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import MARK, Batmap, VhdImage
from smfix.formats.vhd.structs import FOOTER_SIZE, PAGE, Footer, Header
from smfix.values import Damaged, Extent, Sound

RUNS = 4096
"""Runs of blocks that are separate pieces; all further blocks are one piece."""
_NAMED = 8
"""Block numbers that are named one by one."""


def diagram(image: VhdImage) -> Diagram:
    """Make the picture of `image`. Reads nothing: the image's view may be closed."""
    claimed = sorted((piece for piece in _claimed(image) if piece.where.length), key=lambda piece: piece.where)
    is_sound = isinstance(image.end, Sound)
    pieces = tuple(_with_gaps(claimed, image))
    return Diagram(image.size, image.end_of_headers, image.end_of_data, None if is_sound else image.footer_home, pieces)


def _claimed(image: VhdImage) -> Iterator[Piece]:
    if _ends_in_data(image):
        home = Extent(image.footer_home, FOOTER_SIZE)
        yield Piece(Part.DAMAGED, home, "no footer: the file ends before its place")
    else:
        yield _structure(Part.FOOTER, "footer", image.end)
    if image.header is None:
        data = Extent(0, max(0, image.size - FOOTER_SIZE))
        yield Piece(Part.DATA, data, "the guest's disk as it is: a fixed image has no blocks")
        return
    yield _structure(Part.BACKUP, "backup footer", image.backup)
    yield _structure(Part.HEADER, "header", image.header)
    yield from (Piece(Part.STRAY, stray.where, "a sound footer, not at the end of the file") for stray in image.tail)
    if isinstance(image.bat, Sound):
        count = len(image.bat.value)
        words = f"BAT: {count:,} {'entry' if count == 1 else 'entries'}, {image.bat.value.allocated:,} in use"
        yield Piece(Part.BAT, image.bat.where, words)
    elif image.bat is not None:
        yield _structure(Part.BAT, "BAT", image.bat)
    if image.batmap is not None:
        yield from _batmap(image.batmap)
    for locator in image.locators:
        words = f"parent locator {locator.index}: {locator.path or 'not readable'}"
        yield Piece(Part.LOCATOR, locator.entry.extent, words)
    yield from _runs(image)


def _ends_in_data(image: VhdImage) -> bool:
    """Return True if the place of the footer is inside a block's data, so that no part of a footer is there."""
    if isinstance(image.end, Sound) or not image.view.growable or image.end.raw == MARK:
        return False
    return isinstance(image.bat, Sound) and image.end.where.offset < image.end_of_data


def _structure(
    part: Part, name: str, found: Sound[Footer] | Sound[Header] | Sound[Bat] | Sound[Batmap] | Damaged
) -> Piece:
    if isinstance(found, Sound):
        return Piece(part, found.where, name)
    words = "; ".join(found.reasons)
    return Piece(
        Part.DAMAGED, found.where, f"no {name}: {words}" if part is Part.FOOTER else f"{name}, damaged: {words}"
    )


def _batmap(batmap: Sound[Batmap] | Damaged) -> Iterator[Piece]:
    if isinstance(batmap, Damaged):
        yield _structure(Part.BATMAP, "batmap", batmap)
        return
    yield Piece(Part.BATMAP, batmap.where, "batmap's header")
    yield Piece(Part.BATMAP, batmap.value.header.map_extent, "batmap")


@dataclass(slots=True)
class _Run:
    """Consecutive blocks of the file."""

    start: int
    end: int
    count: int
    named: list[int]
    is_ordered: bool = True
    is_double: bool = False

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield pieces, some of them empty: the part inside the file of `size` bytes, and the part after its end."""
        if self.count == 1:
            words = f"block {self.named[0]}"
        elif self.is_ordered:
            words = f"blocks {self.named[0]} to {self.named[0] + self.count - 1}"
        else:
            more = f" and {self.count - len(self.named):,} more" if self.count > len(self.named) else ""
            words = f"{self.count:,} blocks, not in order: {', '.join(map(str, self.named))}{more}"
        inside = max(self.start, min(self.end, size))
        if self.is_double:
            yield Piece(Part.MISSING, _between(self.start, inside), f"{words}, sharing bytes with another block")
        else:
            yield Piece(Part.BLOCKS, _between(self.start, inside), words)
        yield Piece(Part.MISSING, _between(inside, self.end), f"{words}: what is not in the file")


def _runs(image: VhdImage) -> Iterator[Piece]:
    """Yield the blocks by offset, consecutive ones as one piece."""
    header = image.geometry
    if header is None:
        return
    space, size = header.block_space, image.size
    run: _Run | None = None
    runs = last = 0
    for offset, block in image.blocks():
        is_double = run is not None and offset < run.end
        # A run ends at the end of the file, so that the missing part is a separate piece.
        joins = run is not None and run.is_double == is_double and offset + space <= size and offset - run.end < PAGE
        if run is not None and (joins or runs >= RUNS):
            run.is_ordered &= block == last + 1
            run.end, run.count = max(run.end, offset + space), run.count + 1
            run.named += [block] * (len(run.named) < _NAMED)
        else:
            if run is not None:
                yield from run.pieces(size)
                runs += 1
            run = _Run(offset, offset + space, 1, [block], is_double=is_double)
        last = block
    if run is not None:
        yield from run.pieces(size)


def _with_gaps(claimed: Sequence[Piece], image: VhdImage) -> Iterator[Piece]:
    """Yield the pieces, and the unclaimed bytes between them."""
    at = 0
    is_known = image.header is None or isinstance(image.bat, Sound)
    for piece in claimed:
        if piece.where.offset > at:
            free = Extent(at, min(piece.where.offset, max(at, image.size)) - at)
            if free.length:
                yield _unclaimed(free, image, is_known=is_known)
        yield piece
        at = max(at, piece.where.end)


def _between(start: int, end: int) -> Extent:
    return Extent(start, end - start)


def _unclaimed(free: Extent, image: VhdImage, *, is_known: bool) -> Piece:
    if not is_known and free.end > image.end_of_headers:
        return Piece(Part.UNKNOWN, free, "not known: the structures that locate the blocks are damaged")
    if free.offset >= image.end_of_data:
        return Piece(Part.TAIL, free, "after the end of data")
    return Piece(Part.GAP, free, "padding" if free.length < PAGE else "gap: nothing claims it")
