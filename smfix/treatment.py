"""One image, from its open descriptor to its Outcome: look, plan, object, ask, write, verify.

design: "One repair, step by step". A dry run goes the same way up to the question, and takes no
lock. What goes wrong with one image is its outcome, never an exception.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from smfix import chains
from smfix.errors import LeftBehind, SmfixError, Unanswered, Unreadable
from smfix.host import answers, locks, lvm, slow, vhd_util
from smfix.host.activation import Volumes
from smfix.host.naming import read_path
from smfix.host.sr import Found
from smfix.host.storage import OpenImage, open_image
from smfix.host.usage import Usage, elsewhere, usage
from smfix.model import (
    Backing,
    ByteView,
    Finding,
    InUse,
    Outcome,
    Reason,
    Recovered,
    Refusal,
    RepairPlan,
    Resize,
    Severity,
    Sound,
    Status,
    Target,
    Verdict,
)
from smfix.problems.rows import Context
from smfix.problems.table import diagnose
from smfix.repair import recovery
from smfix.repair.apply import Means, Verification, apply, no_room
from smfix.repair.journal import Mark
from smfix.repair.journal_folder import JournalEntry
from smfix.repair.plan import Planned, plan
from smfix.report.escape import command
from smfix.setting import Decide, No, Setting
from smfix.vhd.image import VhdImage, inspect

__all__ = ["Decide", "Setting", "awake", "context_of", "held_by", "refused", "seen_by", "told_of", "treat", "writing"]

# --------------------------------------------------------------------------- the way of one image


def treat(found: Found, setting: Setting) -> Outcome:
    """What becomes of the image: repaired, foreseen (a dry run), refused, or failed. Never raises."""
    volumes = setting.volumes()
    try:
        with (
            slow.watched(found.target.path, setting.say),
            awake(found.target, volumes, change=setting.decide is not None) as asleep,
        ):
            if asleep is not None:
                return refused(asleep)._replace(next=(setting.repair_command(found.target.path),))
            outcome = _opened(found, setting, volumes)
    except SmfixError as error:
        outcome = Outcome(Status.FAILED, str(error))
    if outcome.reason is Reason.LOCKED and not outcome.next:
        outcome = outcome._replace(next=(setting.repair_command(found.target.path),))
    return told_of(outcome, found.target, volumes, setting)


def _opened(found: Found, setting: Setting, volumes: Volumes) -> Outcome:
    image = open_image(found.target, sr_root=found.root)
    if isinstance(image, Refusal):
        return refused(image)
    with image, ExitStack() as parents:
        if setting.decide is not None and found.target.backing is Backing.BLOCK:
            _wake_parents(image, volumes, parents)
        settled = _recovered(image, found, setting, volumes)
        return _told_recovery(
            settled.outcome or _treat(image, found, setting, volumes, settled.below), settled, setting
        )


@contextmanager
def awake(target: Target, volumes: Volumes, *, change: bool) -> Iterator[Refusal | None]:
    """Have the target's volume active while the block runs, or say why not; files always are.

    `change` False: nothing may be changed, so an inactive volume stays as it is. Raises Unreadable.
    """
    if not change:
        yield lvm.inactive(target)
        return
    was_asleep = lvm.is_without_node(target)
    with volumes.active(target) as refusal:
        # Only now it has a node: nothing was asked of its storage before.
        if refusal is None and was_asleep and answers.silent([target.path]):
            raise Unanswered(answers.words(target.path))
        yield refusal


@contextmanager
def writing(image: OpenImage, volumes: Volumes) -> Iterator[OpenImage | Refusal]:
    """The image opened anew for writing, its volume made writable meanwhile; or why not. Raises SmfixError."""
    with volumes.writable(image.target) as refusal:
        writable = refusal or image.reopen(write=True)
        if isinstance(writable, Refusal):
            yield writable
            return
        with writable:
            yield writable


def _wake_parents(image: OpenImage, volumes: Volumes, held: ExitStack) -> None:
    """A volume's parent is looked at too: asleep, it would seem to be missing."""
    for place in chains.parent_places(inspect(image), image.target.path):
        name = read_path(place)
        with suppress(Unreadable):  # then it is missing indeed
            held.enter_context(volumes.active(Target(place, name.backing, name.vdi, name.sr)))


