"""Describe the place at which reading a growing log stopped, by the text there. Pure.

See :mod:`smfix.smlog.inputs.tail` for the theory.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = 1024
"""First bytes of a file that identify it, once it has them."""


def _digest(data: bytes) -> str:
    import hashlib  # imported here: it loads OpenSSL (7 ms), and only a follower knows files by their digest

    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a file: how many, and their SHA-256 in hex."""

    size: int
    digest: str

    def fits(self, data: bytes) -> bool:
        """Return True if a file that begins with `data` begins with these bytes."""
        return 0 < self.size <= len(data) and _digest(data[: self.size]) == self.digest


def head(data: bytes) -> Head:
    """Return the head of a file that begins with `data`."""
    return Head(len(data[:HEAD]), _digest(data[:HEAD]))


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a log, which is found again by the text there.

    `offset` (bytes of the unpacked text) and `line` lines were read; `seen` is the size when it was
    last looked at. `tail` is the text right in front of `offset`.
    """

    device: int
    inode: int
    head: Head
    tail: bytes
    offset: int
    line: int
    seen: int


@dataclass(frozen=True, slots=True)
class Position:
    """The whole state of a tail: its place, and the files it has read to their end.

    `gaps` counts how often text was gone before it was read, `lost` the bytes of it that were seen.
    """

    mark: Mark | None = None
    done: tuple[Head, ...] = ()
    gaps: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines: the name of their file when they were read, the first one's number (from 1)."""

    data: bytes
    file: str
    first_line: int
