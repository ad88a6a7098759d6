"""The problem table as text and JSON: what a finding means, why it happens, what smfix does. Pure.

Everything comes from the rows; nothing about a finding is written here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smfix.errors import UsageError
from smfix.formats.vhd.problems.problem import Problem
from smfix.formats.vhd.problems.registry import PROBLEMS, row
from smfix.report.glossary import terms
from smfix.report.layout import counted, folded, wrapped
from smfix.report.layout import row as labelled
from smfix.values import Disposition, Severity

_SAFE, _CONFIRM, _REPORT = Disposition.SAFE, Disposition.CONFIRM, Disposition.REPORT
_CONSENT = {
    _SAFE: "SAFE: repaired with --yes or an answered prompt; proved to change no guest sector and no live metadata.",
    _CONFIRM: "CONFIRM: repaired only with --confirm {code} as well.",
    _REPORT: "REPORT: smfix has no repair for it and writes nothing.",
}
_DEPENDS = {
    (_SAFE, _REPORT): _CONSENT[_SAFE]
    + " Where something in the image contradicts it, the finding says REPORT, and nothing is written.",
    (_SAFE, _CONFIRM, _REPORT): _CONSENT[_SAFE]
    + " Where that cannot be proved, the finding says CONFIRM (--confirm {code} as well) or REPORT (nothing is "
    "written).",
    (_CONFIRM, _REPORT): "It depends on the evidence. Where that leaves one answer the finding says CONFIRM: repaired "
    "with --confirm {code} as well. Otherwise it says REPORT, and nothing is written.",
}
_SLOT = re.compile(r"\{(\w+)[^}]*\}")


def rows(codes: Sequence[str] = ()) -> tuple[Problem, ...]:
    """The rows of `codes`, each once, in their order; of none: all, by code. Raises UsageError for an unknown one."""
    if not codes:
        return tuple(sorted(PROBLEMS, key=lambda problem: problem.code))
    found: dict[str, Problem] = {}
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"there is no finding {code!r}; `smfix explain` lists them")
        found[problem.code] = problem
    return tuple(found.values())


def listing(problems: tuple[Problem, ...]) -> str:
    """Each finding: its code, who may say yes to its repair, its title, and its weight where it is no error."""
    lines = []
    for problem in problems:
        weight = "" if problem.severity is Severity.ERROR else f" ({problem.severity.value})"
        lines.append(folded(f"{problem.code}  {dispositions(problem):<22}", problem.title + weight))
    lines += [
        "",
        wrapped(
            "SAFE: repaired with --yes or an answered prompt. CONFIRM: with --confirm CODE as well. REPORT: not "
            "repaired. Where several stand, the evidence decides, and each finding says which holds."
        ),
        "",
        f"{counted(len(problems), 'finding')}. More: smfix explain CODE",
    ]
    return "\n".join(lines)


def dispositions(problem: Problem) -> str:
    """``SAFE, CONFIRM, REPORT``: all that its findings can say."""
    return ", ".join(each.value for each in problem.dispositions)


def full(problem: Problem) -> str:
    """Everything the table says of one finding."""
    lines = [
        f"{problem.code}  {problem.title}",
        labelled("says", _SLOT.sub(r"<\1>", problem.message).strip()),
        labelled("means", problem.means),
        labelled("why", problem.why),
        labelled("weight", problem.severity.value + (", data is lost" if problem.lossy else "")),
        labelled("consent", consent(problem)),
    ]
    if problem.done:
        lines.append(labelled("repair", f"Afterwards: {problem.done}."))
    if problem.advice:
        lines.append(labelled("advice", problem.advice))
    lines.append(labelled("source", problem.source))
    used = terms(" ".join(row_text(problem)))
    lines += [labelled("" if number else "words", f"{term}: {said}") for number, (term, said) in enumerate(used)]
    return "\n".join(lines)


def row_text(problem: Problem) -> tuple[str, ...]:
    """Every prose text of a row."""
    return problem.title, problem.message, problem.means, problem.why, problem.done, problem.advice


def consent(problem: Problem) -> str:
    """Who may say yes to the repair."""
    can_be = problem.dispositions
    told = _CONSENT[can_be[0]] if len(can_be) == 1 else _DEPENDS[can_be]
    return told.format(code=problem.code)


def document(problems: tuple[Problem, ...]) -> dict[str, Any]:
    """``smfix.explain/1``."""
    return {
        "schema": "smfix.explain/1",
        "findings": [
            {
                "code": problem.code,
                "title": problem.title,
                "message": problem.message,
                "severity": problem.severity.value,
                "disposition": problem.disposition.value,
                "dispositions": [each.value for each in problem.dispositions],
                "lossy": problem.lossy,
                "means": problem.means,
                "why": problem.why,
                "repair": problem.done or None,
                "advice": problem.advice or None,
                "source": problem.source,
            }
            for problem in problems
        ],
        "exit": 0,
    }
