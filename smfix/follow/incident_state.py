"""An incident's life: seen, diagnosed, waiting, repaired, rescanned, confirmed or recurred. Pure.

    seen -> diagnosed -> waiting (reason) -> repaired -> rescanned -> confirmed
                                             repaired -> recurred (damaged again within a day)

The log makes an incident (seen) and ends it (confirmed: strong evidence that the storage manager is
content); a look at the disk does everything between. `diagnosed` is a disk that was found sound:
somebody was quicker, and the log has not yet said so. Whatever cannot be done now waits with its
reason and is tried again, ever more seldom; it is told once, and again on a rising interval. A disk
that is damaged again within a day of its repair is not repaired a second time: the cause is elsewhere
(storage, a second host, a tool), and each repair may lose what the first one saved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from smfix.values import Reason, Status


class Stage(Enum):
    """How far an incident has come."""

    SEEN = "seen"
    DIAGNOSED = "diagnosed"
    WAITING = "waiting"
    REPAIRED = "repaired"
    RESCANNED = "rescanned"
    CONFIRMED = "confirmed"
    RECURRED = "recurred"

    @property
    def is_settled(self) -> bool:
        """Nothing is left to do here but to wait for the log."""
        return self in (Stage.DIAGNOSED, Stage.REPAIRED, Stage.RESCANNED, Stage.CONFIRMED)


REMINDER = "reminder"
EVENTS = (*(stage.value for stage in Stage), REMINDER)
"""What a follower tells: each stage when it is reached, and the reminder."""

DAY = timedelta(days=1)
_SOONEST = timedelta(seconds=2)
_LATEST = timedelta(minutes=10)
_RARELY = timedelta(hours=1)
# Reasons to wait for a permission: of the policy, of --yes, of a consent.
_FOR_LEAVE = frozenset({Reason.POLICY.value, Reason.NEEDS_CONFIRM.value, Status.WOULD_REPAIR.value})
# What another process ends by itself is tried again soon; the rest needs somebody to do something.
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
    """Where one incident is. Times are aware.

    `since`: it has been in `stage` since then. `reason`: why it waits (an outcome's reason, else its
    status). `due`: when the disk is looked at next (None: when the log says something new). `tries`
    are the looks since the reason changed, `told` the last report, `reminders` their number since
    then. `trying`: an attempt began then, and its end is not known.
    """

    stage: Stage
    since: datetime
    reason: str | None = None
    due: datetime | None = None
    tries: int = 0
    told: datetime | None = None
    reminders: int = 0
    trying: datetime | None = None


def begun(now: datetime) -> IncidentState:
    """The life of an incident that the log has just named."""
    return IncidentState(Stage.SEEN, now, due=now, told=now)


def reported(life: IncidentState, now: datetime) -> IncidentState:
    """The log names the disk once more: look at it again. A confirmed incident begins anew."""
    if life.stage is Stage.CONFIRMED:
        return begun(now)
    return replace(life, due=now if life.due is None else min(life.due, now))


def proved(life: IncidentState, now: datetime) -> IncidentState:
    """The log shows that it is over: look whether the disk agrees."""
    return life if life.stage is Stage.CONFIRMED else replace(life, due=now)


def attempted(life: IncidentState, now: datetime) -> IncidentState:
    """The disk is about to be looked at, and perhaps written."""
    return replace(life, trying=now)


def over(life: IncidentState, now: datetime) -> IncidentState:
    """The log's proof stands: confirmed."""
    return _moved(replace(life, trying=None, due=None), Stage.CONFIRMED, None, now)


def treated(
    life: IncidentState, status: Status, reason: Reason | None, now: datetime, until: datetime | None = None
) -> IncidentState:
    """What a look at the disk came to. `until`: nothing will change before (a policy's hours)."""
    life = replace(life, trying=None)
    if status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
        why = None if status is Status.REPAIRED else status.value
        return _moved(replace(life, due=None), Stage.REPAIRED, why, now)
    if status is Status.VALID:
        if life.stage in (Stage.REPAIRED, Stage.RESCANNED):
            return replace(life, due=None)  # what the log said was written before the repair
        return _moved(replace(life, due=None), Stage.DIAGNOSED, None, now)
    why = reason.value if reason is not None else status.value
    stage = Stage.RECURRED if reason is Reason.RECURRED else Stage.WAITING
    again = _moved(life, stage, why, now)
    wait = min(_SOONEST * 2 ** min(again.tries, 16), _LATEST) if why in _PASSING else _RARELY
    return replace(again, tries=again.tries + 1, due=max(until, now + _SOONEST) if until else now + wait)


def permitted_anew(life: IncidentState, now: datetime) -> IncidentState:
    """Look at once at a disk that waits for a permission, because permissions may have changed."""
    waits = life.stage is Stage.WAITING and life.reason in _FOR_LEAVE
    return replace(life, due=now) if waits else life


def rescanned(life: IncidentState, now: datetime) -> IncidentState:
    """The storage manager was asked to look again."""
    return _moved(life, Stage.RESCANNED, None, now) if life.stage is Stage.REPAIRED else life


def _moved(life: IncidentState, stage: Stage, reason: str | None, now: datetime) -> IncidentState:
    if (life.stage, life.reason) == (stage, reason):
        return life
    return replace(life, stage=stage, reason=reason, since=now, tries=0, told=now, reminders=0)


def set_back(life: IncidentState, now: datetime) -> IncidentState:
    """The clock was set back to `now`: nothing lies in the future, and what waits is looked at at once."""
    times = {name: getattr(life, name) for name in ("since", "due", "told", "trying")}
    return replace(life, **{name: min(now, at) for name, at in times.items() if at is not None})


def stage_event(before: IncidentState | None, after: IncidentState) -> str | None:
    """The event that leads from `before` to `after`; None where nothing is to be told."""
    if before is not None and (before.stage, before.reason, before.since) == (after.stage, after.reason, after.since):
        return None
    return after.stage.value


def reminded(life: IncidentState, now: datetime, first: timedelta, last: timedelta) -> IncidentState | None:
    """The life after a reminder that is due: after `first`, then twice as long each time, up to `last`.

    None where none is due, or there is nothing to remind of.
    """
    if life.stage.is_settled or life.stage is Stage.SEEN or life.told is None:
        return None
    wait = min(first * 2 ** min(life.reminders, 16), last)
    if now - life.told < wait:
        return None
    return replace(life, told=now, reminders=life.reminders + 1)
