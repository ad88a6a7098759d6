"""The outputs of many hosts, from files, folders and archives into one picture, on every core.

Reads the machine, writes only piles (:mod:`smfix.fleet.external_sort`): the names of the files, and what they say. One
process for each core reads every so-many-th file and hands over what it says; it waits where the pipe is full, and
documents are taken in the same order whatever the speed. A reader that dies (a document that is too much for the
memory) costs its file, and another goes on behind it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from smfix.errors import SmfixError, Unreadable
from smfix.fleet.documents import MOST_DISKS, REPORTED, RESOLVED, DiskObservation, NotADocument, Said, read_document
from smfix.fleet.external_sort import Pile
from smfix.fleet.merge import FleetMerge, FleetPicture
from smfix.host.readers import Asked, Reader, Tell
from smfix.values import Incident, State

MOST_BYTES = 32 << 20
"""Of one document; a scan of 20,000 images has half of that."""
MOST_FILES = 1_000_000
_KINDS = ("from-log", "scan", "check", "status", "repair")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_WORTH_IT = 64  # files: below, a second process costs more than it saves
_AT_ONCE = 32  # files handed over together
_DEEPEST = 64  # folders in each other
Progress = Callable[[int, int], None]
# A file: the host that its name names, and what it says, or why it says nothing.
_Read = tuple[str, Said | str]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What was asked for: the files, each with the number of the name that meant it, and what was passed over."""

    found: Pile[tuple[int, str]]
    passed_over: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many files are read."""
        return min(len(self.found), MOST_FILES)

    def files(self, first: int = 0, step: int = 1) -> Iterator[str]:
        """Every `step`-th file from `first` on."""
        return (path for _, path in islice(self.found, first, len(self), step))


def find(names: Sequence[str]) -> Fleet:
    """The files that `names` mean.

    A file is one; of a folder, and of those below it, it is what ends like an output of smfix (.json) or an archive.
    Raises Unreadable for a name that is not there, or a folder that cannot be read.
    """
    found: Pile[tuple[int, str]] = Pile()
    passed = 0
    for number, name in enumerate(names):
        try:
            mode = os.stat(name).st_mode
        except (OSError, ValueError) as error:
            raise Unreadable(f"{name}: {getattr(error, 'strerror', None) or error}") from error
        if not stat.S_ISDIR(mode):
            found.add((number, name))
            continue
        for path in _below(name):
            if path.lower().endswith((".json", *_ARCHIVES)):
                found.add((number, path))
            else:
                passed += 1
    notes = []
    if len(found) > MOST_FILES:
        notes.append(f"{len(found):,} files; only the first {MOST_FILES:,} are read")
        passed += len(found) - MOST_FILES
    return Fleet(found, passed, tuple(notes))


def _below(folder: str) -> Iterator[str]:
    """The files of `folder` and of those below it, as they come; a link to a folder is not followed."""
    path, ways = folder, list[Any]()
    try:
        ways.append(os.scandir(folder))
        while ways:
            entry = next(ways[-1], None)
            if entry is None:
                ways.pop().close()
                continue
            path = entry.path
            if not entry.is_dir():
                yield path
            elif not entry.is_symlink():
                if len(ways) == _DEEPEST:
                    raise Unreadable(f"{path}: more than {_DEEPEST} folders in each other")
                ways.append(os.scandir(path))
    except OSError as error:
        raise Unreadable(f"{error.filename or path}: {error.strerror}") from error
    finally:
        for way in ways:
            way.close()


def host_of(path: str) -> str:
    """The host whose output `path` is: ``HOST.json``, ``HOST.scan.json``, or ``HOST/scan.json``."""
    folder, name = os.path.split(path)
    name = name.removesuffix(".json")
    for kind in _KINDS:
        if name == kind and folder:
            return os.path.basename(folder)
        name = name.removesuffix(f".{kind}")
    return name or path


def read(fleet: Fleet, say: Callable[[str], None], progress: Progress | None = None) -> FleetPicture:
    """The picture that `fleet` gives; each file that says nothing is told to `say`, in one line."""
    gathering = FleetMerge(Pile)
    ways = _ways(len(fleet))
    results = map(read_file, fleet.files()) if ways == 1 else _side_by_side(fleet, ways)
    for done, (path, (host, said)) in enumerate(zip(fleet.files(), results, strict=True), 1):
        if isinstance(said, str):
            say(f"{path}: {said}")
            gathering.refuse(host, said)
        else:
            gathering.take(host, said)
        if progress is not None:
            progress(done, len(fleet))
    return gathering.picture()


# --------------------------------------------------------------------------- one file


def read_file(path: str) -> _Read:
    """What the file says. Never raises for what is in it."""
    host = host_of(path)
    try:
        return host, _said(path)
    except NotADocument as error:
        return host, str(error)
    except (OSError, ValueError) as error:
        return host, getattr(error, "strerror", None) or str(error)
    except SmfixError as error:
        return host, str(error).removeprefix(f"{path}: ")
    except MemoryError:
        return host, "it needs more memory than there is"


def _said(path: str) -> Said:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotADocument("it is not a file")
        head = file.read(512)
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n"):
            raise NotADocument("the file is empty" if status.st_size <= 512 else "it begins with nothing but blanks")
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
            if status.st_size > MOST_BYTES:
                raise NotADocument(f"it has {status.st_size:,} bytes, more than any output of smfix ({MOST_BYTES:,})")
            data = head + file.read(MOST_BYTES - len(head) + 1)
            if len(data) > MOST_BYTES:
                raise NotADocument(f"it has more than {MOST_BYTES:,} bytes, more than any output of smfix")
            return read_document(data)
    return _of_archive(path, head)


def _of_archive(path: str, head: bytes) -> Said:
    from smfix.smlog.tarball import is_tar
    from smfix.smlog.unpack import packing

    if not (head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or is_tar(head) or packing(head) is not None):
        raise NotADocument("it is neither an output of smfix nor an archive")
    from smfix.smlog.source import read_logs  # only here: it loads what reads logs

    reading = read_logs([path], tz=None, year=None, since=None, until=None)
    if not reading.files:
        raise NotADocument((*reading.notes, "no log is in this archive")[0].removeprefix(f"{path}: "))
    sights = tuple(_sight(one) for one in reading.incidents[:MOST_DISKS])
    return Said(
        "bug-report", sights, trouble=tuple(reading.unread[:4]), left_out=max(0, len(reading.incidents) - MOST_DISKS)
    )


def _sight(told: Incident) -> DiskObservation:
    return DiskObservation(
        told.vdi.text,
        told.sr,
        told.path,
        RESOLVED if told.state is State.RESOLVED else REPORTED,
        kinds=told.kinds,
        first=told.first_seen,
        last=told.last_seen,
        host=told.host,
    )


# --------------------------------------------------------------------------- side by side


def _ways(files: int) -> int:
    return 1 if files < _WORTH_IT else max(1, len(os.sched_getaffinity(0)))


def _side_by_side(fleet: Fleet, ways: int) -> Iterator[_Read]:
    """What each file says, in their order: a file of each reader in turn."""
    shares = [_Share(fleet, way, ways) for way in range(ways)]
    try:
        for number in range(len(fleet)):
            yield shares[number % ways].next()
    finally:
        for share in shares:
            share.close()


class _Share:
    """A process that reads every `ways`-th file from `way` on, and another behind the file at which it died."""

    def __init__(self, fleet: Fleet, way: int, ways: int) -> None:
        self._fleet = fleet
        self._next = way  # the file whose result comes next
        self._ways = ways
        self._waiting: list[_Read] = []
        self._process: Reader | None = None

    def next(self) -> _Read:
        """The result of the next file."""
        if not self._waiting:
            self._waiting = self._received()[::-1]
        self._next += self._ways
        return self._waiting.pop()

    def _received(self) -> list[_Read]:
        try:
            if self._process is None:
                self._process = Reader(partial(_send, self._files()))
            batch: list[_Read] = self._process.hear()
        except (EOFError, OSError):
            self.close()
            # It died somewhere in this batch, or could not be made: what is in it is read file by file, each by a
            # process of its own.
            return [_alone(path) for path in islice(self._files(), _AT_ONCE)]
        return batch

    def _files(self) -> Iterator[str]:
        return self._fleet.files(self._next, self._ways)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None


def _alone(path: str) -> _Read:
    try:
        reader = Reader(partial(_send, iter([path])))
    except OSError:  # no process can be made
        return read_file(path)
    try:
        batch: list[_Read] = reader.hear()
        return batch[0]
    except EOFError:
        return host_of(path), "its reader died (out of memory?)"
    finally:
        reader.end()


def _send(share: Iterator[str], tell: Tell, _asked: Asked) -> None:
    while batch := [read_file(path) for path in islice(share, _AT_ONCE)]:
        tell(batch)
