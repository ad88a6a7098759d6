"""Diagnosis -> RepairPlan: what will be done, what will not and why, proved on an overlay. Pure.

Theory. Repairs depend on each other (a file that ends inside a block is extended before a footer is placed),
so they are not planned from one list: the rows with the lowest turn are repaired on an overlay, the result is
diagnosed afresh, and so on until nothing that may be repaired is left. The findings of the last diagnosis are
`remaining`. A plan is whole or it is none: if damage would remain, nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from smfix.formats.base import Change, Image
from smfix.formats.problem import Context, Problem
from smfix.formats.registry import diagnose, inspect, prove, reachable, row, rows
from smfix.repair.overlay import Overlay, Recorder, merged
from smfix.values import (
    ByteView,
    Diagnosis,
    Disposition,
    Edit,
    Extent,
    Finding,
    InUse,
    Log,
    NextStep,
    Reason,
    Refusal,
    RepairPlan,
    Resize,
    Severity,
    StepKind,
    Verdict,
)

_log = Log(__name__)

ROUNDS = 64
"""Rounds of repairs at most; each clears at least one kind of finding."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An image's diagnosis, and the plan made from it."""

    image: Image
    diagnosis: Diagnosis
    plan: RepairPlan


@dataclass(slots=True)
class _Draft:
    """A plan in the making: the image as the edits so far would leave it.

    `first` is the diagnosis by the footer and the header that count: what another one showed was never there.
    """

    image: Image
    diagnosis: Diagnosis
    edits: tuple[Edit, ...] = ()
    fixes: list[Finding] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    first: Diagnosis = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.diagnosis

    @property
    def unrepaired(self) -> list[Finding]:
        """Damage that must not remain: still detected, or found by `first` and in need of a decision.

        A footer placed after a lost sector makes the loss invisible, not undone. So a finding that is
        not SAFE must be among the fixes, however the result looks.
        """
        seen = [finding for finding in self.diagnosis.findings if finding.is_damage]
        answered = {finding.code for finding in (*seen, *self.fixes)}
        hidden = [
            finding
            for finding in self.first.findings
            if finding.is_damage and finding.disposition is not Disposition.SAFE and finding.code not in answered
        ]
        return seen + hidden


def plan(view: ByteView, context: Context, consent: frozenset[str] = frozenset()) -> Planned:
    """Plan the repair of `view`; `consent` are the codes of CONFIRM findings the operator agrees to.

    Raises :class:`smfix.errors.Unreadable` when the storage fails, nothing else.
    """
    recorder = Recorder(view)
    image = inspect(recorder)
    diagnosis = diagnose(image, context)
    refusal = _hopeless(image, diagnosis, context)
    if refusal is not None or diagnosis.verdict is Verdict.VALID:
        nothing = RepairPlan((), (), diagnosis.findings, (), refusal, recorder.fingerprint())
        return Planned(image, diagnosis, nothing)
    draft = _repair(recorder, image, diagnosis, context, consent)
    needs: tuple[str, ...] = ()
    if draft.unrepaired:
        agreed = _repair(recorder, image, diagnosis, context, frozenset(problem.code for problem in rows()))
        if agreed.unrepaired:
            refusal = _no_fix(agreed, agreed.unrepaired)
        else:
            asked = {f.code for f in agreed.fixes if f.disposition is Disposition.CONFIRM}
            asked |= {f.code for f in agreed.fixes} & _confirms(agreed.first)
            needs = tuple(sorted(asked - consent))
            refusal = _needs_confirm(agreed, needs)
        draft = agreed
    elif not draft.fixes:
        refusal = _no_fix(draft, [f for f in diagnosis.findings if f.severity is Severity.ERROR])
    agreed_blocks = frozenset(f.facts["block"] for f in draft.fixes if f.facts.get("entry") is not None)
    reread = any(problem.rereads for problem in _rows_of(draft.fixes))
    broken = prove(Change(image, draft.image, draft.edits, diagnosis, draft.diagnosis, agreed_blocks, reread))
    _log.info(
        "plan: %d edits for %s, refused: %s",
        len(draft.edits),
        [f.code for f in draft.fixes],
        refusal and refusal.message,
    )
    if broken and (refusal is None or needs):
        refusal, needs = Refusal(Reason.NO_FIX, f"the repair could not be proved safe: {'; '.join(broken)}"), ()
    if refusal is not None and not needs:
        draft = _Draft(image, diagnosis)
    for edit in draft.edits:
        recorder.read(Extent(image.size, 0) if isinstance(edit, Resize) else edit.extent)
    reached = reachable(image, draft.image, draft.edits) if draft.edits else ()
    made = RepairPlan(
        draft.edits,
        tuple(draft.fixes),
        draft.diagnosis.findings,
        lost_extents(draft.fixes),
        refusal,
        recorder.fingerprint(),
        needs,
        reached,
        image.uuids | draft.image.uuids,
    )
    return Planned(image, diagnosis, made)


def _confirms(diagnosis: Diagnosis) -> set[str]:
    """The codes of the findings that need consent."""
    return {finding.code for finding in diagnosis.findings if finding.disposition is Disposition.CONFIRM}


def lost_extents(fixes: list[Finding]) -> tuple[Extent, ...]:
    """The guest extents (bytes) that the findings name as lost, joined and in order."""
    runs = sorted((run[0], run[1]) for finding in fixes for run in finding.facts.get("lost", ()))
    joined: list[Extent] = []
    for offset, length in runs:
        if joined and offset <= joined[-1].end:
            joined[-1] = Extent(joined[-1].offset, max(joined[-1].end, offset + length) - joined[-1].offset)
        else:
            joined.append(Extent(offset, length))
    return tuple(joined)


