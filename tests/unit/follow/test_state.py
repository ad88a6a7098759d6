"""What a follower knows survives as text, whole; any other text is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.follow.incident_state import IncidentState, Stage
from smfix.follow.state import SCHEMA, FollowerState, PendingEvent, StateDamaged, TrackedIncident, decode, encode
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.inputs.tail_position import Head, Mark, Position, head
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Strength
from smfix.smlog.rules.tool_output import Weight

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
CASES = st.builds(
    TrackedIncident,
    TEXTS, TEXTS, MAYBE, MAYBE, LIVES, FAILURES, FAILURES, st.tuples(TEXTS), st.tuples(), NUMBERS, QUOTES,
    st.booleans(), st.none() | TIMES, st.none() | TIMES, st.none() | PROOFS,
    st.none() | st.just({"outcome": {"status": "repaired"}}), MAYBE,
)  # fmt: skip
MARKS = st.builds(
    Mark, NUMBERS, NUMBERS, st.builds(Head, NUMBERS, TEXTS), st.binary(max_size=9), NUMBERS, NUMBERS, NUMBERS
)
POSITIONS = st.builds(
    Position, st.none() | MARKS, st.lists(st.builds(Head, NUMBERS, TEXTS), max_size=3).map(tuple), NUMBERS, NUMBERS
)
LEDGERS = st.builds(
    FollowerState, TEXTS, POSITIONS, NUMBERS, NUMBERS, NUMBERS, st.lists(TEXTS, max_size=3),
    st.lists(CASES, max_size=3).map(lambda cases: {case.id: case for case in cases}),
    st.lists(st.builds(PendingEvent, st.just({"event": "seen"}), st.booleans()), max_size=2),
    st.lists(st.tuples(TEXTS, TIMES), max_size=2), st.dictionaries(TEXTS, NUMBERS, max_size=2),
    st.dictionaries(TEXTS, st.integers(0, 9), max_size=2),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(LEDGERS)
def test_what_is_decoded_is_what_was_encoded(ledger):
    text = encode(ledger)
    assert text.isascii()
    assert decode(text) == ledger


def small():
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    failure = Failure(1, 0, None, ("host", 0), 7, "v", None, None, (), Weight.DAMAGE, ())
    cases = [
        TrackedIncident(
            name, "v", None, None, IncidentState(Stage.SEEN, moment), failure, failure, (), (), 1, (), False, None, None
        )
        for name in "ab"
    ]
    return FollowerState("/log", cases={case.id: case for case in cases})


def test_only_what_is_missing_is_encoded_anew():
    ledger, fragments = small(), {}
    first = encode(ledger, fragments)
    ledger.cases["a"].count = 5
    assert encode(ledger, fragments) == first
    del fragments["a"]
    assert decode(encode(ledger, fragments)).cases["a"].count == 5


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": "x"}', "[" * 9999, '{"schema": 1e999}'])
def test_what_is_no_ledger_is_refused(text):
    with pytest.raises(StateDamaged):
        decode(text)


def test_another_version_is_named():
    with pytest.raises(StateDamaged, match=f"'smfix.state/9', this smfix reads '{SCHEMA}'"):
        decode(json.dumps({"schema": "smfix.state/9"}))


def test_a_wrong_type_is_refused():
    document = json.loads(encode(small()))
    for key, wrong in (("log", 5), ("files", [1]), ("place", "x"), ("cases", 5), ("position", None), ("totals", [])):
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
    ledger = small()
    ledger.repairs = [("/a", datetime(2026, 11, 22, tzinfo=UTC) + timedelta(microseconds=5))]
    assert decode(encode(ledger)).repairs == ledger.repairs
