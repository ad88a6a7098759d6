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
    ("data after the end of data destroyed", lambda c, r: r.beyond > 0),
    ("readable before, nothing opens it after", lambda c, r: c.opened and not r.opens),
    ("claimed done, `vhd-util check` fails", lambda c, r: r.claim in CLAIMS and not r.check_ok and not r.excused),
    (
        "claimed done, the guest reads wrong, no warning",
        lambda c, r: reads_wrong(r) and not r.warned and c.silent is None,
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


MEANING = """
Each case is one image damaged in one way, given to each tool afresh. Columns: smfix with `--yes` alone, smfix with
consent to every CONFIRM finding, and on the same bytes in the same run the wiki's shell lines, `vhd-util repair`
and `vhd-util repair -b` (only where `vhd-util check` fails on the image before). What is counted:

* **fail `vhd-util check`**: it exits non-zero, for another reason than those that decision 8 calls no damage.
* **guest sectors lost that were intact**: sectors of 512 bytes whose right bytes were in the damaged file where the
  sound image has them, are not there afterwards, and read wrong; and those that read right before, but not after.
* **data after the end of data destroyed**: non-NUL sectors of blocks after the end of data (by the BAT as damaged)
  that are not the same bytes any more. The footer's own place does not count: no block is there.
* **nothing opens it**: no footer with a right checksum at the end or at 0, no such header, or a BAT outside the file.
* **claimed done**: smfix says `repaired` or `valid`, a peer ends with 0.
* **the guest reads wrong, no warning**: a sector reads other bytes than before the damage (an independent
  reader, BAT, batmap, bitmap, parent), it is not among the sectors that the outcome names as lost, and no warning
  comes with the outcome. Left out, and listed below: damage of which the bytes keep no trace.
* **made valid and reading right**: the check then passes (or fails only for what decision 8 calls no damage), and all
  sectors read right but those that were named as lost.
* **undo not identical**: `smfix undo` gives other bytes, or another size, than the damaged image had.
"""


def reads_wrong(result: Result) -> bool:
    """It says that all is well, and a sector that it did not name reads wrong."""
    return result.claim in CLAIMS and result.unnamed > 0


def tell(cases: list[Case], seconds: float, recorded: str = "") -> tuple[str, bool]:
    """The report as markdown, and whether every number that must be 0 is. `recorded`: day and commit; else of now."""
    failing = [case for case in cases if case.fails]
    kinds = len({case.kind for case in cases})
    took = f"; {seconds:.0f} s" if seconds else ""
    lines = [
        "## The matrix",
        "",
        (
            f"{recorded or sections.stamp()}: {kinds} kinds of damage on {len({c.base for c in cases})} bases, "
            f"{len(cases)} cases, {len(failing)} of which fail `vhd-util check`{took}."
        ),
        "",
        "| cases | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    rows, bad = counted(cases, COLUMNS)
    lines += rows
    lines += MEANING.splitlines()
    lines += exceptions(cases)
    lines += ["", "### Named by a warning only", "", *told(cases)]
    lines += ["", "### No trace in the bytes", "", *_silent(cases)]
    lines += ["", "### Left damaged, and why", "", *_left(failing)]
    lines += ["", "### Kind by kind", "", *_by_kind(cases)]
    lines += ["", "### Bases", "", "| base | made by | what it is |", "|---|---|---|"]
    lines += [f"| {recipe.name} | {recipe.tool} | {recipe.note} |" for recipe in RECIPES]
    return "\n".join(lines) + "\n", bad == 0


def counted(cases: list[Case], columns: Iterable[str]) -> tuple[list[str], int]:
    """The rows of the table, one cell for each of the treatments `columns`; and the sum of what must be 0 of smfix."""
    failing = [case for case in cases if case.fails]
    names = list(columns)

    def row(title: str, counts: Iterable[object]) -> str:
        cells = [str(count) for count in counts]
        return f"| {title} | " + " | ".join(cells + ["-"] * (len(names) - len(cells))) + " |"

    bad = 0
    lines = []
    for title, test in MUST_BE_NONE:
        counts = [sum(test(case, result) for case, result in _pairs(cases, name)) for name in names]
        bad += sum(counts[: len(SMFIX)])
        lines.append(row(title, counts))
    sectors = [sum(result.lost for _, result in _pairs(cases, name)) for name in names]
    lines.append(row("guest sectors lost, all cases together", sectors))
    undone = [sum(r.undone is False for _, r in _pairs(cases, name)) for name in SMFIX]
    again = [sum(result.twice == "wrote" for _, result in _pairs(cases, name)) for name in SMFIX]
    bad += sum(undone) + sum(again)
    lines.append(row("undo not identical", undone))
    lines.append(row("a second run writes again", again))
    grown = [sum(r.size > c.size + (64 << 20) for c, r in _pairs(cases, name)) for name in names]
    lines.append(row("grown by more than 64 MiB", grown))
    warned = [sum(reads_wrong(r) and bool(r.warned) for _, r in _pairs(cases, name)) for name in SMFIX]
    lines.append(row("claimed done, reads wrong, a warning says so (listed below)", warned))
    untold = [sum(reads_wrong(r) and not r.warned and c.silent is not None for c, r in _pairs(cases, n)) for n in SMFIX]
    lines.append(row("claimed done, reads wrong, no trace in the bytes (listed below)", untold))
    excused = [sum(r.claim in CLAIMS and r.excused for _, r in _pairs(cases, name)) for name in SMFIX]
    lines.append(row("claimed done, the check fails on what decision 8 calls no damage", excused))
    mended = [sum(_mended(result) for _, result in _pairs(failing, name)) for name in names]
    lines.append(row("**failing images made valid and reading right**", [f"**{count}**" for count in mended]))
    named = [sum(_mended(r) and r.named > 0 for _, r in _pairs(failing, name)) for name in SMFIX]
    lines.append(row("of these, with a loss that was named", named))
    sectors = [sum(r.named for _, r in _pairs(failing, name)) for name in SMFIX]
    lines.append(row("guest sectors named as lost, all cases together", sectors))
    sectors = [sum(r.wrong - r.unnamed for _, r in _pairs(failing, name)) for name in SMFIX]
    lines.append(row("of these, reading wrong afterwards", sectors))
    return lines, bad


def _mended(result: Result) -> bool:
    return result.mended and result.claim in (*CLAIMS, "partly-repaired")


def exceptions(cases: list[Case]) -> list[str]:
    lines = []
    for name in SMFIX:
        for case, result in _pairs(cases, name):
            broken = [title for title, test in MUST_BE_NONE if test(case, result)]
            broken += ["undo not identical"] if result.undone is False else []
            broken += ["a second run writes again"] if result.twice == "wrote" else []
            lines += [f"* **{title}** ({name}): {case.kind} on {case.base}: {result.message}" for title in broken]
    return ["", *lines] if lines else []


def told(cases: list[Case]) -> list[str]:
    """The cases that only a warning tells of: its codes, and what smfix claims."""
    spots: dict[str, dict[str, list[str]]] = {}
    for name in SMFIX:
        for case, result in _pairs(cases, name):
            if reads_wrong(result) and result.warned:
                said = f"{case.kind} ({result.claim}, {', '.join(result.warned)})"
                spots.setdefault(name, {}).setdefault(said, []).append(case.base)
    lines = ["The outcome is `repaired` or `valid`, some of the guest's data reads wrong, and this is what says so."]
    lines += ["", "VHD304: a block that no entry names is kept and pointed at. VHD402: batmap and bitmap disagree.", ""]
    for name, kinds in spots.items():
        lines += [f"* {COLUMNS[name]}: {kind}: {', '.join(bases)}" for kind, bases in kinds.items()]
    return lines


def _silent(cases: list[Case]) -> list[str]:
    """Damage that leaves bytes as some sound disk could have them: why, where, and in how many cases it is not told."""
    spots: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.silent is not None and case.wrong > 0:
            spots.setdefault((case.kind, case.silent), []).append(case)
    lines = [
        (
            "These images read wrong and are what a sound disk with other contents could be. They count in no column "
            "that must be 0; smfix calls them valid, or mends something else in them. The mark is the kind's own, set "
            "in `tools/matrix/kinds_*.py`; that of the `bitmap-*` kinds and of `header-sealed-table` without a batmap "
            "was set after a run had shown that smfix says nothing."
        ),
        "",
    ]
    for (kind, why), some in spots.items():
        quiet = [case.base for case in some if reads_wrong(case.results["consent"])]
        lines.append(f"* {kind}: {why} ({len(some)} cases; no warning on: {', '.join(quiet) or 'none'})")
    return lines


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
