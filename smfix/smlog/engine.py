"""The search for the few bytes that matter: one small interface, chosen by measuring.

Pure. An engine searches a block of log text; what it finds is decided by the rules, so engines
differ in speed only: StringZilla is some thirteen times as fast as `bytes.find` (docs/adr/0007).
Without it smfix works the same, only slower.

A :class:`Net` looks for many literals with fewer searches: those that share some bytes are looked
for by these, and told apart where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

Data = bytes | bytearray
_CANDIDATES = 64  # places in one block at which shared bytes may lie, before each literal is looked for itself


class Engine(Protocol):
    """What a search engine does; `find` and `rfind` as the methods of `bytes` do it."""

    def find(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the first `needle` that lies in ``data[start:stop]``, or -1."""

    def rfind(self, data: Data, needle: bytes, start: int, stop: int, /) -> int:
        """The offset of the last `needle` that lies in ``data[start:stop]``, or -1."""

    def lines(self, data: Data, start: int, stop: int, /) -> int:
        """How many line ends lie in ``data[start:stop]``."""


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
    def lines(data: Data, start: int, stop: int, /) -> int:
        """How many line ends lie in ``data[start:stop]``."""
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
        """How many line ends lie in ``data[start:stop]``.

        Every byte becomes 1 or 0, and these are added up: three times as fast as going from one to the next.
        """
        view, lines = memoryview(data), 0
        for at in range(start, stop, _PIECE):
            lines += self._sum(self._translate(view[at : min(at + _PIECE, stop)], _LINE_ENDS))
        return lines


def fastest_engine() -> Engine:
    """StringZilla where it is installed, else `bytes`."""
    try:
        import stringzilla  # type: ignore[import-not-found]
    except ImportError:
        return PlainEngine()
    module: Any = stringzilla
    return _Vector(module) if hasattr(module, "bytesum") else PlainEngine()


class _Mesh(NamedTuple):
    """Bytes that some literals share: for each of these, its row in the net, itself, and where they lie in it."""

    shared: bytes
    members: tuple[tuple[int, bytes, int], ...]


class Net:
    """Looks for `literals` in a block; those that hold one of `shared` are looked for by it, together.

    Those in `without` are not looked for, and are never found.
    """

    def __init__(
        self, literals: tuple[bytes, ...], shared: tuple[bytes, ...] = (), without: tuple[bytes, ...] = ()
    ) -> None:
        self._rows = len(literals)
        together: dict[bytes, list[tuple[int, bytes, int]]] = {}
        for row, literal in enumerate(literals):
            if literal in without:
                continue
            common = next((one for one in shared if one in literal), literal)
            together.setdefault(common, []).append((row, literal, literal.find(common)))
        self._meshes = [
            _Mesh(common if len(members) > 1 else members[0][1], tuple(members)) for common, members in together.items()
        ]

    def cast(self, engine: Engine, data: Data, size: int) -> list[list[int]]:
        """For each literal, in their order: the offsets, ascending, at which it stands in ``data[:size]``."""
        found: list[list[int]] = [[] for _ in range(self._rows)]
        find = engine.find
        for shared, members in self._meshes:
            hit = find(data, shared, 0, size)
            if hit < 0:
                continue
            if len(members) == 1:
                found[members[0][0]] = [hit, *_every(engine, shared, data, hit + len(shared), size)]
            else:
                self._sort_out(engine, data, size, hit, _Mesh(shared, members), found)
        return found

    @staticmethod
    def _sort_out(engine: Engine, data: Data, size: int, hit: int, mesh: _Mesh, found: list[list[int]]) -> None:
        """From the first `hit` of the shared bytes on: which of the members it is, if any."""
        candidates = 0
        while hit >= 0 and candidates < _CANDIDATES:
            candidates += 1
            for row, literal, ahead in mesh.members:
                start = hit - ahead
                if start >= 0 and start + len(literal) <= size and data.startswith(literal, start):
                    found[row].append(start)
            hit = engine.find(data, mesh.shared, hit + 1, size)
        if hit >= 0:  # traffic of this kind abounds in the block
            for row, literal, ahead in mesh.members:
                found[row] += _every(engine, literal, data, max(0, hit - ahead), size)


def _every(engine: Engine, needle: bytes, data: Data, start: int, size: int) -> Iterator[int]:
    """The offsets, ascending, at which `needle` stands in ``data[start:size]``."""
    hit = engine.find(data, needle, start, size)
    while hit >= 0:
        yield hit
        hit = engine.find(data, needle, hit + len(needle), size)
