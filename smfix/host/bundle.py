"""The self-contained smfix: unpacked into a folder of its own, it runs as the child of the file that was started.

Once, at the start, it corrects the traces of the unpacking in this process: the name smfix was called by, the
environment that programs of the host shall get, the end of both processes together, and the folders of runs
that were killed. An smfix that was installed by pip has nothing of this.
Sources: the bootloaders of staticx and PyInstaller; prctl(2).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress

MARK = ".smfix-running"
"""A file of the unpacked folder. Locked while its smfix runs; empty until then."""

LEFT_BEHIND = ("STATICX_", "_PYI_", "_MEIPASS", "PYINSTALLER_")
"""How the variables begin by which the unpacking speaks to the unpacked program."""

UNPACKING = 600.0
"""Seconds after which a folder that no process has run from counts as the rest of an unpacking that failed."""

_FILE, _FOLDER = "STATICX_PROG_PATH", "STATICX_BUNDLE_DIR"
_PREFIX = "staticx-"
_PR_SET_PDEATHSIG = 1

_started: str | None = None


def is_packed() -> bool:
    """True in the self-contained smfix."""
    return getattr(sys, "frozen", False) is True


def own_file() -> str | None:
    """The self-contained file that was started, absolute; None where smfix is installed otherwise."""
    return _started


def begin(environment: MutableMapping[str, str], words: list[str]) -> None:
    """Make this process what its caller started: call it once, where :func:`is_packed`.

    `words` (``sys.argv``) get the real program; from `environment` goes what is of the unpacking. The
    library path of the unpacked folder has served: the loader read it when the process began.
    """
    global _started  # noqa: PLW0603 - of the process, as what it is read from
    _started = environment.get(_FILE)
    folder = environment.get(_FOLDER)
    if _started is not None and words:
        words[0] = _started
    restore(environment)
    end_with_parent()
    if folder is not None:
        _hold(folder)
        clean_up(os.path.dirname(folder), sparing=folder)


def restore(environment: MutableMapping[str, str]) -> None:
    """Give `environment` back the values it had before the unpacking; nothing of ours stays."""
    for name in [name for name in environment if name.startswith(LEFT_BEHIND)]:
        del environment[name]
    before = environment.pop("LD_LIBRARY_PATH_ORIG", None)
    environment.pop("LD_LIBRARY_PATH", None)
    if before:
        environment["LD_LIBRARY_PATH"] = before


def manager_pids() -> frozenset[int]:
    """Return the processes by which a service manager may know this smfix: itself, and its parent if it is packed."""
    return frozenset((os.getpid(), os.getppid()) if is_packed() else (os.getpid(),))


def end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent ends, so that a killed parent leaves no writer."""
    import ctypes

    # Not every kernel, nor every filter of system calls, has it: then it is as it was.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _hold(folder: str) -> None:
    """Lock the folder's mark until this process and those it forks are gone."""
    with suppress(OSError):
        mark = os.open(os.path.join(folder, MARK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(mark, b"%d\n" % os.getpid())


def clean_up(temporary: str, *, sparing: str) -> None:
    """Remove what killed runs of this user left in `temporary`; not `sparing`, and nothing that is in use."""
    with suppress(OSError), os.scandir(temporary) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.path != sparing and _is_left_over(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        mark = os.open(os.path.join(entry.path, MARK), flags)
    except OSError:
        return False  # no process' folder, or another user's
    try:
        status = os.fstat(mark)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # it runs
    finally:
        os.close(mark)
    return status.st_size > 0 or time.time() - status.st_ctime > UNPACKING
