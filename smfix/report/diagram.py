"""The layout of a file as a drawing: its pieces on a scale of cells. Pure.

Theory. The pieces come from the image's format (:mod:`smfix.formats.diagram`). :func:`strip` puts them on a scale of
cells; the terminal and the page (SVG) draw the same cells. The structures are a millionth of the file, so the scale is
not one scale: the front is drawn larger, the blocks and everything after them are drawn to scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from smfix.formats.diagram import LEGEND, Diagram, Part, Piece
from smfix.report.escape import printable
from smfix.report.layout import WIDTH, counted, folded

ROWS = 48
"""Pieces that the terminal lists one by one."""
_FRONT = (Part.BACKUP, Part.HEADER, Part.BAT, Part.BATMAP, Part.LOCATOR)
_WEIGHT = {Part.MISSING: 5, Part.STRAY: 4, Part.DAMAGED: 3, Part.BLOCKS: 2, Part.DATA: 2, Part.UNKNOWN: 2}
"""The priority of several pieces in one cell: damage first, then data, then gaps."""


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
