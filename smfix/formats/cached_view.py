"""A view as it was at one moment: its size is asked once, and its first bytes are read once.

Theory. Backup footer, header, the first BAT entries and most often the whole of BAT and batmap are within a few
pages at the beginning; of a disk without blocks that is the whole file. A command that reads many images and writes to
none needs no fresher answer, and makes two or three system calls instead of twenty. Pure.
"""

from __future__ import annotations

from smfix.values import ByteView, Extent

HEAD = 1 << 13
"""Bytes at the beginning that are read at once."""


class CachedView:
    """A :class:`smfix.values.ByteView` of another one that does not change meanwhile, or is not seen to."""

    __slots__ = ("_head", "_view", "growable", "size")

    def __init__(self, view: ByteView) -> None:
        self._view = view
        self.size = view.size
        self.growable = view.growable
        self._head = view.read(Extent(0, min(HEAD, self.size)))

    def read(self, extent: Extent) -> bytes:
        """As the view answers, but nothing after the size that it had. Raises Unreadable."""
        offset, length = extent
        if offset >= 0 < length and offset + length <= len(self._head):
            return self._head[offset : offset + length]
        length = min(length, self.size - offset)
        return self._view.read(Extent(offset, length)) if length > 0 else b""
