"""model, errors: the few rules that values carry with them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix import errors
from smfix.formats.problem import Detection, found
from smfix.formats.registry import row
from smfix.values import (
    Disposition,
    Exit,
    Extent,
    Finding,
    Fingerprint,
    Incident,
    Outcome,
    RepairPlan,
    Severity,
    State,
    Status,
    TreatedIncident,
    VdiRef,
    Write,
)

offsets = st.integers(0, 40)


@given(offsets, offsets, offsets, offsets)
def test_extents_overlap_where_they_share_a_byte(one, length, other, other_length):
    a, b = Extent(one, length), Extent(other, other_length)
    shared = set(range(a.offset, a.end)) & set(range(b.offset, b.end))
    if length and other_length:
        assert a.overlaps(b) == b.overlaps(a) == bool(shared)
    assert a.end == one + length


def test_a_write_covers_its_bytes():
    assert Write(512, b"abc").extent == Extent(512, 3)


@pytest.mark.parametrize(
    ("code", "severity", "damage"),
    [
        ("VHD101", Severity.ERROR, True),
        ("VHD402", Severity.ERROR, True),
        ("VHD102", Severity.WARNING, False),
        ("VHD501", Severity.ERROR, False),
        ("VHD901", Severity.INFO, False),
    ],
)
def test_damage_is_an_error_of_this_image_itself(code, severity, damage):
    problem = row(code)
    assert problem is not None
    assert found(replace(problem, message="", severity=severity), Detection()).is_damage is damage


def test_losses_are_counted_in_guest_sectors():
    lost = (Extent(0, 512), Extent(4096, 1024))
    assert RepairPlan((), (), (), lost, None, Fingerprint(0, ())).lost_sectors == 3


def test_only_repaired_and_valid_are_settled():
    settled = {status for status in Status if Outcome(status, "").settled}
    assert settled == {Status.REPAIRED, Status.VALID}


def test_a_resolved_incident_leaves_nothing_to_do():
    seen = Incident(VdiRef("1d994938"), None, None, (), None, None, 1, ())

    def treated(outcome: Outcome | None) -> TreatedIncident:
        return TreatedIncident("id", seen, "1d994938", None, None, State.OPEN, outcome)

    assert not treated(None).left
    assert not treated(Outcome(Status.REPAIRED, "")).left
    assert treated(Outcome(Status.REFUSED, "")).left


def test_a_full_reference_is_a_whole_uuid():
    assert VdiRef("1d994938-058e-102f-80dc-001ec95cb0b6").is_full
    assert not VdiRef("1d994938").is_full


def test_exit_bits_are_fscks():
    assert [int(bit) for bit in (Exit.REPAIRED, Exit.LEFT, Exit.FAILED, Exit.USAGE)] == [1, 4, 8, 16]
    assert int(Exit.INTERRUPTED) == 32
    assert Exit.REPAIRED | Exit.LEFT == 5


@pytest.mark.parametrize(
    ("error", "bit"),
    [
        (errors.UsageError, Exit.USAGE),
        (errors.Unreadable, Exit.FAILED),
        (errors.WriteFailed, Exit.FAILED),
        (errors.JournalDamaged, Exit.FAILED),
    ],
)
def test_an_error_names_its_exit_bit(error, bit):
    assert issubclass(error, errors.SmfixError)
    assert error.exit_bit is bit


def test_what_a_reader_hands_over_can_be_handed_over():
    """Readers tell what they have read through a pipe; a finding need not have facts."""
    finding = Finding("VHD101", "footer missing", "It is gone.", Severity.ERROR, Disposition.SAFE)
    assert pickle.loads(pickle.dumps(finding)) == finding
