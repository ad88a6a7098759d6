"""Which file a path leads to, without asking the server that holds it.

``stat`` of a file on a dead NFS mount never returns, and every process' open files are looked at for every image.
``statx`` with ``AT_STATX_DONT_SYNC`` answers from what the kernel knows already; device, inode and type of an open
file never change. Source: statx(2); NFS keeps to it since Linux 4.16, FUSE since 4.20. Python has it from 3.15 on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from functools import cache
from typing import NamedTuple

_AT_FDCWD = -100
_DONT_SYNC = 0x4000  # AT_STATX_DONT_SYNC
_TYPE_AND_INODE = 0x0001 | 0x0100  # STATX_TYPE, STATX_INO
_SIZE = 256  # bytes of struct statx, linux/stat.h
_MODE, _INODE, _DEVICES = 28, 32, 128
_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH
_BIRTH, _BIRTH_AT = 0x0800, 80  # STATX_BTIME, its offset
_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION, linux/fs.h


class FileId(NamedTuple):
    """As in ``os.stat_result``."""

    st_mode: int
    st_dev: int
    st_ino: int
    st_rdev: int


class Lineage(NamedTuple):
    """Distinguish a file from a later one with the same inode number; None if the file system does not keep it.

    `birth`: when the inode was made, nanoseconds since 1970. `generation`: a number that the file system gives to
    each inode it makes.
    """

    birth: int | None = None
    generation: int | None = None

    def is_other(self, than: Lineage) -> bool:
        """True when both know a birth, or both a generation, and they differ."""
        pairs = zip(self, than, strict=True)
        return any(mine != theirs for mine, theirs in pairs if mine is not None and theirs is not None)

    def is_same(self, as_: Lineage) -> bool:
        """True when both know a birth, or both a generation, and nothing that both know differs."""
        pairs = [(mine, theirs) for mine, theirs in zip(self, as_, strict=True) if None not in (mine, theirs)]
        return bool(pairs) and all(mine == theirs for mine, theirs in pairs)


def lineage(fd: int) -> Lineage:
    """Ask the kernel for the lineage of an open file. Raises nothing."""
    return Lineage(_birth(fd), _generation(fd))


def _birth(fd: int) -> int | None:
    statx = _statx()
    answer = ctypes.create_string_buffer(_SIZE)
    if statx is None or statx(fd, b"", _EMPTY_PATH | _DONT_SYNC, _BIRTH, answer):
        return None
    if not struct.unpack_from("=I", answer)[0] & _BIRTH:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BIRTH_AT)
    return max(0, int(seconds) * 10**9 + int(nanoseconds)) or None


def _generation(fd: int) -> int | None:
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _GET_GENERATION, answer)
    except OSError:
        return None
    return int(struct.unpack_from("=I", answer)[0]) or None


def file_id(path: str) -> FileId:
    """The file at `path`, links followed. Raises OSError."""
    statx = _statx()
    if statx is None:
        return _by_stat(path)
    answer = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), _DONT_SYNC, _TYPE_AND_INODE, answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    mode = struct.unpack_from("=H", answer, _MODE)[0]
    inode = struct.unpack_from("=Q", answer, _INODE)[0]
    rdev_major, rdev_minor, major, minor = struct.unpack_from("=4I", answer, _DEVICES)
    return FileId(mode, os.makedev(major, minor), inode, os.makedev(rdev_major, rdev_minor))


def _by_stat(path: str) -> FileId:
    about = os.stat(path)
    return FileId(about.st_mode, about.st_dev, about.st_ino, about.st_rdev)


@cache
def _statx() -> ctypes._FuncPointer | None:
    """The C library's function; None where it, or the kernel, has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    works = call(_AT_FDCWD, b"/", _DONT_SYNC, _TYPE_AND_INODE, ctypes.create_string_buffer(_SIZE)) == 0
    return call if works else None
