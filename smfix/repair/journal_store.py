"""The folder of undo journals: each is made durable as a whole, and one rename changes its state.

A folder of mode 0700 with files of mode 0600, named ``<id>.<mark>`` (:class:`~.journal.Mark`).
:mod:`smfix.host.atomic_file` makes a journal durable as ``<id>.unfinished``; then, and only then, may its image be
written. Every name is opened below the folder's descriptor and never through a symbolic link, and the folder is no
link either: what it leads to could be changed while its journals are needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from smfix.errors import JournalDamaged, JournalNewer, Unreadable, UsageError, WriteFailed
from smfix.host import atomic_file, kernel_path
from smfix.repair.journal import MAX_BYTES, Journal, JournalState, decode, encode, is_id

_NEW = ".new"  # the end of a draft's name in the folders of earlier versions
_JOURNAL = atomic_file.FileKind("a journal of smfix", lambda _head: False)  # no journal is ever replaced
_MTIME = ".mtime"
_TIME = atomic_file.FileKind("a journal's time", lambda head: head.startswith(b"smfix-mtime 1 "))
_KEPT = re.compile(rb"smfix-mtime 1 ([0-9]{1,20}) ([0-9a-f]{64})\n\Z")
# A temporary file this old belongs to no running smfix: the one that made it was killed.
_ORPHAN_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A journal in its folder, and how far its repair came."""

    id: str
    mark: JournalState
    path: str
    journal: Journal


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """A file that has the name of a journal and does not verify: nothing is replayed from it.

    `newer`: it has a format that only a later smfix knows.
    """

    id: str
    mark: JournalState
    path: str
    damage: str
    newer: bool = False


def list_journals(folder: str) -> tuple[JournalEntry | DamagedEntry, ...]:
    """All journals, oldest first. A folder that is not there holds none.

    Raises :class:`smfix.errors.Unreadable` when the folder cannot be read or is not safe to trust.
    """
    return tuple(_read(folder, _names(folder)))


def open_journals(folder: str) -> tuple[JournalEntry | DamagedEntry, ...]:
    """The journals of repairs and undos that were interrupted, oldest first.

    Raises :class:`smfix.errors.Unreadable` as :func:`list_journals` does.
    """
    return tuple(_read(folder, [name for name in _names(folder) if name[1].is_open]))


def load(folder: str, prefix: str) -> JournalEntry:
    """The journal whose id begins with `prefix`.

    Raises :class:`smfix.errors.UsageError` if none or several do,
    :class:`smfix.errors.JournalDamaged` if it does not verify, and
    :class:`smfix.errors.Unreadable` if it cannot be read.
    """
    found = [name for name in _names(folder) if prefix and name[0].startswith(prefix)]
    if not found:
        raise UsageError(f"no journal {prefix!r} in {folder}; `smfix journal` lists them")
    if len(found) > 1:
        ids = ", ".join(journal_id for journal_id, _ in found[:8])
        raise UsageError(f"journal {prefix!r} is ambiguous in {folder}: {ids}")
    (entry,) = _read(folder, found)
    if isinstance(entry, DamagedEntry):
        words = "is not for this smfix" if entry.newer else "is damaged"
        raise JournalDamaged(f"journal {entry.path} {words}: {entry.damage}; nothing was written")
    return entry


def create(folder: str, journal: Journal) -> JournalEntry:
    """Make `journal` durable as unfinished; return its entry.

    Raises :class:`smfix.errors.WriteFailed` when it could not be made durable: then nothing may be
    written to the image.
    """
    data = encode(journal)
    if len(data) > MAX_BYTES:
        raise WriteFailed(f"the undo journal would be {len(data)} bytes, more than {MAX_BYTES}")
    _make_folder(folder)
    with _folder(folder, WriteFailed) as at, _failing(WriteFailed, folder):
        _forget_orphans(at)
        if any(name.startswith(journal.id) for name in os.listdir(at)):
            raise WriteFailed(f"a journal {journal.id} is in {folder} already; try again")
        final = f"{journal.id}.{JournalState.UNFINISHED.value}"
        try:
            atomic_file.replace_in(at, final, data, _JOURNAL)
        except OSError:
            # Nothing was written to the image yet: a journal that stayed would only mislead.
            with suppress(OSError):
                os.unlink(final, dir_fd=at)
            raise
    return JournalEntry(journal.id, JournalState.UNFINISHED, os.path.join(folder, final), journal)


def mark(entry: JournalEntry, new: JournalState) -> JournalEntry:
    """Rename the journal to its new state, durably; return the entry as it is now.

    Raises :class:`smfix.errors.WriteFailed`; the name is then the old or the new one.
    """
    folder = os.path.dirname(entry.path)
    final = f"{entry.id}.{new.value}"
    with _folder(folder, WriteFailed) as at, _failing(WriteFailed, entry.path):
        os.rename(os.path.basename(entry.path), final, src_dir_fd=at, dst_dir_fd=at)
        os.fsync(at)
    return JournalEntry(entry.id, new, os.path.join(folder, final), entry.journal)


def keep_mtime(entry: JournalEntry, mtime: int) -> None:
    """Keep beside the journal when its repair wrote to the image last (ns, the image's own clock), durably.

    The journal's own bytes never change, so it is a file of its own. Raises :class:`smfix.errors.WriteFailed`.
    """
    data = b"smfix-mtime 1 %d %s\n" % (mtime, _mtime_sum(entry.id, mtime))
    with _folder(os.path.dirname(entry.path), WriteFailed) as at, _failing(WriteFailed, entry.path):
        atomic_file.replace_in(at, entry.id + _MTIME, data, _TIME)


