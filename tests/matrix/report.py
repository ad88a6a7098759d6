"""The tables of the matrix, and what must not be in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from matrix import reasons, sections
from matrix.bases import RECIPES
from matrix.cases import CLAIMS, Case, Result
from matrix.kinds import KINDS

Test = Callable[[Case, Result], bool]

MUST_BE_NONE: tuple[tuple[str, Test], ...] = (
    ("guest sectors lost that were intact", lambda c, r: r.lost > 0),
    ("data behind the end of data destroyed", lambda c, r: r.beyond > 0),
    ("readable before, nothing opens it after", lambda c, r: c.opened and not r.opens),
    ("claimed done, `vhd-util check` fails", lambda c, r: r.claim in CLAIMS and not r.check_ok and not r.excused),
    (
        "claimed done, the guest reads wrong, nobody was told",
        lambda c, r: r.claim in CLAIMS and r.unnamed > 0 and not r.warned and c.silent is None,
    ),
    ("image shrunk", lambda c, r: r.shrunk),
)
SMFIX = ("safe", "consent")
COLUMNS = {
    "safe": "smfix --yes",
    "consent": "smfix, every --confirm",
    "seed": "wiki's shell",
    "repair": "vhd-util repair",
    "repair -b": "repair -b",
}


def tell(cases: list[Case], seconds: float) -> tuple[str, bool]:
    """The report as markdown, and whether every number that must be 0 is."""
    failing = [case for case in cases if case.fails]
    kinds = len({case.kind for case in cases})
    lines = [
        "## The matrix",
        "",
        (
            f"{sections.stamp()}: {kinds} kinds of damage on {len({c.base for c in cases})} bases, {len(cases)} cases, "
            f"{len(failing)} of which fail `vhd-util check`; {seconds:.0f} s."
        ),
        "",
        "| cases | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    bad = 0
    for title, test in MUST_BE_NONE:
        counts = [sum(test(case, result) for case, result in _pairs(cases, name)) for name in COLUMNS]
        bad += sum(counts[: len(SMFIX)])
        lines.append(_row(title, counts))
    sectors = [sum(result.lost for _, result in _pairs(cases, name)) for name in COLUMNS]
    lines.append(_row("guest sectors lost, all cases together", sectors))
    undone = [sum(r.undone is False for _, r in _pairs(cases, name)) for name in SMFIX]
    again = [sum(result.twice == "wrote" for _, result in _pairs(cases, name)) for name in SMFIX]
    bad += sum(undone) + sum(again)
    lines.append(_row("undo not identical", undone))
    lines.append(_row("a second run writes again", again))
    grown = [sum(r.size > c.size + (64 << 20) for c, r in _pairs(cases, name)) for name in COLUMNS]
    lines.append(_row("grown by more than 64 MiB", grown))
    warned = [sum(r.claim in CLAIMS and r.unnamed > 0 and bool(r.warned) for _, r in _pairs(cases, n)) for n in SMFIX]
    lines.append(_row("claimed done, reads wrong, a warning says so", warned))
    mended = [sum(_mended(result) for _, result in _pairs(failing, name)) for name in COLUMNS]
    lines.append(_row("**failing images made valid and reading right**", [f"**{count}**" for count in mended]))
    named = [sum(_mended(r) and r.named > 0 for _, r in _pairs(failing, name)) for name in SMFIX]
    lines.append(_row("of these, with a loss that was named", named))
    silent = sum(case.silent is not None and case.wrong > 0 for case in cases)
    lines += [
        "",
        f"{silent} cases are damage of which the bytes keep no trace; no tool can see it, none is counted as told.",
    ]
    lines += _exceptions(cases)
    lines += ["", "### What is left, and why", "", *_left(failing)]
    lines += ["", "### Kind by kind", "", *_by_kind(cases)]
    lines += ["", "### Bases", "", "| base | made by | what it is |", "|---|---|---|"]
    lines += [f"| {recipe.name} | {recipe.tool} | {recipe.note} |" for recipe in RECIPES]
    return "\n".join(lines) + "\n", bad == 0


def _row(title: str, counts: Iterable[object]) -> str:
    cells = [str(count) for count in counts]
    return f"| {title} | " + " | ".join(cells + ["-"] * (len(COLUMNS) - len(cells))) + " |"


def _mended(result: Result) -> bool:
    return result.mended and result.claim in (*CLAIMS, "partly-repaired")


def _exceptions(cases: list[Case]) -> list[str]:
    lines = []
    for name in SMFIX:
        for case, result in _pairs(cases, name):
            broken = [title for title, test in MUST_BE_NONE if test(case, result)]
            broken += ["undo not identical"] if result.undone is False else []
            lines += [f"* **{title}** ({name}): {case.kind} on {case.base}: {result.message}" for title in broken]
    return ["", *lines] if lines else []


def _left(failing: list[Case]) -> list[str]:
    """Every failing case that is not mended with all consent, under its reason."""
    left: dict[str, dict[str, list[str]]] = {}
    for case, result in _pairs(failing, "consent"):
        if not _mended(result):
            said = f"{result.claim} {result.reason or ''}".strip()
            spots = left.setdefault(reasons.why(case.kind), {}).setdefault(f"{case.kind} ({said})", [])
            spots.append(case.base)
    lines = []
    for reason, kinds in left.items():
        lines += [f"{reason} ({sum(map(len, kinds.values()))} cases)", ""]
        lines += [f"* {kind}: {', '.join(bases)}" for kind, bases in kinds.items()]
        lines.append("")
    return lines


def _by_kind(cases: list[Case]) -> list[str]:
    """For each kind: in how many cases the check fails, and how many of them each treatment mends."""
    lines = ["| kind | what is done to the image | fail | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (len(COLUMNS) + 3) + "|")
    for kind in KINDS:
        mine = [case for case in cases if case.kind == kind.name and case.fails]
        if any(case.kind == kind.name for case in cases):
            counts = [sum(_mended(result) for _, result in _pairs(mine, name)) for name in COLUMNS]
            cells = [str(count) if mine else "-" for count in counts]
            lines.append(f"| {kind.name} | {kind.text} | {len(mine)} | " + " | ".join(cells) + " |")
    return lines


def _pairs(cases: Iterable[Case], name: str) -> list[tuple[Case, Result]]:
    return [(case, case.results[name]) for case in cases if name in case.results]
