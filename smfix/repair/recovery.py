"""Settle a repair or an undo that was interrupted: close its journal, or put the image back.

Theory. An unfinished journal proves that its image held old bytes, new ones, or both at some time. Since then the
image may have been opened, used for weeks, or replaced. So the image decides. If it is sound, no byte is written and
the journal is closed. An image is put back only if it is not sound, each edited sector is old or new, and the bytes
that the repair made readable are unchanged. Otherwise it is diagnosed afresh, or left alone.

| the image is | the journal becomes | and then |
|---|---|---|
| old, all of it | rolled-back | |
| sound, with all new bytes | verified | |
| sound, with other bytes; or another file with its inode number | superseded | |
| not sound, with all new bytes | applied | it is diagnosed afresh |
| not sound, between | rolled-back | it is put back, never shortened, and diagnosed afresh |
| the same, and what the repair made readable was written to | superseded by the next repair | it is diagnosed afresh |
| anything else | (stays unfinished) | it is left alone: stale |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum

from smfix.errors import SmfixError
from smfix.host.image_file import OpenImage
from smfix.repair import journal_store
from smfix.repair.apply import RepairContext, is_replaced, is_same_image, restore
from smfix.repair.fingerprint import fingerprint_matches
from smfix.repair.image_state import ImageState, PutBack, image_state
from smfix.repair.journal import Journal, JournalState
from smfix.repair.journal_store import JournalEntry
from smfix.repair.overlay import Recorder
from smfix.repair.reach_digest import is_unchanged
from smfix.values import ByteView, NextStep, Outcome, Reason, Recovered, Refusal, Status, StepKind


@dataclass(frozen=True, slots=True)
class Seen:
    """The diagnosis of an image: sound (no damage is found), and the UUIDs of its sound footers."""

    is_sound: bool
    uuids: frozenset[str] = frozenset()


Look = Callable[[ByteView], Seen]
"""Inspects and diagnoses a view."""


class Fate(Enum):
    """The decision on an interrupted repair or undo."""

    OLD = "had changed nothing"
    VERIFIED = "is complete"
    SUPERSEDED = "was overtaken"
    APPLIED = "is complete, and the image is not sound"
    PUT_BACK = "is put back"
    AFRESH = "stays as it is"
    STALE = "cannot be judged"


_WORDS = {
    Fate.OLD: "had changed nothing: its journal is closed",
    Fate.VERIFIED: "was complete: nothing was written, its journal is verified now",
    Fate.SUPERSEDED: "was overtaken: the image is sound or another file by now, nothing was put back, its journal is "
    "superseded",
    Fate.APPLIED: "is complete, but the image is not sound: it was diagnosed afresh",
    Fate.PUT_BACK: "was put back first",
    Fate.AFRESH: "is on the image in part, and a guest may have written since to what it made readable: nothing was "
    "put back, the image was diagnosed afresh",
    Fate.STALE: "cannot be judged",
}
_FORESEEN = {
    Fate.OLD: "had changed nothing: its journal would be closed",
    Fate.VERIFIED: "is complete: its journal would become verified, nothing written",
    Fate.SUPERSEDED: "was overtaken: the image is sound or another file by now, so nothing would be put back and its "
    "journal become superseded",
    Fate.PUT_BACK: "would be put back first",
}
_NEXT_MARK = {
    Fate.VERIFIED: JournalState.VERIFIED,
    Fate.SUPERSEDED: JournalState.SUPERSEDED,
    Fate.APPLIED: JournalState.APPLIED,
}


@dataclass(frozen=True, slots=True)
class Recovery:
    """The decisions, the newest journal first; the journals `below` stay open below the next repair.

    `outcome` is set if the treatment of the image ends here.
    """

    done: tuple[Recovered, ...] = ()
    below: tuple[JournalEntry, ...] = ()
    outcome: Outcome | None = None


def interrupted(folder: str, image: OpenImage) -> tuple[JournalEntry, ...]:
    """The journals of interrupted repairs and undos of `image`, newest first. Writes nothing.

    Raises :class:`smfix.errors.Unreadable` when the folder cannot be read or trusted.
    """
    mine = [
        entry
        for entry in journal_store.open_journals(folder)
        if isinstance(entry, JournalEntry) and is_same_image(entry.journal, image)
    ]
    # Ids of one second have no order.
    return tuple(sorted(mine, key=lambda entry: entry.journal.created, reverse=True))


def is_another(journal: Journal, seen: Seen) -> bool:
    """True when the image has a sound footer, and none with a UUID that the journal knows."""
    return bool(journal.uuids and seen.uuids) and journal.uuids.isdisjoint(seen.uuids)


def fate_of(entry: JournalEntry, image: OpenImage, view: ByteView, seen: Seen) -> Fate:
    """Decide on an open journal of `image` by the bytes of `view`. Raises Unreadable."""
    journal = entry.journal
    if is_replaced(journal, image):
        return Fate.SUPERSEDED
    now = image_state(view, journal)
    if now is ImageState.OLD:
        return Fate.OLD
    if seen.is_sound:
        is_complete = now is ImageState.NEW and not is_another(journal, seen)
        return Fate.VERIFIED if is_complete else Fate.SUPERSEDED
    if is_another(journal, seen) or now is ImageState.ELSEWHERE:
        return Fate.STALE
    if now is ImageState.NEW:
        return Fate.APPLIED
    return Fate.PUT_BACK if is_unchanged(view, journal.reach) else Fate.AFRESH


def foresee(image: OpenImage, folder: str, look: Look) -> list[tuple[JournalEntry, Fate]]:
    """Predict what recovery would do, the newest journal first, up to the first that is put back. Writes nothing.

    Raises :class:`smfix.errors.Unreadable`.
    """
    entries = interrupted(folder, image)
    seen = look(image) if entries else Seen(is_sound=False)
    found = []
    over: list[Journal] = []
    for entry in entries:
        fate = fate_of(entry, image, _below(image, over), seen)
        found.append((entry, fate))
        if fate in (Fate.PUT_BACK, Fate.STALE):
            break
        over += _leaves(entry, fate)
    return found


def foretold(entry: JournalEntry, fate: Fate) -> Recovered:
    """Describe the decision for a dry run."""
    words = _FORESEEN.get(fate, _WORDS[fate])
    return Recovered(entry.id, entry.mark.value, wrote=False, message=f"{_name(entry)} {words}")


def recover(
    image: OpenImage,
    repair_context: RepairContext,
    look: Look,
    writing: Callable[[], AbstractContextManager[OpenImage | Refusal]],
    *,
    may_write: bool,
) -> Recovery:
    """Settle the interrupted repairs and undos of `image`, the newest first; never raises but for a bug.

    `writing` opens the image for writing; it is called only to put an image back. `may_write`: the operator has
    agreed to that.
    """
    done: list[Recovered] = []
    below: list[JournalEntry] = []
    try:
        with repair_context.guard.own_lock(image) as held:
            if held is not None:
                return Recovery(outcome=_refused(None, held))
            over: list[Journal] = []
            seen: Seen | None = None
            mtime, recorder = image.mtime, Recorder(image)
            for entry in interrupted(repair_context.folder, image):
                if seen is None:
                    mtime, recorder = image.mtime, Recorder(image)
                    seen = look(recorder)
                fate = fate_of(entry, image, _below(recorder, over), seen)
                wrote: bool | Refusal = False
                if fate is Fate.STALE:
                    wrote = repair_context.guard.objection(image) or stale_interrupted(entry, image)
                elif fate is Fate.PUT_BACK:
                    wrote = _put_back(entry, recorder, mtime, repair_context, writing, may_write=may_write)
                    seen = None  # the bytes are others now
                if isinstance(wrote, Refusal):
                    return Recovery(tuple(done), tuple(below), _refused(entry, wrote))
                if fate is Fate.AFRESH:
                    below.append(entry)
                done.append(decided(entry, fate, _closed(entry, fate), wrote=wrote))
                over += _leaves(entry, fate)
    except SmfixError as error:
        return Recovery(tuple(done), tuple(below), Outcome(Status.FAILED, f"{error}; the recovery is not complete"))
    return Recovery(tuple(done), tuple(below))


def decided(entry: JournalEntry, fate: Fate, now: JournalEntry, *, wrote: bool = False) -> Recovered:
    """Describe the decision for an outcome; `now` is the journal after it."""
    return Recovered(now.id, now.mark.value, wrote, f"{_name(entry)} {_WORDS[fate]}")


def closed(entry: JournalEntry, fate: Fate) -> JournalEntry:
    """The journal, renamed to the state that `fate` leads to; one that is put back or open stays as it is.

    Raises :class:`smfix.errors.WriteFailed`.
    """
    return journal_store.mark(entry, _NEXT_MARK[fate]) if fate in _NEXT_MARK else entry


def _closed(entry: JournalEntry, fate: Fate) -> JournalEntry:
    if fate in (Fate.OLD, Fate.PUT_BACK):
        was_undo = entry.mark is JournalState.UNDOING
        return journal_store.mark(entry, JournalState.UNDONE if was_undo else JournalState.ROLLED_BACK)
    return closed(entry, fate)


def _leaves(entry: JournalEntry, fate: Fate) -> list[Journal]:
    """The journal, if an earlier one is to be compared with the image as it was when this one was made."""
    return [] if fate in (Fate.OLD, Fate.SUPERSEDED) else [entry.journal]


def _below(view: ByteView, over: list[Journal]) -> ByteView:
    """The image as it was before the repairs `over`, the newest of which comes first."""
    for journal in over:
        view = PutBack(view, journal)
    return view


def _put_back(
    entry: JournalEntry,
    recorder: Recorder,
    mtime: int | None,
    repair_context: RepairContext,
    writing: Callable[[], AbstractContextManager[OpenImage | Refusal]],
    *,
    may_write: bool,
) -> bool | Refusal:
    """Put the old bytes back, under the host's locks; True if any byte differed, or why nothing was written."""
    changed = Refusal(Reason.STALE, "the image has changed since it was looked at; run smfix again")
    if not may_write:
        return changed
    with writing() as image:
        if isinstance(image, Refusal):
            return image
        with repair_context.guard.host_locks(image) as busy:
            objection = busy or repair_context.guard.objection(image)
            if objection is not None:
                return objection
            if image.mtime != mtime or not fingerprint_matches(image, recorder.fingerprint()):
                return changed
            return restore(image, entry.journal, shorten=False)


def stale_interrupted(entry: JournalEntry, image: OpenImage) -> Refusal:
    """Refuse to touch an image that is not sound and holds bytes that the journal does not know."""
    folder, name = os.path.split(entry.path)
    aside = os.path.join(folder, name + ".set-aside")
    return Refusal(
        Reason.STALE,
        f"{image.target.path} has moved on since the repair that journal {entry.id} records was "
        "interrupted, and is not sound; look at the disk, then set the journal aside",
        (NextStep(StepKind.SET_ASIDE, (entry.path, aside)),),
    )


def _name(entry: JournalEntry) -> str:
    what = "undo" if entry.mark is JournalState.UNDOING else "repair"
    return f"an interrupted {what} (journal {entry.id})"


def _refused(entry: JournalEntry | None, refusal: Refusal) -> Outcome:
    return Outcome(
        Status.REFUSED,
        refusal.message,
        refusal.reason,
        journal=None if entry is None else entry.id,
        next=refusal.next,
    )
