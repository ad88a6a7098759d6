"""The name of a file or folder as the kernel resolves it, not as the text of a path looks.

Theory. The text of a path proves nothing: ``link/../x`` is not beside the link, ``/proc/PID/root/x`` may be in
another mount namespace, and a folder may have been deleted, renamed or mounted over since a process entered it.
So a folder is opened as the kernel resolves it (O_PATH), the descriptor is asked for its name, and that name counts
only if it leads to the same inode again. A plain absolute path (no ``..``, no link of procfs on the way) means the
same to every process of this host, so it is kept as it was given: ``/var/run/sr-mount/...`` stays.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from smfix.errors import UsageError
from smfix.sm.paths import read_path

_PROC = "/proc"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LINKS = 40
"""Links on one path that Linux follows. Source: path_resolution(7)."""
_NO_NAMES = ("", os.curdir, os.pardir)
_ANY_DISK = f"{'0' * 8}-0000-0000-0000-{'0' * 12}.vhd"


class UnsafePath(UsageError):
    """A path whose file has no name that every process of this host resolves to it."""


class Place(NamedTuple):
    """A folder by two names: `kept`, the given one if it is plain, and `resolved`, without any link.

    A link that is named as one SR and leads into another is not kept: SM's locks are those of the SR of the file.
    """

    kept: str
    resolved: str


def place_of(folder: str) -> Place:
    """The names of an existing `folder`; empty is the current one.

    Raises OSError if it cannot be opened, UnsafePath if no path leads to it.
    """
    fd = os.open(folder or os.curdir, _FOLDER)
    try:
        resolved = _name_of(fd, folder or os.curdir)
    finally:
        os.close(fd)
    if not _is_plain(folder):
        return Place(resolved, resolved)
    kept = _tidy(folder)
    if kept != resolved and (_through_procfs(kept) or _sr_of(resolved) not in (None, _sr_of(kept))):
        kept = resolved
    return Place(kept, resolved)


def named(path: str) -> str:
    """The absolute path of `path`, whose last component is not followed; what does not exist yet is taken as it is.

    Raises UsageError for a path that cannot be a name, or that is relative to a folder that was deleted.
    """
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is no path: it is empty, or holds a NUL character")
    folder, name = os.path.split(path.rstrip("/") or "/")
    try:
        if name in _NO_NAMES:
            return place_of(path).kept
        return os.path.join(place_of(folder).kept, name)
    except FileNotFoundError:
        # Of what is not there yet the parent has a name; a `..` below it would be a guess.
        if name == os.pardir or not folder:
            raise UsageError(f"{path}: no such folder; give an absolute path") from None
        return os.path.join(named(folder), "" if name == os.curdir else name)
    except OSError:
        if _is_plain(path):
            return _tidy(path)  # the error comes when it is opened
        raise UsageError(f"{path}: the folder it is in cannot be opened; give an absolute path") from None


def typed(path: str) -> str:
    """`path` as a word that means the same in every folder and process. It touches no storage, procfs apart."""
    try:
        if path.startswith(f"{_PROC}/"):
            return named(path)
        if os.path.isabs(path):
            return path if os.pardir in path.split("/") else _tidy(path)
        try:
            here = os.getcwd()
        except OSError:  # deleted
            return named(path)
    except UsageError:
        return path  # there is no other word for it
    return os.path.join(here, path) if os.pardir in path.split("/") else os.path.normpath(os.path.join(here, path))


def open_own_folder(folder: str) -> int:
    """A descriptor of `folder`, for files that root trusts.

    Every link on the way must belong to root or to this user, and the last component must be no link: else another
    user chooses where the files are. Raises OSError, UnsafePath.
    """
    link = _link_of_others(folder)
    if link is not None:
        raise UnsafePath(f"{link} is a symbolic link that belongs to another user")
    if os.path.islink(folder.rstrip("/")):
        raise UnsafePath(f"it is a symbolic link; name the folder itself: {os.path.realpath(folder)}")
    return os.open(folder.rstrip("/") or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def is_same_file(path: str, fd: int, *, follow: bool = False) -> bool:
    """True when the kernel resolves `path` to the file that is open as `fd`."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=follow), os.fstat(fd))
    except OSError:
        return False


def _name_of(fd: int, given: str) -> str:
    """The name of an open folder. Raises UnsafePath where its name does not lead back to it."""
    try:
        name = os.readlink(f"{_PROC}/self/fd/{fd}")
    except OSError:  # no procfs, as in an empty chroot
        name = os.path.realpath(given)
    if not name.startswith("/") or not is_same_file(name, fd):
        what = "the current directory" if given == os.curdir else given
        raise UnsafePath(
            f"{what}: no path of this process leads there (the folder was deleted or mounted over, or it is in "
            "another mount namespace); give a plain absolute path, in the namespace that it belongs to"
        )
    return name


def _sr_of(folder: str) -> str | None:
    return read_path(os.path.join(folder, _ANY_DISK)).sr


def _is_plain(path: str) -> bool:
    return path.startswith("/") and os.pardir not in path.split("/")


def _tidy(path: str) -> str:
    """A path without ``..`` less its empty and ``.`` components: the same to the kernel."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", os.curdir))


class _Link(NamedTuple):
    path: str
    target: str
    about: os.stat_result


def _links(path: str) -> list[_Link]:
    """The symbolic links on the way to an absolute `path`, the last component's included."""
    found: list[_Link] = []
    rest = path.split("/")[::-1]
    here = "/"
    while rest and len(found) <= _MOST_LINKS:
        part = rest.pop()
        if part in ("", os.curdir):
            continue
        if part == os.pardir:
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, part)
        try:
            about = os.lstat(there)
            if not stat.S_ISLNK(about.st_mode):
                here = there
                continue
            target = os.readlink(there)
        except OSError:
            break
        found.append(_Link(there, target, about))
        here = "/" if target.startswith("/") else here
        rest += target.split("/")[::-1]
    return found


def _through_procfs(path: str) -> bool:
    """True when a link of procfs is on the way: it leads elsewhere for another process, or for none.

    Such a link does not have the length of its target: 0 or 64 bytes, whatever it leads to.
    """
    try:
        proc = os.stat(_PROC).st_dev
    except OSError:
        proc = None
    return any(
        link.about.st_dev == proc or link.about.st_size != len(os.fsencode(link.target)) for link in _links(path)
    )


def _link_of_others(path: str) -> str | None:
    ours = (0, os.geteuid())
    return next((link.path for link in _links(path) if link.about.st_uid not in ours), None)
