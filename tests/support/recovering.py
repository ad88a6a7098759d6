"""Recovery and undo as tests call them: the image is judged as the test says."""

from __future__ import annotations

from contextlib import nullcontext

from smfix.repair import recovery
from smfix.repair.apply import RepairContext
from smfix.repair.journal_store import JournalEntry
from smfix.repair.recovery import Recovery, Seen
from smfix.repair.undo import undo as undo_judged
from smfix.values import Outcome

BROKEN = Seen(is_sound=False)
SOUND = Seen(is_sound=True)


def undo(
    entry: JournalEntry, image, repair_context: RepairContext, seen: Seen = BROKEN, *, newer: bool = False
) -> Outcome:
    return undo_judged(entry, image, repair_context, lambda view: seen, newer=newer)


def recover(image, repair_context: RepairContext, seen: Seen = BROKEN, *, may_write: bool = True) -> Recovery:
    return recovery.recover(image, repair_context, lambda view: seen, lambda: nullcontext(image), may_write=may_write)


def states(settled: Recovery) -> list[tuple[str, bool]]:
    """(state, wrote) of each journal, newest first."""
    return [(one.state, one.wrote) for one in settled.done]
