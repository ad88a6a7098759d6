"""Readers: processes of our own that read, hand over what they read, and write nothing else.

Theory. A reader begins with all memory of this process, so no work is sent to it. Its results come
through a pipe, in order; if the pipe is full it waits, so few results are in memory. A second pipe takes further
questions to it. A reader ignores an interrupt from the terminal; it ends when its pipe is closed. Only for
a process without threads: a fork copies their locks, and not them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

_F_SETPIPE_SZ = 1031
_PROTOCOL = 5  # of pickle
_ENDED: list[int] = []
"""Not waited for: the kernel takes milliseconds to clear a process away, or for ever if its storage hangs."""
Tell = Callable[[object], None]
Asked = Callable[[], Any]
"""Returns the next question; raises EOFError if there are no more."""


class Reader:
    """A process that does `work`, which is given the functions to tell something with and to be asked something.

    `room`: bytes that may wait. Raises OSError if no process can be made.
    """

    def __init__(self, work: Callable[[Tell, Asked], None], *, room: int = 0) -> None:
        pipes = [*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC)]
        receiving, sending, hearing, asking = pipes
        try:
            self._pid = os.fork()
        except OSError:
            for pipe in pipes:
                os.close(pipe)
            raise
        if self._pid == 0:
            try:  # pragma: no cover - in another process
                os.close(receiving)
                os.close(asking)
                _begin(work, sending, hearing, room)
            finally:
                os._exit(0)
        os.close(sending)
        os.close(hearing)
        self._pipe, self._questions = os.fdopen(receiving, "rb"), os.fdopen(asking, "wb", buffering=0)

    def hear(self) -> Any:
        """Return its next result. Raises EOFError if it has ended, even in the middle of a result."""
        return _next(self._pipe)

    def ask(self, question: object) -> None:
        """Ask it something. That it has ended is for :meth:`hear` to say."""
        with contextlib.suppress(BrokenPipeError):
            _pickle().dump(question, self._questions, _PROTOCOL)

    def end(self) -> None:
        """End it. It only reads; after its last word it is gone anyway."""
        self._pipe.close()
        self._questions.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        _ENDED.append(self._pid)
        wait(os.WNOHANG)


def wait(how: int = 0) -> None:
    """Wait until the readers that were ended are gone; with ``os.WNOHANG`` only see which are."""
    _ENDED[:] = [pid for pid in _ENDED if not _is_gone(pid, how)]


def _is_gone(pid: int, how: int) -> bool:
    try:
        return os.waitpid(pid, how) != (0, 0)
    except ChildProcessError:  # its end was taken note of elsewhere
        return True


def _pickle() -> ModuleType:
    """Only here: few commands fork. Of the module the part in C: what surrounds it takes longer than a report's way."""
    try:
        return importlib.import_module("_pickle")
    except ImportError:  # another Python
        return importlib.import_module("pickle")


def _next(pipe: BinaryIO) -> Any:
    pickle = _pickle()
    try:
        return pickle.load(pipe)  # between our own processes
    except pickle.UnpicklingError as error:
        raise EOFError from error


def _begin(
    work: Callable[[Tell, Asked], None], sending: int, hearing: int, room: int
) -> None:  # pragma: no cover - in another process
    dump = _pickle().dump
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nothing = os.memfd_create("smfix-nothing")
    for stream in (1, 2):  # who reads what we print shall not wait for it, and it has nothing to say
        os.dup2(nothing, stream)
    gc.freeze()  # what its parent has made is not its to collect
    _ENDED.clear()
    if room:
        import fcntl

        with contextlib.suppress(OSError):  # pipe-max-size forbids it: then it waits sooner
            fcntl.fcntl(sending, _F_SETPIPE_SZ, room)
    with os.fdopen(sending, "wb", buffering=0) as pipe, os.fdopen(hearing, "rb") as questions:
        work(lambda value: dump(value, pipe, _PROTOCOL), lambda: _next(questions))
