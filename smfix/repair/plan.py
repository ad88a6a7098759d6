"""Diagnosis -> RepairPlan: what will be done, what will not and why, proved on an overlay. Pure.

Theory. Repairs depend on each other (a file that ends inside a block is extended before a footer is placed),
so they are not planned from one list: the rows with the lowest turn are mended on an overlay, the result is
diagnosed afresh, and so on until nothing that may be mended is left. What the last diagnosis still says is
`remaining`. A plan is whole or it is none: if damage would remain, nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.problems.problem import Context
from smfix.formats.vhd.problems.registry import PROBLEMS, diagnose, row
from smfix.formats.vhd.proof import violations
from smfix.formats.vhd.reachable import reachable
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
"""Rounds of mending at most; each clears at least one kind of finding."""


REREAD = frozenset({"VHD105", "VHD106", "VHD120", "VHD201", "VHD212", "VHD307"})
"""Repairs after which the image is read by another footer or header than before."""

PROVED_AT_FIRST = frozenset({"VHD212", "VHD307"})
"""Repairs that are proved by where the batmap stands: not by one that another repair has just put there."""

PLACING = frozenset({"VHD302", "VHD303", "VHD304", "VHD404"})
"""Repairs that find a block its place. They are decided on the file as it was: padded, it may look whole."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An image's diagnosis, and the plan made from it."""

    image: VhdImage
    diagnosis: Diagnosis
    plan: RepairPlan


