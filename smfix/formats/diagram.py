"""The layout of an image file as a row of pieces. Pure.

Theory. An image is a row of pieces: structures, runs of blocks, and bytes that no structure claims. A format makes the
row from an inspected image; ``smfix.report.diagram`` draws it, so that the terminal and the page show the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from smfix.values import SECTOR, Extent


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
        return min(max(self.size, reach), 2 * self.size + SECTOR)
