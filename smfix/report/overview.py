"""What is left behind a report of many cards: by reason, which disks, and what to type next. Pure.

The interesting cards have scrolled away by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from smfix.model import Outcome, Reason, Status
from smfix.report.escape import printable
from smfix.report.layout import INDENT, folded

_NAMED = 6
"""Disks, and commands, that are named for one reason."""
_STATUS = {
    Status.WOULD_REPAIR: "can be repaired",
    Status.PARTLY_REPAIRED: "repaired in part",
    Status.NOT_FOUND: "not found on this host",
    Status.AMBIGUOUS: "several images fit the name",
    Status.ROLLED_BACK: "the repair was taken back",
    Status.FAILED: "failed",
    Status.REFUSED: "not repaired",
}
_REASON = {
    Reason.IN_USE: "in use: shut its VM down or detach it, then run this again",
    Reason.LOCKED: "locked by another program: run this again when that has ended",
    Reason.NEEDS_CONFIRM: "needs your consent",
    Reason.NO_FIX: "no repair for it",
    Reason.IMAGE_COPY: "a copy of a disk: repair the disk that it was made from",
    Reason.NOT_A_VHD: "no VHD",
    Reason.SM_PENDING: "the storage manager has something to finish with it first",
    Reason.SHARED_SR_UNKNOWN: "on shared storage, where another host may have it open",
    Reason.STALE: "changed since it was looked at",
}


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Left(NamedTuple):
    """One disk of a report that is neither repaired nor sound: its card's number, its name, what became of it."""

    card: int
    name: str
    outcome: Outcome


def overview(left: Sequence[Left]) -> str:
    """The disks that are left, by why."""
    lines = ["What is left, and what to type next:"]
    groups: dict[str, list[Left]] = {}
    for one in left:
        groups.setdefault(standing(one.outcome), []).append(one)
    for why, members in groups.items():
        head = f"{INDENT}{why}: "
        named = [printable(one.name) for one in members[:_NAMED]]
        more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
        cards = f" (card{'s' if len(members) > 1 else ''} {_ranges(one.card for one in members)})"
        lines.append(folded(INDENT, head.strip() + " " + ", ".join(named) + more + cards))
        steps = list(dict.fromkeys(step for one in members for step in one.outcome.next[:1]))
        lines += [f"{INDENT * 2}{printable(step)}" for step in steps[:_NAMED]]
        if len(steps) > _NAMED:
            lines.append(f"{INDENT * 2}... and so on: each card has its own")
    return "\n".join(lines)


def standing(outcome: Outcome) -> str:
    """Why an outcome is not the end of it, in plain words, with the findings' codes where they are the reason."""
    words = _STATUS.get(outcome.status, outcome.status.value)
    if outcome.reason is not None:
        words = _REASON.get(outcome.reason, f"{words} ({outcome.reason.value})")
    if outcome.reason is Reason.NEEDS_CONFIRM and outcome.plan is not None:
        return f"{words} to {', '.join(outcome.plan.needs)}"
    if outcome.reason is Reason.NO_FIX or outcome.status is Status.PARTLY_REPAIRED:
        codes = dict.fromkeys(one.code for one in outcome.remaining if one.severity.value == "error")
        return f"{words} ({', '.join(codes)})" if codes else words
    return words


def not_asked(number: int, path: str, outcome: Outcome) -> str:
    """One line of the disk that is skipped between two questions: why it is not asked about."""
    why = outcome.status.value if outcome.settled else standing(outcome)
    if outcome.reason is Reason.NEEDS_CONFIRM and outcome.plan is not None:
        why = f"needs {' '.join(f'--confirm {code}' for code in outcome.plan.needs)}"
    return folded(INDENT, f"Disk {number}: {short(path)} not asked: {why}")


def short(name: str) -> str:
    """What a disk is called in a line: of a UUID the first eight digits, of another name all; of a path its file."""
    base = name.rpartition("/")[2]
    stem = base.removesuffix(".vhd")
    return stem[:8] if _UUID.fullmatch(stem) else base


def _ranges(numbers: Iterable[int]) -> str:
    """``2, 4-7, 9`` of numbers in order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
