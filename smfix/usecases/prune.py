"""Old undo journals thrown away: `smfix journal prune`. Which ones: :mod:`smfix.repair.journal_retention`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from smfix.errors import SmfixError, UsageError
from smfix.repair import journal_store
from smfix.repair.journal_retention import Kept, RetentionReason, retention_reasons
from smfix.repair.journal_store import DamagedEntry, JournalEntry
from smfix.usecases.journal import record_of
from smfix.usecases.run_options import RunOptions
from smfix.values import Pruned, Pruning

_AGE = re.compile(r"\s*([0-9]{1,6})\s*([smhdw])\s*\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_WHY = {
    RetentionReason.YOUNG: "it is younger than that",
    RetentionReason.OPEN: "its repair or undo was interrupted, and is completed from it",
    RetentionReason.NEEDED: "a later repair of the same disk can be undone, and this one after it",
    RetentionReason.UNREADABLE: "it cannot be read, so nobody can say what depends on it",
}
Agree = Callable[[Sequence[Pruned]], bool]
"""Whoever says yes to throwing journals away: gets those that would go."""


def age(text: str) -> timedelta:
    """``90d``, ``12w``, ``36h``. Raises UsageError."""
    found = _AGE.match(text)
    if found is None:
        raise UsageError(f"--older-than {text}: not an age; say 90d, 12w or 36h")
    return timedelta(seconds=int(found[1]) * _UNIT[found[2]])


def prune(older_than: str, run_options: RunOptions, agree: Agree | None) -> tuple[Pruned, ...]:
    """What became of every journal, oldest first; `agree` says yes to those that would go (None: a dry run).

    Raises UsageError for an age, Unreadable for a folder that cannot be read or trusted.
    """
    before = _before(older_than)
    planned = _choose(before, run_options)
    going = {name: one for name, (_, one) in planned.items() if one.action is Pruning.WOULD_PRUNE}
    if agree is None or not going or not agree(list(going.values())):
        return tuple(one for _, one in planned.values())
    # Looked at again: a person may have thought for long, and a repair may have come meanwhile.
    return tuple(
        _gone(entry, one) if name in going and isinstance(entry, JournalEntry) else one
        for name, (entry, one) in _choose(before, run_options).items()
    )


def _before(older_than: str) -> datetime:
    try:
        return datetime.now(UTC) - age(older_than)
    except OverflowError as error:
        raise UsageError(f"--older-than {older_than}: that is too long ago") from error


def _choose(before: datetime, run_options: RunOptions) -> dict[str, tuple[JournalEntry | DamagedEntry, Pruned]]:
    entries = journal_store.list_journals(run_options.journals)
    seen = [
        Kept(entry.mark, None, entry.newer) if isinstance(entry, DamagedEntry) else Kept(entry.mark, entry.journal)
        for entry in entries
    ]
    chosen = {}
    for entry, reason in zip(entries, retention_reasons(seen, before), strict=True):
        record = record_of(entry, run_options)
        if reason is None:
            chosen[entry.path] = (entry, Pruned(record, Pruning.WOULD_PRUNE))
        else:
            chosen[entry.path] = (entry, Pruned(record, Pruning.KEPT, reason.value, _WHY[reason]))
    return chosen


def _gone(entry: JournalEntry, one: Pruned) -> Pruned:
    if one.action is not Pruning.WOULD_PRUNE:
        return one
    try:
        journal_store.forget(entry)
    except SmfixError as error:
        return Pruned(one.record, Pruning.FAILED, message=str(error))
    return Pruned(one.record, Pruning.PRUNED)
