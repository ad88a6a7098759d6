"""One file of a rotated set, open: known by its first bytes; what packs it is seen in it, never in its name."""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO

from smfix.smlog.beside import Sibling
from smfix.smlog.marks import HEAD
from smfix.smlog.unpack import Damaged, Unpacked, packing

_PIECE = 64 << 10  # bytes unpacked at a time: what stands before the damage is not lost


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
        """True for a compressed file: nobody writes to it any more."""
        return self._packing is not None

    def size(self) -> int:
        """Bytes of a plain file; 0 for a packed one."""
        return 0 if self._packing else os.fstat(self._raw.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on; fewer only at the end.

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
            raise self._damage  # what stands before it was not lost
        return b"".join(parts)

    def close(self) -> None:
        """Let go of it."""
        self._raw.close()


def open_log(path: str) -> LogFile:
    """Raises OSError; also for what is not a file."""
    raw = FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", path)
        return LogFile(path, raw)
    except BaseException:
        raw.close()
        raise


def open_sibling(one: Sibling) -> LogFile:
    """The file that had this name when the set was looked at. Raises OSError; also where it was renamed since."""
    file = open_log(one.path)
    if (file.device, file.inode) != (one.device, one.inode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "it was renamed meanwhile", one.path)
    return file


def first_bytes(one: Sibling) -> bytes:
    """The first HEAD bytes of a file; nothing of a package that cannot be unpacked. Raises OSError."""
    file = open_sibling(one)
    try:
        return file.read(0, HEAD)
    except Damaged:
        return b""
    finally:
        file.close()
