"""Exit codes from values (contract, Exit codes): fsck's bits, they add up. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from smfix.values import (
    CheckedImage,
    Exit,
    Outcome,
    Pruned,
    Pruning,
    Reason,
    Status,
    TreatedImage,
    TreatedIncident,
    Verdict,
)

_CHECK_BITS = {
    Verdict.VALID: Exit.CLEAN,
    Verdict.IN_USE: Exit.CLEAN,
    Verdict.INVALID: Exit.LEFT,
    Verdict.NOT_A_VHD: Exit.LEFT,
    Verdict.UNREADABLE: Exit.FAILED,
}


def of_outcome(outcome: Outcome) -> Exit:
    """The bits one image adds.

    A partly repaired image adds two: it was repaired, and something is left. So does one to which recovery has
    written and that was refused then.
    """
    bits = Exit.CLEAN if outcome.settled else Exit.LEFT
    if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) or any(one.wrote for one in outcome.recovered):
        bits |= Exit.REPAIRED
    if outcome.status is Status.FAILED or outcome.reason is Reason.LOCKED:
        bits |= Exit.FAILED
    return bits


def of_undo(outcome: Outcome) -> Exit:
    """`undo`: nothing is left to do where the image was put back."""
    return Exit.CLEAN if outcome.status is Status.ROLLED_BACK else of_outcome(outcome)


def of_images(images: Iterable[TreatedImage]) -> Exit:
    """`repair`: the bits of every TARGET; a missing one is a failure of the request."""
    total = Exit.CLEAN
    for image in images:
        total |= of_outcome(image.outcome)
        if image.missing:
            total |= Exit.FAILED
    return total


def of_incidents(incidents: Iterable[TreatedIncident]) -> Exit:
    """`from-log`: resolved incidents (no outcome) add nothing."""
    total = Exit.CLEAN
    for treated in incidents:
        if treated.outcome is not None:
            total |= of_outcome(treated.outcome)
    return total


def of_pruning(done: Iterable[Pruned]) -> Exit:
    """`journal prune`: what is kept is kept for a reason, and nothing is wrong."""
    return Exit.FAILED if any(one.action is Pruning.FAILED for one in done) else Exit.CLEAN


def of_checks(images: Iterable[CheckedImage]) -> Exit:
    """`check`: infos and warnings alone add nothing."""
    total = Exit.CLEAN
    for verdict in {image.verdict for image in images}:
        total |= _CHECK_BITS[verdict]
    return total
