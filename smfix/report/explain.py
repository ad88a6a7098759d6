"""The problem table as text and JSON: what a finding means, why it happens, what smfix does. Pure.

Everything comes from the rows; nothing about a finding is written here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smfix.errors import UsageError
from smfix.formats.problem import Problem
from smfix.formats.registry import row
from smfix.formats.registry import rows as every_row
from smfix.report.glossary import terms
from smfix.report.jsondoc import picked
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
    + " If something in the image contradicts it, the finding says REPORT, and nothing is written.",
    (_SAFE, _CONFIRM, _REPORT): _CONSENT[_SAFE]
    + " If that cannot be proved, the finding says CONFIRM (--confirm {code} as well) or REPORT (nothing is "
    "written).",
    (_CONFIRM, _REPORT): "It depends on the evidence. If that leaves one answer, the finding says CONFIRM: repaired "
    "with --confirm {code} as well. Otherwise it says REPORT, and nothing is written.",
}
_SLOT = re.compile(r"\{(\w+)[^}]*\}")


def rows(codes: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Return the rows of `codes` in their order, each once; all rows by code if there are none. Raises UsageError."""
    if not codes:
        return tuple(sorted(every_row(), key=lambda problem: problem.code))
    found: dict[str, Problem] = {}
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"there is no finding {code!r}; `smfix explain` lists them")
        found[problem.code] = problem
    return tuple(found.values())


def listing(problems: tuple[Problem, ...]) -> str:
    """List the findings: code, disposition, title, and the severity if it is not an error."""
    lines = []
    for problem in problems:
        weight = "" if problem.severity is Severity.ERROR else f" ({problem.severity.value})"
        lines.append(folded(f"{problem.code}  {dispositions(problem):<22}", problem.title + weight))
    lines += [
        "",
        wrapped(
            "SAFE: repaired with --yes or an answered prompt. CONFIRM: with --confirm CODE as well. REPORT: not "
            "repaired. If a row names several, the evidence decides, and each finding says which one applies."
        ),
        "",
        f"{counted(len(problems), 'finding')}. More: smfix explain CODE",
    ]
    return "\n".join(lines)


def dispositions(problem: Problem) -> str:
    """Return ``SAFE, CONFIRM, REPORT``: every disposition that its findings can have."""
    return ", ".join(each.value for each in problem.dispositions)


def full(problem: Problem) -> str:
    """Return everything that the table contains about one finding."""
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
    lines += [labelled("" if number else "words", f"{term}: {meaning}") for number, (term, meaning) in enumerate(used)]
    return "\n".join(lines)


def row_text(problem: Problem) -> tuple[str, ...]:
    """Return every prose text of a row."""
    return problem.title, problem.message, problem.means, problem.why, problem.done, problem.advice


def consent(problem: Problem) -> str:
    """Return the consent that the repair needs."""
    can_be = problem.dispositions
    words = _CONSENT[can_be[0]] if len(can_be) == 1 else _DEPENDS[can_be]
    return words.format(code=problem.code)


def document(problems: tuple[Problem, ...]) -> dict[str, Any]:
    """``smfix.explain/1``."""
    return {
        "schema": "smfix.explain/1",
        "findings": [
            {
                **picked(problem, "code title message severity disposition dispositions lossy means"),
                "why": problem.why,
                "repair": problem.done or None,
                "advice": problem.advice or None,
                "source": problem.source,
            }
            for problem in problems
        ],
        "exit": 0,
    }
