"""Archives of logs: bug reports as tar (plain or compressed) and zip, also archives in archives.

Reads the machine, writes nothing but spool files that have no name. Archives are hostile: members
are chosen by the last part of their name, never extracted to a path, bounded in number, in depth
and in unpacked size.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from smfix.errors import Unreadable
from smfix.smlog.inputs import rotation, tarball
from smfix.smlog.inputs.decompress import MOST_TIMES, Damaged, Recoded, Unpacked, is_utf16, packing

if TYPE_CHECKING:
    from smfix.smlog.inputs.unwrap_paste import Mended

HEAD = 512  # bytes that identify a file's type
DATABASE = "xapi-db.xml"
_DEEPEST = 3  # archives in archives
_MOST_ZIPPED = 50_000  # members of a zip; its directory is read whole
_LONGEST_ZIP_DIRECTORY = 32 << 20  # bytes
_MOST_LOGS = 1_000
_MOST_SPOOLED = 8 << 30  # bytes of an archive's members that are kept on disk while they are read
_FREELY = 1 << 20  # packed bytes that any member of a zip is taken to have
_ENDINGS = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")

Open = Callable[[], Any]


class Stored(NamedTuple):
    """Bytes as they are stored: `open` gives a new reader, each with a position of its own."""

    name: str
    size: int
    written: datetime
    open: Open


class Log(NamedTuple):
    """One log to be read. `open` gives its plain bytes; `size` is the stored size, 0 if unknown.

    `is_packed`: it takes work to read, and its plain size is unknown. `mended` is set for a paste, which is read
    instead of the stored text.
    """

    name: str
    size: int
    written: datetime
    open: Open
    is_packed: bool = False
    mended: Mended | None = None


class Found:
    """Collect the contents of the named inputs: sets of logs (each oldest first), databases, notes."""

    def __init__(self) -> None:
        self.sets: list[list[Log]] = []
        self.databases: list[Stored] = []
        self.notes: list[str] = []
        self.logs = 0


class Descriptor:
    """A file descriptor that is closed when its last user is gone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Positioned(io.RawIOBase):
    """Reads a descriptor from a position of its own: readers, also forked ones, share nothing."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._keep = descriptor  # it lives as long as its readers
        self._descriptor = descriptor.number
        self._offset = 0

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def seekable(self) -> bool:
        """Return True, because zip archives are read from their end."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move, and return the new position (bytes)."""
        if whence == os.SEEK_CUR:
            offset += self._offset
        elif whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        self._offset = max(0, offset)
        return self._offset

    def as_log(self, name: str) -> PlainFile:
        """Return the same file, read as a plain log."""
        return PlainFile(self._keep, name)

    def next_data(self, offset: int) -> int | None:
        """Return the first offset from `offset` on at which the file holds data and no hole; None if there is none."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            return None if error.errno == errno.ENXIO else offset

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return the count, 0 at the end."""
        count = os.preadv(self._descriptor, [buffer], self._offset)
        self._offset += count
        return count


