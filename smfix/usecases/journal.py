"""List undo journals, undo a repair, delete old journals: `smfix journal`, `smfix undo`.

:mod:`smfix.repair.journal_retention` decides which journals may be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from smfix.errors import SmfixError, Unanswered, UsageError
from smfix.formats.registry import inspect
from smfix.host import wait_notice
from smfix.host.image_file import open_image
from smfix.repair import journal_store
from smfix.repair import undo as way_back
from smfix.repair.journal_retention import Kept, RetentionReason, retention_reasons
from smfix.repair.journal_store import DamagedEntry, JournalEntry
from smfix.sm.resolve import Found
from smfix.sm.sr_types.lvm_activation import Volumes
from smfix.usecases import image_relatives
from smfix.usecases.repair_context import names_of, volumes_of
from smfix.usecases.repair_context import repair_context as make_context
from smfix.usecases.repair_image import looking, refused, volume_active, with_leftovers, writing
from smfix.usecases.resolve import unanswered
from smfix.usecases.run_options import RunOptions
from smfix.values import (
    Edit,
    JournalRecord,
    Outcome,
    Pruned,
    Pruning,
    Reason,
    Refusal,
    Resize,
    Status,
    StepKind,
    TreatedImage,
    Write,
)

_AGE = re.compile(r"\s*([0-9]{1,6})\s*([smhdw])\s*\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_WHY = {
    RetentionReason.YOUNG: "it is younger than that",
    RetentionReason.OPEN: "its repair or undo was interrupted, and is completed from it",
    RetentionReason.NEEDED: "a later repair of the same disk can be undone, and this one after it",
    RetentionReason.UNREADABLE: "it cannot be read, so nobody can say what depends on it",
}
Agree = Callable[[Sequence[Pruned]], bool]
"""Decides whether to delete the journals that it takes."""


def journals(run_options: RunOptions, prefix: str | None = None) -> tuple[JournalRecord, ...]:
    """Return all journals, oldest first, or the one whose id begins with `prefix`.

    Raises UsageError, Unreadable, JournalDamaged as :mod:`smfix.repair.journal_store` does.
    """
    if prefix is None:
        return tuple(record_of(entry, run_options) for entry in journal_store.list_journals(run_options.journals))
    return (record_of(journal_store.load(run_options.journals, prefix), run_options),)


def record_of(entry: JournalEntry | DamagedEntry, run_options: RunOptions) -> JournalRecord:
    """Return the journal of `entry` as commands report it."""
    size = journal_store.size_of(entry)
    if isinstance(entry, DamagedEntry):
        return JournalRecord(entry.id, entry.mark.value, entry.path, damage=entry.damage, bytes=size)
    journal = entry.journal
    edits: list[Edit] = [step if isinstance(step, Resize) else Write(step.offset, step.after) for step in journal.steps]
    return JournalRecord(
        entry.id,
        entry.mark.value,
        entry.path,
        created=journal.created,
        path=journal.target.path,
        vdi=journal.target.vdi,
        sr=journal.target.sr,
        old_size=journal.old_size,
        new_size=journal.new_size,
        edits=tuple(edits),
        fixes=journal.fixes,
        lost_sectors=sum(extent.length for extent in journal.lost) // 512,
        command=journal.command,
        undo=None if entry.mark.is_over else run_options.undo_step(entry.id),
        bytes=size,
    )


def undone(
    entry: JournalEntry,
    found: Found,
    run_options: RunOptions,
    agree: Callable[[JournalRecord], bool] | None,
    volumes: Volumes,
    *,
    newer: bool = False,
) -> Outcome:
    """Undo the journal `entry`, if `agree` allows it; `newer`: even if newer data is lost."""
    look = looking(found)
    opened = open_image(found.target, sr_root=found.root)
    if isinstance(opened, Refusal):
        return refused(opened)
    with opened, ExitStack() as stack:
        repair_context = make_context(run_options, image_relatives.children_of(inspect(opened), found, stack))
        stale = way_back.stale(entry, opened, repair_context, look(opened), newer=newer)
        objection = stale or repair_context.guard.objection(opened)
        # The undo itself judges an open journal, and closes it if the image is sound.
        if objection is not None and not (stale and entry.mark.is_open and agree is not None):
            return refused(objection)
        consent = ("--confirm", way_back.NEWER) if newer else ()
        step = run_options.step(StepKind.UNDO, entry.id, options=[*consent, "--yes"])
        lost = way_back.newer_data(entry, opened) if newer and stale is None else None
        if stale is None and (agree is None or not agree(record_of(entry, run_options)._replace(newer=lost))):
            along = f", and would take along {lost}" if lost else ""
            return Outcome(
                Status.WOULD_REPAIR,
                f"nothing was written; the image can be put back as it was before the repair{along}",
                undo=run_options.undo_step(entry.id),
                next=(step,),
            )
        with writing(opened, volumes) as writable:
            if isinstance(writable, Refusal):
                return refused(writable)
            done = way_back.undo(entry, writable, repair_context, look, newer=newer)
        again = (step,) if done.reason is Reason.LOCKED else ()
        return done._replace(next=done.next or again)


def undo(
    prefix: str, run_options: RunOptions, agree: Callable[[JournalRecord], bool] | None, consent: Iterable[str] = ()
) -> TreatedImage:
    """Undo a journal; `agree` decides (None: a dry run), `consent` are the codes of ``--confirm``.

    Raises UsageError, Unreadable, WriteFailed, JournalDamaged before anything is written.
    """
    consent = [code.upper() for code in consent]
    if unknown := [code for code in consent if code != way_back.NEWER]:
        raise UsageError(f"--confirm {unknown[0]}: an undo asks for consent to {way_back.NEWER} alone")
    entry = journal_store.load(run_options.journals, prefix)
    path = entry.journal.target.path
    found = Found(entry.journal.target, entry.journal.sr_root)
    if path in (silent := unanswered([path], (), run_options.say)):
        again = (run_options.undo_step(entry.id),)
        return TreatedImage(path, Outcome(Status.FAILED, silent[path], journal=entry.id, next=again))
    volumes = volumes_of(run_options)
    try:
        with (
            wait_notice.watched(path, run_options.say),
            volume_active(found.target, volumes, change=agree is not None) as inactive,
        ):
            outcome = (
                refused(inactive)
                if inactive is not None
                else undone(entry, found, run_options, agree, volumes, newer=bool(consent))
            )
    except Unanswered as error:
        outcome = Outcome(Status.FAILED, str(error), next=(run_options.undo_step(entry.id),))
    outcome = with_leftovers(outcome._replace(journal=entry.id), found.target, volumes, run_options)
    return TreatedImage(path, outcome, names=names_of(run_options, found.target), sr=found.target.sr)


# --------------------------------------------------------------------------- deleting


def age(text: str) -> timedelta:
    """Return the age of ``90d``, ``12w``, ``36h``. Raises UsageError."""
    found = _AGE.match(text)
    if found is None:
        raise UsageError(f"--older-than {text}: not an age; say 90d, 12w or 36h")
    return timedelta(seconds=int(found[1]) * _UNIT[found[2]])


def prune(older_than: str, run_options: RunOptions, agree: Agree | None) -> tuple[Pruned, ...]:
    """Delete old journals; return every journal, oldest first. `agree` decides (None: a dry run).

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
