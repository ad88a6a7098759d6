"""The table of everything that can be wrong, in the order in which ``vhd-util check`` looks.

`diagnose` reads it from top to bottom; `row` finds one by its code. Pure.
"""

from __future__ import annotations

from functools import cache

from smfix.formats.problem import Context, Problem, found
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems import bat, bat_repair, batmap, chain, fixed, footer, footer_conflict, header, quiet
from smfix.values import Damaged, Diagnosis, Finding, Log, Severity, Verdict

_log = Log(__name__)

PROBLEMS: tuple[Problem, ...] = (
    footer.IN_USE,
    *footer.PRIMARY,
    *fixed.ROWS,
    footer_conflict.BOTH_LOST,
    *footer.BACKUP,
    footer_conflict.DIFFER,
    *header.ROWS,
    *bat.ROWS,
    footer_conflict.BEYOND,
    *bat_repair.ROWS,
    *batmap.ROWS,
    *chain.ROWS,
)


def row(code: str) -> Problem | None:
    """The row of `code` (any case); None: there is no such finding."""
    return next((problem for problem in PROBLEMS if problem.code == code.upper()), None)


def diagnose(image: VhdImage, context: Context) -> Diagnosis:
    """Every finding of `image`, and the verdict they amount to. Never raises.

    If neither footer is sound, no structure after them is judged: the rest of the
    rows would only repeat that.
    """
    if not image.looks_like_vhd:
        return Diagnosis(Verdict.NOT_A_VHD, ())
    claims = tuple(claim for claim in quiet.CLAIMS if claim.holds(image, context))
    findings = tuple(found(problem, hit) for problem in _asked(claims) for hit in problem.detect(image, context))
    _log.debug("asked %d of %d rows, hit %s", len(_asked(claims)), len(PROBLEMS), [one.code for one in findings])
    return Diagnosis(verdict(findings, image), findings)


@cache
def _asked(claims: tuple[quiet.Claim, ...]) -> tuple[Problem, ...]:
    """The rows, less those that one of `claims` silences."""
    return tuple(problem for problem in PROBLEMS if not any(problem.code in claim.codes for claim in claims))


def verdict(findings: tuple[Finding, ...], image: VhdImage) -> Verdict:
    """INVALID where any finding is an error; IN_USE for a footer absent by design; else VALID."""
    if any(finding.severity is Severity.ERROR for finding in findings):
        return Verdict.INVALID
    if any(finding.code == footer.IN_USE.code for finding in findings):
        return Verdict.IN_USE
    return Verdict.VALID if not isinstance(image.end, Damaged) else Verdict.INVALID
