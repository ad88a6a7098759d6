from __future__ import annotations

import pytest

from report_values import outcome, treated
from smfix.report import exitcode
from smfix.values import CheckedImage, Exit, Reason, State, Status, TreatedImage, Verdict


@pytest.mark.parametrize(
    ("status", "reason", "bits"),
    [
        (Status.REPAIRED, None, 1),
        (Status.PARTLY_REPAIRED, None, 5),
        (Status.WOULD_REPAIR, None, 4),
        (Status.VALID, None, 0),
        (Status.REFUSED, Reason.IN_USE, 4),
        (Status.REFUSED, Reason.LOCKED, 12),
        (Status.NOT_FOUND, None, 4),
        (Status.AMBIGUOUS, None, 4),
        (Status.ROLLED_BACK, None, 4),
        (Status.FAILED, None, 12),
    ],
)
def test_the_bits_of_one_image(status, reason, bits):
    assert exitcode.of_outcome(outcome(status, reason=reason)) == bits


def test_every_status_has_been_thought_of():
    for status in Status:
        assert bool(exitcode.of_outcome(outcome(status)) & Exit.LEFT) is not (status in (Status.REPAIRED, Status.VALID))


def test_bits_add_up():
    repaired = treated(outcome=outcome(Status.REPAIRED))
    refused = treated(outcome=outcome(Status.REFUSED, reason=Reason.IN_USE))
    resolved = treated(outcome=None, state=State.RESOLVED)
    assert exitcode.of_incidents([]) == 0
    assert exitcode.of_incidents([resolved]) == 0
    assert exitcode.of_incidents([repaired, refused, resolved]) == 5


def test_a_missing_target_is_a_failure():
    gone = TreatedImage("/x", outcome(Status.NOT_FOUND), missing=True)
    assert exitcode.of_images([gone]) == 12
    assert exitcode.of_images([TreatedImage("/x", outcome(Status.VALID))]) == 0


@pytest.mark.parametrize(
    ("verdict", "bits"),
    [
        (Verdict.VALID, 0),
        (Verdict.IN_USE, 0),
        (Verdict.INVALID, 4),
        (Verdict.NOT_A_VHD, 4),
        (Verdict.UNREADABLE, 8),
    ],
)
def test_the_bits_of_a_check(verdict, bits):
    assert exitcode.of_checks([CheckedImage("/x", verdict)]) == bits
    assert exitcode.of_checks([CheckedImage("/x", verdict), CheckedImage("/y", Verdict.VALID)]) == bits
