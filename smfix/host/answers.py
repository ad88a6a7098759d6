"""Which storage answers: asked before anything waits for it in vain.

A process that touches a dead NFS mount, or a volume whose paths are all gone, waits in the kernel, and no signal may
end it. So a child of ours goes first: it lists the folder, opens an image and reads a sector. One that does not come
back is left behind, and that storage is not touched.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterable
from contextlib import suppress

from smfix.errors import UsageError
from smfix.host import slow

PATIENCE = "SMFIX_PATIENCE"
"""The variable of the environment that says for how many seconds storage may be silent."""
_DEFAULT = 60.0
_MOST_OPEN = 4096
_AT_ONCE = 64  # children
_SECTOR = 512
_LEFT: list[int] = []
"""Children that did not come back: the kernel ends them when their storage does."""


def patience() -> float:
    """Seconds after which storage is taken not to answer. Raises UsageError."""
    given = os.environ.get(PATIENCE, "")
    try:
        seconds = float(given or _DEFAULT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise UsageError(f"{PATIENCE}={given}: not a number of seconds, from above 0 to 86400")
    return seconds


def words(what: str, seconds: float | None = None, then: str = "then run smfix again") -> str:
    """What is said of storage that is silent: whose, for how long (None: :func:`patience`), and `then`."""
    limit = patience() if seconds is None else seconds
    return (
        f"the storage of {what} has not answered for {limit:g} s: it was not looked at. See whether its server "
        f"and its paths are up, {then}"
    )


def silent(paths: Iterable[str], say: slow.Say | None = None) -> frozenset[str]:
    """Those of `paths` (folders, images, devices) whose storage does not answer in time. Raises UsageError.

    `say` gets a line that names them if they are silent for long, before the time is over.
    """
    todo, limit = list(dict.fromkeys(paths)), patience()
    _LEFT[:] = [pid for pid in _LEFT if not _is_over(pid)]
    dumb: set[str] = set()
    while todo:
        some, todo = todo[:_AT_ONCE], todo[_AT_ONCE:]
        dumb.update(_silent(some, limit, say))
    return frozenset(dumb)


def _silent(paths: list[str], limit: float, say: slow.Say | None) -> list[str]:
    children = {path: _sent(path) for path in paths}
    waiting = {pipe: path for path, (_, pipe) in children.items()}
    begin = time.monotonic()
    try:
        while waiting and (left := begin + limit - time.monotonic()) > 0:
            if say is not None:
                left = min(left, max(0.0, begin + slow.SECONDS - time.monotonic()))
            answered = select.select(list(waiting), [], [], left)[0]
            for pipe in answered:
                del waiting[pipe]
            if say is not None and waiting and time.monotonic() - begin >= slow.SECONDS:
                say(slow.words(", ".join(sorted(waiting.values()))))
                say = None
    finally:
        for path, (pid, pipe) in children.items():
            os.close(pipe)
            _ended(pid, is_stuck=path in waiting.values())
    return list(waiting.values())


def _sent(path: str) -> tuple[int, int]:
    """A child that touches what is at `path`: its pid, and the pipe that is closed when it has come back."""
    pipe, other = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            # Nobody must wait for us: not who reads what our parent prints, nor who wants its locks.
            os.dup2(other, 0)
            os.closerange(1, _MOST_OPEN)
            with suppress(OSError, ValueError):
                _touch(path)
        finally:
            os._exit(0)
    os.close(other)
    return pid, pipe


def _touch(path: str) -> None:
    """As those do who look at images: list, stat, open, read."""
    if stat.S_ISDIR(os.stat(path).st_mode):
        image = next((name for name in sorted(os.listdir(path)) if name.endswith(".vhd")), None)
        if image is None:
            return
        path = os.path.join(path, image)
    if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFBLK):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    os.pread(descriptor, _SECTOR, 0)


def _ended(pid: int, *, is_stuck: bool) -> None:
    if not is_stuck:
        os.waitpid(pid, 0)
        return
    os.kill(pid, 9)
    _LEFT.append(pid)


def _is_over(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
