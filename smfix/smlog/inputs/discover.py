"""Find the logs that the command line names: files, folders, standard input, archives.

Reads the machine. The content of a file decides its type, not its name.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from smfix.errors import Unreadable
from smfix.smlog.inputs import rotation
from smfix.smlog.inputs.archive import (
    DATABASE,
    HEAD,
    Descriptor,
    Found,
    Log,
    Positioned,
    Stored,
    log_of,
    read_archive,
    read_head,
    spool,
)
from smfix.smlog.inputs.decompress import is_utf16, packing

if TYPE_CHECKING:
    from smfix.smlog.inputs.unwrap_paste import Mended

LARGEST_PASTE = 1 << 20  # bytes; a larger text is a log


def find_logs(names: Sequence[str], now: datetime) -> Found:
    """Return the logs in `names`; those of a rotated set oldest first.

    Raises Unreadable for a name that is missing, that may not be read, or that holds no log.
    """
    found = Found()
    paths: list[str] = []
    for name in names:
        if name == "-":
            _standard_input(found, now)
        elif os.path.isdir(name):
            paths.extend(_in_folder(name, found))
        else:
            paths.append(name)
    unique: dict[tuple[int, int], str] = {}
    for path in paths:
        unique.setdefault(_identity(path), path)
    for members in rotation.in_order(list(unique.values())):
        if logs := [log for path in members if (log := _file(path, found)) is not None]:
            found.logs += len(logs)
            found.sets.append(logs)
    return found


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return status.st_dev, status.st_ino


def _in_folder(folder: str, found: Found) -> list[str]:
    """Return the SMlogs in a folder, in its var/log, or in those of the bug reports unpacked in it."""
    logs: list[str] = []
    try:
        reports = [folder, *(os.path.join(folder, name) for name in sorted(os.listdir(folder)))]
        for report in reports:
            for place in (
                (report, os.path.join(report, "var", "log"))
                if report == folder
                else (os.path.join(report, "var", "log"),)
            ):
                if os.path.isdir(place):
                    names = sorted(os.listdir(place))
                    paths = [os.path.join(place, name) for name in names if rotation.is_smlog(name)]
                    logs += [path for path in paths if _is_file(path, found)]
            database = os.path.join(report, DATABASE)
            if os.path.isfile(database):
                found.databases.append(_stored(database))
    except OSError as error:
        raise Unreadable(f"{folder}: {error.strerror}") from error
    if not logs:
        raise Unreadable(found.notes[-1] if found.notes else f"{folder}: no SMlog in this folder")
    return logs


def _is_file(path: str, found: Found) -> bool:
    """Return True for a file that exists. Other folder entries become notes: the user did not name them."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return True
        found.notes.append(f"{path}: not a file; not read")
    except OSError as error:
        found.notes.append(f"{path}: {error.strerror}; not read")
    return False


def _stored(path: str) -> Stored:
    """Open the file at `path`. Raises Unreadable if it is none, or may not be read."""
    try:
        descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    status = os.fstat(descriptor.number)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(f"{path}: not a file")
    written = datetime.fromtimestamp(status.st_mtime, UTC)
    return Stored(path, status.st_size, written, lambda: Positioned(descriptor))


def _file(path: str, found: Found) -> Log | None:
    """Return the log in `path`; None if it is an archive, whose logs are added to `found`."""
    stored = _stored(path)
    try:
        head = read_head(stored.open())
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    if read_archive(stored, head, found):
        return None
    log = log_of(stored, head)
    if packing(head) or is_utf16(head):
        return log
    if stored.size <= LARGEST_PASTE:
        try:
            text = _whole(stored.open())
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from error
        if mended := _mend(text):
            return log._replace(mended=mended)
    return log._replace(open=lambda: stored.open().as_log(path))


def _mend(data: bytes) -> Mended | None:
    from smfix.smlog.inputs.unwrap_paste import mend  # only here: a log that is large starts without

    return mend(data)


def _whole(stream: Any) -> bytes:
    """Read a small stream's content, no more than a paste can have."""
    data = b""
    while len(data) <= LARGEST_PASTE and (more := stream.read(LARGEST_PASTE + 1 - len(data))):
        data += more
    return data


def _standard_input(found: Found, now: datetime) -> None:
    """Read standard input: plain text is read as it comes, all else is kept in a file first."""
    raw: Any = sys.stdin.buffer
    head = raw.peek(HEAD)[:HEAD]
    if packing(head) or is_utf16(head) or head.startswith(b"PK"):
        stored = Stored("-", 0, now, spool(raw.read))
        if read_archive(stored, head, found):
            return
        found.sets.append([log_of(stored, head)])
    else:
        start = _whole(raw)
        mended = _mend(start)
        found.sets.append([Log("-", 0, now, lambda: _Joined(start, raw), mended=mended)])
    found.logs += 1


class _Joined(io.RawIOBase):
    """Read the bytes already taken from a stream, and then the rest of it."""

    def __init__(self, start: bytes, rest: Any) -> None:
        self._start = memoryview(start)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._start:
            return int(self._rest.readinto(buffer))
        count = min(len(buffer), len(self._start))
        buffer[:count] = self._start[:count]
        self._start = self._start[count:]
        return count
