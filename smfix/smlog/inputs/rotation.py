"""Rotated logs: which file continues which, the files of a set, and one of them open.

logrotate renames ``SMlog`` to ``SMlog.1``, and compresses older ones (``SMlog.2.gz`` ...
``SMlog.31.gz``); with dateext they are ``SMlog-20240131`` or ``SMlog-20240131-1706659201.gz``. It renames one file
after the other, or copies the log and cuts it off, all while it is read: so a set is listed until it is stable.
The content of a file shows its compression, never its name.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from io import FileIO
from typing import NamedTuple

from smfix.smlog.inputs.decompress import Damaged, Unpacked, packing
from smfix.smlog.patterns import pattern

_COMPRESSED = r"(?:\.(?:gz|bz2|xz|zst|Z))?"
_ROTATED = pattern(
    rf"(?P<stem>.+?)(?:\.(?P<number>[0-9]{{1,4}})|-(?P<date>[0-9]{{8}})(?:-(?P<second>[0-9]{{1,11}}))?)?{_COMPRESSED}\Z",
    re.DOTALL,
)
_SMLOG = pattern(rf"SMlog(?:\.[0-9]{{1,4}}|-[0-9]{{8}}(?:-[0-9]{{1,11}})?)?{_COMPRESSED}\Z")


class Age(NamedTuple):
    """Sorts the files of one set: the oldest is the smallest."""

    live: int
    date: int
    minus_number: int


def is_smlog(name: str) -> bool:
    """Return True for the name (without its folder) of an SMlog, live or rotated."""
    return _SMLOG.match(name) is not None


def age(path: str) -> tuple[str, Age]:
    """Return the set that `path` belongs to (its path without the rotation), and its place in there."""
    folder, slash, name = path.rpartition("/")
    found = _ROTATED.match(name)
    if found is None:
        return path, Age(1, 0, 0)
    stem = folder + slash + found["stem"]
    if found["number"]:
        return stem, Age(0, 0, -int(found["number"]))
    if found["date"]:
        return stem, Age(0, int(found["date"]) * 10**11 + int(found["second"] or 0), 0)
    return stem, Age(1, 0, 0)


def in_order(paths: list[str]) -> list[list[str]]:
    """Return `paths` as sets, each oldest first. Sets keep the order in which their first file came."""
    sets: dict[str, list[tuple[Age, str]]] = {}
    for path in dict.fromkeys(paths):
        stem, place = age(path)
        sets.setdefault(stem, []).append((place, path))
    return [[path for _, path in sorted(members)] for members in sets.values()]


# --------------------------------------------------------------------------- the files of a set

_SETTLING = 8  # looks at a folder until it is stable
_NUMBERED = pattern(r"\.(?P<number>[0-9]{1,4})(?:\.[a-z0-9]{1,4})?\Z")
_DATED = pattern(r"-(?P<date>[0-9]{8}(?:-?[0-9]{1,10})?)(?:\.[a-z0-9]{1,4})?\Z")


class Sibling(NamedTuple):
    """One file of the rotated set. `age` 0 is the log itself, larger is older."""

    path: str
    age: tuple[int, str]
    device: int
    inode: int
    size: int

    @property
    def same(self) -> tuple[str, int, int]:
        """Return the identity of the file that is constant while it only grows."""
        return self.path, self.device, self.inode


def siblings(path: str) -> list[Sibling]:
    """Return the rotated set of the log at `path`, newest first; each once, plain rather than packed.

    A rotation renames one file after the other: it is looked at until two looks are the same.
    """
    before: list[Sibling] | None = None
    for _ in range(_SETTLING):
        now = _look(path)
        if before is not None and [one.same for one in now] == [one.same for one in before]:
            return now
        before = now
    return before or []


def _look(path: str) -> list[Sibling]:
    folder, name = os.path.split(path)
    found: dict[tuple[int, str], Sibling] = {}
    with suppress(OSError):
        for other in sorted(os.listdir(folder or ".")):
            age = _age(name, other)
            if age is None:
                continue
            where = os.path.join(folder, other)
            with suppress(OSError):
                status = os.stat(where)
                if stat.S_ISREG(status.st_mode):
                    # "SMlog.1" sorts before "SMlog.1.gz": while it is being packed, the plain one counts.
                    found.setdefault(age, Sibling(where, age, status.st_dev, status.st_ino, status.st_size))
    return [found[age] for age in sorted(found)]


def _age(name: str, other: str) -> tuple[int, str] | None:
    """Return the position of `other` in the rotated set of `name`: (0, "") is the log itself."""
    if other == name:
        return 0, ""
    if not other.startswith(name):
        return None
    rest = other[len(name) :]
    if numbered := _NUMBERED.match(rest):
        return int(numbered["number"]), ""
    if dated := _DATED.match(rest):
        # Later dates are newer: their complement sorts them to the front.
        return 1, dated["date"].translate(str.maketrans("0123456789", "9876543210"))
    return None


# --------------------------------------------------------------------------- one file

_PIECE = 64 << 10  # bytes unpacked at a time: the bytes before the damage are not lost


class LogFile:
    """One open log: plain (read at offsets) or packed (read forward)."""

    def __init__(self, path: str, raw: FileIO) -> None:
        self.path = path
        self._raw = raw
        status = os.fstat(raw.fileno())
        self.device, self.inode = status.st_dev, status.st_ino
        self._packing = packing(os.pread(raw.fileno(), 6, 0))
        self._stream: Unpacked | None = None
        self._at = 0  # in the unpacked stream
        self._damage: Damaged | None = None  # met at `_at`

    @property
    def is_packed(self) -> bool:
        """Return True for a compressed file: it has no writer any more."""
        return self._packing is not None

    def size(self) -> int:
        """Return the size of a plain file (bytes); 0 for a packed one."""
        return 0 if self._packing else os.fstat(self._raw.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on; fewer only at the end.

        Raises OSError, and Damaged for a package that cannot be unpacked there (one that is still being
        written, for example).
        """
        if self._packing is None:
            return os.pread(self._raw.fileno(), length, offset)
        if self._stream is None or offset < self._at:
            self._raw.seek(0)
            self._stream, self._at, self._damage = Unpacked(self._raw, self._packing), 0, None
        parts: list[bytes] = []
        while length > 0 and self._damage is None:
            try:
                part = self._stream.read(min(_PIECE, length if self._at >= offset else offset - self._at))
            except Damaged as damage:
                self._damage = damage
                break
            if not part:
                break
            if self._at >= offset:
                parts.append(part)
                length -= len(part)
            self._at += len(part)
        if self._damage is not None and not parts:
            raise self._damage  # the bytes before it were not lost
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


def open_log(path: str) -> LogFile:
    """Open a regular file. Raises OSError; also if it is not a file."""
    raw = FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        return LogFile(path, raw)
    except BaseException:
        raw.close()
        raise


def open_sibling(one: Sibling) -> LogFile:
    """Open the file that had this name when the set was listed. Raises OSError; also if it was renamed since."""
    file = open_log(one.path)
    if (file.device, file.inode) != (one.device, one.inode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "it was renamed meanwhile", one.path)
    return file


def first_bytes(one: Sibling) -> bytes:
    """Return the first HEAD bytes of a file; none if it cannot be unpacked. Raises OSError."""
    from smfix.smlog.inputs.tail_position import HEAD  # imported here: only a follower needs its classes (6 ms)

    file = open_sibling(one)
    try:
        return file.read(0, HEAD)
    except Damaged:
        return b""
    finally:
        file.close()
