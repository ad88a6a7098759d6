"""The progress of an incident, from the first line to the proof."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from smfix.follow import incident_state
from smfix.follow.incident_state import (
    EVENTS,
    IncidentState,
    Stage,
    begin,
    confirm,
    note_attempt,
    note_proof,
    note_report,
    note_rescan,
    note_result,
    recheck_permission,
    remind,
    set_clock_back,
    stage_event,
)
from smfix.values import Reason, Status

T = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def after(seconds):
    return T + timedelta(seconds=seconds)


def test_the_whole_way():
    seen = begin(T)
    assert (seen.stage, seen.due) == (Stage.SEEN, T)
    trying = incident_state.note_attempt(seen, after(1))
    assert trying.trying == after(1)
    repaired = note_result(trying, Status.REPAIRED, None, after(2))
    assert (repaired.stage, repaired.since, repaired.due, repaired.trying) == (Stage.REPAIRED, after(2), None, None)
    again = note_rescan(repaired, after(3))
    assert again.stage is Stage.RESCANNED
    shown = note_proof(again, after(9))
    assert (shown.stage, shown.due) == (Stage.RESCANNED, after(9))
    done = confirm(shown, after(10))
    assert (done.stage, done.since, done.due) == (Stage.CONFIRMED, after(10), None)
    assert note_proof(done, after(11)) is done
    assert note_rescan(done, after(11)) is done


def test_a_waiting_disk_is_looked_at_ever_more_seldom():
    progress, waits = begin(T), []
    for _ in range(12):
        progress = note_result(progress, Status.REFUSED, Reason.LOCKED, T)
        waits.append((progress.due - T).total_seconds())
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == 600
    assert progress.stage is Stage.WAITING
    assert progress.reason == "locked"
    other = note_result(progress, Status.REFUSED, Reason.IN_USE, T)
    assert (other.tries, other.due) == (1, after(2))


def test_what_needs_somebody_is_looked_at_rarely():
    assert note_result(begin(T), Status.REFUSED, Reason.NO_FIX, T).due == T + HOUR
    assert note_result(begin(T), Status.WOULD_REPAIR, None, T).reason == "would-repair"
    assert note_result(begin(T), Status.AMBIGUOUS, None, T).reason == "ambiguous"


def test_quiet_hours_set_the_time():
    progress = note_result(begin(T), Status.REFUSED, Reason.POLICY, T, T + HOUR)
    assert progress.due == T + HOUR
    assert note_result(begin(T), Status.REFUSED, Reason.POLICY, T, T).due == after(2)


def test_damage_within_a_day_is_escalated():
    progress = note_result(note_result(begin(T), Status.REPAIRED, None, T), Status.REFUSED, Reason.RECURRED, after(5))
    assert progress.stage is Stage.RECURRED
    assert stage_event(note_result(begin(T), Status.REPAIRED, None, T), progress) == "recurred"


def test_a_sound_disk_was_repaired_by_somebody():
    assert note_result(begin(T), Status.VALID, None, T).stage is Stage.DIAGNOSED


@pytest.mark.parametrize("stage", [Stage.REPAIRED, Stage.RESCANNED])
def test_a_line_from_before_the_repair_changes_nothing(stage):
    progress = IncidentState(stage, T)
    looked = note_result(note_report(progress, after(1)), Status.VALID, None, after(2))
    assert looked == progress
    assert stage_event(progress, looked) is None


def test_a_partial_repair_says_so():
    assert note_result(begin(T), Status.PARTLY_REPAIRED, None, T).reason == "partly-repaired"


def test_a_confirmed_incident_begins_anew():
    progress = note_report(confirm(begin(T), after(1)), after(9))
    assert (progress.stage, progress.since) == (Stage.SEEN, after(9))


def test_a_report_is_looked_at_at_once():
    waiting = note_result(begin(T), Status.REFUSED, Reason.NO_FIX, T)
    assert note_report(waiting, after(5)).due == after(5)
    assert note_report(note_report(waiting, after(5)), after(7)).due == after(5)


def test_only_a_step_is_told():
    seen = begin(T)
    assert stage_event(None, seen) == "seen"
    assert stage_event(seen, seen) is None
    first = note_result(seen, Status.REFUSED, Reason.LOCKED, T)
    assert stage_event(seen, first) == "waiting"
    assert stage_event(first, note_result(first, Status.REFUSED, Reason.LOCKED, after(2))) is None
    assert stage_event(first, note_result(first, Status.REFUSED, Reason.IN_USE, after(2))) == "waiting"


def test_reminders_come_on_a_rising_interval():
    progress, moment, gaps = note_result(begin(T), Status.REFUSED, Reason.NO_FIX, T), T, []
    for _ in range(7):
        before = moment
        while (told := remind(progress, moment, HOUR, DAY)) is None:
            moment += timedelta(minutes=30)
        gaps.append((moment - before) / HOUR)
        progress = told
    assert gaps == [1, 2, 4, 8, 16, 24, 24]


@pytest.mark.parametrize("stage", [Stage.SEEN, Stage.DIAGNOSED, Stage.REPAIRED, Stage.RESCANNED, Stage.CONFIRMED])
def test_what_is_settled_is_not_reminded_of(stage):
    assert remind(IncidentState(stage, T, announced=T), T + 9 * DAY, HOUR, DAY) is None


def test_nothing_is_reminded_of_that_was_never_told():
    assert remind(IncidentState(Stage.WAITING, T), T + 9 * DAY, HOUR, DAY) is None


def test_a_clock_that_is_set_back():
    progress = note_result(note_attempt(begin(T), T), Status.REFUSED, Reason.NO_FIX, T)
    early = T - 9 * DAY
    assert set_clock_back(progress, early) == replace(progress, since=early, due=early, announced=early)
    assert set_clock_back(note_attempt(progress, T), early).trying == early
    assert set_clock_back(progress, T + HOUR) == progress


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
    progress = note_result(begin(T), status, reason, T)
    soon = T + timedelta(minutes=1)
    assert recheck_permission(progress, soon) == (replace(progress, due=soon) if wakes else progress)
