"""The one writer of the files that smfix makes: whole or not at all, and never in the place of anything else.

Theory. Most names come from a command line that also names disk images, and some folders belong to others, so a slip
or a swap must not cost a disk. The folder is opened once; the draft is made in it, under a random name, as a new file
(O_EXCL, never through a link); it is synced, takes its name by one rename, and the folder is synced: a reader sees the
old content or the new one, whatever is killed. An existing file is replaced only if it is a regular file with
one name that smfix wrote itself: each kind of file begins with a mark of its own. That is looked at before any work is
done, and again right before the rename.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from smfix.errors import UsageError, WriteFailed

HEAD = 1024
"""Bytes of a file's beginning that tell whose it is."""
SECTOR = 512
"""A disk is whole sectors long; a file that an option names never is."""

_IMAGES = (".vhd", ".vhdx", ".avhd", ".avhdx", ".qcow", ".qcow2", ".vmdk", ".vdi", ".raw", ".img", ".iso")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FileKind(NamedTuple):
    """One kind of file that smfix makes.

    `words` name it in a message. `is_ours`: whether smfix wrote a file, by its first :data:`HEAD` bytes. `mode`: its
    permissions; 0600 for what only root may read. `option` asks for it, `example` is a name that fits.
    """

    words: str
    is_ours: Callable[[bytes], bool]
    mode: int = 0o600
    option: str = ""
    example: str = ""


def check(path: str, kind: FileKind) -> None:
    """Say, before any work is done, why no file of this kind could be written to `path`.

    Raises UsageError if the name is an image's, a link's or another file's, WriteFailed if the folder takes no file.
    """
    said = f"{kind.option} {path}".strip()
    name = os.path.basename(path)
    if not name or "\0" in path or name in (os.curdir, os.pardir):
        raise UsageError(f"{said}: name a file")
    if name.lower().endswith(_IMAGES):
        raise UsageError(
            f"{said}: that is the name of a disk image; name {kind.words.split(' of ')[0]}, for example {kind.example}"
        )
    folder = os.path.dirname(path) or os.curdir
    try:
        at = os.open(folder, _FOLDER)
    except NotADirectoryError:
        raise WriteFailed(f"cannot write {path}: {folder} is not a folder") from None
    except OSError as error:
        raise _failed(path, error) from error
    try:
        if os.fstat(at).st_nlink == 0:
            raise WriteFailed(f"cannot write {path}: its folder was deleted")
        obstacle = _obstacle(at, name, kind)
        is_allowed = os.access(".", os.W_OK | os.X_OK, dir_fd=at)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(at)
    if obstacle is not None:
        raise UsageError(f"{said}: {obstacle}")
    if not is_allowed:
        raise WriteFailed(f"cannot write {path}: no permission to write in {folder}")


def replace(path: str, data: bytes, kind: FileKind) -> None:
    """Put `data` at `path`, durably. Raises WriteFailed; then what was there is still there."""
    folder, name = os.path.split(path)
    try:
        at = os.open(folder or os.curdir, _FOLDER)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        replace_in(at, name, data, kind)
    except OSError as error:
        raise _failed(path, error) from error
    except WriteFailed as error:
        raise WriteFailed(f"cannot write {path}: {error}") from None
    finally:
        os.close(at)


def replace_in(at: int, name: str, data: bytes, kind: FileKind) -> None:
    """Put `data` into the open folder `at` as `name`, durably.

    Raises OSError, and WriteFailed where something else has the name; then what was there is still there.
    """
    if kind.option and len(data) % SECTOR == 0:
        data += b"\n"  # whole sectors are a disk's: see _obstacle
    draft = f".smfix-{secrets.token_hex(8)}.part"
    descriptor = os.open(draft, _DRAFT, 0o600, dir_fd=at)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, kind.mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        obstacle = _obstacle(at, name, kind)
        if obstacle is not None:
            raise WriteFailed(obstacle)
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:  # an interrupt too: no draft may be left
        with suppress(OSError):
            os.unlink(draft, dir_fd=at)
        raise
    os.fsync(at)


def is_draft(name: str) -> bool:
    """True for the name of a draft, which a smfix that was killed may have left."""
    return name.startswith(".smfix-") and name.endswith(".part")


def read_own(path: str, most: int) -> bytes | None:
    """Return the first `most` bytes of a regular file of ours, None if there is none. Raises OSError."""
    try:
        descriptor = os.open(path, _LOOK)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        return file.read(most)


def _obstacle(at: int, name: str, kind: FileKind) -> str | None:
    """Why what has the name must not be replaced; None: nothing has it, or an earlier file of ours. Raises OSError."""
    try:
        there = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(there.st_mode):
        return "that is a symbolic link; name the file itself"
    if not stat.S_ISREG(there.st_mode):
        return "that is not a regular file"
    descriptor = os.open(name, _LOOK, dir_fd=at)
    try:
        opened = os.fstat(descriptor)
        if not os.path.samestat(there, opened):
            return "that was replaced while it was looked at"
        if opened.st_nlink > 1:
            return "that file has other names too (hard links); it is not replaced"
        head = os.pread(descriptor, HEAD, 0)
    finally:
        os.close(descriptor)
    if kind.is_ours(head):
        # A guest can write those first bytes to its raw disk; how long that is, it cannot.
        is_disk = bool(kind.option) and opened.st_size % SECTOR == 0
        return "that file is whole sectors long, as a disk is; if it is none, remove it first" if is_disk else None
    if not head:  # a lock, or a log that was just rotated
        return "that file exists and is empty, so it is not known whose it is; remove it first"
    return f"that file exists and is not {kind.words}; it is not replaced"


def _failed(path: str, error: OSError) -> WriteFailed:
    return WriteFailed(f"cannot write {path}: {error.strerror}")
