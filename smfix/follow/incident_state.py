"""Decide the progress of an incident: seen, diagnosed, waiting, repaired, rescanned, confirmed or recurred. Pure.

    seen -> diagnosed -> waiting (reason) -> repaired -> rescanned -> confirmed
                                             repaired -> recurred (damaged again within a day)

The log opens an incident (seen) and ends it (confirmed: strong evidence that the storage manager accepts the disk);
looks at the disk decide every stage between. `diagnosed` is a disk that was found sound before the log says so: another
program or person repaired it. A disk that cannot be repaired now waits with its reason and is tried again after a
rising delay; it is announced once, and again at a rising interval. A disk that is damaged again within a day of its
repair is not repaired a second time: the cause is elsewhere (storage, a second host, a tool), and each repair may lose
data that the first one saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from smfix.values import Reason, Status


class Stage(Enum):
    """The stages of an incident, in their usual order."""

    SEEN = "seen"
    DIAGNOSED = "diagnosed"
    WAITING = "waiting"
    REPAIRED = "repaired"
    RESCANNED = "rescanned"
    CONFIRMED = "confirmed"
    RECURRED = "recurred"

    @property
    def is_settled(self) -> bool:
        """True if only the log can change the stage."""
        return self in (Stage.DIAGNOSED, Stage.REPAIRED, Stage.RESCANNED, Stage.CONFIRMED)


REMINDER = "reminder"
EVENTS = (*(stage.value for stage in Stage), REMINDER)
"""The names of events: each stage when it is reached, and the reminder."""

DAY = timedelta(days=1)
_SOONEST = timedelta(seconds=2)
_LATEST = timedelta(minutes=10)
_RARELY = timedelta(hours=1)
# Reasons to wait for a permission: from the policy, --yes, or --confirm.
_FOR_PERMISSION = frozenset({Reason.POLICY.value, Reason.NEEDS_CONFIRM.value, Status.WOULD_REPAIR.value})
# Reasons that pass by themselves, so that a new look comes soon; all others need an operator.
_PASSING = frozenset(
    {
        Reason.LOCKED.value,
        Reason.IN_USE.value,
        Reason.SM_PENDING.value,
        Reason.SHARED_SR_UNKNOWN.value,
        Reason.STALE.value,
        Status.NOT_FOUND.value,
        Status.FAILED.value,
        Status.ROLLED_BACK.value,
    }
)


@dataclass(frozen=True, slots=True)
class IncidentState:
    """The progress of one incident. Times are aware.

    `since`: begin of `stage`. `reason`: why it waits (an outcome's reason, else its status). `due`: time of the next
    look at the disk (None: after the next report in the log). `tries` counts the looks since the reason changed,
    `announced` is the time of the last event, `reminders` the number of reminders since `reason` changed. `trying`:
    begin of an attempt whose end is unknown.
    """

    stage: Stage
    since: datetime
    reason: str | None = None
    due: datetime | None = None
    tries: int = 0
    announced: datetime | None = None
    reminders: int = 0
    trying: datetime | None = None


def begin(now: datetime) -> IncidentState:
    """Return the progress of an incident that the log has just named."""
    return IncidentState(Stage.SEEN, now, due=now, announced=now)


def note_report(progress: IncidentState, now: datetime) -> IncidentState:
    """Look at the disk again, because the log names it once more. A confirmed incident begins anew."""
    if progress.stage is Stage.CONFIRMED:
        return begin(now)
    return replace(progress, due=now if progress.due is None else min(progress.due, now))


def note_proof(progress: IncidentState, now: datetime) -> IncidentState:
    """Look at the disk, because the log proves that the incident is over."""
    return progress if progress.stage is Stage.CONFIRMED else replace(progress, due=now)


def note_attempt(progress: IncidentState, now: datetime) -> IncidentState:
    """Note that an attempt to write the disk begins."""
    return replace(progress, trying=now)


def confirm(progress: IncidentState, now: datetime) -> IncidentState:
    """End the incident: the disk agrees with the proof in the log."""
    return _moved(replace(progress, trying=None, due=None), Stage.CONFIRMED, None, now)


def note_result(
    progress: IncidentState, status: Status, reason: Reason | None, now: datetime, until: datetime | None = None
) -> IncidentState:
    """Note the result of a look at the disk. `until`: do not look before (the hours of a policy)."""
    progress = replace(progress, trying=None)
    if status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
        why = None if status is Status.REPAIRED else status.value
        return _moved(replace(progress, due=None), Stage.REPAIRED, why, now)
    if status is Status.VALID:
        if progress.stage in (Stage.REPAIRED, Stage.RESCANNED):
            return replace(progress, due=None)  # the report in the log is older than the repair
        return _moved(replace(progress, due=None), Stage.DIAGNOSED, None, now)
    why = reason.value if reason is not None else status.value
    stage = Stage.RECURRED if reason is Reason.RECURRED else Stage.WAITING
    again = _moved(progress, stage, why, now)
    wait = min(_SOONEST * 2 ** min(again.tries, 16), _LATEST) if why in _PASSING else _RARELY
    return replace(again, tries=again.tries + 1, due=max(until, now + _SOONEST) if until else now + wait)


def recheck_permission(progress: IncidentState, now: datetime) -> IncidentState:
    """Look at once at a disk that waits for a permission, because permissions may have changed."""
    waits = progress.stage is Stage.WAITING and progress.reason in _FOR_PERMISSION
    return replace(progress, due=now) if waits else progress


def note_rescan(progress: IncidentState, now: datetime) -> IncidentState:
    """Note that the storage manager has scanned the SR after the repair."""
    return _moved(progress, Stage.RESCANNED, None, now) if progress.stage is Stage.REPAIRED else progress


def _moved(progress: IncidentState, stage: Stage, reason: str | None, now: datetime) -> IncidentState:
    if (progress.stage, progress.reason) == (stage, reason):
        return progress
    return replace(progress, stage=stage, reason=reason, since=now, tries=0, announced=now, reminders=0)


def set_clock_back(progress: IncidentState, now: datetime) -> IncidentState:
    """Move times that are after `now` to `now`, because the clock was set back."""
    times = {name: getattr(progress, name) for name in ("since", "due", "announced", "trying")}
    return replace(progress, **{name: min(now, at) for name, at in times.items() if at is not None})


def stage_event(before: IncidentState | None, after: IncidentState) -> str | None:
    """Return the name of the event that leads from `before` to `after`; None if there is none."""
    if before is not None and (before.stage, before.reason, before.since) == (after.stage, after.reason, after.since):
        return None
    return after.stage.value


def remind(progress: IncidentState, now: datetime, first: timedelta, last: timedelta) -> IncidentState | None:
    """Return the progress after a reminder that is due: after `first`, then twice as long each time, up to `last`.

    None if no reminder is due.
    """
    if progress.stage.is_settled or progress.stage is Stage.SEEN or progress.announced is None:
        return None
    wait = min(first * 2 ** min(progress.reminders, 16), last)
    if now - progress.announced < wait:
        return None
    return replace(progress, announced=now, reminders=progress.reminders + 1)
