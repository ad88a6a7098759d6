"""Values that a follower keeps between two starts: position in the log, incidents, pending events. Pure.

:mod:`smfix.follow.state_format` writes them as text, :mod:`smfix.follow.state_store` keeps the text on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from smfix.follow.incident_state import IncidentState
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.inputs.tail_position import Position
from smfix.smlog.rules.resolutions import Proof
from smfix.values import NO_NAMES, Extent, Incident, Names, Outcome, Resize, State, TreatedIncident, Write

MOST_INCIDENTS = 2_000
"""Incidents that are kept; of more, those that were confirmed first are dropped."""


@dataclass(frozen=True, slots=True)
class DiskObservation:
    """The result of the last look at an incident's disk.

    `vdi`, `sr` and `path` are those of the image that was found, else those in the log. `outcome` has no plan: `edits`
    are the plan's edits without their bytes.
    """

    vdi: str
    sr: str | None
    path: str | None
    state: State
    outcome: Outcome | None = None
    edits: tuple[Extent | Resize, ...] = ()
    names: Names = NO_NAMES


@dataclass(slots=True)
class TrackedIncident:
    """One incident. `first` and `last` are its first and last report, `proof` the log line that ended it.

    `vdi`, `sr` and `path` are those in the log. `disk` is the last look at the disk, None before the first one.
    """

    id: str
    vdi: str
    sr: str | None
    path: str | None
    progress: IncidentState
    first: Failure
    last: Failure
    kinds: tuple[str, ...]
    candidates: tuple[str, ...]
    count: int
    quotes: tuple[Quote, ...]
    copy: bool
    first_seen: datetime | None
    last_seen: datetime | None
    proof: Proof | None = None
    disk: DiskObservation | None = None


@dataclass(slots=True)
class PendingEvent:
    """An event that is not delivered yet: incident `id` and its disk at `time`. `is_printed`: only hooks remain."""

    number: int
    time: datetime
    name: str
    id: str
    incident: Incident
    disk: DiskObservation | None
    is_printed: bool = False


@dataclass(slots=True)
class FollowerRun:
    """The last process that followed the log; `started` is None before the first one."""

    pid: int | None = None
    started: datetime | None = None
    stopped: datetime | None = None


@dataclass(slots=True)
class FollowerState:
    """Everything that must survive a SIGKILL.

    `place` is the offset of the position in the concatenated text of all logs (bytes), `settled` the offset up to which
    every report was filed. `number` counts the events, `totals` the metrics. `repairs` are (path, time) of the last
    day. `files` are the names to which the file numbers of quotes refer.
    """

    log: str
    position: Position = field(default_factory=Position)
    place: int = 0
    settled: int = 0
    number: int = 0
    files: list[str] = field(default_factory=list)
    incidents: dict[str, TrackedIncident] = field(default_factory=dict)
    outbox: list[PendingEvent] = field(default_factory=list)
    repairs: list[tuple[str, datetime]] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    run: FollowerRun = field(default_factory=FollowerRun)

    def count(self, name: str, number: int = 1) -> None:
        """Add `number` to a metric."""
        self.totals[name] = self.totals.get(name, 0) + number


def observe(treated: TreatedIncident) -> DiskObservation:
    """Return what a look at a disk found, without the bytes that its plan would write."""
    outcome = treated.outcome
    edits: tuple[Extent | Resize, ...] = ()
    if outcome is not None and outcome.plan is not None:
        edits = tuple(edit.extent if isinstance(edit, Write) else edit for edit in outcome.plan.edits)
        outcome = outcome._replace(plan=None)
    return DiskObservation(treated.vdi, treated.sr, treated.path, treated.state, outcome, edits, treated.names)
