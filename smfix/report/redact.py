"""Dump the bytes in a footer's place without guest data, for a report that others may read. Pure.

Theory. If a footer was overwritten, its place may hold a customer's data. A byte is shown only if it cannot be that:
the place holds a sound footer, or nothing but tapdisk's mark, or the byte is NUL or equals the byte of the
sound footer that it should have been. Every other byte is hidden, unless the operator asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

_ROW = 16
_WIDTH = 48
"""Characters of a whole row's pairs."""
HIDDEN = "--"


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring bytes of one kind: ``same`` as the sound footer's, ``other``, or ``hidden``."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row as ``hexdump -C`` prints it, in runs; the offset ``*`` means: further rows equal to the one before."""

    offset: str
    pairs: tuple[Run, ...] = ()
    letters: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Dump:
    """The rows, and how many bytes are hidden in them."""

    rows: tuple[Row, ...]
    hidden: int


def dump(raw: bytes, start: int, like: bytes | None, *, is_metadata: bool, show_all: bool = False) -> Dump:
    """Dump `raw`, the bytes at offset `start`.

    `like` is the sound structure that belongs there (None: there is none); `is_metadata`: `raw` holds no guest data.
    """
    shown = show_all or is_metadata
    kinds = [_kind(byte, like[at] if like and at < len(like) else None, shown=shown) for at, byte in enumerate(raw)]
    return Dump(tuple(_rows(raw, start, kinds)), kinds.count("hidden"))


def _kind(byte: int, meant: int | None, *, shown: bool) -> str:
    if byte == meant or (meant is None and byte == 0):
        return "same"
    return "other" if shown or byte == 0 else "hidden"


def _rows(raw: bytes, start: int, kinds: list[str]) -> Iterator[Row]:
    before: tuple[tuple[Run, ...], tuple[Run, ...]] | None = None
    folded = False
    for at in range(0, len(raw), _ROW):
        row, kind = raw[at : at + _ROW], kinds[at : at + _ROW]
        runs = _runs(row, kind)
        # Equal by what is shown, so that a fold says nothing of hidden bytes.
        if runs == before:
            if not folded:
                yield Row("*")
            folded = True
            continue
        before, folded = runs, False
        yield Row(f"{start + at:08x}", *runs)
    yield Row(f"{start + len(raw):08x}")


def _runs(row: bytes, kinds: list[str]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    pairs, letters = [], []
    for kind, group in groupby(range(len(row)), key=kinds.__getitem__):
        places = list(group)
        is_hidden = kind == "hidden"
        # Each pair brings the blanks before it; the ninth brings one more.
        pairs.append(Run(kind, "".join(_pair(row[at], at, is_hidden=is_hidden) for at in places)))
        letters.append(Run(kind, "".join("-" if is_hidden else _letter(row[at]) for at in places)))
    if len(row) < _ROW:
        short = sum(len(run.text) for run in pairs)
        pairs.append(Run("same", " " * (_WIDTH - short)))
    return tuple(pairs), tuple(letters)


def _pair(byte: int, at: int, *, is_hidden: bool) -> str:
    return ("  " if at == _ROW // 2 else " " if at else "") + (HIDDEN if is_hidden else f"{byte:02x}")


def _letter(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else "."
