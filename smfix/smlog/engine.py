"""The search for the few bytes that matter: one small interface, chosen by measuring.

Pure. An engine is given a block and says where one of its anchors stands, and how many lines the
block has. Everything else is decided by the rules, so engines differ in speed only.
"""

from __future__ import annotations

from typing import Any, Protocol


class Engine(Protocol):
    """What a search engine does. Blocks hold whole lines."""

    def hits(self, data: bytes | bytearray, size: int) -> list[int]:
        """The offsets, ascending, of anchors in the first `size` bytes of `data`."""

    def count_lines(self, data: bytes | bytearray, size: int) -> int:
        """How many line ends lie in the first `size` bytes of `data`."""


class PlainEngine:
    """`bytes.find`, one pass per anchor: needs nothing."""

    def __init__(self, anchors: tuple[bytes, ...]) -> None:
        self._anchors = anchors

    def hits(self, data: bytes | bytearray, size: int) -> list[int]:
        """The offsets, ascending, of anchors in the first `size` bytes of `data`."""
        found = []
        for anchor in self._anchors:
            hit = data.find(anchor, 0, size)
            while hit >= 0:
                found.append(hit)
                hit = data.find(anchor, hit + len(anchor), size)
        found.sort()
        return found

    def count_lines(self, data: bytes | bytearray, size: int) -> int:
        """How many line ends lie in the first `size` bytes of `data`."""
        return data.count(b"\n", 0, size)


class VectorEngine:
    """StringZilla: the same passes with the processor's vector instructions."""

    def __init__(self, anchors: tuple[bytes, ...], stringzilla: Any) -> None:
        self._anchors = tuple((anchor.decode("ascii"), len(anchor)) for anchor in anchors)
        self._text = stringzilla.Str

    def hits(self, data: bytes | bytearray, size: int) -> list[int]:
        """The offsets, ascending, of anchors in the first `size` bytes of `data`."""
        text = self._text(memoryview(data)[:size])
        found = []
        for anchor, length in self._anchors:
            hit = text.find(anchor)
            while hit >= 0:
                found.append(hit)
                hit = text.find(anchor, hit + length)
        found.sort()
        return found

    def count_lines(self, data: bytes | bytearray, size: int) -> int:
        """How many line ends lie in the first `size` bytes of `data`."""
        return int(self._text(memoryview(data)[:size]).count("\n"))


def make_engine(anchors: tuple[bytes, ...]) -> Engine:
    """The fastest engine there is here."""
    try:
        import stringzilla  # type: ignore[import-not-found]
    except ImportError:
        return PlainEngine(anchors)
    return VectorEngine(anchors, stringzilla)
