"""Undo a repair.

The journal is replayed with the old bytes, under the locks and guards of a repair, and only if the disk is exactly as
the repair left it. Equal edited bytes do not prove that if the repair gave the guest a place to write to: then the
bytes that the repair made readable must be unchanged too, by their digest, or by the file's mtime if they are too many
or the journal is too old. An undo takes newer data along only if the operator agrees (`UNDO-NEWER`).

An undo first renames its journal to ``.undoing``, so that a killed undo is known as one and the next run settles it.
A journal that is still open is judged first, as recovery does.
"""

from __future__ import annotations

from smfix.errors import SmfixError
from smfix.host.image_file import OpenImage, open_image
from smfix.repair import journal_store
from smfix.repair.apply import RepairContext, is_replaced, is_same_image, restore
from smfix.repair.image_state import ImageState, image_state
from smfix.repair.journal import Journal, JournalState
from smfix.repair.journal_store import JournalEntry
from smfix.repair.reach_digest import is_unchanged
from smfix.repair.recovery import Fate, Look, Seen, closed, decided, fate_of, interrupted, is_another, stale_interrupted
from smfix.values import Extent, Outcome, Reason, Recovered, Refusal, Status

NEWER = "UNDO-NEWER"
"""The consent to take newer data along."""
_RUNS_NAMED = 4


def open_target(journal: Journal) -> OpenImage | Refusal:
    """The journal's image, open for writing as the repair opened it.

    Raises :class:`smfix.errors.Unreadable` and :class:`smfix.errors.WriteFailed` as
    :func:`smfix.host.image_file.open_image` does.
    """
    return open_image(journal.target, sr_root=journal.sr_root, write=True)


def undo(
    entry: JournalEntry, image: OpenImage, repair_context: RepairContext, look: Look, *, newer: bool = False
) -> Outcome:
    """Put `image` (open for writing) back as it was before the repair that `entry` records.

    `newer`: the operator agrees that newer data goes along. The outcome is `rolled-back` if the image is now byte
    for byte, and in its size, as before; `refused` (stale, locked, in-use) if nothing was written; `failed` if the
    storage failed: then the journal stays open, and the same command completes it.
    """
    try:
        with repair_context.guard.own_lock(image) as held:
            if held is not None:
                return _refused(entry, held)
            # Another smfix may have finished with it while we waited for the lock.
            entry = journal_store.load(repair_context.folder, entry.id)
            seen = look(image)
            recovered: tuple[Recovered, ...] = ()
            if entry.mark.is_open and not is_foreign(entry, image):
                fate = fate_of(entry, image, image, seen)
                if fate in (Fate.VERIFIED, Fate.SUPERSEDED):
                    before, entry = entry, closed(entry, fate)
                    recovered = (decided(before, fate, entry),)
            objection = stale(entry, image, repair_context, seen, newer=newer)
            if objection is not None:
                return _refused(entry, objection)._replace(recovered=recovered)
            lost = newer_data(entry, image)
            mtime = image.mtime
            with repair_context.guard.host_locks(image) as busy:
                objection = busy or repair_context.guard.objection(image)
                if objection is None and (mtime is None or image.mtime != mtime):
                    # Another program may have written while we waited; of a device only the bytes show that.
                    objection = stale(entry, image, repair_context, seen, newer=newer)
                ends = _refused(entry, objection) if objection else _put_back(entry, image, lost)
                return ends._replace(recovered=recovered)
    except SmfixError as error:
        again = repair_context.undo_step(entry.id)
        return Outcome(
            status=Status.FAILED,
            message=f"{error}; the undo is not complete",
            journal=entry.id,
            undo=again,
            next=(again,),
        )


