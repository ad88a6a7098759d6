"""Compare an image with a journal: still as before, as the repair left it, between, or neither.

Pure. The answer is the licence to write: an image in state `ELSEWHERE` was written by another program
since, and putting old bytes into it would destroy what they wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from smfix.repair.journal import Change, Journal
from smfix.values import SECTOR, ByteView, Extent

# Gaps read as NUL and can be a whole block long: looked at in pieces of this many bytes.
_PIECE = 1 << 20


class ImageState(Enum):
    """Which of a journal's two images this is."""

    OLD = "as before the repair"
    NEW = "as the repair left it"
    BETWEEN = "a mixture of both"
    ELSEWHERE = "neither"


@dataclass(frozen=True, slots=True)
class PutBack:
    """`base` as it would be if `journal` were put back: what an earlier journal of the same image is compared with."""

    base: ByteView
    journal: Journal

    @property
    def growable(self) -> bool:
        """As the base."""
        return self.base.growable

    @property
    def size(self) -> int:
        """Length in bytes: the old one."""
        return self.journal.old_size

    def read(self, extent: Extent) -> bytes:
        """The bytes of `extent`, the old ones as the journal has them; short at the end of the old image."""
        length = max(0, min(extent.end, self.size) - extent.offset)
        raw = bytearray(self.base.read(Extent(extent.offset, length)).ljust(length, b"\0"))
        for change in self.journal.changes:
            low = max(change.offset, extent.offset)
            high = min(change.offset + len(change.before), extent.offset + length)
            if low < high:
                raw[low - extent.offset : high - extent.offset] = change.before[
                    low - change.offset : high - change.offset
                ]
        return bytes(raw)


def image_state(view: ByteView, journal: Journal) -> ImageState:
    """Compare the size, each edited sector and each added byte of `view` with `journal`.

    A sector (512 bytes, counted from the start of the view) is what storage writes whole: inside
    the old size it must hold its old or its new bytes; beyond the old size it is absent, NUL or
    new. Bytes outside the edits are not looked at. Raises :class:`smfix.errors.Unreadable` when
    the storage fails.
    """
    size = view.size
    if not journal.old_size <= size <= journal.new_size:
        return ImageState.ELSEWHERE
    is_old = size == journal.old_size
    is_new = size == journal.new_size
    for change in journal.changes:
        there = view.read(change.extent)
        if there not in (change.before, change.after) and not _is_mixture(there, change):
            return ImageState.ELSEWHERE
        is_old = is_old and there == change.before
        is_new = is_new and there == change.after
    if not all(_is_nul(view, gap) for gap in journal.gaps):
        return ImageState.ELSEWHERE
    if is_new:
        return ImageState.NEW
    return ImageState.OLD if is_old else ImageState.BETWEEN


def _is_mixture(there: bytes, change: Change) -> bool:
    """True when each sector of `there` is one that an interrupted write can have left."""
    start = 0
    while start < len(change.after):
        end = min(len(change.after), start + SECTOR - (change.offset + start) % SECTOR)
        # One sector can hold both: the last bytes of the old file, and the first after its end.
        inside = min(end, max(start, len(change.before)))
        if there[start:inside] not in (change.before[start:inside], change.after[start:inside]):
            return False
        added = there[inside:end]
        if added != change.after[inside : inside + len(added)] and any(added):
            return False
        start = end
    return True


def _is_nul(view: ByteView, gap: Extent) -> bool:
    """True if the existing part of `gap` reads as NUL, so that nothing was written there since."""
    for offset in range(gap.offset, min(gap.end, view.size), _PIECE):
        if any(view.read(Extent(offset, min(_PIECE, gap.end - offset)))):
            return False
    return True