def told_of(outcome: Outcome, target: Target, volumes: Volumes, setting: Setting) -> Outcome:
    """The outcome, and what could not be put back as it was: a volume's state, a pause in XAPI."""
    if volumes.left:
        outcome = outcome._replace(message="; ".join((outcome.message, *volumes.left)))
    if setting.pool is not None and target.vdi in setting.pool.left_paused:
        clear = command(["xe", "vdi-param-remove", f"uuid={target.vdi}", "param-name=sm-config", "param-key=paused"])
        said = (
            f"{outcome.message}; XAPI went away while the disk was paused: it cannot be attached until that is undone"
        )
        outcome = outcome._replace(message=said, next=(clear, *outcome.next))
    return outcome


def refused(refusal: Refusal) -> Outcome:
    """A refusal as the outcome of an image that was not looked into."""
    return Outcome(Status.REFUSED, refusal.message, refusal.reason, next=refusal.next)


def seen_by(context: Context, uses: Usage) -> str:
    """What this caller could not see, as the end of a sentence; empty where it saw everything."""
    return f"; not seen by this user: {uses.blind}" if uses.blind and context.in_use is not InUse.READ_WRITE else ""


def held_by(uses: Usage, target: Target, setting: Setting) -> Usage:
    """How an image is held: here, and on the other hosts of the pool, where XAPI is asked and answers."""
    if setting.pool is None or target.vdi is None or target.sr is None or uses.state is InUse.READ_WRITE:
        return uses
    with suppress(Unreadable):
        return elsewhere(uses, setting.pool.standing(target.vdi, target.sr).attached)
    return uses


def context_of(image: VhdImage, found: Found, in_use: InUse) -> Context:
    """What the bytes do not say, less the children (who costs a look into the whole folder)."""
    parent, _ = chains.parent_of(image, found.target.path)
    return Context(datetime.now(UTC), in_use, parent)


def _treat(
    image: OpenImage, found: Found, setting: Setting, volumes: Volumes, below: tuple[JournalEntry, ...]
) -> Outcome:
    first = inspect(image)
    context = context_of(first, found, InUse.NONE)
    seen = diagnose(first, context)
    if seen.verdict is Verdict.VALID:
        return Outcome(Status.VALID, "the image is sound", findings=seen.findings, remaining=seen.findings)
    # Only now, for it costs a look at every process: who holds a sound image is no matter.
    uses = held_by(usage(image.identity), found.target, setting)
    with ExitStack() as stack:
        relatives = chains.relatives_of(first, found, stack)
        family = relatives.children
        context = replace(
            chains.with_relatives(context, relatives),
            in_use=uses.state,
            given_size=setting.given_size,
            given_uuid=setting.given_uuid,
        )
        planned = plan(image, context, setting.consent)
        if planned.plan.refusal is None and not planned.plan.edits:
            # Another smfix was quicker: the plan is made from what is there now.
            left = planned.diagnosis.findings
            words = "the image is sound: it was repaired in the meantime"
            return Outcome(Status.VALID, words, findings=left, remaining=left)
        means = setting.means(family, only_appends=_only_appends(planned.plan, first))
        outcome = _foreseen(planned, image, means, setting)
        outcome = outcome._replace(message=outcome.message + _told(outcome, context, uses))
        if outcome.status is not Status.WOULD_REPAIR or setting.decide is None:
            return outcome
        answer = setting.decide(image.target.path, outcome)
        if not answer:
            return _unwritten(outcome, answer)
        return _write(planned, image, found, context, means, setting, volumes, below)


def _unwritten(foreseen: Outcome, answer: object) -> Outcome:
    """What was foreseen, and why it was not done."""
    why = answer.why if isinstance(answer, No) else "the answer was not yes"
    return foreseen._replace(message=f"nothing was written: {why}")


