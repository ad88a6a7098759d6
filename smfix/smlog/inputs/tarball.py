"""A tar archive as a stream of its files, read with bounds.

Pure: it is handed something to read from. Archives are hostile: only the names, sizes, times and
contents of regular files are read; links, devices and sparse files are passed over; an extended
header longer than :data:`LONGEST_HEADER` bytes ends the reading. Nothing is ever extracted.
Source: POSIX.1-2001 pax interchange format, and GNU tar's long names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
LONGEST_HEADER = 64 << 10  # bytes
MOST_MEMBERS = 200_000

Read = Callable[[int], bytes]


class NotTar(Exception):
    """The bytes are no tar header, or one that no honest program writes."""


class Member(NamedTuple):
    """A regular file in the archive: its name as stored, bytes, seconds since 1970."""

    name: str
    size: int
    written: int


def is_tar(head: bytes) -> bool:
    """Return True if `head` (512 bytes) is a tar header with a good checksum."""
    try:
        return len(head) == BLOCK and _checksum(head)
    except NotTar:
        return False


def members(read: Read) -> Iterator[tuple[Member, Read]]:
    """Yield the regular files, each with a reader of its content; unread content is passed over.

    `read` returns at most as many bytes as asked, fewer only at the end. Raises NotTar for damage
    or excess; the members before it are good.
    """
    extended: dict[str, str] = {}
    for _ in range(MOST_MEMBERS):
        head = _exactly(read, BLOCK)
        if len(head) < BLOCK or not head.strip(b"\0"):
            return
        if not _checksum(head):
            raise NotTar("a header's checksum is wrong")
        size, kind = _number(head[124:136]), head[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            if size > LONGEST_HEADER:
                raise NotTar("a header is too long")
            data = _exactly(read, _padded(size))[:size]
            if kind == b"x":
                extended = _pax(data)
            elif kind == b"L":
                extended["path"] = data.rstrip(b"\0").decode("utf-8", "replace")
            continue
        name = extended.get("path") or _name(head)
        size = _size(extended, size)
        left = _Rest(read, size)
        if kind in (b"0", b"\0", b"7"):
            yield Member(name, size, _number(head[136:148])), left.read
        left.skip(_padded(size))
        extended = {}
    raise NotTar(f"more than {MOST_MEMBERS} members")


class _Rest:
    """Read the rest of one member's content."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._taken = 0

    def read(self, count: int) -> bytes:
        data = self._read(min(count, self._left)) if self._left else b""
        self._left -= len(data)
        self._taken += len(data)
        return data

    def skip(self, total: int) -> None:
        while self._taken < total:
            data = self._read(min(1 << 20, total - self._taken))
            if not data:
                return
            self._taken += len(data)
        self._left = 0


def _exactly(read: Read, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        data = read(count - len(parts))
        if not data:
            break
        parts += data
    return parts


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: too large for octal
        return int.from_bytes(field[1:], "big") & ((1 << 63) - 1)
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise NotTar("a number is none") from None


def _checksum(head: bytes) -> bool:
    expected = _number(head[148:156])
    rest = head[:148] + b" " * 8 + head[156:]
    return sum(rest) == expected and expected != 8 * 32


def _name(head: bytes) -> str:
    name = head[:100].split(b"\0", 1)[0]
    prefix = head[345:500].split(b"\0", 1)[0] if head[257:262] == b"ustar" else b""
    if head[257:265] == b"ustar  \0":  # GNU: it has other fields there
        prefix = b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _pax(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or not 0 < int(length) <= len(data):
            raise NotTar("an extended header is damaged")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[int(length) :]
    return found


def _size(extended: dict[str, str], size: int) -> int:
    text = extended.get("size", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else size
