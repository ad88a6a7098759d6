"""A log that is written to: its lines as they come, through every way in which logs are rotated.

Theory. A name is not a file and an inode is not a text. The text that was read is identified by the
text: the first bytes of the file and the bytes right before the place at which reading stopped. By
these a file is found again under another name, compressed, copied, or after a restart; the device and
the inode only decide between files that say the same.

Reading goes from the file at hand to the next newer one of its rotated set, and a file is left only
when a newer one has been written to and everything is read to its end: a writer that still holds the
old file (rsyslog until its HUP) is read to its last line. Text that no file holds any more is counted and
reported.

No writer is asked for anything, no lock is taken: the log is its own queue. A slow reader
reads later; only text that rotation deletes meanwhile is lost to it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import replace

from smfix.errors import Unreadable
from smfix.smlog.inputs.decompress import Damaged
from smfix.smlog.inputs.rotation import LogFile, Sibling, first_bytes, open_log, open_sibling, siblings
from smfix.smlog.inputs.tail_position import HEAD, Chunk, Head, Mark, Position, head

CHUNK = 1 << 20
"""Bytes read at a time; a line longer than this is cut."""
_TAIL = 256  # bytes before the place at which reading stopped
_MOST_DONE = 64  # heads remembered of files that were read to their end
_MOST_STEPS = 256  # from file to file, in one read


class Tail:
    """The lines of the log at `path`, from `position` on; without one, from the file's beginning.

    `at_end`: without a position, from its end. Unreadable text is reported in `notes` (one line
    each; the caller empties it) and counted in the position.

    Raises :class:`~smfix.errors.Unreadable` if there is a log and it must not be read. A log that
    is not there is waited for.
    """

    def __init__(self, path: str, position: Position | None = None, *, at_end: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.notes: list[str] = []
        self._file: LogFile | None = None
        self._sought: Mark | None = None  # the place to go on from, while its file has not been found
        self._done: deque[Head] = deque(maxlen=_MOST_DONE)
        self._gaps, self._lost = 0, 0
        self._mark = _beginning(0, 0)
        self._trouble = ""
        if position is None:
            self._begin(at_end=at_end)
        else:
            self._done.extend(position.done)
            self._gaps, self._lost, self._sought = position.gaps, position.lost, position.mark
            self._may_read()
            try:
                self._find()
            except OSError as error:
                self._stumble(error)

    # ---------------------------------------------------------------- position

    @property
    def position(self) -> Position:
        """Return the position from which a later Tail goes on."""
        mark = self._mark if self._file is not None else self._sought
        return Position(mark, tuple(self._done), self._gaps, self._lost)

    @property
    def file(self) -> str | None:
        """Return the name of the file at hand, as it was opened; None while there is none."""
        return None if self._file is None else self._file.path

    @property
    def identity(self) -> tuple[int, int] | None:
        """Return device and inode of the file at hand."""
        return None if self._file is None else (self._file.device, self._file.inode)

    def unread(self) -> int:
        """Return how many written bytes are not read yet, as far as plain files tell."""
        if self._file is None:
            return 0
        rest = max(0, self._file.size() - self._mark.offset)
        return rest + sum(one.size for one in self._newer())

    def close(self) -> None:
        """Close the file; the position stays."""
        if self._file is not None:
            self._sought = self._mark
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # ---------------------------------------------------------------- reading

    def read(self) -> Chunk | None:
        """Return the next whole lines, at most CHUNK bytes; None if there are none now."""
        for _ in range(_MOST_STEPS):
            try:
                if self._file is None and not self._find():
                    return None
                if chunk := self._lines():
                    return chunk
                if self._file is None:
                    continue  # it was written anew, and is looked for
                newer = self._newer()
                if not any(one.size for one in newer):
                    return None
                # The writer has moved on: the text it wrote before is all there, a line without its end too.
                if chunk := self._lines(is_last=True):
                    return chunk
                if self._file is not None:
                    self._finish()
                    self._open(newer[-1])
            except OSError as error:
                self._stumble(error)
                return None
        return None

    def _lines(self, *, is_last: bool = False) -> Chunk | None:
        """Return whole lines from the place on; `is_last`: the text after the last of them is a line too."""
        file, mark = self._file, self._mark
        if file is None:
            return None
        lead = 0 if file.is_packed else len(mark.tail)  # a packed file has no writer
        try:
            data = file.read(mark.offset - lead, lead + CHUNK)
        except Damaged as error:
            self._lose(f"{file.path} cannot be unpacked ({error})", 0)
            self._finish()
            return None
        if data[:lead] != mark.tail[:lead] or (mark.offset < HEAD and not self._begins_as_before(file)):
            self._rewritten()
            return None
        seen = mark.offset + len(data) - lead
        cut = data.rfind(b"\n") + 1 if len(data) > lead else 0
        if (cut <= lead and (len(data) == lead + CHUNK)) or ((is_last or file.is_packed) and len(data) < lead + CHUNK):
            cut = len(data)
        data = data[lead:cut]
        if not data:
            return None
        chunk = Chunk(data, file.path, mark.line + 1)
        self._mark = Mark(
            file.device,
            file.inode,
            self._mark.head,
            (mark.tail + data)[-_TAIL:],
            mark.offset + len(data),
            mark.line + data.count(b"\n"),
            max(seen, file.size()),
        )
        return chunk

    def _begins_as_before(self, file: LogFile) -> bool:
        """Return True if the first bytes are those seen before; new ones of them are remembered."""
        mark, start = self._mark, file.read(0, HEAD)
        if mark.head.size and not mark.head.fits(start):
            return False
        self._mark = replace(mark, head=head(start))
        return True

    def context(self, reach: int) -> list[Chunk]:
        """Return the lines in front of the place, oldest first: `reach` bytes, as far as files hold them."""
        if self._file is None:
            return []
        file, mark, chunks = self._file, self._mark, list[Chunk]()
        with suppress(OSError, Damaged):
            start = max(0, mark.offset - reach)
            chunks = _whole(file, start, mark.offset, mark.line)
            there = siblings(self.path)
            at = self._index(there)
            left = reach - mark.offset
            for one in there[at + 1 :] if at is not None else []:
                if left <= 0:
                    break
                older = open_sibling(one)
                try:
                    rest = _end_of(older, left)
                finally:
                    older.close()
                chunks = rest + chunks
                left -= sum(len(chunk.data) if chunk.first_line == 1 else left for chunk in rest)
        return chunks

    # ---------------------------------------------------------------- from file to file

    def _may_read(self) -> None:
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable(f"{self.path}: not a file")
            open_log(self.path).close()
        except FileNotFoundError:
            pass  # it is waited for
        except OSError as error:
            raise Unreadable(f"{self.path}: {error.strerror}") from error

    def _begin(self, *, at_end: bool) -> None:
        """Start for the first time: with the log itself, and none of its older siblings."""
        self._may_read()
        for one in siblings(self.path):
            if one.path != self.path:
                with suppress(OSError):
                    self._remember(head(first_bytes(one)))
        with suppress(OSError):
            self._take(open_log(self.path))
            while at_end and self._lines():
                pass

    def _remember(self, done: Head) -> None:
        if done.size:
            self._done.append(done)

    def _take(self, file: LogFile, mark: Mark | None = None) -> None:
        """Read `file` from now on: from `mark`, or from its beginning."""
        self._drop()
        self._file = file
        self._mark = mark or _beginning(file.device, file.inode)
        with suppress(OSError, Damaged):
            self._begins_as_before(file)
        self._sought = None
        self._trouble = ""

    def _find(self) -> bool:
        """Open the next file to read, if none is open. Raises OSError."""
        there = siblings(self.path)
        if self._sought is not None:
            mark = self._sought
            file = self._again(mark, there)
            if file is not None:
                self._take(file, mark)
                return True
            if mark.head.size:
                where = f"{self.path}: what was read up to byte {mark.offset} is deleted or cut off"
                self._lose(where, mark.seen - mark.offset)
                self._remember(mark.head)
            self._sought = None
        unknown = self._unknown(there)
        return bool(unknown) and self._open(unknown[-1])

    def _unknown(self, there: list[Sibling]) -> list[Sibling]:
        """Return the files that are newer than any that was read to its end, newest first. Raises OSError."""
        unknown = []
        for one in there:
            start = first_bytes(one)
            if any(done.fits(start) for done in self._done):
                break
            unknown.append(one)
        return unknown

    def _open(self, one: Sibling) -> bool:
        self._take(open_sibling(one))
        return True

    def _newer(self) -> list[Sibling]:
        """Return the files newer than the one at hand, newest first. Raises OSError."""
        with suppress(FileNotFoundError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self.identity:
                return []
        there = siblings(self.path)
        at = self._index(there)
        return there[:at] if at is not None else self._unknown(there)

    def _index(self, there: list[Sibling]) -> int | None:
        """Find the file at hand among them: by inode, else by its text; None if absent. Raises OSError."""
        for index, one in enumerate(there):
            if (one.device, one.inode) == self.identity:
                return index
        for index in reversed(range(len(there))):
            if self._mark.head.fits(first_bytes(there[index])):
                return index
        return None

    def _finish(self) -> None:
        """Close the file at hand, which is read to its end."""
        self._remember(self._mark.head)
        self._drop()

    def _again(self, mark: Mark, there: list[Sibling]) -> LogFile | None:
        """Find the file with the text read at `mark`: the same inode, else the oldest. Raises OSError."""
        same = [one for one in there if (one.device, one.inode) == (mark.device, mark.inode)]
        others = [one for one in reversed(there) if one not in same] if mark.head.size else []
        for one in [*same, *others]:
            # A head of a few bytes fits many files: those that were read to their end are none of them.
            if one in others and any(done.fits(first_bytes(one)) for done in self._done):
                continue
            file = open_sibling(one)
            try:
                if _says(file, mark):
                    return file
            except Damaged:
                pass
            except OSError:
                file.close()
                raise
            file.close()
        return None

    # ---------------------------------------------------------------- trouble

    def _rewritten(self) -> None:
        """Leave the file at hand, which no longer holds the text read in it: it was cut off, perhaps after a copy."""
        self._sought = self._mark
        self._drop()

    def _lose(self, what: str, seen: int) -> None:
        self._gaps += 1
        self._lost += max(0, seen)
        self.notes.append(f"{what}; {max(0, seen)} bytes that were seen in it were never read")

    def _stumble(self, error: OSError) -> None:
        """Retry from the same place after the storage did not give the log (NFS: a stale handle)."""
        if self._file is not None:
            self._sought = self._mark
            self._drop()
        if isinstance(error, FileNotFoundError):
            return  # it was renamed between two looks
        if self._trouble != str(error):
            self._trouble = str(error)
            self.notes.append(f"{self.path}: {error.strerror or error}; it is tried again")


def _beginning(device: int, inode: int) -> Mark:
    return Mark(device, inode, Head(0, ""), b"", 0, 0, 0)


def _says(file: LogFile, mark: Mark) -> bool:
    if mark.head.size and not mark.head.fits(file.read(0, HEAD)):
        return False
    lead = len(mark.tail)
    return file.read(mark.offset - lead, lead) == mark.tail


def _whole(file: LogFile, start: int, stop: int, lines: int) -> list[Chunk]:
    """Return the whole lines in ``[start, stop)`` (bytes); `lines` end before `stop`."""
    data = file.read(start, stop - start)
    if start:
        data = data[data.find(b"\n") + 1 :]
    return [Chunk(data, file.path, lines + 1 - data.count(b"\n"))] if data else []


def _end_of(file: LogFile, reach: int) -> list[Chunk]:
    """Return the last `reach` bytes of a file that is read to its end, as whole lines."""
    size = lines = 0
    kept: deque[bytes] = deque()
    while part := file.read(size, CHUNK):
        size += len(part)
        lines += part.count(b"\n")
        kept.append(part)
        while sum(map(len, kept)) - len(kept[0]) >= reach:
            kept.popleft()
    data = b"".join(kept)[-reach:]
    if len(data) < size:
        data = data[data.find(b"\n") + 1 :]
    if data and not data.endswith(b"\n"):
        data += b"\n"
        lines += 1
    return [Chunk(data, file.path, lines + 1 - data.count(b"\n"))] if data else []
