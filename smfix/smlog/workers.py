"""Parts read side by side: this process reads the first group, forked ones read the others.

A forked reader hands its events over a pipe, in order; when the pipe is full it waits. Then it answers questions
about what it has seen. It writes nothing else, and ends with this process. Small logs, one core, or a process with
threads: one pass.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from smfix.errors import Unreadable
from smfix.host.readers import Asked, Reader, Tell
from smfix.smlog.names import Disk
from smfix.smlog.parts import Part, Reading, Seen, cost, divide, everything, numbered, placed, read_part
from smfix.smlog.sweep import Event, InQuestion, Looking, Memory, in_question, recall

_WORTH_IT = 48 << 20  # bytes of plain text: below, a second process costs more than it saves
_READ_MEANWHILE = 8 << 20  # bytes that are read here before the other processes are there, and have remembered theirs
_AT_ONCE = 64  # events handed over together
_PIPE = 1 << 20  # bytes of a pipe that may wait

Take = Callable[[Event], None]


def read_everything(reading: Reading, take: Take, unproved: Callable[[int], Mapping[Disk, int]]) -> dict[int, Seen]:
    """Give every event to `take`; what was seen of each log.

    Reports come in order, and with them what proves an incident over that their own part reported. What
    a later part proves of an earlier one's reports is asked for afterwards, and only for the disks that `unproved`
    names (each with the place since when), given the place where that part begins: of the part's reader, which
    remembers where such lines stand, or, where it cannot, in a second pass.
    """
    ways = _ways(reading)
    groups = divide(reading, everything(reading), ways, _READ_MEANWHILE)
    parts = iter(numbered([part for group in groups for part in group]))
    groups = [[next(parts) for _ in group] for group in groups]
    tasks = [_Task(Looking.BOTH, group, remember=index > 0) for index, group in enumerate(groups)]
    seen: dict[int, Seen] = {}
    lines_before: list[dict[int, int]] = []
    with _side_by_side(reading, tasks) as readers:
        first: list[_Result] = []
        for reader in readers:
            lines_before.append({index: view.lines for index, view in seen.items()})
            first.append(reader.result(_placing(take, lines_before[-1])))
            _join(seen, first[-1].seen)
        reading.sizes = {index: view.size for index, view in seen.items()}
        for index, reader in enumerate(readers[1:], 1):
            asked = unproved(groups[index][0].place)
            if asked and first[index].remembers:
                reader.recall(asked, _placing(take, lines_before[index]))
            elif asked:
                _second_pass(reading, groups[index], asked, take, lines_before[index])
    return seen


def _second_pass(
    reading: Reading, group: list[Part], asked: Mapping[Disk, int], take: Take, lines_before: dict[int, int]
) -> None:
    """What `group` proves of the disks `asked`, looked for once more."""
    pieces = divide(reading, group, _ways(reading)) if _sizes_hold(reading) else [group]
    lines = dict(lines_before)
    with _side_by_side(reading, [_Task(Looking.PROOFS, piece, asked) for piece in pieces]) as readers:
        for reader in readers:
            result = reader.result(_placing(take, lines))
            for index, view in result.seen.items():
                lines[index] = lines.get(index, 0) + view.lines


def _placing(take: Take, lines_before: dict[int, int]) -> Take:
    """`take`, with `lines_before` in front of each log's part."""
    lines = dict(lines_before)
    return lambda event: take(placed(event, lines))


def _sizes_hold(reading: Reading) -> bool:
    """True where every plain log gave as many bytes as it has: no holes, and it has not grown."""
    return all(log.path is None or reading.sizes.get(index) == log.size for index, log in enumerate(reading.logs))


class _Task(NamedTuple):
    """What one process reads: which parts, for what, about which disks from the start; whether it is asked later."""

    looking: Looking
    parts: list[Part]
    wanted: Mapping[Disk, int] | None = None
    remember: bool = False


class _Result(NamedTuple):
    """What it saw of each log, and whether it can be asked about disks that others reported."""

    seen: dict[int, Seen]
    remembers: bool


