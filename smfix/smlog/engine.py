"""The search for the few bytes that matter: one small interface, chosen by measuring.

Pure. An engine searches a block of log text; what it finds is decided by the rules, so engines
differ in speed only: StringZilla is some thirteen times as fast as `bytes.find` (docs/adr/0007).
Without it smfix works the same, only slower.
"""

from __future__ import annotations

from typing import Any, Protocol

Data = bytes | bytearray


class Engine(Protocol):
    """What a search engine does; all as the methods of `bytes` do it."""

    def find(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the first `needle` that lies in ``data[start:stop]``, or -1."""

    def rfind(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the last `needle` that lies in ``data[start:stop]``, or -1."""

    def count(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """How often `needle` lies in ``data[start:stop]``."""


class PlainEngine:
    """The methods of `bytes` themselves: needs nothing."""

    @staticmethod
    def find(data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the first `needle` that lies in ``data[start:stop]``, or -1."""
        return data.find(needle, start, stop)

    @staticmethod
    def rfind(data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the last `needle` that lies in ``data[start:stop]``, or -1."""
        return data.rfind(needle, start, stop)

    @staticmethod
    def count(data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """How often `needle` lies in ``data[start:stop]``."""
        return data.count(needle, start, stop)


def fastest_engine() -> Engine:
    """StringZilla (the processor's vector instructions) where it is installed, else `bytes`."""
    try:
        import stringzilla  # type: ignore[import-not-found]
    except ImportError:
        return PlainEngine()
    module: Any = stringzilla
    return module if hasattr(module, "rfind") else PlainEngine()


def hits(engine: Engine, anchors: tuple[bytes, ...], data: Data, size: int) -> list[int]:
    """The offsets, ascending, at which one of `anchors` stands in the first `size` bytes."""
    found = []
    for anchor in anchors:
        hit = engine.find(data, anchor, 0, size)
        while hit >= 0:
            found.append(hit)
            hit = engine.find(data, anchor, hit + len(anchor), size)
    found.sort()
    return found
