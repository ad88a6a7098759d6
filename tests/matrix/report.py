"""The table of the matrix, and what it must not contain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from matrix.cases import CLAIMS, Case, Result

Test = Callable[[Case, Result], bool]

MUST_BE_NONE: tuple[tuple[str, Test], ...] = (
    ("guest sectors lost that were intact", lambda c, r: r.lost > 0),
    ("data behind the end of data destroyed", lambda c, r: r.beyond > 0),
    ("readable before, nothing opens it after", lambda c, r: c.opened and not r.opens),
    ("claimed done, `vhd-util check` fails", lambda c, r: r.claim in CLAIMS and not r.check_ok and not r.excused),
    (
        "claimed done, the guest reads wrong, no loss named",
        lambda c, r: r.claim in CLAIMS and r.unnamed > 0 and not r.warned and c.silent is None,
    ),
    ("image shrunk", lambda c, r: r.shrunk),
)
SMFIX = ("safe", "consent")
COLUMNS = (*SMFIX, "seed", "repair", "repair -b")


def tell(cases: list[Case], seconds: float) -> tuple[str, bool]:
    """The report as markdown, and whether every number that must be 0 is."""
    lines = [f"{len(cases)} cases, {sum(c.fails for c in cases)} fail `vhd-util check`, {seconds:.0f} s", ""]
    lines.append("| outcome, cases | " + " | ".join(COLUMNS) + " |")
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    clean = True
    for title, test in MUST_BE_NONE:
        counts = [_count(cases, name, test) for name in COLUMNS]
        clean &= not any(counts[: len(SMFIX)])
        lines.append(f"| {title} | " + " | ".join(map(str, counts)) + " |")
    undone = [sum(r.undone is False for r in _of(cases, name)) for name in SMFIX]
    clean &= not any(undone)
    lines.append(f"| undo not identical | {undone[0]} | {undone[1]} | - | - | - |")
    again = [sum(r.twice not in (None, "valid", "partly-repaired", "refused") for r in _of(cases, n)) for n in SMFIX]
    lines.append(f"| a second run changes something | {again[0]} | {again[1]} | - | - | - |")
    warned = [sum(r.claim in CLAIMS and r.unnamed > 0 and bool(r.warned) for r in _of(cases, n)) for n in SMFIX]
    lines.append(f"| claimed done, the guest reads wrong, a warning says so | {warned[0]} | {warned[1]} | - | - | - |")
    blown = [sum(r.size > c.size + (64 << 20) for c, r in _pairs(cases, name)) for name in COLUMNS]
    lines.append("| grown by more than 64 MiB | " + " | ".join(map(str, blown)) + " |")
    mended = [sum(c.fails and _mended(r) for c, r in _pairs(cases, name)) for name in COLUMNS]
    lines.append("| **failing images made valid and reading right** | " + " | ".join(map(str, mended)) + " |")
    named = [sum(c.fails and _mended(r) and r.named > 0 for c, r in _pairs(cases, name)) for name in SMFIX]
    lines.append(f"| of these with a loss that was named | {named[0]} | {named[1]} | - | - | - |")
    for title, test in MUST_BE_NONE:
        for name in SMFIX:
            for case, result in _pairs(cases, name):
                if test(case, result):
                    lines.append(f"* {title} ({name}): {case.kind} on {case.base}: {result.message}")
    for name in SMFIX:
        lines += [f"* undo ({name}): {c.kind} on {c.base}" for c, r in _pairs(cases, name) if r.undone is False]
    lines += ["", "## Not mended, by kind", ""]
    lines += _unmended(cases)
    return "\n".join(lines) + "\n", clean


def _mended(result: Result) -> bool:
    return result.mended and result.claim in (*CLAIMS, "partly-repaired")


def _unmended(cases: list[Case]) -> list[str]:
    left: dict[tuple[str, str], list[str]] = {}
    for case, result in _pairs(cases, "consent"):
        if case.fails and not _mended(result):
            said = f"{result.claim}/{result.reason}: {','.join(result.codes)}: {result.message[:150]}"
            left.setdefault((case.kind, said), []).append(case.base)
    return [f"* {kind} ({len(bases)}: {', '.join(bases)}): {said}" for (kind, said), bases in left.items()]


def _pairs(cases: Iterable[Case], name: str) -> list[tuple[Case, Result]]:
    return [(case, case.results[name]) for case in cases if name in case.results]


def _of(cases: Iterable[Case], name: str) -> list[Result]:
    return [result for _, result in _pairs(cases, name)]


def _count(cases: Iterable[Case], name: str, test: Test) -> int:
    return sum(test(case, result) for case, result in _pairs(cases, name))


def totals(cases: Iterable[Case]) -> Counter[str]:
    """How smfix (SAFE only) ended, by status and reason."""
    return Counter(f"{r.claim} {r.reason or ''}".strip() for r in _of(cases, "safe"))