class PlainFile(Positioned):
    """A plain log from its beginning: holes are passed over, not read, and given bytes can be read again."""

    def __init__(self, descriptor: Descriptor, name: str) -> None:
        super().__init__(descriptor)
        self._name = name
        self._given = 0  # bytes
        self._runs: list[tuple[int, int]] = []  # (first byte given, its offset): holes separate the runs
        self._stop = 0  # start of the next hole

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return the count, 0 at the end."""
        if self._offset >= self._stop:
            data = self.next_data(self._offset)
            if data is None:
                return 0
            self._offset = data
            self._runs.append((self._given, data))
            self._stop = self._next_hole(data)
        count = super().readinto(memoryview(buffer)[: self._stop - self._offset])
        self._given += count
        return count

    def _next_hole(self, offset: int) -> int:
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_HOLE)
        except OSError:  # this storage knows no holes
            return 1 << 62

    def again(self, at: int, view: memoryview) -> None:
        """Fill `view` with the bytes given from the `at`-th on; NUL if the log has been cut short since.

        Raises Unreadable, because the caller handles no storage errors.
        """
        size = len(view)
        ends = [*(given for given, _ in self._runs[1:]), self._given]
        for (begin, offset), end in zip(self._runs, ends, strict=True):
            start, stop = max(begin, at), min(end, at + size)
            if start < stop:
                part = view[start - at : stop - at]
                try:
                    count = os.preadv(self._descriptor, [part], offset + start - begin)
                except OSError as error:
                    raise Unreadable(f"{self._name}: {error.strerror}") from error
                part[count:] = bytes(len(part) - count)


def log_of(stored: Stored, head: bytes) -> Log:
    """Return `stored` as a log, unpacked if `head` says that it is compressed."""
    kind = packing(head)
    if is_utf16(head):
        return Log(stored.name, stored.size, stored.written, lambda: Recoded(stored.open()), is_packed=True)
    if kind is None:
        return Log(stored.name, stored.size, stored.written, stored.open)
    return Log(stored.name, stored.size, stored.written, lambda: Unpacked(stored.open(), kind), is_packed=True)


def read_archive(stored: Stored, head: bytes, found: Found, depth: int = 0) -> bool:
    """Return True if `stored` is an archive: its content is added to `found`.

    Raises Unreadable for an archive that holds no SMlog (only if `depth` is 0), or that the
    storage does not give.
    """
    members: Callable[[Stored, Found, int], Iterator[tuple[str, Log]]]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = _zipped
    elif tarball.is_tar(head):
        members = _tarred
    elif (kind := packing(head)) is not None and _holds_tar(stored, kind):
        packed = stored
        stored = Stored(stored.name, stored.size, stored.written, lambda: Unpacked(packed.open(), kind))
        members = _tarred
    else:
        return False
    if depth >= _DEEPEST:
        found.notes.append(f"{stored.name}: archives in archives, too deep: not read")
        return True
    before = (found.logs, len(found.notes))
    logs = dict(members(stored, found, depth))
    found.sets.extend([logs[name] for name in members] for members in rotation.in_order(list(logs)))
    if depth == 0 and before == (found.logs, len(found.notes)):
        raise Unreadable(f"{stored.name}: no SMlog in this archive")
    return True


def _holds_tar(stored: Stored, kind: str) -> bool:
    try:
        return tarball.is_tar(read_head(Unpacked(stored.open(), kind)))
    except Damaged:
        return False


def read_head(stream: Any) -> bytes:
    """Return the first HEAD bytes of `stream`, fewer only if it is shorter."""
    head = b""
    while len(head) < HEAD and (data := stream.read(HEAD - len(head))):
        head += data
    return head


def _wanted(name: str, depth: int) -> bool:
    base = name.rpartition("/")[2]
    is_nested = depth + 1 < _DEEPEST and base.lower().endswith(_ENDINGS)
    return rotation.is_smlog(base) or base == DATABASE or is_nested


def _member(stored: Stored, member: str, found: Found, depth: int) -> Iterator[tuple[str, Log]]:
    """Yield the log that a member is; add the logs of an archive, or a database, to `found`."""
    base = member.rpartition("/")[2]
    if base == DATABASE:
        found.databases.append(stored)
        return
    try:
        head = read_head(stored.open())
        if rotation.is_smlog(base):
            found.logs += 1
            yield member, log_of(stored, head)
        else:
            read_archive(stored, head, found, depth + 1)
    except Damaged as error:
        found.notes.append(f"{stored.name}: {error}")


# --------------------------------------------------------------------------- tar


def _tarred(stored: Stored, found: Found, depth: int) -> Iterator[tuple[str, Log]]:
    """Yield the SMlogs of a tar archive. They are spooled, because a set is read oldest first."""
    spooled = 0
    stream = stored.open()
    try:
        for member, read in tarball.members(lambda count: stream.read(count) or b""):
            if not _wanted(member.name, depth):
                continue
            spooled += member.size
            if spooled > _MOST_SPOOLED or found.logs >= _MOST_LOGS:
                found.notes.append(f"{stored.name}: too much to read; stopped at {member.name}")
                return
            written = datetime.fromtimestamp(min(member.written, 1 << 33), UTC)
            spool = _Spool(read)
            inner = Stored(f"{stored.name}!{member.name}", member.size, written, spool.open)
            yield from _member(inner, member.name, found, depth)
    except (tarball.NotTar, Damaged) as error:
        found.notes.append(f"{stored.name}: {error}; what came before was read")
    except OSError as error:
        raise Unreadable(f"{stored.name}: {error.strerror}") from error


class _Spool:
    """A copy in a file without a name, gone when the last reader is."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        import tempfile

        with tempfile.TemporaryFile() as file:
            while data := read(1 << 20):
                file.write(data)
            file.flush()
            self._descriptor = Descriptor(os.dup(file.fileno()))

    def open(self) -> Positioned:
        return Positioned(self._descriptor)


