"""Who a process is: which run a line belongs to, and which SR the process works on.

Pure. Pids are reused within days, and a wrong SR is a wrong disk. So a process' evidence holds
within one run: a run ends when the pid is silent for a day, or starts anew, and the SR that an SM
command names is lent to a garbage collector of the same pid for ten minutes only.
Source: the messages of cleanup.py, lock.py, lvmcache.py, ipc.py and SRCommand.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from smfix.smlog.parse.disk_names import UUID, image_paths
from smfix.smlog.parse.prefixes import is_of_storage
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.parse.window import Line, Window, pid_needles
from smfix.smlog.patterns import pattern

SILENCE = timedelta(hours=24)
LENT = timedelta(minutes=10)
_A_YEAR = timedelta(days=365)
_HANDOVERS = 3  # A daemonises to B, B to C

# From the most direct to the least; each names an SR in full.
_SR_NAMED = pattern(
    rf"=== SR (?P<start>{UUID}): (?:gc|gc_force|abort) ==="
    rf"|/sr-mount/(?P<mount>{UUID})(?![0-9a-fA-F-])"
    rf"|VG_XenStorage-(?P<vg>{UUID})(?![0-9a-fA-F-])"
    rf"|/(?:var/)?lock/sm/(?P<lock>{UUID})/(?:sr|running|gc_active)\b"
    rf"|/(?:var/)?lock/sm/lvm-(?P<lvm>{UUID})/"
    rf"|srUpdate for SR (?P<update>{UUID})"
    rf"|\* SR (?P<error>{UUID}): ERROR"
    rf"|SMGC@(?P<unit>{UUID})"
    rf"|IPCFlag: (?:clear|set) (?P<flag>{UUID}):"
    rf"|Coalesce failed on SR (?P<failed>{UUID}): "
    rf"|'sr_uuid': '(?P<command>{UUID})'"
)
# A garbage collector's first line, an SM command's ("vdi_attach {'sr_uuid': ...").
_START = pattern(rf"\s*=== SR {UUID}: (?:gc|gc_force|abort) ===|\s*[a-z]+_[a-z_]+ \{{(?:'|\Z)")
_PASSES_ON = pattern(r"(?:New PID|Will finish as PID) \[(?P<pid>[0-9]{1,7})\]")


def apart(first: Stamp | None, second: Stamp | None) -> timedelta | None:
    """Return the time between `first` and `second`, in either order; None if a time is missing.

    Stamps without a year are assumed to be within one year of each other, across a new year too.
    """
    if first is None or second is None:
        return None
    is_leap_day = (first.month, first.day) == (2, 29) or (second.month, second.day) == (2, 29)
    year = first.year or second.year or (2000 if is_leap_day else 2001)
    one, other = first.at(first.year or year), second.at(second.year or year)
    if one is None or other is None:
        return None
    gap = abs(other - one)
    if first.year is None or second.year is None:
        gap = min(gap, abs(_A_YEAR - gap))
    return gap


def same_run(first: Stamp | None, second: Stamp | None) -> bool:
    """Return True if at most a day separates them (missing times separate nothing)."""
    if first is None or second is None:
        return True
    if (first.year, first.month, first.day) == (second.year, second.month, second.day):
        return True  # most are
    gap = apart(first, second)
    return gap is None or gap < SILENCE


def starts_run(line: Line) -> bool:
    """Return True for the line with which a garbage collector or an SM command begins."""
    return _START.match(line.text) is not None


def run_before(window: Window, line: Line) -> Iterator[Line]:
    """Yield the earlier lines of the run in which `line` was written, nearest first.

    A run ends at its first line, at the line with which another process handed its work over to this pid, and
    when the pid is silent for a day.
    """
    if line.pid is None:
        return
    last = line
    for other in window.naming_before(line.at, pid_needles(line)):
        if other.host != line.host or not is_of_storage(other.ident):
            continue
        if other.pid != line.pid:
            if _passes_to(other) == line.pid:
                return
            continue
        if not same_run(other.stamp, last.stamp):
            return
        yield other
        last = other
        if starts_run(other):
            return


def started_between(window: Window, line: Line, place: int) -> bool:
    """Return True if the process that wrote `line` began after `place`: its pid was used again."""
    if line.pid is None:
        return False
    for other in window.naming_before(line.at, pid_needles(line)):
        if window.place(other.at) <= place:
            return False
        if other.host == line.host and ((other.pid == line.pid and starts_run(other)) or _passes_to(other) == line.pid):
            return True
    return False


def _passes_to(line: Line) -> int | None:
    """Return the pid to which `line` hands its work over."""
    passed = _PASSES_ON.search(line.text)
    return int(passed["pid"]) if passed else None


def srs_named(text: str) -> set[str]:
    """Return every SR that `text` names in full, lower case."""
    found = {str(match[match.lastgroup or 0]).lower() for match in _SR_NAMED.finditer(text)}
    return found | {image.sr for image in image_paths(text) if image.sr}


def sr_of(window: Window, line: Line) -> str | None:
    """Return the SR on which the process that wrote `line` works: the last one that its run has named.

    None if it named none, or two in one line. A daemonised garbage collector inherits the SR of
    the process it came from. However often work was handed over: nothing counts that one search from `line` on
    does not reach.
    """
    within = window.reached_from(line.at)
    for _ in range(_HANDOVERS):
        for other in run_before(window, line):
            if window.place(other.at) not in within:
                return None
            named = srs_named(other.text)
            if named and (other.ident == "SMGC" or _is_recent(other, line)):
                return named.pop() if len(named) == 1 else None
        origin = _handed_over_by(window, line, within)
        if origin is None:
            return None
        line = origin
    return None


def _is_recent(other: Line, line: Line) -> bool:
    gap = apart(other.stamp, line.stamp)
    return gap is None or gap <= LENT


def _handed_over_by(window: Window, line: Line, within: range) -> Line | None:
    """Return the line, at a place `within`, with which another process handed over to the writer of `line`."""
    needles = (b"PID [%d]" % line.pid,) if line.pid is not None else ()  # rare, other than the lines of the pid itself
    for near in (window.naming_before, window.naming_after):  # their order can be reversed
        for other in near(line.at, needles):
            if window.place(other.at) not in within or not same_run(other.stamp, line.stamp):
                break
            if _passes_to(other) == line.pid and other.host == line.host:
                return other
    return None
