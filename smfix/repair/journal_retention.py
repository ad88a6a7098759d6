"""Which undo journals may go, and which stay whatever their age. Pure.

A repair is undone only while the disk is as that repair left it. So if a disk was repaired twice, the way
back to its first state leads through the later journal: while that one stays, the earlier one stays too. What
was put back already, or never will be, may go.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from smfix.repair.journal import Journal, JournalState


class RetentionReason(Enum):
    """Why a journal is kept."""

    YOUNG = "young"
    OPEN = "unfinished"
    NEEDED = "needed"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Kept:
    """A journal in its folder. `journal` None: it cannot be read; `newer`: a later smfix can."""

    mark: JournalState
    journal: Journal | None
    newer: bool = False


def retention_reasons(journals: Sequence[Kept], before: datetime) -> list[RetentionReason | None]:
    """Why each of `journals` (all there are) stays; None: it is older than `before` and may go.

    Which of two repairs of a disk came first is not asked: ids of one second have no order, and clocks are set
    back. So every repair of a disk stays while one of them does. A journal that cannot be read is never deleted: it
    may be a later smfix's, and then even which disk it is of is unknown, so that no repair is given up.
    """
    reasons = [_reason(one, before) for one in journals]
    foreign = any(one.newer and not one.mark.is_over for one in journals)
    names = [set[Hashable]() if one.journal is None else _names(one.journal) for one in journals]
    needed: set[Hashable] = set()
    for one, reason, known in zip(journals, reasons, names, strict=True):
        if reason is not None and not one.mark.is_over:
            needed |= known
    may_go = {index for index, reason in enumerate(reasons) if reason is None and not journals[index].mark.is_over}
    while found := {index for index in may_go if foreign or names[index] & needed}:
        may_go -= found
        for index in found:
            reasons[index] = RetentionReason.NEEDED
            needed |= names[index]
    return reasons


def _reason(one: Kept, before: datetime) -> RetentionReason | None:
    if one.journal is None:
        return RetentionReason.UNREADABLE
    if one.mark.is_open:
        return RetentionReason.OPEN
    return RetentionReason.YOUNG if one.journal.created >= before else None


def _names(journal: Journal) -> set[Hashable]:
    """The names and numbers of the journal's image (:func:`smfix.repair.apply.is_same_image`); one match is enough."""
    target = journal.target
    names: set[Hashable] = {("path", target.path)}
    if journal.rdev is None:
        names.add(("inode", journal.device, journal.inode))
    elif target.vdi is None:
        names.add(("device", journal.rdev))
    else:
        names.add(("volume", target.sr, target.vdi))
    return names