def spool(read: Callable[[int], bytes]) -> Open:
    """Keep the bytes that `read` gives, and hand out readers of it."""
    return _Spool(read).open


# --------------------------------------------------------------------------- zip


def _zipped(stored: Stored, found: Found, depth: int) -> Iterator[tuple[str, Log]]:
    """Yield the SMlogs of a zip archive, read in place."""
    import zipfile

    if not _is_sane_zip(stored.open()):
        found.notes.append(f"{stored.name}: damaged, or more than {_MOST_ZIPPED} members: not read")
        return
    try:
        infos = zipfile.ZipFile(stored.open()).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        found.notes.append(f"{stored.name}: {error}: not read")
        return
    for info in infos:
        if info.is_dir() or not _wanted(info.filename, depth):
            continue
        if info.flag_bits & 1:
            found.notes.append(f"{stored.name}: {info.filename} is encrypted: not read")
            continue
        if found.logs >= _MOST_LOGS:
            found.notes.append(f"{stored.name}: too many logs; stopped at {info.filename}")
            return
        name = f"{stored.name}!{info.filename}"
        opener: Open = _ZipOpen(stored, info)
        try:
            if info.filename.lower().endswith(_ENDINGS):  # an archive is read from its end
                opener = spool(opener().read)
        except Damaged as error:
            found.notes.append(f"{name}: {error}")
            continue
        inner = Stored(name, info.compress_size, _zip_time(info.date_time), opener)
        yield from _member(inner, info.filename, found, depth)


def _zip_time(parts: tuple[int, ...]) -> datetime:
    """Return a zip's time, which is a local one."""
    try:
        return datetime(*parts[:6]).astimezone()  # type: ignore[arg-type]
    except ValueError:
        return datetime(1980, 1, 1, tzinfo=UTC)


def _is_sane_zip(file: Any) -> bool:
    """Return True if the zip's own count of members is bounded: its directory is read whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 66_000))
    tail = file.read(66_000)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return False
    members = int.from_bytes(tail[at + 10 : at + 12], "little")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    return members <= _MOST_ZIPPED and directory <= _LONGEST_ZIP_DIRECTORY


class _ZipOpen:
    """Opens one member, each time through a reader of its own."""

    def __init__(self, stored: Stored, info: Any) -> None:
        self.stored, self.info = stored, info

    def __call__(self) -> Any:
        import zipfile

        try:
            return _ZipMember(zipfile.ZipFile(self.stored.open()).open(self.info), self.info.compress_size)
        except Damaged:
            raise
        except Exception as error:
            raise Damaged(f"it cannot be unpacked ({error})") from error


class _ZipMember(io.RawIOBase):
    """One member's plain bytes; damage and excess in the words of unpack.py."""

    def __init__(self, stream: Any, packed: int) -> None:
        self._stream = stream
        self._packed = packed
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = int(self._stream.readinto(buffer))
        except Exception as error:
            raise Damaged(f"it cannot be unpacked ({error})") from error
        self._given += count
        if self._given > MOST_TIMES * max(_FREELY, self._packed):
            raise Damaged(f"it unpacks to more than {MOST_TIMES} times its size")
        return count
