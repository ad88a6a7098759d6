"""Repair one image: inspect, plan, check for objections, ask, write, verify.

docs/explanation/repair-steps.md has the steps. A dry run takes the same way up to the question, and no lock. An error
of one image is its outcome, never an exception.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from smfix.errors import LeftBehind, SmfixError, Unanswered, Unreadable
from smfix.formats.base import Image
from smfix.formats.problem import Context
from smfix.formats.registry import diagnose, format_of, inspect
from smfix.host import storage_probe, wait_notice
from smfix.host.image_file import OpenImage, open_image
from smfix.host.open_files import OpenState, open_state
from smfix.repair import recovery
from smfix.repair.apply import RepairContext, Verification, apply, no_room
from smfix.repair.journal import JournalState
from smfix.repair.journal_store import JournalEntry
from smfix.repair.plan import Planned, plan
from smfix.sm import locks
from smfix.sm.resolve import Found
from smfix.sm.sr_types.lvm_activation import Volumes
from smfix.sm.sr_types.registry import sr_type_of, target_named
from smfix.usecases import external_check, image_relatives
from smfix.usecases.guard import with_attachments
from smfix.usecases.repair_context import repair_context as make_context
from smfix.usecases.repair_context import volumes_of
from smfix.usecases.run_options import Decide, Declined, RunOptions
from smfix.values import (
    ByteView,
    Finding,
    InUse,
    Log,
    NextStep,
    Outcome,
    Reason,
    Recovered,
    Refusal,
    RepairPlan,
    Resize,
    Severity,
    Status,
    StepKind,
    Target,
    Verdict,
)

_log = Log(__name__)

__all__ = [
    "Decide",
    "RunOptions",
    "context_of",
    "held_by",
    "refused",
    "repair_image",
    "seen_by",
    "volume_active",
    "with_leftovers",
    "writing",
]

# --------------------------------------------------------------------------- the way of one image


def repair_image(found: Found, run_options: RunOptions) -> Outcome:
    """Return the outcome of the image: repaired, foreseen (a dry run), refused, or failed. Never raises."""
    volumes = volumes_of(run_options)
    try:
        with (
            wait_notice.watched(found.target.path, run_options.say),
            volume_active(found.target, volumes, change=run_options.decide is not None) as inactive,
        ):
            if inactive is not None:
                return refused(inactive)._replace(next=(run_options.repair_step(found.target.path),))
            outcome = _opened(found, run_options, volumes)
    except SmfixError as error:
        outcome = Outcome(Status.FAILED, str(error))
    if outcome.reason is Reason.LOCKED and not outcome.next:
        outcome = outcome._replace(next=(run_options.repair_step(found.target.path),))
    return with_leftovers(outcome, found.target, volumes, run_options)


def _opened(found: Found, run_options: RunOptions, volumes: Volumes) -> Outcome:
    image = open_image(found.target, sr_root=found.root)
    if isinstance(image, Refusal):
        return refused(image)
    with image, ExitStack() as parents:
        if run_options.decide is not None and sr_type_of(found.target).can_be_inactive:
            _activate_parents(image, volumes, parents)
        settled = _recovered(image, found, run_options, volumes)
        return _with_recovery(
            settled.outcome or _treat(image, found, run_options, volumes, settled.below), settled, run_options
        )


@contextmanager
def volume_active(target: Target, volumes: Volumes, *, change: bool) -> Iterator[Refusal | None]:
    """Have the target's volume active while the block runs, or say why not; files always are.

    `change` False: nothing may be changed, so an inactive volume stays as it is. Raises Unreadable.
    """
    if not change:
        yield sr_type_of(target).inactive_refusal(target)
        return
    was_inactive = sr_type_of(target).is_without_node(target)
    with sr_type_of(target).active(target, volumes) as refusal:
        # Only now it has a node: nothing was asked of its storage before.
        if refusal is None and was_inactive and storage_probe.silent([target.path]):
            raise Unanswered(storage_probe.words(target.path))
        yield refusal


@contextmanager
def writing(image: OpenImage, volumes: Volumes) -> Iterator[OpenImage | Refusal]:
    """Open the image for writing, its volume made writable meanwhile; or yield a Refusal. Raises SmfixError."""
    with sr_type_of(image.target).writable(image.target, volumes) as refusal:
        writable = refusal or image.reopen(write=True)
        if isinstance(writable, Refusal):
            yield writable
            return
        with writable:
            yield writable


def _activate_parents(image: OpenImage, volumes: Volumes, held: ExitStack) -> None:
    """Activate the parent volume: inactive, it would seem to be missing."""
    for place in image_relatives.parent_places(inspect(image), image.target.path):
        parent = target_named(place)
        with suppress(Unreadable):  # then it is missing indeed
            held.enter_context(sr_type_of(parent).active(parent, volumes))


def with_leftovers(outcome: Outcome, target: Target, volumes: Volumes, run_options: RunOptions) -> Outcome:
    """Add to the outcome the volume state or the pause in XAPI that could not be restored."""
    if volumes.left:
        outcome = outcome._replace(message="; ".join((outcome.message, *volumes.left)))
    if run_options.pool is not None and target.vdi in run_options.pool.left_paused:
        clear = NextStep(StepKind.END_PAUSE, (target.vdi,))
        message = (
            f"{outcome.message}; XAPI went away while the disk was paused: it cannot be attached until that is undone"
        )
        outcome = outcome._replace(message=message, next=(clear, *outcome.next))
    return outcome


def refused(refusal: Refusal) -> Outcome:
    """Return a refusal as the outcome of an image that was not inspected."""
    return Outcome(Status.REFUSED, refusal.message, refusal.reason, next=refusal.next)


def seen_by(context: Context, uses: OpenState) -> str:
    """Return the processes that this user cannot see, as the end of a sentence; empty if all are visible."""
    return f"; not seen by this user: {uses.blind}" if uses.blind and context.in_use is not InUse.READ_WRITE else ""


def held_by(uses: OpenState, target: Target, run_options: RunOptions) -> OpenState:
    """Return how an image is held open: here, and on the other hosts of the pool if XAPI answers."""
    if run_options.pool is None or target.vdi is None or target.sr is None or uses.state is InUse.READ_WRITE:
        return uses
    with suppress(Unreadable):
        return with_attachments(uses, run_options.pool.disk_state(target.vdi, target.sr).attached)
    return uses


def context_of(image: Image, found: Found, in_use: InUse) -> Context:
    """Return the context of the image without its children, for which all images of the folder would be read."""
    parent, _ = image_relatives.parent_of(image, found.target.path)
    return Context(datetime.now(UTC), in_use, parent)


def _treat(
    image: OpenImage, found: Found, run_options: RunOptions, volumes: Volumes, below: tuple[JournalEntry, ...]
) -> Outcome:
    first = inspect(image)
    context = context_of(first, found, InUse.NONE)
    seen = diagnose(first, context)
    _log.info("%s: %s, findings %s", image.target.path, seen.verdict.value, [one.code for one in seen.findings])
    if seen.verdict is Verdict.VALID:
        return Outcome(Status.VALID, "the image is sound", findings=seen.findings, remaining=seen.findings)
    # Only now, for it costs a look at every process: who holds a sound image is no matter.
    uses = held_by(open_state(image.identity), found.target, run_options)
    _log.info("%s: open %s, held by %s", image.target.path, uses.state.value, uses.holders)
    with ExitStack() as stack:
        relatives = image_relatives.relatives_of(first, found, stack)
        family = relatives.children
        context = replace(
            image_relatives.with_relatives(context, relatives),
            in_use=uses.state,
            given_size=run_options.given_size,
            given_uuid=run_options.given_uuid,
        )
        planned = plan(image, context, run_options.consent)
        if planned.plan.refusal is None and not planned.plan.edits:
            # Another smfix was quicker: the plan is made from what is there now.
            left = planned.diagnosis.findings
            words = "the image is sound: it was repaired in the meantime"
            return Outcome(Status.VALID, words, findings=left, remaining=left)
        repair_context = make_context(run_options, family, only_appends=_only_appends(planned.plan, first))
        outcome = _foreseen(planned, image, repair_context, run_options)
        outcome = outcome._replace(message=outcome.message + _suffix(outcome, context, uses))
        if outcome.status is not Status.WOULD_REPAIR or run_options.decide is None:
            return outcome
        answer = run_options.decide(image.target.path, outcome)
        if not answer:
            return _unwritten(outcome, answer)
        return _write(planned, image, found, context, repair_context, run_options, volumes, below)


def _unwritten(foreseen: Outcome, answer: object) -> Outcome:
    """Return the foreseen outcome, with the reason why it was not written."""
    why = answer.why if isinstance(answer, Declined) else "the answer was not yes"
    return foreseen._replace(message=f"nothing was written: {why}")


def _only_appends(made: RepairPlan, image: Image) -> bool:
    """Return True if every edit is after the end of data, so that no reader of the image is affected."""
    end = image.append_from
    starts = (image.size if isinstance(edit, Resize) else edit.offset for edit in made.edits)
    return end is not None and all(start >= end for start in starts)


def _suffix(outcome: Outcome, context: Context, uses: OpenState) -> str:
    """Return the end of the message: the holders of the image, and what this user cannot see."""
    if outcome.reason is Reason.IN_USE and uses.holders and uses.holders[0] not in outcome.message:
        return f" (held by {', '.join(uses.holders)})"
    return seen_by(context, uses) if outcome.status is Status.WOULD_REPAIR else ""


def _foreseen(planned: Planned, image: OpenImage, repair_context: RepairContext, run_options: RunOptions) -> Outcome:
    """Return the outcome of a dry run. Raises Unreadable."""
    made, found = planned.plan, planned.diagnosis.findings
    path = image.target.path
    refusal = made.refusal
    if refusal is None or made.needs:
        # What the host says outweighs a consent that is missing: it cannot be given.
        refusal = repair_context.guard.objection(image) or refusal
    if refusal is not None:
        _log.info("%s: refused (%s): %s", path, refusal.reason.value, refusal.message)
        asked = refusal.reason is Reason.NEEDS_CONFIRM
        agreed = (run_options.repair_step(path, made.needs),)
        return Outcome(
            Status.REFUSED,
            refusal.message,
            refusal.reason,
            findings=found,
            plan=made,
            remaining=found,
            lost_sectors=made.lost_sectors if asked else 0,
            next=agreed if asked else (*_asked_of_xapi(found, image), *refusal.next),
        )
    lacking = no_room(image, made, repair_context.folder)
    if lacking is not None:
        return Outcome(Status.FAILED, f"{lacking}; nothing was written", findings=found, plan=made, remaining=found)
    codes = ", ".join(dict.fromkeys(fix.code for fix in made.fixes))
    is_dry = run_options.decide is None
    return Outcome(
        Status.WOULD_REPAIR,
        f"dry run: {codes} would be repaired, nothing was written" if is_dry else f"{codes} can be repaired",
        findings=found,
        plan=made,
        remaining=made.remaining,
        lost_sectors=made.lost_sectors,
        next=(run_options.repair_step(path),),
    )


def _asked_of_xapi(found: tuple[Finding, ...], image: OpenImage) -> tuple[NextStep, ...]:
    """Return the step that asks XAPI for the size of a disk that lost both its footers."""
    vdi = image.target.vdi
    asks = any("--size" in finding.facts.get("options", ()) for finding in found)
    return (NextStep(StepKind.SHOW_VIRTUAL_SIZE, (vdi,)),) if asks and vdi else ()


def _write(
    planned: Planned,
    image: OpenImage,
    found: Found,
    context: Context,
    repair_context: RepairContext,
    run_options: RunOptions,
    volumes: Volumes,
    below: tuple[JournalEntry, ...],
) -> Outcome:
    def again(view: ByteView) -> tuple[Finding, ...]:
        return diagnose(inspect(view), context).findings

    path = os.path.abspath(image.target.path)

    def external() -> str | None:
        try:
            return external_check.complaint(format_of(planned.image).external_check(path))
        except LeftBehind as error:
            volumes.left.append(str(error))
            return None

    checks = Verification(again, external)
    findings = planned.diagnosis.findings
    with writing(image, volumes) as writable:
        if isinstance(writable, Refusal):
            return refused(writable)._replace(findings=findings, remaining=findings)
        done = apply(
            planned.plan, writable, repair_context, checks, sr_root=found.root, command=run_options.words, below=below
        )
    done = done._replace(findings=findings)
    if done.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
        left = dict.fromkeys(one.code for one in done.remaining if one.severity is Severity.ERROR)
        explain = tuple(NextStep(StepKind.EXPLAIN, (code,)) for code in left)
        return done._replace(next=(*next_steps(path, found, run_options), *explain))
    return done


def next_steps(path: str, found: Found, run_options: RunOptions) -> tuple[NextStep, ...]:
    """Return the step after a repair: a scan of the SR, or a check on a machine without a storage manager."""
    is_left_to_us = run_options.pool is not None and run_options.rescan
    if found.target.sr is not None and os.path.exists(locks.INVENTORY) and not is_left_to_us:
        return (NextStep(StepKind.SCAN_SR, (found.target.sr,)),)
    return (run_options.step(StepKind.CHECK, path),)


# --------------------------------------------------------------------------- interrupted repairs


def looking(found: Found) -> recovery.Look:
    """Return the function by which recovery and undo inspect the image."""

    def look(view: ByteView) -> recovery.Seen:
        image = inspect(view)
        seen = diagnose(image, context_of(image, found, InUse.NONE))
        # A missing parent is no damage of this image: a repair of it would have left that too.
        is_vhd = seen.verdict in (Verdict.VALID, Verdict.INVALID)
        return recovery.Seen(is_vhd and not any(one.is_damage for one in seen.findings), image.uuids)

    return look


def _recovered(image: OpenImage, found: Found, run_options: RunOptions, volumes: Volumes) -> recovery.Recovery:
    """Recover interrupted repairs; in a dry run only foresee it."""
    look = looking(found)
    try:
        foreseen = recovery.foresee(image, run_options.journals, look)
    except Unreadable:
        if run_options.decide is not None:
            raise
        foreseen = []  # a dry run needs no journals, and may be another user's
    if not foreseen:
        return recovery.Recovery()
    with ExitStack() as stack:
        repair_context = make_context(run_options, image_relatives.children_of(inspect(image), found, stack))
        entry, fate = foreseen[-1]
        may_write = False
        if fate is recovery.Fate.PUT_BACK:
            proposal = _proposed(entry, image, repair_context, run_options)
            if proposal.status is not Status.WOULD_REPAIR or run_options.decide is None:
                return recovery.Recovery(_foretold(foreseen), outcome=proposal)
            answer = run_options.decide(image.target.path, proposal)
            if not answer:
                return recovery.Recovery(_foretold(foreseen), outcome=_unwritten(proposal, answer))
            may_write = True
        if run_options.decide is None:
            below = tuple(one for one, fate in foreseen if fate is recovery.Fate.AFRESH)
            refusal = recovery.stale_interrupted(entry, image) if fate is recovery.Fate.STALE else None
            ends = (
                refused(repair_context.guard.objection(image) or refusal)._replace(journal=entry.id)
                if refusal
                else None
            )
            return recovery.Recovery(_foretold(foreseen), below, ends)
        return recovery.recover(image, repair_context, look, lambda: writing(image, volumes), may_write=may_write)


def _foretold(foreseen: list[tuple[JournalEntry, recovery.Fate]]) -> tuple[Recovered, ...]:
    return tuple(recovery.foretold(entry, fate) for entry, fate in foreseen)


def _proposed(entry: JournalEntry, image: OpenImage, repair_context: RepairContext, run_options: RunOptions) -> Outcome:
    """Return the outcome to ask about before an interrupted repair is put back. Raises Unreadable."""
    objection = repair_context.guard.objection(image)
    if objection is not None:
        return refused(objection)._replace(journal=entry.id)
    return Outcome(
        Status.WOULD_REPAIR,
        f"an earlier repair was interrupted (journal {entry.id}): it would be put back first, then the image "
        "diagnosed anew" + ("; nothing was written" if run_options.decide is None else ""),
        journal=entry.id,
        undo=run_options.undo_step(entry.id),
        next=(run_options.repair_step(image.target.path),),
    )


def _with_recovery(outcome: Outcome, settled: recovery.Recovery, run_options: RunOptions) -> Outcome:
    """Add the decisions on interrupted repairs to the outcome."""
    if not settled.done:
        return outcome
    below = {one.id for one in settled.below} if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) else set()
    outcome = outcome._replace(
        recovered=tuple(
            one._replace(state=JournalState.SUPERSEDED.value) if one.journal in below else one for one in settled.done
        )
    )
    are_open = (JournalState.UNFINISHED.value, JournalState.UNDOING.value)
    if settled.outcome is None or any(one.state not in are_open for one in settled.done):
        outcome = outcome._replace(message="; ".join((outcome.message, *(one.message for one in settled.done))))
    verified = next((one.journal for one in settled.done if one.state == JournalState.VERIFIED.value), None)
    if outcome.status is Status.VALID and verified is not None:
        return outcome._replace(journal=verified, undo=run_options.undo_step(verified))
    return outcome
