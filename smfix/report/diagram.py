"""Draw the file: its structures and their places, the gaps, and the footer's present and right place. Pure.

Theory. An image is a row of pieces: structures, runs of blocks, and unclaimed bytes. :func:`diagram` makes
that row from an inspected image, :func:`strip` puts it on a scale of cells; the terminal and the page (SVG)
draw the same cells. The structures are a millionth of the file, so the scale is not one scale: the front is
drawn larger, the blocks and what follows them are drawn to scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import attrgetter

from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import MARK, Batmap, VhdImage
from smfix.formats.vhd.structs import FOOTER_SIZE, Footer, Header
from smfix.report.escape import printable
from smfix.report.layout import WIDTH, counted, folded
from smfix.values import Damaged, Extent, Sound

RUNS = 4096
"""Runs of blocks that are separate pieces; all further blocks are one piece."""
ROWS = 48
"""Pieces that the terminal lists one by one."""
PAGE = 4096
"""Writers align a block's data to a page, so a smaller gap between two pieces is padding."""
_NAMED = 8
"""Block numbers that are named one by one."""


class Part(Enum):
    """The kind of a piece. The value is the letter that the terminal draws."""

    BACKUP = "C"
    HEADER = "H"
    BAT = "T"
    BATMAP = "M"
    LOCATOR = "P"
    BLOCKS = "#"
    DATA = "="
    GAP = "."
    TAIL = "~"
    UNKNOWN = "?"
    STRAY = "f"
    FOOTER = "F"
    DAMAGED = "x"
    MISSING = "!"


LEGEND = {
    Part.BACKUP: "backup footer (the copy at the beginning)",
    Part.HEADER: "header",
    Part.BAT: "BAT, the block allocation table",
    Part.BATMAP: "batmap",
    Part.LOCATOR: "parent locator",
    Part.BLOCKS: "blocks",
    Part.DATA: "data of a fixed disk",
    Part.GAP: "gap",
    Part.TAIL: "tail: after the data",
    Part.UNKNOWN: "not known",
    Part.STRAY: "footer out of place",
    Part.FOOTER: "footer",
    Part.DAMAGED: "damaged, or no footer where one belongs",
    Part.MISSING: "belongs to a block, but is not in the file, or claimed twice",
}
_FRONT = (Part.BACKUP, Part.HEADER, Part.BAT, Part.BATMAP, Part.LOCATOR)
_WEIGHT = {Part.MISSING: 5, Part.STRAY: 4, Part.DAMAGED: 3, Part.BLOCKS: 2, Part.DATA: 2, Part.UNKNOWN: 2}
"""The priority of several pieces in one cell: damage first, then data, then gaps."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes and its kind; `part` is DAMAGED or MISSING instead of the structure's own kind."""

    part: Part
    where: Extent
    words: str


@dataclass(frozen=True, slots=True)
class Diagram:
    """The pieces in the order of their offsets; all numbers are bytes.

    `home`: the offset at which a footer belongs, None if a sound one is at the end of the file.
    """

    size: int
    end_of_headers: int
    end_of_data: int
    home: int | None
    pieces: tuple[Piece, ...]

    @property
    def extent(self) -> int:
        """The end of the picture: of the file, or of the last piece that claims bytes after it."""
        reach = max((piece.where.end for piece in self.pieces), default=0)
        # A wild BAT entry far beyond the end would shrink everything else to nothing.
        return min(max(self.size, reach), 2 * self.size + FOOTER_SIZE)


# --------------------------------------------------------------------------- from an image


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
        entries = f"{counted(len(image.bat.value), 'entry', 'entries')}, {image.bat.value.allocated:,} in use"
        yield Piece(Part.BAT, image.bat.where, f"BAT: {entries}")
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


# --------------------------------------------------------------------------- on a scale


