"""Exit codes from values (contract, Exit codes): fsck's bits, they add up. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

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
    """Return the bits of one image.

    A partly repaired image has two: it was repaired, and something is left. So has one to which recovery has
    written, if it was refused afterwards.
    """
    bits = Exit.CLEAN if outcome.settled else Exit.LEFT
    if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) or any(one.wrote for one in outcome.recovered):
        bits |= Exit.REPAIRED
    if outcome.status is Status.FAILED or outcome.reason is Reason.LOCKED:
        bits |= Exit.FAILED
    return bits


def of_undo(outcome: Outcome) -> Exit:
    """Return the bits of `undo`: none if the image was put back."""
    return Exit.CLEAN if outcome.status is Status.ROLLED_BACK else of_outcome(outcome)


def of_images(images: Iterable[TreatedImage]) -> Exit:
    """Return the bits of `repair`: those of every TARGET; a missing one adds FAILED."""
    return _sum(of_outcome(image.outcome) | (Exit.FAILED if image.missing else Exit.CLEAN) for image in images)


def of_incidents(incidents: Iterable[TreatedIncident]) -> Exit:
    """Return the bits of `from-log`: resolved incidents (no outcome) add none."""
    return _sum(of_outcome(treated.outcome) for treated in incidents if treated.outcome is not None)


def of_pruning(done: Iterable[Pruned]) -> Exit:
    """Return the bits of `journal prune`: a journal that is kept adds none."""
    return Exit.FAILED if any(one.action is Pruning.FAILED for one in done) else Exit.CLEAN


def of_checks(images: Iterable[CheckedImage]) -> Exit:
    """Return the bits of `check`: infos and warnings alone add none."""
    return _sum(_CHECK_BITS[image.verdict] for image in images)


def _sum(bits: Iterable[Exit]) -> Exit:
    return reduce(or_, set(bits), Exit.CLEAN)
