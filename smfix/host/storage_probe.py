"""Find out which storage answers before smfix touches it.

A process that touches a dead NFS mount, or a volume whose paths are all gone, waits in the kernel, and no signal may
end it. So a child process goes first: it lists the folder, opens an image and reads a sector. If it does not come
back, smfix abandons it and does not touch that storage; while the child exists, no other one is started for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from smfix.errors import UsageError
from smfix.host import wait_notice

PATIENCE = "SMFIX_PATIENCE"
"""The environment variable with the seconds for which storage may be silent."""
_DEFAULT = 60.0
_MOST_OPEN = 4096
_AT_ONCE = 64  # children
_SECTOR = 512
_TO_END = 1.0  # seconds that a child has to end after its answer
_PAGE = 4096
_LEFT: dict[int, str] = {}
"""Children that did not come back, and what they touch: the kernel ends them when their storage answers."""
_MEMORY = 5.0
_HEARD: dict[str, float] = {}
"""Which storage was read, and when: for :data:`_MEMORY` seconds only :func:`silent` asks it again."""


def patience() -> float:
    """Return the seconds after which storage counts as silent. Raises UsageError."""
    given = os.environ.get(PATIENCE, "")
    try:
        seconds = float(given or _DEFAULT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise UsageError(f"{PATIENCE}={given}: not a number of seconds, from above 0 to 86400")
    return seconds


def words(what: str, seconds: float | None = None, then: str = "then run smfix again") -> str:
    """Return the message on storage that is silent: whose, for how long (None: :func:`patience`), and `then`."""
    limit = patience() if seconds is None else seconds
    return (
        f"the storage of {what} has not answered for {limit:g} s: it was not looked at. See whether its server "
        f"and its paths are up, {then}"
    )


def silent(paths: Iterable[str], say: wait_notice.Say | None = None) -> frozenset[str]:
    """Return those of `paths` (folders, images, devices) whose storage does not answer in time. Raises UsageError.

    `say` gets a line that names them if they are silent for long, before the time is over.
    """
    touches = {path: partial(_touch, path) for path in paths}
    heard = answers(touches, say)
    # A volume that had no node may have one soon, and then its storage must be asked.
    _HEARD.update(dict.fromkeys((path for path, answer in heard.items() if answer), time.monotonic()))
    return frozenset(touches) - frozenset(heard)


def answers(questions: Mapping[str, Callable[[], bytes]], say: wait_notice.Say | None = None) -> dict[str, bytes]:
    """Ask each question in a child process and return the answers that came in time.

    A question's name says what it touches. An answer has fewer than 4096 bytes; one that fails is empty. Raises
    UsageError.
    """
    limit, left = patience(), list(questions)
    for pid in [pid for pid in _LEFT if _is_over(pid)]:
        del _LEFT[pid]
    left = [name for name in left if name not in _LEFT.values()]
    heard: dict[str, bytes] = {}
    while left:
        some, left = left[:_AT_ONCE], left[_AT_ONCE:]
        heard |= _ask_at_once({name: questions[name] for name in some}, limit, say)
    return heard


def silent_devices(paths: Iterable[str]) -> frozenset[str]:
    """Return those of `paths` (devices) whose storage does not answer in time. Raises UsageError.

    One that has just answered is not asked again: each question is a process, and an SR has hundreds of volumes.
    """
    return silent(path for path in paths if not _has_just_answered(path))


def is_silent(path: str) -> bool:
    """True if the storage of `path` does not answer in time; one that has just answered is not asked again.

    Raises UsageError.
    """
    return not _has_just_answered(path) and path in silent([path])


def _has_just_answered(path: str) -> bool:
    return time.monotonic() - _HEARD.get(path, -_MEMORY) < _MEMORY


def _ask_at_once(
    questions: Mapping[str, Callable[[], bytes]], limit: float, say: wait_notice.Say | None
) -> dict[str, bytes]:
    children: dict[str, tuple[int, int]] = {}
    heard: dict[str, bytes] = {}
    for name, ask in questions.items():
        try:
            children[name] = _start_child(ask)
        except OSError:  # no process can be made: ask in this one, and wait as long as it takes
            heard[name] = _answer(ask)
    waiting = {pipe: name for name, (_, pipe) in children.items()}
    begin = time.monotonic()
    try:
        while waiting and (left := begin + limit - time.monotonic()) > 0:
            if say is not None:
                left = min(left, max(0.0, begin + wait_notice.SECONDS - time.monotonic()))
            for pipe in select.select(list(waiting), [], [], left)[0]:
                heard[waiting.pop(pipe)] = os.read(pipe, select.PIPE_BUF)
            if say is not None and waiting and time.monotonic() - begin >= wait_notice.SECONDS:
                say(wait_notice.words(", ".join(sorted(waiting.values()))))
                say = None
    finally:
        for name, (pid, pipe) in children.items():
            os.close(pipe)
            _note_end(pid, name, is_stuck=name not in heard)
    return heard


def _start_child(ask: Callable[[], bytes]) -> tuple[int, int]:
    """Start a child that asks; return its pid, and the pipe of its answer, which it closes at its end."""
    pipe, other = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(pipe)
        os.close(other)
        raise
    if pid == 0:
        try:
            # A stuck child must keep neither the parent's stdout nor its locks open.
            os.dup2(other, 0)
            os.closerange(1, _MOST_OPEN)
            os.write(0, _answer(ask))
        finally:
            os._exit(0)
    os.close(other)
    return pid, pipe


def _answer(ask: Callable[[], bytes]) -> bytes:
    """Return the answer; empty if the question fails."""
    with suppress(OSError, ValueError):
        return ask()
    return b""


def _touch(path: str) -> bytes:
    """Touch storage as a look at an image does: list, stat, open, read. Empty if there is no image to read."""
    if stat.S_ISDIR(os.stat(path).st_mode):
        image = next((name for name in sorted(os.listdir(path)) if name.endswith(".vhd")), None)
        if image is None:
            return b""
        path = os.path.join(path, image)
    if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFBLK):
        return b""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    os.pread(descriptor, _SECTOR, 0)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        # Not from the cache, which needs no disk; and at the footer too, which may be on another disk.
        last = max(0, os.lseek(descriptor, 0, os.SEEK_END) - _PAGE) // _PAGE * _PAGE
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
        import mmap

        with mmap.mmap(-1, _PAGE) as page:
            for at in (0, last):
                os.preadv(descriptor, [page], at)
    return b"read"


def _note_end(pid: int, path: str, *, is_stuck: bool) -> None:
    """Take note of a child's end. A child that has answered may still wait for its storage as it closes its files."""
    until = time.monotonic() + _TO_END
    while not is_stuck and time.monotonic() < until:
        if _is_over(pid):
            return
        time.sleep(0.001)
    os.kill(pid, 9)
    _LEFT[pid] = path


def _is_over(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