def strip(drawn: Diagram, cells: int) -> tuple[Part, ...]:
    """Divide the picture into `cells` cells, from the file's first byte to its last.

    Each structure at the front gets a cell and, by the logarithm of its size, a share of up to a third of all cells.
    The footer gets one. The rest is to scale; a cell shows the piece of the highest priority in it.
    """
    front = [piece for piece in drawn.pieces if _is_front(piece, drawn)]
    behind = [piece for piece in drawn.pieces if not _is_front(piece, drawn)]
    last = [piece for piece in behind if piece.where.end == drawn.size and piece.part in (Part.FOOTER, Part.DAMAGED)]
    middle = [piece for piece in behind if piece not in last]
    footer = [piece.part for piece in last[-1:]]
    room = max(0, cells - len(footer))
    front_cells = _front_cells(front, room // 3 if middle else room)[:room]
    left = room - len(front_cells)
    start = max([0, *(piece.where.end for piece in front)])
    beyond = drawn.extent > drawn.size
    end = drawn.extent if beyond or not last else last[-1].where.offset
    scaled = _scaled(middle, start, end, left) if middle and left else []
    if beyond and footer:  # bytes that belong to the file but are missing are drawn after the footer
        inside = _scale(drawn.size - start, drawn.extent - start, len(scaled))
        scaled = [*scaled[:inside], *footer, *scaled[inside:]]
        footer = []
    return (*front_cells, *scaled, *footer)


def _is_front(piece: Piece, drawn: Diagram) -> bool:
    is_structure = piece.part in (*_FRONT, Part.DAMAGED, Part.GAP)
    return is_structure and piece.where.end <= drawn.end_of_headers and piece.where.end < drawn.size


def _front_cells(front: Sequence[Piece], room: int) -> list[Part]:
    """Give each piece one cell, and divide the other cells of `room` by the logarithm of the lengths."""
    weights = [math.log2(piece.where.length // 512 + 1) for piece in front]
    spare = max(0, room - len(front))
    total = sum(weights)
    return [
        piece.part
        for piece, weight in zip(front, weights, strict=True)
        for _ in range(1 + (int(spare * weight / total) if total else 0))
    ]


def _scale(at: int, length: int, cells: int) -> int:
    return min(cells, max(0, at) * cells // max(1, length))


def _scaled(pieces: Iterable[Piece], start: int, end: int, cells: int) -> list[Part]:
    shown: list[Part | None] = [None] * cells
    for piece in pieces:
        low = _scale(piece.where.offset - start, end - start, cells)
        high = _scale(piece.where.end - start, end - start, cells)
        for cell in range(min(low, cells - 1), max(high, min(low, cells - 1) + 1)):
            there = shown[cell]
            if there is None or _WEIGHT.get(piece.part, 1) > _WEIGHT.get(there, 1):
                shown[cell] = piece.part
    return [part or Part.GAP for part in shown]


# --------------------------------------------------------------------------- for a terminal


def text(drawn: Diagram, path: str, width: int = WIDTH) -> str:
    """Draw the picture for a terminal of `width` columns: the strip, its letters, and the pieces one by one."""
    cells = strip(drawn, width)
    lines = [
        printable(path),
        f"{counted(drawn.size, 'byte')}; headers end at {drawn.end_of_headers:,}, data ends at {drawn.end_of_data:,}",
        "",
        "".join(part.value for part in cells),
    ]
    if drawn.home is not None:
        words = f"a footer belongs at byte {drawn.home:,}"
        at = len(cells) - 1
        if drawn.home < drawn.size and Part.DAMAGED in cells:  # a device: the footer's place is the damaged cell
            at -= cells[::-1].index(Part.DAMAGED)
        lines.append(f"{words} ^".rjust(at + 1) if at > len(words) + 1 else " " * at + f"^ {words}")
    lines += ["", "The front is drawn larger than the rest, which is to scale."]
    lines += [f"  {part.value} {words}" for part, words in LEGEND.items() if part in cells]
    return "\n".join([*lines, "", *_listed(drawn, width)])


def _listed(drawn: Diagram, width: int) -> Iterator[str]:
    offsets = [f"{piece.where.offset:,}" for piece in drawn.pieces]
    lengths = [f"{piece.where.length:,}" for piece in drawn.pieces]
    wide = max(map(len, [*offsets, "offset"])), max(map(len, [*lengths, "bytes"]))
    yield f"{'offset':>{wide[0]}}  {'bytes':>{wide[1]}}  what is there"
    rows = [
        folded(f"{offset:>{wide[0]}}  {length:>{wide[1]}}  ", piece.words, width)
        for offset, length, piece in zip(offsets, lengths, drawn.pieces, strict=True)
    ]
    kept = rows if len(rows) <= ROWS else rows[: ROWS // 2] + rows[-ROWS // 2 :]
    yield from kept[: ROWS // 2]
    if len(kept) < len(rows):
        yield f"{'...':>{wide[0]}}  {'':>{wide[1]}}  {len(rows) - len(kept):,} more pieces"
    yield from kept[ROWS // 2 :]


@dataclass(frozen=True, slots=True)
class Bar:
    """Neighbouring cells of one kind: the first one and their number."""

    part: Part
    start: int
    cells: int


def bars(cells: Sequence[Part]) -> tuple[Bar, ...]:
    """Join equal neighbours, for a drawing with few elements."""
    found = []
    at = 0
    for part, group in groupby(cells, key=attrgetter("value")):
        length = len(list(group))
        found.append(Bar(Part(part), at, length))
        at += length
    return tuple(found)