def _put_back(entry: JournalEntry, image: OpenImage, lost: str | None) -> Outcome:
    regretted = entry.mark is not JournalState.UNFINISHED
    if entry.mark in (JournalState.VERIFIED, JournalState.APPLIED):
        entry = journal_store.mark(entry, JournalState.UNDOING)
    restore(image, entry.journal)
    journal_store.mark(entry, JournalState.UNDONE if regretted else JournalState.ROLLED_BACK)
    what = "the repair was undone" if regretted else "an interrupted repair was put back"
    return Outcome(
        status=Status.ROLLED_BACK,
        message=f"{what}: the image is as it was before" + (f"; this took along {lost}" if lost else ""),
        journal=entry.id,
    )


def is_foreign(entry: JournalEntry, image: OpenImage) -> bool:
    """True when `image` is not the file, or the device, that the journal is of."""
    return not is_same_image(entry.journal, image) or is_replaced(entry.journal, image)


def stale(
    entry: JournalEntry, image: OpenImage, repair_context: RepairContext, seen: Seen, *, newer: bool
) -> Refusal | None:
    """Why the journal's old bytes must not be put into this image. Raises Unreadable."""
    journal, path = entry.journal, image.target.path
    if entry.mark in (JournalState.UNDONE, JournalState.ROLLED_BACK):
        return Refusal(Reason.STALE, f"journal {entry.id} is {entry.mark.value} already")
    if is_foreign(entry, image) or is_another(journal, seen):
        return Refusal(Reason.STALE, f"{path} is not the file that journal {entry.id} is of")
    moved_on = Refusal(
        Reason.STALE,
        f"{path} has moved on since the repair; putting old bytes back would destroy what was written since",
    )
    for later in interrupted(repair_context.folder, image):
        if later.id != entry.id and later.journal.created > journal.created:
            return Refusal(
                Reason.STALE,
                f"journal {later.id} of a later repair of {path} is unfinished; it comes first",
                (repair_context.undo_step(later.id),),
            )
    if entry.mark is JournalState.SUPERSEDED:
        return moved_on
    now = image_state(image, journal)
    if entry.mark.is_open and now is ImageState.OLD:
        return None
    if entry.mark.is_open and (now is ImageState.ELSEWHERE or (now is ImageState.BETWEEN and seen.is_sound)):
        return moved_on if seen.is_sound else stale_interrupted(entry, image)
    if not entry.mark.is_open and now is not ImageState.NEW:
        return moved_on
    lost = newer_data(entry, image)
    if lost is None or newer:
        return None
    again = repair_context.undo_step(entry.id)
    return Refusal(
        Reason.STALE,
        f"{path} may have moved on since the repair; putting old bytes back would take along {lost}. "
        f"--confirm {NEWER} agrees to that",
        (again._replace(options=(*again.options, "--confirm", NEWER, "--yes")),),
    )


def newer_data(entry: JournalEntry, image: OpenImage) -> str | None:
    """Name the data that a guest may have written to what the repair made readable; None: none. Raises Unreadable."""
    reach = entry.journal.reach
    unchanged = is_unchanged(image, reach)
    if unchanged:
        return None
    if reach is None:
        places = "what was written to the disk since (this journal does not keep what the repair made readable)"
    else:
        runs = reach.guest[:_RUNS_NAMED]
        more = " and more" if len(reach.guest) > len(runs) else ""
        places = f"what was written since to {_named(runs)}{more}, which the repair made readable"
    if unchanged is None:
        kept = journal_store.kept_mtime(entry) if entry.mark is JournalState.VERIFIED else None
        if kept is not None and kept == image.mtime:
            return None
    return places


def _named(runs: tuple[Extent, ...]) -> str:
    if not runs:
        return "places"
    return "guest bytes " + ", ".join(f"{run.offset:,} to {run.end - 1:,}" for run in runs)


def _refused(entry: JournalEntry, refusal: Refusal) -> Outcome:
    return Outcome(
        status=Status.REFUSED,
        message=refusal.message,
        reason=refusal.reason,
        journal=entry.id,
        next=refusal.next,
    )