def _only_appends(made: RepairPlan, image: VhdImage) -> bool:
    """True when every edit lies behind the data, where nobody looks who has read the headers already."""
    if not isinstance(image.bat, Sound):
        return False
    starts = (image.size if isinstance(edit, Resize) else edit.offset for edit in made.edits)
    return all(start >= image.end_of_data for start in starts)


def _told(outcome: Outcome, context: Context, uses: Usage) -> str:
    """What belongs behind the message: who holds the image, what could not be seen."""
    if outcome.reason is Reason.IN_USE and uses.holders and uses.holders[0] not in outcome.message:
        return f" (held by {', '.join(uses.holders)})"
    return seen_by(context, uses) if outcome.status is Status.WOULD_REPAIR else ""


def _foreseen(planned: Planned, image: OpenImage, means: Means, setting: Setting) -> Outcome:
    """The outcome of a dry run. Raises Unreadable."""
    made, found = planned.plan, planned.diagnosis.findings
    path = image.target.path
    refusal = made.refusal
    if refusal is None or made.needs:
        # What the host says outweighs a consent that is missing: it cannot be given.
        refusal = means.guard.objection(image) or refusal
    if refusal is not None:
        asked = refusal.reason is Reason.NEEDS_CONFIRM
        agreed = (setting.repair_command(path, made.needs),)
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
    lacking = no_room(image, made, means.folder)
    if lacking is not None:
        return Outcome(Status.FAILED, f"{lacking}; nothing was written", findings=found, plan=made, remaining=found)
    codes = ", ".join(dict.fromkeys(fix.code for fix in made.fixes))
    is_dry = setting.decide is None
    return Outcome(
        Status.WOULD_REPAIR,
        f"dry run: {codes} would be repaired, nothing was written" if is_dry else f"{codes} can be repaired",
        findings=found,
        plan=made,
        remaining=made.remaining,
        lost_sectors=made.lost_sectors,
        next=(setting.repair_command(path),),
    )


def _asked_of_xapi(found: tuple[Finding, ...], image: OpenImage) -> tuple[str, ...]:
    """How XAPI is asked for the size of a disk that lost both its footers and with them what it was."""
    vdi = image.target.vdi
    asks = any(finding.code == "VHD106" and "--size" in finding.facts["options"] for finding in found)
    return (command(["xe", "vdi-param-get", f"uuid={vdi}", "param-name=virtual-size"]),) if asks and vdi else ()


def _write(
    planned: Planned,
    image: OpenImage,
    found: Found,
    context: Context,
    means: Means,
    setting: Setting,
    volumes: Volumes,
    below: tuple[JournalEntry, ...],
) -> Outcome:
    def again(view: ByteView) -> tuple[Finding, ...]:
        return diagnose(inspect(view), context).findings

    path = os.path.abspath(image.target.path)

    def external() -> str | None:
        try:
            return vhd_util.complaint(path)
        except LeftBehind as error:
            volumes.left.append(str(error))
            return None

    checks = Verification(again, external)
    findings = planned.diagnosis.findings
    with writing(image, volumes) as writable:
        if isinstance(writable, Refusal):
            return refused(writable)._replace(findings=findings, remaining=findings)
        done = apply(planned.plan, writable, means, checks, sr_root=found.root, command=setting.words, below=below)
    done = done._replace(findings=findings)
    if done.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
        left = dict.fromkeys(one.code for one in done.remaining if one.severity is Severity.ERROR)
        told = tuple(command(["smfix", "explain", code]) for code in left)
        return done._replace(next=(*next_steps(path, found, setting), *told))
    return done


def next_steps(path: str, found: Found, setting: Setting) -> tuple[str, ...]:
    """What to do after a repair: let the storage manager look again, elsewhere look oneself."""
    is_left_to_us = setting.pool is not None and setting.rescan
    if found.target.sr is not None and os.path.exists(locks.INVENTORY) and not is_left_to_us:
        return (command(["xe", "sr-scan", f"uuid={found.target.sr}"]),)
    return (setting.command("check", path),)