class _Reading(Protocol):
    """Reads one task: its events, and then what it remembers of VDIs that others reported."""

    def result(self, take: Take) -> _Result:
        """Read; every event goes to `take`."""

    def recall(self, asked: Mapping[Disk, int], take: Take) -> None:
        """What proves the incidents of the disks `asked` over."""


@contextlib.contextmanager
def _side_by_side(reading: Reading, tasks: list[_Task]) -> Iterator[list[_Reading]]:
    """A reader for each of `tasks`: for the first this process, for the others one of their own, if it can be made."""
    others: list[Reader] = []
    try:
        with contextlib.suppress(OSError):  # no more processes: the rest is read here
            others.extend(Reader(partial(_serve, reading, task), room=_PIPE) for task in tasks[1:])
        here = [_Here(reading, task) for task in (*tasks[:1], *tasks[1 + len(others) :])]
        yield [*here[:1], *map(_Elsewhere, others), *here[1:]]
    finally:
        for other in others:
            other.end()


class _Here:
    """Reads in this process."""

    def __init__(self, reading: Reading, task: _Task) -> None:
        self._reading = reading
        self._task = task
        self._memories: list[Memory] = []

    def result(self, take: Take) -> _Result:
        """Read; every event goes to `take`."""
        task = self._task
        wanted: InQuestion = in_question(task.wanted or {})
        seen: dict[int, Seen] = {}
        for part in task.parts:
            memories = self._memories if task.remember else None
            for event in read_part(self._reading, part, task.looking, wanted, seen, memories):
                take(event)
        remembers = task.remember and all(memory.holds for memory in self._memories)
        return _Result(seen, remembers)

    def recall(self, asked: Mapping[Disk, int], take: Take) -> None:
        """What proves the incidents of the disks `asked` over."""
        for memory in self._memories:
            for event in recall(self._reading.engine, memory, asked):
                take(event)


class _Elsewhere:
    """Reads in a process of its own."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def result(self, take: Take) -> _Result:
        """What it has read. Raises Unreadable where it could not read."""
        result: _Result = self._received(take)
        return result

    def recall(self, asked: Mapping[Disk, int], take: Take) -> None:
        """What proves the incidents of the disks `asked` over. Raises Unreadable where it could not read."""
        self._reader.ask(asked)
        self._received(take)

    def _received(self, take: Take) -> Any:
        """Hand on events, up to what is none."""
        while True:
            try:
                content = self._reader.hear()
            except EOFError as error:
                raise Unreadable("a part of the logs could not be read: its reader died (out of memory?)") from error
            if isinstance(content, str):
                raise Unreadable(content)
            if not isinstance(content, list):
                return content
            for event in content:
                take(event)


def _serve(reading: Reading, task: _Task, tell: Tell, asked: Asked) -> None:
    """In a process of its own: the events and the result, and then the answer to each question."""
    parent = os.getppid()

    def go_on(_count: int) -> None:
        """Progress is told by the process that reads the first part; when that is gone, nobody waits for this one."""
        if os.getppid() != parent:
            os._exit(0)

    reading.read = go_on
    here = _Here(reading, task)
    batch: list[Event] = []

    def take(event: Event) -> None:
        batch.append(event)
        if len(batch) >= _AT_ONCE:
            flush()

    def flush() -> None:
        tell(batch)
        batch.clear()

    try:
        result = here.result(take)
        flush()
        tell(result)
        with contextlib.suppress(EOFError):
            while result.remembers:
                here.recall(asked(), take)
                flush()
                tell(None)
    except Unreadable as error:
        tell(str(error))


def _ways(reading: Reading) -> int:
    if sum(cost(log) for log in reading.logs) < _WORTH_IT or threading.active_count() > 1:
        return 1
    return max(1, len(os.sched_getaffinity(0)))


def _join(seen: dict[int, Seen], later: dict[int, Seen]) -> None:
    """Add what a later part saw of each log to what earlier ones did."""
    for index, view in later.items():
        whole = seen.setdefault(index, Seen())
        whole.first = whole.first or view.first
        whole.last = view.last or whole.last
        whole.size += view.size
        whole.lines += view.lines
        whole.failure = whole.failure or view.failure
