"""The only module that writes to an image: a plan through its journal, and a journal back.

Theory. At every instant there is either no journal and an untouched image, or a durable journal
that knows the old and the new bytes of everything that is written. A process that dies here leaves an
image each sector of which is old or new; ``smfix.repair.recovery`` decides what becomes of it. The host's locks are
held from the last look at the image to the last byte, for milliseconds; our own lock on the image
is held to the end of the verification.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from smfix import __version__
from smfix.errors import SmfixError, WriteFailed
from smfix.formats.registry import row
from smfix.host.image_file import OpenImage
from smfix.host.statx import Lineage
from smfix.repair import journal_store
from smfix.repair.fingerprint import fingerprint_matches
from smfix.repair.image_state import ImageState, image_state
from smfix.repair.journal import Journal, JournalState, Reach, cleared, new_id, record
from smfix.repair.journal_store import JournalEntry
from smfix.repair.reach_digest import is_unchanged, reach_of
from smfix.values import (
    ByteView,
    Extent,
    Finding,
    NextStep,
    Outcome,
    Reason,
    Refusal,
    RepairPlan,
    Resize,
    Severity,
    Status,
)

# What a journal holds besides the bytes of the image, generously.
_JOURNAL_PROSE = 64 << 10


class Guard(Protocol):
    """The host's rules for one image: who may write it, and when."""

    def own_lock(self, image: OpenImage) -> AbstractContextManager[Refusal | None]:
        """Exclude every other smfix from `image`; a Refusal (locked) if one has it."""

    def host_locks(self, image: OpenImage) -> AbstractContextManager[Refusal | None]:
        """The host's own locks, in its order, after bounded waits; a Refusal if they are busy."""

    def objection(self, image: OpenImage) -> Refusal | None:
        """Why `image` must not be written **now**: in use, no longer hidden, no longer at its path.

        Asked again each time the locks were taken.
        """


@dataclass(frozen=True, slots=True)
class RepairContext:
    """The host's side of a repair or an undo: the folder of journals, the guard, the undo command.

    `undo_step` makes the step that undoes a journal.
    """

    folder: str
    guard: Guard
    undo_step: Callable[[str], NextStep]


@dataclass(frozen=True, slots=True)
class Verification:
    """How a repaired image is judged.

    `diagnose` inspects and diagnoses a fresh open. `external` returns the complaint of another
    tool about the image, or None if it has none or is not installed.
    """

    diagnose: Callable[[ByteView], Sequence[Finding]]
    external: Callable[[], str | None] = lambda: None


def apply(
    plan: RepairPlan,
    image: OpenImage,
    repair_context: RepairContext,
    verification: Verification,
    *,
    sr_root: str | None = None,
    command: Sequence[str] = (),
    below: Sequence[JournalEntry] = (),
) -> Outcome:
    """Carry out `plan` on `image` (open for writing), and verify it on a fresh open.

    `sr_root` is the SR's folder the image was opened below, `command` what the operator typed; the
    journal keeps both. `below` are unfinished journals that recovery left: they are superseded once this
    repair is verified. The outcome is `repaired` or `partly-repaired`; `refused` (locked, in-use,
    stale, ...) if nothing was written; `rolled-back` if the result did not verify; `failed`
    if the storage failed. Its findings are left to the caller, who has the diagnosis.

    Raises ValueError for a plan that must not be applied. Whatever else is raised (Ctrl-C), the
    image has been put back first, or its journal stays unfinished.
    """
    if plan.refusal is not None or not plan.edits:
        raise ValueError("this plan writes nothing")
    try:
        with repair_context.guard.own_lock(image) as held:
            if held is not None:
                return _refused(plan, held)
            written = _write(plan, image, repair_context, sr_root, tuple(command), frozenset(one.id for one in below))
            if isinstance(written, Outcome):
                return written
            done = _judge(plan, written, image, repair_context, verification)
            if done.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
                for one in below:
                    # If the rename fails, the next run finds the image sound and closes the journal.
                    with suppress(WriteFailed):
                        journal_store.mark(one, JournalState.SUPERSEDED)
            return done
    except SmfixError as error:
        # Once a byte is written every error is answered below; this is one of the locks.
        return _failed(plan, f"{error}; nothing was written to the image")


