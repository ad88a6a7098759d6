"""The file a page is saved to: whole or not at all, and never in the place of anything else.

Theory. The name comes from a command line that also names disk images, so a slip must not cost one: what is
there already is replaced only if it is an earlier page. The page is written below another name, beside its
own, and takes its name by one rename: nobody sees half of it, and a link that somebody put there is not
followed. It holds what root can read, so only its owner may read it (0600).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from smfix.errors import UsageError, WriteFailed

_IMAGES = (".vhd", ".vhdx", ".qcow2", ".raw", ".img", ".iso")


def ready(path: str, is_ours: Callable[[bytes], bool], head: int) -> None:
    """Say, before any work is done, why no page could be saved to `path`.

    `is_ours` tells from a file's first `head` bytes that it is an earlier page. Raises UsageError where the
    name cannot be meant (an image's, a link's, another file's), WriteFailed where the folder takes no file.
    """
    name = os.path.basename(path)
    if not name or "\0" in path or name in (".", ".."):
        raise UsageError(f"--html {path}: name a file")
    if name.lower().endswith(_IMAGES):
        raise UsageError(f"--html {path}: that is the name of a disk image; name a page, for example report.html")
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise _failed(path, error) from error
    if there is not None:
        _replaceable(path, there, is_ours, head)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise WriteFailed(f"cannot save the page to {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteFailed(f"cannot save the page to {path}: no permission to write in {folder}")


def _replaceable(path: str, there: os.stat_result, is_ours: Callable[[bytes], bool], head: int) -> None:
    if stat.S_ISLNK(there.st_mode):
        raise UsageError(f"--html {path}: that is a symbolic link; name the file itself")
    if not stat.S_ISREG(there.st_mode):
        raise UsageError(f"--html {path}: that is not a regular file")
    if there.st_size == 0:
        return
    try:
        # Not to hang on what became a FIFO meanwhile, nor to follow what became a link.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            is_page = is_ours(os.read(descriptor, head))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed(path, error) from error
    if not is_page:
        raise UsageError(f"--html {path}: that file exists and is not a page of smfix; it is not replaced")


def save(path: str, page: bytes) -> None:
    """Put `page` at `path`, durably. Raises WriteFailed; then nothing of it is left."""
    folder, name = os.path.split(path)
    draft = f".{name[:100]}.{secrets.token_hex(6)}.part"
    try:
        below = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        _write(below, draft, page)
        try:
            os.rename(draft, name, src_dir_fd=below, dst_dir_fd=below)
        except OSError:
            os.unlink(draft, dir_fd=below)
            raise
        os.fsync(below)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(below)


def _write(below: int, draft: str, page: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600, dir_fd=below)
    try:
        view = memoryview(page)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except BaseException:  # an interrupt too: half a page must not be left lying
        with suppress(OSError):
            os.unlink(draft, dir_fd=below)
        raise
    finally:
        os.close(descriptor)


def _failed(path: str, error: OSError) -> WriteFailed:
    return WriteFailed(f"cannot save the page to {path}: {error.strerror}")