# --------------------------------------------------------------------------- interrupted repairs


def looking(found: Found) -> recovery.Look:
    """What recovery and an undo ask of an image by itself."""

    def look(view: ByteView) -> recovery.Seen:
        image = inspect(view)
        seen = diagnose(image, context_of(image, found, InUse.NONE))
        # A missing parent is no damage of this image: a repair of it would have left that too.
        is_vhd = seen.verdict in (Verdict.VALID, Verdict.INVALID)
        return recovery.Seen(is_vhd and not any(one.is_damage for one in seen.findings), image.uuids)

    return look


def _recovered(image: OpenImage, found: Found, setting: Setting, volumes: Volumes) -> recovery.Recovery:
    """Settle what interrupted repairs left; in a dry run only say what would become of it."""
    look = looking(found)
    try:
        foreseen = recovery.foresee(image, setting.journals, look)
    except Unreadable:
        if setting.decide is not None:
            raise
        foreseen = []  # a dry run needs no journals, and may be another user's
    if not foreseen:
        return recovery.Recovery()
    with ExitStack() as stack:
        means = setting.means(chains.children_of(inspect(image), found, stack))
        entry, fate = foreseen[-1]
        may_write = False
        if fate is recovery.Fate.PUT_BACK:
            proposal = _proposed(entry, image, means, setting)
            if proposal.status is not Status.WOULD_REPAIR or setting.decide is None:
                return recovery.Recovery(_foretold(foreseen), outcome=proposal)
            answer = setting.decide(image.target.path, proposal)
            if not answer:
                return recovery.Recovery(_foretold(foreseen), outcome=_unwritten(proposal, answer))
            may_write = True
        if setting.decide is None:
            below = tuple(one for one, fate in foreseen if fate is recovery.Fate.AFRESH)
            refusal = recovery.stale_interrupted(entry, image) if fate is recovery.Fate.STALE else None
            ends = refused(means.guard.objection(image) or refusal)._replace(journal=entry.id) if refusal else None
            return recovery.Recovery(_foretold(foreseen), below, ends)
        return recovery.recover(image, means, look, lambda: writing(image, volumes), may_write=may_write)


def _foretold(foreseen: list[tuple[JournalEntry, recovery.Fate]]) -> tuple[Recovered, ...]:
    return tuple(recovery.foretold(entry, fate) for entry, fate in foreseen)


def _proposed(entry: JournalEntry, image: OpenImage, means: Means, setting: Setting) -> Outcome:
    """What is asked before an interrupted repair is put back. Raises Unreadable."""
    objection = means.guard.objection(image)
    if objection is not None:
        return refused(objection)._replace(journal=entry.id)
    return Outcome(
        Status.WOULD_REPAIR,
        f"an earlier repair was interrupted (journal {entry.id}): it would be put back first, then the image "
        "diagnosed anew" + ("; nothing was written" if setting.decide is None else ""),
        journal=entry.id,
        undo=setting.undo_command(entry.id),
        next=(setting.repair_command(image.target.path),),
    )


def _told_recovery(outcome: Outcome, settled: recovery.Recovery, setting: Setting) -> Outcome:
    """The outcome, and what was decided on interrupted repairs before it."""
    if not settled.done:
        return outcome
    below = {one.id for one in settled.below} if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) else set()
    outcome = outcome._replace(
        recovered=tuple(
            one._replace(state=Mark.SUPERSEDED.value) if one.journal in below else one for one in settled.done
        )
    )
    are_open = (Mark.UNFINISHED.value, Mark.UNDOING.value)
    if settled.outcome is None or any(one.state not in are_open for one in settled.done):
        outcome = outcome._replace(message="; ".join((outcome.message, *(one.message for one in settled.done))))
    verified = next((one.journal for one in settled.done if one.state == Mark.VERIFIED.value), None)
    if outcome.status is Status.VALID and verified is not None:
        return outcome._replace(journal=verified, undo=setting.undo_command(verified))
    return outcome
