"""Which undo journals may go, and which stay whatever their age. Pure.

A repair is undone only while the disk is what that repair left. So where a disk was repaired twice, the way
back to its first state leads through the later journal: while that one stays, the earlier one stays too. What
was put back already is needed by nobody.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from smfix.repair.journal import Journal, Mark


class Stays(Enum):
    """Why a journal is kept."""

    YOUNG = "young"
    OPEN = "unfinished"
    NEEDED = "needed"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Kept:
    """A journal in its folder. `journal` None: it cannot be read; `newer`: a later smfix can."""

    mark: Mark
    journal: Journal | None
    newer: bool = False


def stays(journals: Sequence[Kept], before: datetime) -> list[Stays | None]:
    """Why each of `journals` (all there are, oldest first) stays; None: it is older than `before` and may go.

    What cannot be read is never thrown away: it may be a later smfix's, and then even which disk it is of is
    unknown, so that no repair before it is given up.
    """
    interrupted = set[Hashable]().union(*(_names(one.journal) for one in journals if one.journal and one.mark.is_open))
    needed: set[Hashable] = set()
    foreign = False
    reasons: list[Stays | None] = []
    for one in reversed(journals):
        if one.journal is None:
            foreign = foreign or (one.newer and one.mark not in (Mark.UNDONE, Mark.ROLLED_BACK))
            reasons.append(Stays.UNREADABLE)
            continue
        names = _names(one.journal)
        reason = _reason(one.mark, one.journal, before)
        if reason is None and one.mark is Mark.VERIFIED and (foreign or names & (needed | interrupted)):
            reason = Stays.NEEDED
        if reason is not None and one.mark not in (Mark.UNDONE, Mark.ROLLED_BACK):
            needed |= names
        reasons.append(reason)
    return reasons[::-1]


def _reason(mark: Mark, journal: Journal, before: datetime) -> Stays | None:
    if mark.is_open:
        return Stays.OPEN
    return Stays.YOUNG if journal.created >= before else None


def _names(journal: Journal) -> set[Hashable]:
    """What the journal's image is known by (:func:`smfix.repair.apply.concerns`); one in common is enough here."""
    target = journal.target
    names: set[Hashable] = {("path", target.path)}
    if journal.rdev is None:
        names.add(("inode", journal.device, journal.inode))
    elif target.vdi is None:
        names.add(("device", journal.rdev))
    else:
        names.add(("volume", target.sr, target.vdi))
    return names
