"""One image, from its open descriptor to its Outcome: look, plan, object, ask, write, verify.

design: "One repair, step by step". A dry run goes the same way up to the question, and takes no
lock. What goes wrong with one image is its outcome, never an exception.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from smfix import chains
from smfix.errors import SmfixError, Unreadable
from smfix.host import locks, vhd_util
from smfix.host.guard import HostGuard
from smfix.host.naming import read_path
from smfix.host.sr import Found
from smfix.host.storage import OpenImage, open_image
from smfix.host.usage import Usage, usage
from smfix.model import ByteView, Finding, InUse, Outcome, Reason, Refusal, Status, Verdict
from smfix.problems.rows import Context
from smfix.problems.table import diagnose
from smfix.repair import undo as way_back
from smfix.repair.apply import Means, Verification, apply, no_room
from smfix.repair.plan import Planned, plan
from smfix.report.escape import command
from smfix.vhd.image import VhdImage, inspect
from smfix.vhd.structs import uuid_text

Decide = Callable[[str, Outcome], bool]
"""Whoever says yes to writing: gets the image's path and the outcome that is foreseen."""

_WRITERS = ("--confirm", "--sr-mount", "--journal-dir", "--sm-lock-dir")
_TAKES = {
    "from-log": _WRITERS,
    "repair": (*_WRITERS, "--size", "--uuid"),
    "scan": ("--sr-mount",),
    "check": ("--sr-mount",),
    "undo": ("--journal-dir", "--sm-lock-dir"),
}
ROOT_JOURNALS = "/var/lib/smfix/journal"


@dataclass(frozen=True, slots=True)
class Setting:
    """How the operator wants it: the options that several commands share (contract).

    `sr_mounts` and the folders are empty or None for the defaults: `journal_dir` of the undo journals,
    `lock_dir` of SM's locks, `state_dir` of smfix's own. `consent` are the codes of ``--confirm``.
    `decide` None is a dry run. `words` is the command line, for the journal. `given_size` (bytes) and
    `given_uuid` (16 bytes) are what the operator knows of a disk that lost both its footers.
    """

    sr_mounts: tuple[str, ...] = ()
    journal_dir: str | None = None
    lock_dir: str | None = None
    state_dir: str | None = None
    consent: frozenset[str] = frozenset()
    decide: Decide | None = None
    words: tuple[str, ...] = ()
    given_size: int | None = None
    given_uuid: bytes | None = None

    @property
    def journals(self) -> str:
        """The folder of the undo journals, absolute."""
        return os.path.abspath(self.journal_dir or default_journals())

    def command(self, *words: str) -> str:
        """A complete ``smfix`` command that works as this one does, quoted for a shell.

        The first word is the subcommand: each gets those of the shared options that it has.
        """
        return command(["smfix", *words, *(part for name in _TAKES[words[0]] for part in self._option(name))])

    def undo_command(self, journal_id: str) -> str:
        """The complete command that puts a journal's image back."""
        return self.command("undo", journal_id)

    def repair_command(self, path: str, consent: tuple[str, ...] = ()) -> str:
        """The complete command that repairs one image, with every consent it needs."""
        agreed = replace(self, consent=self.consent.union(consent))
        return agreed.command("repair", os.path.abspath(path), "--yes")

    def _option(self, name: str) -> list[str]:
        """The option with its value, where it is not the default."""
        if name == "--sr-mount":
            return [part for mount in self.sr_mounts for part in (name, os.path.abspath(mount))]
        if name == "--confirm":
            return [part for code in sorted(self.consent) for part in (name, code)]
        if name == "--size":
            return [] if self.given_size is None else [name, str(self.given_size)]
        if name == "--uuid":
            return [] if self.given_uuid is None else [name, uuid_text(self.given_uuid)]
        if name == "--journal-dir":
            return [] if self.journals == default_journals() else [name, self.journals]
        return [] if self.lock_dir is None else [name, os.path.abspath(self.lock_dir)]

    def means(self, family: chains.Family) -> Means:
        """What apply and undo work with, for the image whose children are `family`."""
        named = (read_path(path).vdi for path, _ in family)
        guard = HostGuard(
            hidden=is_hidden,
            sm_locks=locks.sm_lock_folder(self.lock_dir),
            state=self.state_dir or locks.state_folder(),
            children=tuple(vdi for vdi in named if vdi is not None),
        )
        return Means(self.journals, guard, self.undo_command)


def default_journals() -> str:
    """Where journals lie unless the operator says otherwise: root's folder, else the XDG state."""
    if os.geteuid() == 0:
        return ROOT_JOURNALS
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(os.path.abspath(state), "smfix", "journal")


def is_hidden(view: ByteView) -> bool | None:
    """The mark of a base copy, by the footer the image is read by; None: no footer is sound."""
    footer = inspect(view).footer
    return None if footer is None else footer.hidden != 0


# --------------------------------------------------------------------------- the way of one image


def treat(found: Found, setting: Setting) -> Outcome:
    """What becomes of the image: repaired, foreseen (a dry run), refused, or failed. Never raises."""
    try:
        image = open_image(found.target, sr_root=found.root)
        if isinstance(image, Refusal):
            return refused(image)
        with image:
            return _recovered(image, found, setting) or _treat(image, found, setting)
    except SmfixError as error:
        return Outcome(Status.FAILED, str(error))