def _repair(view: ByteView, image: Image, diagnosis: Diagnosis, context: Context, consent: frozenset[str]) -> _Draft:
    """Repair on an overlay, lowest turn first, until nothing that may be repaired is left."""
    state = _Draft(image, diagnosis)
    tried: set[tuple[str, str]] = set()
    for _ in range(ROUNDS):
        # What needed a yes before another repair needs it after: that one may only have hidden why.
        asked = _confirms(state.first) - consent
        known = {f.code for f in state.first.findings if _may_repair(f, consent)}
        has_placed = any(fix.facts.get("entry") is not None for fix in state.fixes)
        open_ = [
            f
            for f in state.diagnosis.findings
            if _may_repair(f, consent) and (f.code, f.message) not in tried and f.code not in asked
        ]
        open_ = [f for f in open_ if f.code in known or not _needs_first(f, has_placed=has_placed)]
        if not open_:
            break
        turn = min(_turn(finding) for finding in open_)
        fresh: list[Edit] = []
        reread = False
        for finding in (f for f in open_ if _turn(f) == turn):
            tried.add((finding.code, finding.message))
            problem = row(finding.code)
            made = problem.fix(state.image, finding, context) if problem and problem.fix else ()
            if isinstance(made, Refusal):
                state.refusals.append(made)
                continue
            fresh.extend(made)
            state.fixes.append(finding)
            reread = reread or (problem is not None and problem.rereads)
        _log.debug("turn %d: repaired so far %s, %d edits", turn, [fix.code for fix in state.fixes], len(fresh))
        if fresh:
            state.edits = merged(view.size, (*state.edits, *fresh))
            state.image = inspect(Overlay(view, state.edits))
            state.diagnosis = diagnose(state.image, context)
            if reread:
                # A sector lost under the end of the file stays lost, whatever the image is read by.
                kept = tuple(f for f in state.first.findings if f.lossy and _stays_lost(f))
                state.first = Diagnosis(state.diagnosis.verdict, (*kept, *state.diagnosis.findings))
    return state


def _rows_of(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    return tuple(problem for problem in map(row, dict.fromkeys(one.code for one in findings)) if problem is not None)


def _needs_first(finding: Finding, *, has_placed: bool) -> bool:
    """True if the finding is repaired only when the first diagnosis has it too; `has_placed`: a block got its place."""
    return any(problem.proved_at_first or (problem.places_blocks and not has_placed) for problem in _rows_of([finding]))


def _stays_lost(finding: Finding) -> bool:
    return any(problem.stays_lost for problem in _rows_of([finding]))


def _turn(finding: Finding) -> int:
    problem = row(finding.code)
    return problem.turn if problem is not None else 99


def _may_repair(finding: Finding, consent: frozenset[str]) -> bool:
    problem = row(finding.code)
    if problem is None or problem.fix is None or finding.severity is not Severity.ERROR:
        return False
    if finding.disposition is Disposition.CONFIRM:
        return finding.code in consent
    return finding.disposition is Disposition.SAFE


def _hopeless(image: Image, diagnosis: Diagnosis, context: Context) -> Refusal | None:
    """Refuse an image for which no plan is made."""
    if diagnosis.verdict is Verdict.NOT_A_VHD:
        what = "it is empty" if not image.size else "none of its structures carries a VHD's cookie"
        return Refusal(Reason.NOT_A_VHD, f"this is no VHD: {what}")
    if diagnosis.verdict is Verdict.IN_USE:
        return Refusal(Reason.IN_USE, "the disk is open for writing: its footer is absent by design")
    if diagnosis.verdict is Verdict.INVALID and context.in_use is InUse.READ_WRITE:
        return Refusal(Reason.IN_USE, "the disk is open for writing: what is read now may be changed in a moment")
    return next((problem.bars for problem in _rows_of(diagnosis.findings) if problem.bars is not None), None)


def _no_fix(draft: _Draft, left: list[Finding]) -> Refusal:
    codes = sorted({finding.code for finding in left})
    why = f": {draft.refusals[0].message}" if draft.refusals else ""
    # What the operator can add: then it is no question of a proof.
    missing = [each for finding in left if finding.facts.get("options") for each in finding.facts["missing"]]
    if missing and not draft.refusals:
        return Refusal(Reason.NO_FIX, f"{', '.join(codes)}: not without {' and '.join(missing)}", _explained(codes))
    return Refusal(
        Reason.NO_FIX, f"there is no proved repair for {', '.join(codes)}{why}{_against(left)}", _explained(codes)
    )


def _against(findings: list[Finding]) -> str:
    """The facts against the repair of the findings, each once, as the end of a sentence."""
    reasons = dict.fromkeys(f.facts["contradiction"] for f in findings if f.facts.get("contradiction"))
    return f": {'; '.join(reasons)}" if reasons else ""


def _explained(codes: list[str]) -> tuple[NextStep, ...]:
    return tuple(NextStep(StepKind.EXPLAIN, (code,)) for code in codes)


def _needs_confirm(draft: _Draft, needs: tuple[str, ...]) -> Refusal:
    lost = sum(extent.length for extent in lost_extents(draft.fixes)) // 512
    loss = f" ({lost:,} guest sectors are lost)" if lost else ""
    doubted = [f for f in (*draft.first.findings, *draft.fixes) if f.code in needs]
    return Refusal(Reason.NEEDS_CONFIRM, f"needs consent to {', '.join(needs)}{loss}{_against(doubted)}")
