"""Sum up the disks that are left at the end of a report of many cards, by reason, with the next commands. Pure.

By then the cards themselves have scrolled away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from smfix.report.escape import printable
from smfix.report.layout import INDENT, folded
from smfix.report.next_steps import can_join, command_line, joined, undo_loop
from smfix.values import Outcome, Reason, Status, StepKind

_NAMED = 6
"""Disks that are named for one reason."""
_LOOPED = 50
"""Journals that are named in one command; of more the list is `smfix journal`."""
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
    Reason.LOCKED: "locked by another program: run this again when that is done",
    Reason.NEEDS_CONFIRM: "needs your consent",
    Reason.NO_FIX: "no repair for it",
    Reason.IMAGE_COPY: "a copy of a disk: repair the disk that it was made from",
    Reason.NOT_A_VHD: "not a VHD",
    Reason.SM_PENDING: "the storage manager has something to finish with it first",
    Reason.SHARED_SR_UNKNOWN: "on shared storage, where another host may have it open",
    Reason.STALE: "changed since it was looked at",
}


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Left(NamedTuple):
    """One disk of a report that is neither repaired nor sound: its card's number, its name, its outcome."""

    card: int
    name: str
    outcome: Outcome


def overview(left: Sequence[Left]) -> str:
    """List the disks that are left, by reason."""
    lines = ["What is left, and what to type next:"]
    groups: dict[str, list[Left]] = {}
    for one in left:
        groups.setdefault(why_left(one.outcome), []).append(one)
    for why, members in groups.items():
        head = f"{INDENT}{why}: "
        named = [printable(one.name) for one in members[:_NAMED]]
        more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
        cards = f" (card{'s' if len(members) > 1 else ''} {_ranges(one.card for one in members)})"
        lines.append(folded(INDENT, head.strip() + " " + ", ".join(named) + more + cards))
        steps = joined(step for one in members for step in one.outcome.next if can_join(step, one.outcome.next[0]))
        lines += [f"{INDENT * 2}{printable(command_line(step))}" for step in steps[:1]]
        if len(steps) > 1:
            lines.append(f"{INDENT * 2}... and so on: each card has its own")
    return "\n".join(lines)


def undo_all(outcomes: Iterable[Outcome]) -> tuple[int, str]:
    """Count the repairs of the run, and make one command line that undoes them, the last one first.

    The line is empty for fewer than two repairs, and if it would be too long to read.
    """
    steps = [one.undo for one in outcomes if one.undo is not None and one.status in _WRITTEN]
    return len(steps), undo_loop(steps) if 1 < len(steps) <= _LOOPED else ""


def undo_line(outcomes: Iterable[Outcome]) -> str:
    """Say how to undo every repair of the run; "" if there is one card, which says it itself."""
    repairs, line = undo_all(outcomes)
    if repairs < 2:
        return ""
    head = f"To undo all {repairs} repairs of this run"
    return f"{head} (it asks before each):\n{INDENT}{line}" if line else f"{head}: `smfix journal` lists them."


_WRITTEN = (Status.REPAIRED, Status.PARTLY_REPAIRED)


def why_left(outcome: Outcome) -> str:
    """Return why a disk is left, in plain words, with the findings' codes if they are the reason."""
    words = _STATUS.get(outcome.status, outcome.status.value)
    if outcome.status is Status.NOT_FOUND and outcome.next and outcome.next[0].kind is StepKind.FIND_SR:
        return f"its SR {outcome.next[0].args[0]} is not attached here"
    if outcome.reason is not None:
        words = _REASON.get(outcome.reason, f"{words} ({outcome.reason.value})")
    if outcome.reason is Reason.NEEDS_CONFIRM and outcome.plan is not None:
        return f"{words} to {', '.join(outcome.plan.needs)}"
    if outcome.reason is Reason.NO_FIX or outcome.status is Status.PARTLY_REPAIRED:
        codes = dict.fromkeys(one.code for one in outcome.remaining if one.severity.value == "error")
        return f"{words} ({', '.join(codes)})" if codes else words
    return words


def not_asked(number: int, path: str, outcome: Outcome) -> str:
    """Return one line for a disk that is skipped between two questions: why smfix does not ask."""
    why = outcome.status.value if outcome.settled else why_left(outcome)
    if outcome.reason is Reason.NEEDS_CONFIRM and outcome.plan is not None:
        why = f"needs {' '.join(f'--confirm {code}' for code in outcome.plan.needs)}"
    return folded(INDENT, f"Disk {number}: {short(path)} not asked: {why}")


def short(name: str) -> str:
    """Return a short name: eight digits of a UUID, the file of a path, every other name in full."""
    base = name.rpartition("/")[2]
    stem = base.removesuffix(".vhd")
    return stem[:8] if _UUID.fullmatch(stem) else base


def _ranges(numbers: Iterable[int]) -> str:
    """Return ``2, 4-7, 9`` for numbers in order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