@dataclass(slots=True)
class _Mending:
    """A plan in the making: the image as the edits so far would leave it.

    `first` is the diagnosis by the footer and the header that count: what another one showed was never there.
    """

    image: VhdImage
    diagnosis: Diagnosis
    edits: tuple[Edit, ...] = ()
    fixes: list[Finding] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    first: Diagnosis = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.diagnosis

    @property
    def unmended(self) -> list[Finding]:
        """What must not remain: damage that is still seen, and damage of `first` that needed a decision.

        A footer placed behind a lost sector makes the loss invisible, not undone. So a finding that is
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
    mending = _mend(recorder, image, diagnosis, context, consent)
    needs: tuple[str, ...] = ()
    if mending.unmended:
        agreed = _mend(recorder, image, diagnosis, context, frozenset(problem.code for problem in PROBLEMS))
        if agreed.unmended:
            refusal = _no_fix(agreed, agreed.unmended)
        else:
            asked = {f.code for f in agreed.fixes if f.disposition is Disposition.CONFIRM}
            asked |= {f.code for f in agreed.fixes} & _confirms(agreed.first)
            needs = tuple(sorted(asked - consent))
            refusal = _needs_confirm(agreed, needs)
        mending = agreed
    elif not mending.fixes:
        refusal = _no_fix(mending, [f for f in diagnosis.findings if f.severity is Severity.ERROR])
    agreed_blocks = frozenset(f.facts["block"] for f in mending.fixes if f.facts.get("entry") is not None)
    reread = any(finding.code in REREAD for finding in mending.fixes)
    broken = violations(image, mending.image, mending.edits, diagnosis, mending.diagnosis, agreed_blocks, reread=reread)
    _log.info(
        "plan: %d edits for %s, refused: %s",
        len(mending.edits),
        [f.code for f in mending.fixes],
        refusal and refusal.message,
    )
    if broken and (refusal is None or needs):
        refusal, needs = Refusal(Reason.NO_FIX, f"the repair could not be proved safe: {'; '.join(broken)}"), ()
    if refusal is not None and not needs:
        mending = _Mending(image, diagnosis)
    for edit in mending.edits:
        recorder.read(Extent(image.size, 0) if isinstance(edit, Resize) else edit.extent)
    reached = reachable(image, mending.image, mending.edits) if mending.edits else ()
    made = RepairPlan(
        mending.edits,
        tuple(mending.fixes),
        mending.diagnosis.findings,
        lost_extents(mending.fixes),
        refusal,
        recorder.fingerprint(),
        needs,
        reached,
        image.uuids | mending.image.uuids,
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


def _mend(view: ByteView, image: VhdImage, diagnosis: Diagnosis, context: Context, consent: frozenset[str]) -> _Mending:
    """Mend on an overlay, lowest turn first, until nothing that may be mended is left."""
    state = _Mending(image, diagnosis)
    tried: set[tuple[str, str]] = set()
    for _ in range(ROUNDS):
        # What needed a yes before another repair needs it after: that one may only have hidden why.
        asked = _confirms(state.first) - consent
        asked |= PROVED_AT_FIRST - {f.code for f in state.first.findings if _may_mend(f, consent)}
        if all(fix.facts.get("entry") is None for fix in state.fixes):
            asked |= PLACING - {f.code for f in state.first.findings if _may_mend(f, consent)}
        open_ = [f for f in state.diagnosis.findings if _may_mend(f, consent) and (f.code, f.message) not in tried]
        open_ = [f for f in open_ if f.code not in asked]
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
            reread = reread or finding.code in REREAD
        _log.debug("turn %d: repaired so far %s, %d edits", turn, [fix.code for fix in state.fixes], len(fresh))
        if fresh:
            state.edits = merged(view.size, (*state.edits, *fresh))
            state.image = inspect(Overlay(view, state.edits))
            state.diagnosis = diagnose(state.image, context)
            if reread:
                # A sector lost under the end of the file stays lost, whatever the image is read by.
                kept = tuple(f for f in state.first.findings if f.lossy and f.code.startswith("VHD1"))
                state.first = Diagnosis(state.diagnosis.verdict, (*kept, *state.diagnosis.findings))
    return state


def _turn(finding: Finding) -> int:
    problem = row(finding.code)
    return problem.turn if problem is not None else 99


def _may_mend(finding: Finding, consent: frozenset[str]) -> bool:
    problem = row(finding.code)
    if problem is None or problem.fix is None or finding.severity is not Severity.ERROR:
        return False
    if finding.disposition is Disposition.CONFIRM:
        return finding.code in consent
    return finding.disposition is Disposition.SAFE


def _hopeless(image: VhdImage, diagnosis: Diagnosis, context: Context) -> Refusal | None:
    """What no plan is made for."""
    if diagnosis.verdict is Verdict.NOT_A_VHD:
        what = "it is empty" if not image.size else "none of its structures carries a VHD's cookie"
        return Refusal(Reason.NOT_A_VHD, f"this is no VHD: {what}")
    if diagnosis.verdict is Verdict.IN_USE:
        return Refusal(Reason.IN_USE, "the disk is open for writing: its footer is absent by design")
    if diagnosis.verdict is Verdict.INVALID and context.in_use is InUse.READ_WRITE:
        return Refusal(Reason.IN_USE, "the disk is open for writing: what is read now may be changed in a moment")
    if any(finding.code == "VHD107" for finding in diagnosis.findings):
        return Refusal(
            Reason.SM_PENDING, "a resize by the storage manager is unfinished; the storage manager reverts it itself"
        )
    return None


def _no_fix(mending: _Mending, left: list[Finding]) -> Refusal:
    codes = sorted({finding.code for finding in left})
    why = f": {mending.refusals[0].message}" if mending.refusals else ""
    # What the operator can add: then it is no question of a proof.
    lost = [finding for finding in left if finding.code == "VHD106"]
    missing = [each for finding in lost if finding.facts["options"] for each in finding.facts["missing"]]
    if missing and not mending.refusals:
        return Refusal(Reason.NO_FIX, f"{', '.join(codes)}: not without {' and '.join(missing)}", _explained(codes))
    return Refusal(
        Reason.NO_FIX, f"there is no proved repair for {', '.join(codes)}{why}{_against(left)}", _explained(codes)
    )


def _against(findings: list[Finding]) -> str:
    """What speaks against the repair of the findings: each fact once, as the end of a sentence."""
    said = dict.fromkeys(f.facts["contradiction"] for f in findings if f.facts.get("contradiction"))
    return f": {'; '.join(said)}" if said else ""


def _explained(codes: list[str]) -> tuple[NextStep, ...]:
    return tuple(NextStep(StepKind.EXPLAIN, (code,)) for code in codes)


def _needs_confirm(mending: _Mending, needs: tuple[str, ...]) -> Refusal:
    lost = sum(extent.length for extent in lost_extents(mending.fixes)) // 512
    loss = f" ({lost:,} guest sectors are lost)" if lost else ""
    doubted = [f for f in (*mending.first.findings, *mending.fixes) if f.code in needs]
    return Refusal(Reason.NEEDS_CONFIRM, f"needs consent to {', '.join(needs)}{loss}{_against(doubted)}")
