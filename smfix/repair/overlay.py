"""Edits laid over a view in memory, and a view that remembers what was read. Pure.

Theory. A plan is tried on an overlay before a disk sees it, and the bytes it was made from are pinned by
recording every read. Neither copies the image: both are views like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from smfix.repair.fingerprint import digest
from smfix.values import ByteView, Edit, Extent, Fingerprint, Resize, Write


@dataclass(frozen=True, slots=True)
class Overlay:
    """`base` as it would be after `edits`, in order. Bytes that a resize adds read as NUL."""

    base: ByteView
    edits: tuple[Edit, ...]

    @property
    def growable(self) -> bool:
        """As the base."""
        return self.base.growable

    @property
    def size(self) -> int:
        """Length in bytes after the edits; never less than the base's."""
        size = self.base.size
        for edit in self.edits:
            size = max(size, edit.size if isinstance(edit, Resize) else edit.extent.end)
        return size

    def read(self, extent: Extent) -> bytes:
        """The bytes of `extent` after the edits; short if the overlay ends."""
        length = max(0, min(extent.end, self.size) - extent.offset)
        raw = bytearray(self.base.read(Extent(extent.offset, length)).ljust(length, b"\0"))
        for edit in self.edits:
            if isinstance(edit, Write) and edit.extent.overlaps(extent):
                low = max(edit.offset, extent.offset)
                high = min(edit.extent.end, extent.offset + length)
                raw[low - extent.offset : high - extent.offset] = edit.data[low - edit.offset : high - edit.offset]
        return bytes(raw)


@dataclass(slots=True)
class Recorder:
    """`base`, remembering a digest of every extent that was read from it."""

    base: ByteView
    _seen: dict[Extent, bytes] = field(default_factory=dict)

    @property
    def growable(self) -> bool:
        """As the base."""
        return self.base.growable

    @property
    def size(self) -> int:
        """As the base."""
        return self.base.size

    def read(self, extent: Extent) -> bytes:
        """The base's bytes."""
        raw = self.base.read(extent)
        if extent.length and extent not in self._seen:
            self._seen[extent] = digest(raw)
        return raw

    def fingerprint(self) -> Fingerprint:
        """The extents that were read so far, and the size."""
        return Fingerprint(self.base.size, tuple(self._seen.items()))


def merged(size: int, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """`edits` of a view of `size` bytes without idle ones; what follows on each other is one.

    A resize that does not grow what the edits before it made is left out, as is an empty write: so no
    plan can shrink.
    """
    kept: list[Edit] = []
    for edit in edits:
        if isinstance(edit, Resize):
            if edit.size > size:
                if kept and isinstance(kept[-1], Resize):
                    kept.pop()
                kept.append(edit)
                size = edit.size
            continue
        last = kept[-1] if kept else None
        if isinstance(last, Write) and last.extent.end == edit.offset:
            kept[-1] = Write(last.offset, last.data + edit.data)
        elif edit.data and not _stands(kept, edit):
            kept.append(edit)
        size = max(size, edit.extent.end)
    return tuple(kept)


def _stands(kept: list[Edit], edit: Write) -> bool:
    """`edit` was made before, and nothing since has changed a byte of it."""
    for earlier in reversed(kept):
        if isinstance(earlier, Write) and earlier.extent.overlaps(edit.extent):
            return earlier == edit
    return False
