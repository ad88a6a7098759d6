"""The search for the few bytes that matter: one small interface, chosen by measuring.

Pure. The rules decide what is found, so engines differ in speed only (docs/adr/0026). StringZilla looks for
one literal after the other, some thirteen times as fast as `bytes.find`, and counts lines. Many literals are looked
for in one pass by hyperscan: with 150 it is some ten times as fast, but takes longer to load, so it is asked once a
text is known to be long. Without them smfix works the same, only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Data = bytes | bytearray


class Engine(Protocol):
    """The interface of a search engine; `find` and `rfind` act as the methods of `bytes` do."""

    def find(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """Return the offset of the first `needle` in ``data[start:stop]``, or -1."""

    def rfind(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """Return the offset of the last `needle` in ``data[start:stop]``, or -1."""

    def lines(self, data: Data, start: int, stop: int, /) -> int:
        """Count the line ends in ``data[start:stop]``."""


class PlainEngine:
    """The methods of `bytes` themselves: needs nothing."""

    @staticmethod
    def find(data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """Return the offset of the first `needle` in ``data[start:stop]``, or -1."""
        return data.find(needle, start, stop)

    @staticmethod
    def rfind(data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """Return the offset of the last `needle` in ``data[start:stop]``, or -1."""
        return data.rfind(needle, start, stop)

    @staticmethod
    def lines(data: Data, start: int, stop: int, /) -> int:
        """Count the line ends in ``data[start:stop]``."""
        return data.count(b"\n", start, stop)


# Bytes whose lines are counted at once: the ones and zeros shall not drive the text out of the cache.
_PIECE = 128 << 10
_LINE_ENDS = bytes(byte == ord("\n") for byte in range(256))


class _Vector:
    """StringZilla: the processor's vector instructions."""

    def __init__(self, module: Any) -> None:
        self.find = module.find
        self.rfind = module.rfind
        self._translate = module.translate
        self._sum = module.bytesum

    def lines(self, data: Data, start: int, stop: int, /) -> int:
        """Count the line ends in ``data[start:stop]``.

        Every byte becomes 1 or 0, and these are added up: three times as fast as going from one to the next.
        """
        view, lines = memoryview(data), 0
        for at in range(start, stop, _PIECE):
            lines += self._sum(self._translate(view[at : min(at + _PIECE, stop)], _LINE_ENDS))
        return lines


def fastest_engine() -> Engine:
    """Return StringZilla if it is installed, else `bytes`."""
    try:
        import stringzilla  # type: ignore[import-not-found]
    except ImportError:
        return PlainEngine()
    module: Any = stringzilla
    return _Vector(module) if hasattr(module, "bytesum") else PlainEngine()


class Found(NamedTuple):
    """A hit of a literal: its offset (bytes), and its index among the literals."""

    offset: int
    literal: int


_LONG = 32 << 20  # bytes of text: from there on, loading hyperscan costs less than it saves
_MANY = 24  # literals: up to there, a pass for each is faster


class LiteralSearch:
    """Looks for `literals`, none of which contains another, in one block of text after the other.

    Those that hold one of `shared`, bytes that are rare in traffic, are looked for by these in one pass.
    """

    def __init__(self, literals: tuple[bytes, ...], engine: Engine, shared: tuple[bytes, ...] = ()) -> None:
        self._literals = literals
        self._engine = engine
        self._passes: dict[bytes, list[tuple[int, bytes, int]]] = {}
        for index, literal in enumerate(literals):
            common = next((one for one in shared if one in literal), literal)
            self._passes.setdefault(common, []).append((index, literal, literal.find(common)))
        self._searched = 0
        self._scan: Callable[..., None] | None = None

    def find_all(self, data: Data, size: int) -> list[Found]:
        """Return every place in ``data[:size]`` that holds one of them, in the order of the text."""
        self._searched += size
        if self._scan is None and self._searched > _LONG and len(self._literals) > _MANY:
            self._scan = _one_pass(self._literals) or self._each
        found: list[Found] = []
        (self._scan or self._each)(data, size, found)
        found.sort()
        return found

    def _each(self, data: Data, size: int, found: list[Found]) -> None:
        find = self._engine.find
        for common, members in self._passes.items():
            hit = find(data, common, 0, size)
            while hit >= 0:
                for index, literal, ahead in members:
                    start = hit - ahead
                    if start >= 0 and start + len(literal) <= size and data.startswith(literal, start):
                        found.append(Found(start, index))
                hit = find(data, common, hit + len(common), size)


def _one_pass(literals: tuple[bytes, ...]) -> Callable[..., None] | None:
    """Build a search for all of `literals` at once; None if hyperscan is not installed."""
    try:
        import hyperscan
    except ImportError:
        return None
    database: Any = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=list(literals), ids=list(range(len(literals))), elements=len(literals), flags=0, literal=True
    )
    lengths = [len(literal) for literal in literals]

    def scan(data: Data, size: int, found: list[Found]) -> None:
        def hit(index: int, _begin: int, end: int, _flags: int, _context: object) -> None:
            found.append(Found(end - lengths[index], index))

        database.scan(memoryview(data)[:size], match_event_handler=hit)

    return scan
