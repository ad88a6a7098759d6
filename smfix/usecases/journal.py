"""Undo journals as commands tell them, and the way back that one of them leads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from smfix.formats.vhd.image import inspect
from smfix.host.image_file import open_image
from smfix.repair import journal_store
from smfix.repair import undo as way_back
from smfix.repair.journal_store import DamagedEntry, JournalEntry
from smfix.sm.resolve import Found
from smfix.sm.sr_types.lvm_activation import Volumes
from smfix.usecases import image_relatives
from smfix.usecases.repair import looking, refused, writing
from smfix.usecases.run_options import RunOptions
from smfix.values import Edit, JournalRecord, Outcome, Reason, Refusal, Resize, Status, StepKind, Write


def record_of(entry: JournalEntry | DamagedEntry, run_options: RunOptions) -> JournalRecord:
    """The journal of `entry` as commands tell it."""
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
    """The image of `entry` put back, if `agree` says yes, or why not; `newer`: newer data may go along."""
    look = looking(found)
    opened = open_image(found.target, sr_root=found.root)
    if isinstance(opened, Refusal):
        return refused(opened)
    with opened, ExitStack() as stack:
        repair_context = run_options.repair_context(image_relatives.children_of(inspect(opened), found, stack))
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
