"""What a follower knows survives as text, whole; any other text is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import valid
from smfix.follow.delivery import document_of
from smfix.follow.incident_state import IncidentState, Stage
from smfix.follow.state import DiskObservation, FollowerRun, FollowerState, PendingEvent, TrackedIncident, observe
from smfix.follow.state_format import SCHEMA, StateDamaged, decode, encode
from smfix.follow.tracker import incident_of, treated_as
from smfix.report import jsondoc
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.inputs.tail_position import Head, Mark, Position, head
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Strength
from smfix.smlog.rules.tool_output import Weight
from smfix.values import (
    Disposition,
    Evidence,
    Extent,
    Finding,
    Fingerprint,
    Incident,
    Names,
    NextStep,
    Outcome,
    Reason,
    Recovered,
    RepairPlan,
    Resize,
    Severity,
    State,
    Status,
    StepKind,
    TreatedIncident,
    VdiRef,
    Write,
)

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "follow"
NUMBERS = st.integers(0, 1 << 62)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
MAYBE = st.none() | TEXTS
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
STAMPS = st.builds(Stamp, st.none() | st.integers(1970, 2100), *[st.integers(1, 12)] * 5, st.integers(0, 10**6 - 1))
QUOTES = st.lists(st.builds(Quote, st.integers(0, 9), NUMBERS, TEXTS), max_size=3).map(tuple)
VOICES = st.tuples(MAYBE, st.integers(0, 9))
FAILURES = st.builds(
    Failure, NUMBERS, st.integers(0, 9), st.none() | STAMPS, VOICES, st.none() | NUMBERS, TEXTS, MAYBE, MAYBE,
    st.tuples(TEXTS), st.sampled_from(Weight), QUOTES, st.booleans(), TEXTS, st.tuples(TEXTS, TEXTS), st.booleans(),
)  # fmt: skip
PROOFS = st.builds(Proof, NUMBERS, VOICES, TEXTS, MAYBE, st.sampled_from(Strength), QUOTES)
LIVES = st.builds(
    IncidentState,
    st.sampled_from(Stage),
    TIMES,
    MAYBE,
    st.none() | TIMES,
    NUMBERS,
    st.none() | TIMES,
    NUMBERS,
    st.none() | TIMES,
)
FINDINGS = st.builds(
    Finding, TEXTS, TEXTS, TEXTS, st.sampled_from(Severity), st.sampled_from(Disposition), st.booleans(),
    st.dictionaries(TEXTS, st.none() | TEXTS | NUMBERS, max_size=2),
)  # fmt: skip
STEPS = st.builds(NextStep, st.sampled_from(StepKind), st.tuples(TEXTS), st.tuples(TEXTS, TEXTS))
OUTCOMES = st.builds(
    Outcome, st.sampled_from(Status), TEXTS, st.none() | st.sampled_from(Reason), st.tuples(FINDINGS), st.none(),
    st.tuples(FINDINGS), NUMBERS, MAYBE, st.none() | STEPS, st.tuples(STEPS),
    st.tuples(st.builds(Recovered, TEXTS, TEXTS, st.booleans(), TEXTS)),
)  # fmt: skip
DISKS = st.builds(
    DiskObservation, TEXTS, MAYBE, MAYBE, st.sampled_from(State), st.none() | OUTCOMES,
    st.tuples(st.builds(Extent, NUMBERS, NUMBERS) | st.builds(Resize, NUMBERS)),
    st.builds(Names, MAYBE, MAYBE, st.tuples(TEXTS)),
)  # fmt: skip
INCIDENTS = st.builds(
    Incident, st.builds(VdiRef, TEXTS), MAYBE, MAYBE, st.tuples(TEXTS), st.none() | TIMES, st.none() | TIMES, NUMBERS,
    st.tuples(st.builds(Evidence, TEXTS, NUMBERS, TEXTS)), st.sampled_from(State), MAYBE, st.tuples(TEXTS),
    st.booleans(), TEXTS, st.just(()), st.none(), st.none(),
)  # fmt: skip
EVENTS = st.builds(
    PendingEvent, NUMBERS, TIMES, TEXTS, TEXTS, INCIDENTS, st.none() | DISKS, st.booleans()
)  # fmt: skip
TRACKED = st.builds(
    TrackedIncident,
    TEXTS, TEXTS, MAYBE, MAYBE, LIVES, FAILURES, FAILURES, st.tuples(TEXTS), st.tuples(), NUMBERS, QUOTES,
    st.booleans(), st.none() | TIMES, st.none() | TIMES, st.none() | PROOFS,
    st.none() | DISKS,
)  # fmt: skip
MARKS = st.builds(
    Mark, NUMBERS, NUMBERS, st.builds(Head, NUMBERS, TEXTS), st.binary(max_size=9), NUMBERS, NUMBERS, NUMBERS
)
POSITIONS = st.builds(
    Position, st.none() | MARKS, st.lists(st.builds(Head, NUMBERS, TEXTS), max_size=3).map(tuple), NUMBERS, NUMBERS
)
STATES = st.builds(
    FollowerState, TEXTS, POSITIONS, NUMBERS, NUMBERS, NUMBERS, st.lists(TEXTS, max_size=3),
    st.lists(TRACKED, max_size=3).map(lambda tracked: {one.id: one for one in tracked}),
    st.lists(EVENTS, max_size=2),
    st.lists(st.tuples(TEXTS, TIMES), max_size=2), st.dictionaries(TEXTS, NUMBERS, max_size=2),
    st.builds(FollowerRun, st.none() | NUMBERS, st.none() | TIMES, st.none() | TIMES),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(STATES)
def test_what_is_decoded_is_what_was_encoded(state):
    text = encode(state)
    assert text.isascii()
    assert decode(text) == state


def small():
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    failure = Failure(1, 0, None, ("host", 0), 7, "v", None, None, (), Weight.DAMAGE, ())
    tracked = [
        TrackedIncident(
            name, "v", None, None, IncidentState(Stage.SEEN, moment), failure, failure, (), (), 1, (), False, None, None
        )
        for name in "ab"
    ]
    return FollowerState("/log", incidents={one.id: one for one in tracked})


def test_only_what_has_changed_is_encoded_again(monkeypatch):
    state, encoded = small(), {}
    first = encode(state, encoded)
    texts = {name: text for name, (_, text) in encoded.items()}
    state.incidents["a"].count = 5
    assert decode(encode(state, encoded)).incidents["a"].count == 5
    assert encode(small()) == first
    assert encoded["b"][1] is texts["b"]
    assert encoded["a"][1] != texts["a"]
    del state.incidents["b"]
    assert list(decode(encode(state, encoded)).incidents) == ["a"]
    assert list(encoded) == ["a"]


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": "x"}', "[" * 9999, '{"schema": 1e999}'])
def test_what_is_no_state_is_refused(text):
    with pytest.raises(StateDamaged):
        decode(text)


def test_another_version_is_named():
    with pytest.raises(StateDamaged, match=f"'smfix.state/9', this smfix reads '{SCHEMA}'"):
        decode(json.dumps({"schema": "smfix.state/9"}))


def test_a_wrong_type_is_refused():
    document = json.loads(encode(small()))
    for key, wrong in (
        ("log", 5),
        ("files", [1]),
        ("place", "x"),
        ("incidents", 5),
        ("position", None),
        ("totals", []),
    ):
        with pytest.raises(StateDamaged):
            decode(json.dumps(document | {key: wrong}))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_text_is_refused_or_read(data):
    text = encode(small())
    at = data.draw(st.integers(0, len(text) - 1))
    try:
        decode(text[:at] + data.draw(st.characters(codec="ascii")) + text[at + data.draw(st.integers(0, 3)) :])
    except StateDamaged:
        return


def test_a_head_fits_what_begins_with_it():
    short = head(b"abc")
    assert short.fits(b"abcd")
    assert not short.fits(b"ab")
    assert not short.fits(b"abd")
    assert not head(b"").fits(b"abc")
    assert head(b"x" * 2000) == head(b"x" * 1024)


def test_times_keep_their_zone():
    state = small()
    state.repairs = [("/a", datetime(2026, 11, 22, tzinfo=UTC) + timedelta(microseconds=5))]
    assert decode(encode(state)).repairs == state.repairs


def test_a_look_at_a_disk_is_kept_without_the_bytes_of_its_plan():
    plan = RepairPlan((Write(512, b"x" * 1024), Resize(4096)), (), (), (), None, Fingerprint(0, ()))
    incident = Incident(VdiRef("v"), None, None, (), None, None, 1, ())
    treated = TreatedIncident("i", incident, "v", None, "/v.vhd", State.OPEN, Outcome(Status.REPAIRED, "", plan=plan))
    disk = observe(treated)
    assert disk.outcome.plan is None
    assert jsondoc.incident(treated_as("i", incident, disk), disk.edits) == jsondoc.incident(treated)
    assert observe(treated._replace(outcome=None)).outcome is None
    assert treated_as("i", incident, None).outcome is None


# --------------------------------------------------------------------------- version 1


def version_1():
    text = (FIXTURES / "state-1.json").read_text(encoding="utf-8")
    return json.loads(text), decode(text)


def test_events_of_version_1_are_delivered_as_they_were_saved():
    old, state = version_1()
    documents = [one["document"] for one in old["outbox"]]
    assert documents
    for document in documents:
        document["incident"]["host"] = None  # version 1 did not keep it
    assert [document_of(event) for event in state.outbox] == documents
    assert [valid(document) for document in documents]
    assert [event.is_printed for event in state.outbox] == [one["is_printed"] for one in old["outbox"]]
    assert [document_of(event) for event in decode(encode(state)).outbox] == documents


def test_incidents_of_version_1_are_reported_as_they_were_saved():
    old, state = version_1()
    for before in old["cases"]:
        tracked = state.incidents[before["id"]]
        edits = tracked.disk.edits
        after = jsondoc.incident(treated_as(tracked.id, incident_of(tracked, state.files), tracked.disk), edits)
        assert after["outcome"] == before["document"]["outcome"]
        assert {name: after[name] for name in ("vdi", "sr", "path", "state")} == {
            name: before["document"][name] for name in ("vdi", "sr", "path", "state")
        }
        assert tracked.progress.stage.name == before["life"]["stage"]
    assert state.run.pid == old["follower"]["pid"]
    assert decode(encode(state)) == state


def test_the_first_states_of_version_1_had_neither_names_nor_recoveries():
    old, _ = version_1()
    for one in old["cases"]:
        del one["document"]["names"]
        one["document"]["outcome"] and one["document"]["outcome"].pop("recovered")
    old["cases"][0]["document"] = None
    assert decode(json.dumps(old)).incidents[old["cases"][0]["id"]].disk is None