def kept_mtime(entry: JournalEntry) -> int | None:
    """What :func:`keep_mtime` kept; None: nothing was kept, or it does not verify."""
    folder = os.path.dirname(entry.path)
    try:
        with _folder(folder, Unreadable) as at:
            found = _KEPT.match(_content(at, entry.id + _MTIME, os.path.join(folder, entry.id + _MTIME)))
    except (Unreadable, JournalDamaged):
        return None
    if found is None or found[2] != _mtime_sum(entry.id, int(found[1])):
        return None
    return int(found[1])


def _mtime_sum(journal_id: str, mtime: int) -> bytes:
    return hashlib.sha256(f"smfix-mtime 1 {journal_id} {mtime}".encode("ascii")).hexdigest().encode("ascii")


def forget(entry: JournalEntry) -> None:
    """Remove a journal, durably, if it still has the state that `entry` says; then the time kept beside it.

    An undo that begins meanwhile renames it first, and then it is not removed. Raises
    :class:`smfix.errors.WriteFailed` if it is still there, or is no longer what it was.
    """
    with _folder(os.path.dirname(entry.path), WriteFailed) as at, _failing(WriteFailed, entry.path):
        os.unlink(os.path.basename(entry.path), dir_fd=at)
        with suppress(FileNotFoundError):
            os.unlink(entry.id + _MTIME, dir_fd=at)
        os.fsync(at)


def size_of(entry: JournalEntry | DamagedEntry) -> int | None:
    """The bytes of the journal's file; None: it cannot be read."""
    try:
        return os.lstat(entry.path).st_size
    except OSError:
        return None


def room_for(folder: str, need: int) -> str | None:
    """Why `need` bytes cannot be written below `folder`, or None. `folder` need not exist yet.

    Raises :class:`smfix.errors.Unreadable` if it cannot be read.
    """
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    with _failing(Unreadable, there):
        free = os.statvfs(there)
    available = free.f_bavail * free.f_frsize
    # A file system without a count of blocks (a 9p mount, some FUSE ones) reports 0 of 0.
    if free.f_blocks and available < need:
        return f"{need:,} bytes are needed below {folder}, {available:,} are free"
    return None


# --------------------------------------------------------------------------- below the folder


def _names(folder: str) -> list[tuple[str, JournalState]]:
    marks = {state.value: state for state in JournalState}
    try:
        with _folder(folder, Unreadable) as at, _failing(Unreadable, folder):
            parted = (name.partition(".") for name in os.listdir(at))
            return sorted(
                ((name, marks[suffix]) for name, _, suffix in parted if suffix in marks if is_id(name)),
                key=lambda found: (found[0], found[1].value),
            )
    except _Missing:
        return []


def _read(folder: str, names: list[tuple[str, JournalState]]) -> Iterator[JournalEntry | DamagedEntry]:
    if not names:
        return
    with _folder(folder, Unreadable) as at:
        for journal_id, state in names:
            name = f"{journal_id}.{state.value}"
            path = os.path.join(folder, name)
            try:
                journal = decode(_content(at, name, path))
                if journal.id != journal_id:
                    raise JournalDamaged("its name is not the one it was given")
            except JournalDamaged as error:
                yield DamagedEntry(journal_id, state, path, str(error), isinstance(error, JournalNewer))
            else:
                yield JournalEntry(journal_id, state, path, journal)


def _content(at: int, name: str, path: str) -> bytes:
    with _failing(Unreadable, path):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
                raise JournalDamaged("it is not a file that smfix wrote")
            if status.st_mode & 0o022:
                raise JournalDamaged("others may write to it, so it proves nothing")
            if status.st_size > MAX_BYTES:
                raise JournalDamaged(f"it has {status.st_size} bytes, more than any journal")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)


class _Missing(Unreadable):
    """The folder is not there."""


@contextmanager
def _folder(folder: str, failure: type[Unreadable | WriteFailed]) -> Iterator[int]:
    """A descriptor of the folder, if no other user may put names into it."""
    try:
        at = kernel_path.open_own_folder(folder)
    except kernel_path.UnsafePath as error:
        raise failure(f"journal folder {folder}: {error}; or choose another with --journal-dir") from None
    except OSError as error:
        lacking = isinstance(error, FileNotFoundError) and failure is Unreadable
        kind = _Missing if lacking else failure
        raise kind(f"journal folder {folder}: {error.strerror}") from error
    try:
        status = os.fstat(at)
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            raise failure(
                f"journal folder {folder}: others may write there, so its journals prove nothing; "
                "choose another with --journal-dir"
            )
        yield at
    finally:
        os.close(at)


@contextmanager
def _failing(failure: type[Unreadable | WriteFailed], what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(f"journal {what}: {error.strerror}") from error


def _make_folder(folder: str) -> None:
    """The folder and the missing ones above it, mode 0700, each durable in the one above it."""
    missing = []
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        missing.append(there)
        there = os.path.dirname(there)
    with _failing(WriteFailed, folder):
        for path in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(above)
            finally:
                os.close(above)


def _forget_orphans(at: int) -> None:
    """Remove temporary files of a smfix that was killed before its journal was complete."""
    for name in os.listdir(at):
        if atomic_file.is_draft(name) or (name.endswith(_NEW) and is_id(name.removesuffix(_NEW))):
            with suppress(OSError):
                if time.time() - os.stat(name, dir_fd=at).st_mtime > _ORPHAN_SECONDS:
                    os.unlink(name, dir_fd=at)
