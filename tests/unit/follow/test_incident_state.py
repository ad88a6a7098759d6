"""The life of an incident, from the first line to the proof."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from smfix.follow import incident_state
from smfix.follow.incident_state import (
    EVENTS,
    IncidentState,
    Stage,
    attempted,
    begun,
    over,
    permitted_anew,
    proved,
    reminded,
    reported,
    rescanned,
    set_back,
    stage_event,
    treated,
)
from smfix.values import Reason, Status

T = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def after(seconds):
    return T + timedelta(seconds=seconds)


def test_the_whole_way():
    seen = begun(T)
    assert (seen.stage, seen.due) == (Stage.SEEN, T)
    trying = incident_state.attempted(seen, after(1))
    assert trying.trying == after(1)
    repaired = treated(trying, Status.REPAIRED, None, after(2))
    assert (repaired.stage, repaired.since, repaired.due, repaired.trying) == (Stage.REPAIRED, after(2), None, None)
    again = rescanned(repaired, after(3))
    assert again.stage is Stage.RESCANNED
    shown = proved(again, after(9))
    assert (shown.stage, shown.due) == (Stage.RESCANNED, after(9))
    done = over(shown, after(10))
    assert (done.stage, done.since, done.due) == (Stage.CONFIRMED, after(10), None)
    assert proved(done, after(11)) is done
    assert rescanned(done, after(11)) is done


def test_a_waiting_disk_is_looked_at_ever_more_seldom():
    life, waits = begun(T), []
    for _ in range(12):
        life = treated(life, Status.REFUSED, Reason.LOCKED, T)
        waits.append((life.due - T).total_seconds())
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == 600
    assert life.stage is Stage.WAITING
    assert life.reason == "locked"
    other = treated(life, Status.REFUSED, Reason.IN_USE, T)
    assert (other.tries, other.due) == (1, after(2))


def test_what_needs_somebody_is_looked_at_rarely():
    assert treated(begun(T), Status.REFUSED, Reason.NO_FIX, T).due == T + HOUR
    assert treated(begun(T), Status.WOULD_REPAIR, None, T).reason == "would-repair"
    assert treated(begun(T), Status.AMBIGUOUS, None, T).reason == "ambiguous"


def test_quiet_hours_set_the_time():
    life = treated(begun(T), Status.REFUSED, Reason.POLICY, T, T + HOUR)
    assert life.due == T + HOUR
    assert treated(begun(T), Status.REFUSED, Reason.POLICY, T, T).due == after(2)


def test_damage_within_a_day_is_escalated():
    life = treated(treated(begun(T), Status.REPAIRED, None, T), Status.REFUSED, Reason.RECURRED, after(5))
    assert life.stage is Stage.RECURRED
    assert stage_event(treated(begun(T), Status.REPAIRED, None, T), life) == "recurred"


def test_a_sound_disk_was_repaired_by_somebody():
    assert treated(begun(T), Status.VALID, None, T).stage is Stage.DIAGNOSED


@pytest.mark.parametrize("stage", [Stage.REPAIRED, Stage.RESCANNED])
def test_a_line_from_before_the_repair_changes_nothing(stage):
    life = IncidentState(stage, T)
    looked = treated(reported(life, after(1)), Status.VALID, None, after(2))
    assert looked == life
    assert stage_event(life, looked) is None


def test_a_partial_repair_says_so():
    assert treated(begun(T), Status.PARTLY_REPAIRED, None, T).reason == "partly-repaired"


def test_a_confirmed_incident_begins_anew():
    life = reported(over(begun(T), after(1)), after(9))
    assert (life.stage, life.since) == (Stage.SEEN, after(9))


def test_a_report_is_looked_at_at_once():
    waiting = treated(begun(T), Status.REFUSED, Reason.NO_FIX, T)
    assert reported(waiting, after(5)).due == after(5)
    assert reported(reported(waiting, after(5)), after(7)).due == after(5)


def test_only_a_step_is_told():
    seen = begun(T)
    assert stage_event(None, seen) == "seen"
    assert stage_event(seen, seen) is None
    first = treated(seen, Status.REFUSED, Reason.LOCKED, T)
    assert stage_event(seen, first) == "waiting"
    assert stage_event(first, treated(first, Status.REFUSED, Reason.LOCKED, after(2))) is None
    assert stage_event(first, treated(first, Status.REFUSED, Reason.IN_USE, after(2))) == "waiting"


def test_reminders_come_on_a_rising_interval():
    life, moment, gaps = treated(begun(T), Status.REFUSED, Reason.NO_FIX, T), T, []
    for _ in range(7):
        before = moment
        while (told := reminded(life, moment, HOUR, DAY)) is None:
            moment += timedelta(minutes=30)
        gaps.append((moment - before) / HOUR)
        life = told
    assert gaps == [1, 2, 4, 8, 16, 24, 24]


@pytest.mark.parametrize("stage", [Stage.SEEN, Stage.DIAGNOSED, Stage.REPAIRED, Stage.RESCANNED, Stage.CONFIRMED])
def test_what_is_settled_is_not_reminded_of(stage):
    assert reminded(IncidentState(stage, T, told=T), T + 9 * DAY, HOUR, DAY) is None


def test_nothing_is_reminded_of_that_was_never_told():
    assert reminded(IncidentState(Stage.WAITING, T), T + 9 * DAY, HOUR, DAY) is None


def test_a_clock_that_is_set_back():
    life = treated(attempted(begun(T), T), Status.REFUSED, Reason.NO_FIX, T)
    early = T - 9 * DAY
    assert set_back(life, early) == replace(life, since=early, due=early, told=early)
    assert set_back(attempted(life, T), early).trying == early
    assert set_back(life, T + HOUR) == life


def test_the_events_are_the_stages_and_the_reminder():
    assert set(EVENTS) == {stage.value for stage in Stage} | {"reminder"}


@pytest.mark.parametrize(
    ("status", "reason", "wakes"),
    [
        (Status.REFUSED, Reason.POLICY, True),
        (Status.REFUSED, Reason.NEEDS_CONFIRM, True),
        (Status.WOULD_REPAIR, None, True),
        (Status.REFUSED, Reason.NO_FIX, False),
        (Status.REFUSED, Reason.RECURRED, False),
        (Status.REPAIRED, None, False),
    ],
)
def test_what_waits_for_a_permission_is_looked_at_when_one_may_have_come(status, reason, wakes):
    life = treated(begun(T), status, reason, T)
    soon = T + timedelta(minutes=1)
    assert permitted_anew(life, soon) == (replace(life, due=soon) if wakes else life)
