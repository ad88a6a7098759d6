"""Parts read side by side: this process reads the first group, forked ones read the others.

A forked reader hands its events over a pipe, in order; when the pipe is full it waits. It writes
nothing else, and ends with this process. Small logs, one core, or a process with threads: one pass.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from smfix.errors import Unreadable
from smfix.smlog.parts import Part, Reading, Seen, cost, divide, everything, numbered, placed, read_part
from smfix.smlog.sweep import Event, Looking

_WORTH_IT = 48 << 20  # bytes of plain text: below, a second process costs more than it saves
_AT_ONCE = 64  # events handed over together
_PIPE = 1 << 20  # bytes of a pipe that may wait
F_SETPIPE_SZ = 1031

Take = Callable[[Event], None]


def read_everything(reading: Reading, take: Take, open_vdis: Callable[[], frozenset[str]]) -> dict[int, Seen]:
    """Give every event to `take`; what was seen of each log.

    Reports come in order, and with them what proves an incident over that their own part reported. What
    a later part proves of an earlier one's reports is looked for afterwards, in a second pass, and only
    for the VDIs (eight digits) that `open_vdis` then still names.
    """
    ways = _ways(reading)
    groups = divide(reading, everything(reading), ways)
    parts = iter(numbered([part for group in groups for part in group]))
    groups = [[next(parts) for _ in group] for group in groups]
    first = _side_by_side(reading, [_Task(Looking.BOTH, group) for group in groups], take, {})
    seen: dict[int, Seen] = {}
    lines_before: list[dict[int, int]] = []
    for result in first:
        lines_before.append({index: view.lines for index, view in seen.items()})
        _join(seen, result.seen)
    reading.sizes = {index: view.size for index, view in seen.items()}
    for index, group in enumerate(groups[1:], 1):
        reported = frozenset[str]().union(*(result.reported for result in first[:index]))
        if asked := (reported - first[index].reported) & open_vdis():
            pieces = divide(reading, group, ways) if _sizes_hold(reading) else [group]
            tasks = [_Task(Looking.PROOFS, piece, asked) for piece in pieces]
            _side_by_side(reading, tasks, take, lines_before[index])
    return seen


def _sizes_hold(reading: Reading) -> bool:
    """True where every plain log gave as many bytes as it has: no holes, and it has not grown."""
    return all(log.path is None or reading.sizes.get(index) == log.size for index, log in enumerate(reading.logs))


class _Task(NamedTuple):
    """What one process reads: which parts, for what, about which VDIs from the start."""

    looking: Looking
    parts: list[Part]
    wanted: frozenset[str] = frozenset()


class _Result(NamedTuple):
    """What it saw of each log, and the VDIs that it reported."""

    seen: dict[int, Seen]
    reported: frozenset[str]


def _side_by_side(reading: Reading, tasks: list[_Task], take: Take, lines: dict[int, int]) -> list[_Result]:
    """Read the first of `tasks` here, each other in a process of its own. `lines` lie before them in each log."""
    others: list[tuple[int, BinaryIO]] = []
    results: list[_Result] = []
    lines = dict(lines)

    def take_placed(event: Event) -> None:
        take(placed(event, lines))

    try:
        others.extend(_fork(reading, task) for task in tasks[1:])
        here = (_read(reading, task, take_placed) for task in tasks[:1])
        for result in chain(here, (_received(pipe, take_placed) for _, pipe in others)):
            results.append(result)
            for index, view in result.seen.items():
                lines[index] = lines.get(index, 0) + view.lines
        return results
    finally:
        for pid, pipe in others:
            pipe.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # it only reads; after its last word it is gone anyway
            os.waitpid(pid, 0)


def _read(reading: Reading, task: _Task, take: Take) -> _Result:
    reported = set(task.wanted)
    seen: dict[int, Seen] = {}
    for part in task.parts:
        for event in read_part(reading, part, task.looking, reported, seen):
            take(event)
    return _Result(seen, frozenset(reported))


def _ways(reading: Reading) -> int:
    if sum(cost(log) for log in reading.logs) < _WORTH_IT or threading.active_count() > 1:
        return 1
    return max(1, len(os.sched_getaffinity(0)))


def _fork(reading: Reading, task: _Task) -> tuple[int, BinaryIO]:
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:  # pragma: no cover - in another process
            os.close(receiving)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with os.fdopen(sending, "wb", buffering=0) as pipe:
                _widen(sending)
                _send_all(pipe, reading, task)
        finally:
            os._exit(0)
    os.close(sending)
    return pid, os.fdopen(receiving, "rb")


def _widen(descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # pipe-max-size forbids it: then it waits sooner
        fcntl.fcntl(descriptor, F_SETPIPE_SZ, _PIPE)


def _send_all(pipe: Any, reading: Reading, task: _Task) -> None:
    import pickle

    reading.read = lambda _count: None
    batch: list[Event] = []

    def take(event: Event) -> None:
        batch.append(event)
        if len(batch) >= _AT_ONCE:
            pickle.dump(batch, pipe)
            batch.clear()

    try:
        result = _read(reading, task, take)
        pickle.dump(batch, pipe)
        pickle.dump(result, pipe)
    except Unreadable as error:
        pickle.dump(str(error), pipe)


def _received(pipe: BinaryIO, take: Take) -> _Result:
    """Hand on the events of a forked reader. Raises Unreadable where it could not read."""
    import pickle

    while True:
        try:
            content = pickle.load(pipe)  # noqa: S301 - from our own fork
        except (EOFError, pickle.UnpicklingError) as error:
            raise Unreadable("a part of the logs could not be read: its reader died (out of memory?)") from error
        if isinstance(content, _Result):
            return content
        if isinstance(content, str):
            raise Unreadable(content)
        for event in content:
            take(event)


def _join(seen: dict[int, Seen], later: dict[int, Seen]) -> None:
    """Add what a later part saw of each log to what earlier ones did."""
    for index, view in later.items():
        whole = seen.setdefault(index, Seen())
        whole.first = whole.first or view.first
        whole.last = view.last or whole.last
        whole.size += view.size
        whole.lines += view.lines
        whole.failure = whole.failure or view.failure
