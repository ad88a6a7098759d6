"""Read the outputs of many hosts (files, folders, archives) and merge them, on every core.

Documents are merged in the order of their files, however fast each process reads, so the report is always the same. A
process that dies (a document may need more memory than there is) costs only the file that it was reading.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from smfix.errors import SmfixError, Unreadable
from smfix.fleet.documents import (
    MOST_DISKS,
    REPORTED,
    RESOLVED,
    DiskObservation,
    HostDocument,
    NotADocument,
    read_document,
)
from smfix.fleet.merge import FleetMerge, FleetPicture
from smfix.fleet.sorted_store import SortedStore
from smfix.host import bundle
from smfix.values import Incident, State

MOST_BYTES = 32 << 20
"""Bytes of one document; a scan of 20,000 images takes half of that."""
MOST_FILES = 1_000_000
_KINDS = ("from-log", "scan", "check", "status", "repair")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_WORTH_IT = 64  # files: for fewer, starting a second process takes longer than it saves
_BATCH = 8  # files that one process reads in one go
_DEEPEST = 64  # levels of folders
Progress = Callable[[int, int], None]


class FileContent(NamedTuple):
    """The host that a file's name gives, and the document in the file, or why it cannot be read."""

    host: str
    content: HostDocument | str


@dataclass(frozen=True, slots=True)
class Fleet:
    """The files to read, each with the position of the argument that named it, and how many others were found."""

    found: SortedStore
    passed_over: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many files are read."""
        return min(len(self.found), MOST_FILES)

    def files(self) -> Iterator[str]:
        """Yield the paths: by argument, then by name."""
        return (path for _, path, _ in islice(self.found, MOST_FILES))


def find(names: Sequence[str]) -> Fleet:
    """Find the files that `names` mean.

    A file means itself. A folder means the files in it, and below it, whose names end like an output of smfix (.json)
    or an archive. Raises Unreadable for a missing name, or a folder that cannot be read.
    """
    found, passed = SortedStore(keys=2), 0
    for number, name in enumerate(names):
        try:
            mode = os.stat(name).st_mode
        except (OSError, ValueError) as error:
            raise Unreadable(f"{name}: {getattr(error, 'strerror', None) or error}") from error
        for path in _walk(name) if stat.S_ISDIR(mode) else (name,):
            if path == name or path.lower().endswith((".json", *_ARCHIVES)):
                found.add(number, path)
            else:
                passed += 1
    notes = []
    if len(found) > MOST_FILES:
        notes.append(f"{len(found):,} files; only the first {MOST_FILES:,} are read")
        passed += len(found) - MOST_FILES
    return Fleet(found, passed, tuple(notes))


def _walk(root: str) -> Iterator[str]:
    """Yield the files in and below `root`, in any order; links to folders are not followed."""
    for folder, folders, files in os.walk(root, onerror=_refuse):
        if folders and folder[len(root) :].count(os.sep) >= _DEEPEST - 1:
            raise Unreadable(f"{os.path.join(folder, folders[0])}: more than {_DEEPEST} folders in each other")
        yield from (os.path.join(folder, name) for name in files)


def _refuse(error: OSError) -> None:
    raise Unreadable(f"{error.filename}: {error.strerror}") from error


def host_of(path: str) -> str:
    """Return the host whose output `path` is: ``HOST.json``, ``HOST.scan.json``, or ``HOST/scan.json``."""
    folder, name = os.path.split(path)
    name = name.removesuffix(".json")
    for kind in _KINDS:
        if name == kind and folder:
            return os.path.basename(folder)
        name = name.removesuffix(f".{kind}")
    return name or path


def read(fleet: Fleet, say: Callable[[str], None], progress: Progress | None = None) -> FleetPicture:
    """Read and merge the files of `fleet`; pass one line to `say` for each file that cannot be read."""
    merge = FleetMerge(SortedStore)
    workers = 1 if len(fleet) < _WORTH_IT else len(os.sched_getaffinity(0))
    results = map(read_file, fleet.files()) if workers < 2 else _read_in_parallel(fleet.files(), workers)
    for done, (path, (host, content)) in enumerate(zip(fleet.files(), results, strict=True), 1):
        if isinstance(content, str):
            say(f"{path}: {content}")
            merge.add_unreadable(host, content)
        else:
            merge.add(host, content)
        if progress is not None:
            progress(done, len(fleet))
    return merge.picture()


# --------------------------------------------------------------------------- one file


def read_file(path: str) -> FileContent:
    """Read one file. Raises nothing, whatever the file contains."""
    host = host_of(path)
    try:
        return FileContent(host, _read_content(path))
    except NotADocument as error:
        why = str(error)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
    except SmfixError as error:
        why = str(error).removeprefix(f"{path}: ")
    except MemoryError:
        why = "it needs more memory than there is"
    return FileContent(host, why)


def _read_content(path: str) -> HostDocument:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotADocument("it is not a file")
        head = file.read(512)
        if not head.lstrip(_BLANKS):
            raise NotADocument("the file is empty" if status.st_size <= 512 else "it begins with nothing but blanks")
        if head.lstrip(_BLANKS).startswith((b"{", b"[")):
            if status.st_size > MOST_BYTES:
                raise NotADocument(f"it has {status.st_size:,} bytes, more than any output of smfix ({MOST_BYTES:,})")
            data = head + file.read(MOST_BYTES - len(head) + 1)
            if len(data) > MOST_BYTES:
                raise NotADocument(f"it has more than {MOST_BYTES:,} bytes, more than any output of smfix")
            return read_document(data)
    return _read_archive(path, head)


def _read_archive(path: str, head: bytes) -> HostDocument:
    from smfix.smlog.inputs.decompress import packing
    from smfix.smlog.inputs.tarball import is_tar

    if not (head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or is_tar(head) or packing(head) is not None):
        raise NotADocument("it is neither an output of smfix nor an archive")
    from smfix.smlog.reader import read_logs  # imported here: JSON documents need no reader of logs

    reading = read_logs([path], tz=None, year=None, since=None, until=None)
    if not reading.files:
        raise NotADocument((*reading.notes, "no log is in this archive")[0].removeprefix(f"{path}: "))
    return HostDocument(
        "bug-report",
        tuple(map(_observe, reading.incidents[:MOST_DISKS])),
        trouble=tuple(reading.unread[:4]),
        left_out=max(0, len(reading.incidents) - MOST_DISKS),
    )


def _observe(incident: Incident) -> DiskObservation:
    return DiskObservation(
        incident.vdi.text,
        incident.sr,
        incident.path,
        RESOLVED if incident.state is State.RESOLVED else REPORTED,
        kinds=incident.kinds,
        first=incident.first_seen,
        last=incident.last_seen,
        host=incident.host,
    )


# --------------------------------------------------------------------------- on every core


def _read_in_parallel(paths: Iterator[str], workers: int) -> Iterator[FileContent]:
    """Yield the content of each file in order; at most one batch more than there are processes is in memory."""
    waiting: deque[tuple[list[str], Future[list[FileContent]]]] = deque()
    pool, is_complete = _start_pool(workers), False
    try:
        while not is_complete:
            while len(waiting) <= workers and (batch := list(islice(paths, _BATCH))):
                waiting.append((batch, _submit(pool, batch)))
            batch, future = waiting.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:  # a process died, at this batch or at another one
                pool.shutdown()
                results = list(map(_read_alone, batch))
                pool = _start_pool(workers)
                waiting = deque((each, _submit(pool, each)) for each, _ in waiting)
            yield from results
            is_complete = not waiting
    finally:
        if not is_complete:  # interrupted: a long archive is not waited for
            for process in multiprocessing.active_children():
                process.kill()
        pool.shutdown(wait=is_complete, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, batch: list[str]) -> Future[list[FileContent]]:
    """Let `pool` read the files; read them here if no process can be started."""
    future: Future[list[FileContent]] = Future()
    try:
        return pool.submit(_read_batch, batch)
    except BrokenProcessPool as error:
        future.set_exception(error)
    except OSError:
        future.set_result(_read_batch(batch))
    return future


def _read_alone(path: str) -> FileContent:
    """Read one file in a process of its own, because a process has died at it or at one of its neighbours."""
    pool = _start_pool(1)
    try:
        return _submit(pool, [path]).result()[0]
    except BrokenProcessPool:
        return FileContent(host_of(path), "its reader died (out of memory?)")
    finally:
        pool.shutdown()


def _read_batch(paths: list[str]) -> list[FileContent]:
    return list(map(read_file, paths))


def _start_pool(workers: int) -> ProcessPoolExecutor:
    # fork: nothing is imported again, and the single-file executable needs no main module to import.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin_worker)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    bundle.end_with_parent()
