"""The storage manager's garbage collector (GC) on an SR: whether it is at work, and how long smfix waits for its end.

Theory. GC holds ``<sr>/gc_active`` for its whole life and ``<sr>/running`` only around each scan and coalesce. Between
two of them it asks for `running` without waiting; if another process holds it, GC logs "Unable to acquire GC running
lock." and ends its whole run. So smfix takes no lock of an SR while its `gc_active` is held. Here that lock is only
looked at: F_GETLK names the holder and takes nothing. The lock file's mtime says nothing of the holder; its process'
start time does.

Source: sm drivers/cleanup.py (``_gcLoop``, ``LockActive``), lock.py, flock.py; fcntl(2), proc(5).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from smfix.values import Reason, Refusal

if TYPE_CHECKING:
    from smfix.sm.locks import Clock

GC_WAIT = 30.0
"""Seconds that a one-shot run waits for GC, unless the operator says otherwise."""
GC_STEP = 0.5
"""Seconds between two looks at the lock."""
GC_ACTIVE = "gc_active"

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_START_FIELD = 19  # of /proc/PID/stat, counted after the command's name: starttime is field 22


@dataclass(frozen=True, slots=True)
class Collector:
    """The process that holds ``gc_active`` of `sr`. `pid`, `since` (its start): None if the kernel does not say."""

    sr: str
    pid: int | None
    since: datetime | None

    @property
    def words(self) -> str:
        """GC with its process and its age, as the subject of a sentence."""
        who = "GC" if self.pid is None else f"GC (process {self.pid})"
        when = "" if self.since is None else f" since {self.since.isoformat(sep=' ', timespec='seconds')}"
        return f"{who} has been at work on SR {self.sr}{when}"


def collector(folder: str, sr: str, *, proc: str = "/proc") -> Collector | None:
    """The GC that is at work on `sr`, by the storage manager's locks in `folder`; None: there is none now.

    Raises OSError if the lock file cannot be read.
    """
    try:
        fd = os.open(os.path.join(folder, sr, GC_ACTIVE), _OPEN)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)  # this process never locks that file, so closing drops nothing
    if kind == fcntl.F_UNLCK:
        return None
    return Collector(sr, pid, _started(pid, proc)) if pid > 0 else Collector(sr, None, None)


def _started(pid: int, proc: str) -> datetime | None:
    """When the process began, in this host's zone; None if it has ended or cannot be seen."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="ascii", errors="replace") as stat:
            ticks = int(stat.read().rpartition(")")[2].split()[_START_FIELD])
        with open(f"{proc}/stat", encoding="ascii", errors="replace") as stat:
            boot = next(int(line.split()[1]) for line in stat if line.startswith("btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return datetime.fromtimestamp(boot + ticks / os.sysconf("SC_CLK_TCK"), UTC).astimezone()


def _nothing(_line: str) -> None:
    """Draw no progress."""


@dataclass(slots=True)
class GcWait:
    """How long a run waits for GC in all: `given` seconds, of which `spent` went by for the disks before.

    `then` ends the refusal: what happens, or what to do, when GC has ended. `draw` shows a progress line (empty: takes
    it away). `takes_gap`: do not wait for GC, take `running` between two of its iterations, which ends its run.
    """

    given: float = GC_WAIT
    then: str = "let it end, then run smfix again, or have smfix wait longer with --gc-wait 2h"
    draw: Callable[[str], None] = _nothing
    takes_gap: bool = False
    spent: float = 0.0

    def until_free(self, folder: str, sr: str, clock: Clock) -> Refusal | None:
        """Wait until no GC is at work on `sr`; a Refusal (locked) if it still is after what is left.

        No lock of the storage manager may be held by this process meanwhile. Raises OSError.
        """
        begin, waited = clock.now(), False
        try:
            while (busy := collector(folder, sr)) is not None:
                passed = clock.now() - begin
                if self.spent + passed >= self.given:
                    return self.refusal(busy)
                waited = True
                self.draw(f"smfix: waiting: {busy.words} ({self.spent + passed:.0f} of {self.given:g} s)")
                clock.sleep(min(GC_STEP, self.given - self.spent - passed))
            return None
        finally:
            if waited:
                self.spent += clock.now() - begin
                self.draw("")

    def refusal(self, busy: Collector) -> Refusal:
        """Why an image of that SR is not written now."""
        return Refusal(Reason.LOCKED, f"{busy.words}, and locks taken now would end its run: {self.then}")
