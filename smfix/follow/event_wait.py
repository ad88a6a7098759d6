"""Wait for new lines in a file, a signal, or a time.

inotify (through the `inotify_simple` package: one small file over the system call, no thread) reports a line within a
millisecond. It is a hint: without the package, after its limits are used up, and for lines that another host writes
(NFS), the file is looked at once a second.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType
from typing import Any, Self

POLL = 1.0
"""Seconds between two looks with inotify."""
POLL_BLIND = 0.5
"""Seconds between two looks without it."""
_STOPPERS = (signal.SIGTERM, signal.SIGINT)


class EventWait:
    """Waits. Once entered it takes SIGTERM and SIGINT (stop) and SIGHUP (read the policy again)."""

    def __init__(self, folder: str, *, use_inotify: bool = True) -> None:
        self.stopping = False
        self.reload = False
        self._inotify: Any = _inotify() if use_inotify else None
        self._folder = folder
        self._watched: tuple[int, int] | None = None
        self._file = -1
        self._folder_watch = -1
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (*_STOPPERS, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        for descriptor in self._pipe:
            os.close(descriptor)
        if self._inotify is not None:
            self._inotify.close()

    @property
    def sees(self) -> bool:
        """True if inotify works."""
        return self._inotify is not None

    def watch(self, path: str | None, identity: tuple[int, int] | None) -> None:
        """Wake for what is written to the file at `path` (device and inode: `identity`)."""
        if self._inotify is None:
            return
        from inotify_simple import flags  # type: ignore[import-untyped, import-not-found, unused-ignore]

        if self._folder_watch < 0:
            with suppress(OSError):
                self._folder_watch = self._inotify.add_watch(self._folder, flags.CREATE | flags.MOVED_TO)
        if identity == self._watched:
            return
        if self._file >= 0:
            with suppress(OSError):
                self._inotify.rm_watch(self._file)
        self._file, self._watched = -1, None
        if path is not None:
            with suppress(OSError):
                self._file = self._inotify.add_watch(path, flags.MODIFY)
                status = os.stat(path)
                # Renamed meanwhile: another file is watched, and the next look watches the right one.
                self._watched = identity if (status.st_dev, status.st_ino) == identity else None

    def wait(self, seconds: float | None = None) -> None:
        """Return after a signal, after something was written, or after `seconds` (at most POLL)."""
        longest = POLL if self._file >= 0 else POLL_BLIND
        waiting = [self._pipe[0], *([self._inotify.fileno()] if self._inotify is not None else [])]
        ready, _, _ = select.select(waiting, [], [], longest if seconds is None else max(0.0, min(seconds, longest)))
        if self._pipe[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._pipe[0], 64)
        if len(ready) > 1 or (ready and self._pipe[0] not in ready):
            self._inotify.read(timeout=0)

    def pause(self, seconds: float) -> None:
        """Let lines gather for `seconds`; a signal ends it."""
        if select.select([self._pipe[0]], [], [], seconds)[0]:
            os.read(self._pipe[0], 64)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stopping = True
        with suppress(OSError):
            os.write(self._pipe[1], b"!")


def _inotify() -> Any:
    """Return an inotify instance; None if there is none."""
    try:
        from inotify_simple import INotify

        return INotify()
    except (ImportError, OSError):
        return None
