"""The way back: `undo` of a repair somebody regrets, recovery of one that was interrupted.

Both replay a journal with the old bytes, under the locks and guards of a repair. They differ in
what they ask of the image. A verified repair is undone only while the disk is exactly what the
repair left: one that has moved on is not put back. An interrupted repair (or undo) left each
sector old or new, and so is put back from any such mixture. Anything else is `stale`: not a byte is
written.

An undo first renames its journal to ``.undoing``, so that a killed undo is known as one and the
next run completes it.
"""

from __future__ import annotations

import os
import shlex

from smfix.errors import SmfixError
from smfix.host.storage import OpenImage, open_image
from smfix.model import Outcome, Reason, Refusal, Status
from smfix.repair import journal_folder
from smfix.repair.apply import Means, concerns, restore
from smfix.repair.journal import Journal, Mark
from smfix.repair.journal_folder import JournalEntry
from smfix.repair.standing import Standing, standing


def open_target(journal: Journal) -> OpenImage | Refusal:
    """The journal's image, open for writing as the repair opened it.

    Raises :class:`smfix.errors.Unreadable` and :class:`smfix.errors.WriteFailed` as
    :func:`smfix.host.storage.open_image` does.
    """
    return open_image(journal.target, sr_root=journal.sr_root, write=True)


def interrupted(folder: str, image: OpenImage) -> tuple[JournalEntry, ...]:
    """The journals of interrupted repairs and undos of `image`, newest first. Writes nothing.

    Raises :class:`smfix.errors.Unreadable` when the folder cannot be read or trusted.
    """
    return tuple(
        entry
        for entry in reversed(journal_folder.open_journals(folder))
        if isinstance(entry, JournalEntry) and concerns(entry.journal, image)
    )


def recover(image: OpenImage, means: Means) -> tuple[Outcome, ...]:
    """Put back what interrupted repairs of `image` (open for writing) left, newest first.

    One outcome each, as :func:`undo`; stops at the first that is not `rolled-back`. Raises
    :class:`smfix.errors.Unreadable` when the journal folder cannot be read or trusted.
    """
    outcomes = []
    for entry in interrupted(means.folder, image):
        outcomes.append(undo(entry, image, means))
        if outcomes[-1].status is not Status.ROLLED_BACK:
            break
    return tuple(outcomes)


def undo(entry: JournalEntry, image: OpenImage, means: Means) -> Outcome:
    """Put `image` (open for writing) back as it was before the repair that `entry` records.

    The outcome is `rolled-back` where the image is now byte for byte, and in its size, as before;
    `refused` (stale, locked, in-use) where nothing was written; `failed` where the storage did:
    then the journal stays open, and the same command completes it.
    """
    try:
        with means.guard.own_lock(image) as held:
            if held is not None:
                return _refused(entry, held)
            # Another smfix may have finished with it while we waited for the lock.
            entry = journal_folder.load(means.folder, entry.id)
            with means.guard.host_locks(image) as busy:
                objection = busy or means.guard.objection(image) or stale(entry, image)
                return _refused(entry, objection) if objection else _put_back(entry, image)
    except SmfixError as error:
        again = means.undo_command(entry.id)
        return Outcome(
            status=Status.FAILED,
            message=f"{error}; the undo is not complete",
            journal=entry.id,
            undo=again,
            next=(again,),
        )


def _put_back(entry: JournalEntry, image: OpenImage) -> Outcome:
    regretted = entry.mark is not Mark.UNFINISHED
    if entry.mark is Mark.VERIFIED:
        entry = journal_folder.mark(entry, Mark.UNDOING)
    restore(image, entry.journal)
    journal_folder.mark(entry, Mark.UNDONE if regretted else Mark.ROLLED_BACK)
    what = "the repair was undone" if regretted else "an interrupted repair was put back"
    return Outcome(
        status=Status.ROLLED_BACK,
        message=f"{what}: the image is as it was before",
        journal=entry.id,
    )


def stale(entry: JournalEntry, image: OpenImage) -> Refusal | None:
    """Why the journal's old bytes must not be put into this image."""
    journal = entry.journal
    if entry.mark in (Mark.UNDONE, Mark.ROLLED_BACK):
        return Refusal(Reason.STALE, f"journal {entry.id} is {entry.mark.value} already")
    if not concerns(journal, image):
        return Refusal(Reason.STALE, f"{image.target.path} is not the file that journal {entry.id} is of")
    if entry.mark is Mark.VERIFIED:
        identity = image.identity
        is_same = identity.rdev is not None or identity.device == journal.device
        if is_same and standing(image, journal) is Standing.NEW:
            return None
        return Refusal(
            Reason.STALE,
            f"{image.target.path} has moved on since the repair; putting old bytes back would "
            "destroy what was written since",
        )
    if standing(image, journal) is not Standing.ELSEWHERE:
        return None
    folder, name = os.path.split(entry.path)
    aside = os.path.join(folder, name + ".set-aside")
    return Refusal(
        Reason.STALE,
        f"{image.target.path} has moved on since the repair that journal {entry.id} records was "
        "interrupted; look at the disk, then set the journal aside",
        (shlex.join(("mv", entry.path, aside)),),
    )


def _refused(entry: JournalEntry, refusal: Refusal) -> Outcome:
    return Outcome(
        status=Status.REFUSED,
        message=refusal.message,
        reason=refusal.reason,
        journal=entry.id,
        next=refusal.next,
    )