def refused(refusal: Refusal) -> Outcome:
    """A refusal as the outcome of an image that was not looked into."""
    return Outcome(Status.REFUSED, refusal.message, refusal.reason, next=refusal.next)


def seen_by(context: Context, uses: Usage) -> str:
    """What this caller could not see, as the end of a sentence; empty where it saw everything."""
    return f"; not seen by this user: {uses.blind}" if uses.blind and context.in_use is not InUse.READ_WRITE else ""


def context_of(image: VhdImage, found: Found, in_use: InUse) -> Context:
    """What the bytes do not say, less the children (who costs a look into the whole folder)."""
    parent, _ = chains.parent_of(image, found.target.path)
    return Context(datetime.now(UTC), in_use, parent)


def _treat(image: OpenImage, found: Found, setting: Setting) -> Outcome:
    first = inspect(image)
    context = context_of(first, found, InUse.NONE)
    seen = diagnose(first, context)
    if seen.verdict is Verdict.VALID:
        return Outcome(Status.VALID, "the image is sound", findings=seen.findings, remaining=seen.findings)
    # Only now, for it costs a look at every process: who holds a sound image is no matter.
    uses = usage(image.identity)
    with ExitStack() as stack:
        family = chains.children_of(first, found, stack)
        context = replace(
            context,
            in_use=uses.state,
            children=tuple(child for _, child in family),
            given_size=setting.given_size,
            given_uuid=setting.given_uuid,
        )
        planned = plan(image, context, setting.consent)
        means = setting.means(family)
        outcome = _foreseen(planned, image, means, setting)
        outcome = replace(outcome, message=outcome.message + _told(outcome, context, uses))
        if outcome.status is not Status.WOULD_REPAIR or setting.decide is None:
            return outcome
        if not setting.decide(image.target.path, outcome):
            return replace(outcome, message="nothing was written: the answer was not yes")
        return _write(planned, image, found, context, means, setting)


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
        return Outcome(
            Status.REFUSED,
            refusal.message,
            refusal.reason,
            findings=found,
            plan=made,
            remaining=found,
            lost_sectors=made.lost_sectors if asked else 0,
            next=(setting.repair_command(path, made.needs),) if asked else refusal.next,
        )
    lacking = no_room(image, made, means.folder)
    if lacking is not None:
        return Outcome(Status.FAILED, f"{lacking}; nothing was written", findings=found, plan=made, remaining=found)
    codes = ", ".join(dict.fromkeys(fix.code for fix in made.fixes))
    return Outcome(
        Status.WOULD_REPAIR,
        f"a dry run: {codes} would be mended, nothing was written",
        findings=found,
        plan=made,
        remaining=made.remaining,
        lost_sectors=made.lost_sectors,
        next=(setting.repair_command(path),),
    )


def _write(
    planned: Planned, image: OpenImage, found: Found, context: Context, means: Means, setting: Setting
) -> Outcome:
    def again(view: ByteView) -> tuple[Finding, ...]:
        return diagnose(inspect(view), context).findings

    path = os.path.abspath(image.target.path)
    checks = Verification(again, lambda: vhd_util.complaint(path))
    findings = planned.diagnosis.findings
    writable = image.reopen(write=True)
    if isinstance(writable, Refusal):
        return replace(refused(writable), findings=findings, remaining=findings)
    with writable:
        done = apply(planned.plan, writable, means, checks, sr_root=found.root, command=setting.words)
    done = replace(done, findings=findings)
    if done.status in (Status.REPAIRED, Status.PARTLY_REPAIRED):
        return replace(done, next=next_steps(path, found, setting))
    return done


def next_steps(path: str, found: Found, setting: Setting) -> tuple[str, ...]:
    """What to do after a repair: let the storage manager look again, elsewhere look oneself."""
    if found.target.sr is not None and os.path.exists(locks.INVENTORY):
        return (command(["xe", "sr-scan", f"uuid={found.target.sr}"]),)
    return (setting.command("check", path),)


# --------------------------------------------------------------------------- interrupted repairs


def _recovered(image: OpenImage, found: Found, setting: Setting) -> Outcome | None:
    """Put back what an interrupted repair left; None where there is none, or it is put back now."""
    try:
        waiting = way_back.interrupted(setting.journals, image)
    except Unreadable:
        if setting.decide is not None:
            raise
        waiting = ()  # a dry run needs no journals, and may be another user's
    if not waiting:
        return None
    ids = ", ".join(entry.id for entry in waiting)
    path = image.target.path
    foreseen = Outcome(
        Status.WOULD_REPAIR,
        f"an earlier repair was interrupted (journal {ids}): it would be put back first, then the image "
        "diagnosed anew; nothing was written",
        journal=waiting[0].id,
        undo=setting.undo_command(waiting[0].id),
        next=(setting.repair_command(path),),
    )
    if setting.decide is None or not setting.decide(path, foreseen):
        return foreseen
    writable = image.reopen(write=True)
    if isinstance(writable, Refusal):
        return refused(writable)
    with writable, ExitStack() as stack:
        family = chains.children_of(inspect(writable), found, stack)
        outcomes = way_back.recover(writable, setting.means(family))
    return next((outcome for outcome in outcomes if outcome.status is not Status.ROLLED_BACK), None)