def no_room(image: OpenImage, plan: RepairPlan, folder: str) -> str | None:
    """Why there is no space for `plan` (in the image's file system, or for its journal), or None.

    Raises :class:`smfix.errors.Unreadable` if the free space cannot be read.
    """
    size = image.size
    ends = (edit.size if isinstance(edit, Resize) else edit.extent.end for edit in plan.edits)
    growth = max(0, max(ends, default=0) - size)
    free = image.free_space()
    if free is not None and free < growth:
        return (
            f"no space: the image grows by {growth:,} bytes, its file system has {free:,} free; "
            "free some space on the SR first"
        )
    payload = sum(len(edit.data) for edit in plan.edits if not isinstance(edit, Resize))
    # Old and new bytes, each in base64.
    lacking = journal_store.room_for(folder, payload * 8 // 3 + _JOURNAL_PROSE)
    return f"no space for the undo journal: {lacking}" if lacking else None


def restore(image: OpenImage, journal: Journal, *, shorten: bool = True) -> bool:
    """Put the old bytes and the old size back, durably; True if that changed anything. Writes only what differs.

    Without `shorten` the image keeps its length, and the bytes after the old end stay as they are.

    The caller has seen by :func:`smfix.repair.image_state.image_state` that no other program wrote there.
    Raises :class:`smfix.errors.WriteFailed` or :class:`smfix.errors.Unreadable`; then each sector
    holds its old or its new bytes, and it can be tried again.
    """
    changed = False
    for change in reversed(journal.changes):
        if change.before:
            there = image.read(Extent(change.offset, len(change.before)))
            if there != change.before:
                image.write(change.offset, change.before)
                changed = True
    if shorten and image.size != journal.old_size:
        image.resize(journal.old_size)
        changed = True
    image.sync()
    back = all(image.read(Extent(one.offset, len(one.before))) == one.before for one in journal.changes)
    if not back or (shorten and image.size != journal.old_size):
        raise WriteFailed(f"{journal.target.path} does not read back what was put back")
    return changed


@dataclass(frozen=True, slots=True)
class _Written:
    """A repair that is on the image: its journal, and the file's mtime after it (ns; None: a device)."""

    entry: JournalEntry
    mtime: int | None


def _write(
    plan: RepairPlan,
    image: OpenImage,
    repair_context: RepairContext,
    sr_root: str | None,
    command: tuple[str, ...],
    below: frozenset[str],
) -> _Written | Outcome:
    """Steps 3 to 6 of a repair; an Outcome if the repair ends here."""
    # This reads up to 64 MiB, so it is done before the host's locks are held.
    reach = reach_of(image, plan.reachable, record(plan.edits, image)[0])
    with repair_context.guard.host_locks(image) as busy:
        if busy is not None:
            return _refused(plan, busy)
        try:
            objection = _objection(plan, image, repair_context, below)
            if objection is not None:
                return _refused(plan, objection)
            lacking = no_room(image, plan, repair_context.folder)
            if lacking is not None:
                return _failed(plan, f"{lacking}; nothing was written")
            entry, journal = _journal(plan, image, repair_context.folder, sr_root, command, reach)
        except SmfixError as error:
            return _failed(plan, f"{error}; nothing was written to the image")
        try:
            _carry_out(image, journal)
            mtime = image.mtime
        except SmfixError as error:
            return _roll_back(plan, entry, image, repair_context, str(error), Status.FAILED)
        except BaseException:
            _roll_back(plan, entry, image, repair_context, "interrupted", Status.FAILED)
            raise
    return _Written(entry, mtime)


def _objection(
    plan: RepairPlan, image: OpenImage, repair_context: RepairContext, below: frozenset[str]
) -> Refusal | None:
    """What, seen under the locks, forbids to go on."""
    refusal = repair_context.guard.objection(image)
    if refusal is not None:
        return refusal
    for entry in journal_store.open_journals(repair_context.folder):
        if isinstance(entry, JournalEntry) and entry.id not in below and is_same_image(entry.journal, image):
            return Refusal(
                Reason.STALE,
                f"journal {entry.id} of this image is unfinished: its repair or undo was interrupted; run smfix again",
                (repair_context.undo_step(entry.id),),
            )
    if not fingerprint_matches(image, plan.fingerprint):
        return Refusal(Reason.STALE, "the image has changed since it was diagnosed; run smfix again")
    return None


def is_same_image(journal: Journal, image: OpenImage) -> bool:
    """True when `journal` is of this very image, as far as names and numbers tell.

    A volume of an SR is known by its name: device-mapper gives it another number at each activation. Any
    other device is known by its number: its node in ``/dev`` may be made anew. A file is
    known by its inode and its file system, or by its inode and its path or lineage: the number of a network
    file system is another one after a reboot. :func:`is_replaced` detects a later file with the same inode number.
    """
    identity = image.identity
    if identity.rdev is not None or journal.rdev is not None:
        if identity.rdev is None or journal.rdev is None:
            return False
        volumes = [(target.sr, target.vdi) for target in (image.target, journal.target) if target.vdi is not None]
        return volumes[0] == volumes[1] if len(volumes) == 2 else identity.rdev == journal.rdev
    if identity.inode != journal.inode:
        return False
    if identity.device == journal.device:
        return True
    kept = Lineage(journal.birth, journal.generation)
    if kept.is_other(image.lineage):
        return False
    return os.path.abspath(image.target.path) == journal.target.path or kept.is_same(image.lineage)


def is_replaced(journal: Journal, image: OpenImage) -> bool:
    """True when `image` is a later file with the inode number of the journal's file, which was deleted.

    Call it if :func:`is_same_image` is true.
    """
    return Lineage(journal.birth, journal.generation).is_other(image.lineage)


def _journal(
    plan: RepairPlan,
    image: OpenImage,
    folder: str,
    sr_root: str | None,
    command: tuple[str, ...],
    reach: Reach,
) -> tuple[JournalEntry, Journal]:
    now = datetime.now(UTC)
    lineage = image.lineage
    old_size = image.size
    steps, new_size = record(plan.edits, image)
    journal = Journal(
        id=new_id(now, os.urandom(3)),
        created=now,
        version=__version__,
        target=image.target._replace(path=os.path.abspath(image.target.path)),
        sr_root=sr_root,
        device=image.identity.device,
        inode=image.identity.inode,
        rdev=image.identity.rdev,
        old_size=old_size,
        new_size=new_size,
        steps=steps,
        fixes=cleared(plan.fixes),
        lost=plan.lost,
        command=command,
        birth=lineage.birth,
        generation=lineage.generation,
        uuids=plan.uuids,
        reach=reach,
    )
    return journal_store.create(folder, journal), journal


def _carry_out(image: OpenImage, journal: Journal) -> None:
    for step in journal.steps:
        if isinstance(step, Resize):
            image.resize(step.size)
        else:
            image.write(step.offset, step.after)
    image.sync()
    if image_state(image, journal) is not ImageState.NEW:
        raise WriteFailed(f"{journal.target.path} does not read back what was written")


def _judge(
    plan: RepairPlan, written: _Written, image: OpenImage, repair_context: RepairContext, verification: Verification
) -> Outcome:
    """Step 7: keep the repair if it verifies, else put the image back."""
    try:
        found, complaint = _verify(plan, image, verification)
    except SmfixError as error:
        found, complaint = (), str(error)
    except BaseException:
        _take_back(plan, written, image, repair_context, "interrupted before it was verified")
        raise
    if complaint is not None:
        return _take_back(plan, written, image, repair_context, complaint)
    return _settled(plan, written, repair_context, found)


def _verify(plan: RepairPlan, image: OpenImage, verification: Verification) -> tuple[tuple[Finding, ...], str | None]:
    """Diagnose a fresh open; the second value says why the result is not good enough (None: it is)."""
    fresh = image.reopen()
    if isinstance(fresh, Refusal):
        return (), fresh.message
    with fresh:
        found = tuple(verification.diagnose(fresh))
    foreseen = [finding.code for finding in plan.remaining]
    for finding in found:
        if finding.code in foreseen:
            foreseen.remove(finding.code)
        elif finding.severity is Severity.ERROR:
            return found, f"the repaired image shows {finding.code}: {finding.message}"
    # Another tool fails for every error that is left, and cannot say that it is only that.
    if any(finding.severity is Severity.ERROR for finding in found):
        return found, None
    return found, verification.external()


def _take_back(
    plan: RepairPlan, written: _Written, image: OpenImage, repair_context: RepairContext, why: str
) -> Outcome:
    """The repair does not verify: lock again, look again, and put the image back."""
    entry = written.entry
    try:
        with repair_context.guard.host_locks(image) as busy:
            objection = busy or repair_context.guard.objection(image)
            if objection is None and not _is_as_left(written, image):
                return _stuck(plan, entry, repair_context, f"{why}; something else has written to it since")
            if objection is None:
                return _roll_back(plan, entry, image, repair_context, why, Status.ROLLED_BACK)
            unable = objection.message
    except SmfixError as error:
        unable = str(error)
    return _stuck(plan, entry, repair_context, f"{why}; it could not be put back: {unable}")


def _is_as_left(written: _Written, image: OpenImage) -> bool:
    """Check that the bytes that the repair made readable are unchanged; by the file's mtime if there is no digest."""
    unchanged = is_unchanged(image, written.entry.journal.reach)
    return image.mtime == written.mtime if unchanged is None else unchanged


def _roll_back(
    plan: RepairPlan,
    entry: JournalEntry,
    image: OpenImage,
    repair_context: RepairContext,
    why: str,
    status: Status,
) -> Outcome:
    """Put the image back under locks that are held; `status` if that succeeds."""
    try:
        if image_state(image, entry.journal) is ImageState.ELSEWHERE:
            return _stuck(plan, entry, repair_context, f"{why}; something else has written to it since")
        restore(image, entry.journal)
        journal_store.mark(entry, JournalState.ROLLED_BACK)
    except SmfixError as error:
        return _stuck(plan, entry, repair_context, f"{why}; putting it back failed: {error}")
    return Outcome(
        status=status,
        message=f"{why}; the image was put back as it was",
        plan=plan,
        remaining=plan.fixes + plan.remaining,
        journal=entry.id,
    )


def _settled(plan: RepairPlan, written: _Written, repair_context: RepairContext, found: tuple[Finding, ...]) -> Outcome:
    entry = written.entry
    try:
        reach = entry.journal.reach
        if written.mtime is not None and reach is not None and reach.digest is None:
            # If this fails, the only loss is that an undo will ask for consent.
            with suppress(WriteFailed):
                journal_store.keep_mtime(entry, written.mtime)
        journal_store.mark(entry, JournalState.VERIFIED)
    except WriteFailed as error:
        # The image is right, yet the next run may take the repair for an interrupted one.
        return _stuck(plan, entry, repair_context, f"repaired and verified, but that could not be recorded: {error}")
    errors = any(finding.severity is Severity.ERROR for finding in found)
    orphans = any(problem is not None and problem.is_orphan for problem in map(row, {one.code for one in found}))
    left = (
        "; what is left has no repair here" if errors else "",
        "; data without a BAT entry is left, which nothing reads" if orphans else "",
    )
    return Outcome(
        status=Status.PARTLY_REPAIRED if errors or orphans else Status.REPAIRED,
        message="repaired and verified" + "".join(left),
        plan=plan,
        remaining=found,
        lost_sectors=plan.lost_sectors,
        journal=entry.id,
        undo=repair_context.undo_step(entry.id),
    )


def _stuck(plan: RepairPlan, entry: JournalEntry, repair_context: RepairContext, why: str) -> Outcome:
    undo = repair_context.undo_step(entry.id)
    return Outcome(
        status=Status.FAILED,
        message=f"{why}; journal {entry.id} has the way back",
        plan=plan,
        remaining=plan.fixes + plan.remaining,
        journal=entry.id,
        undo=undo,
        next=(undo,),
    )


def _failed(plan: RepairPlan, why: str) -> Outcome:
    return Outcome(Status.FAILED, why, plan=plan, remaining=plan.fixes + plan.remaining)


def _refused(plan: RepairPlan, refusal: Refusal) -> Outcome:
    return Outcome(
        status=Status.REFUSED,
        message=refusal.message,
        reason=refusal.reason,
        plan=plan,
        remaining=plan.fixes + plan.remaining,
        next=refusal.next,
    )
