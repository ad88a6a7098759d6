"""smfix beside ``vhd-util check`` on images that no rule was ever fitted to: ``python -m matrix.fresh``.

The recorded mutants (:mod:`matrix.verdicts`) are those that the rules of decision 9 were written for, so that nothing
differs there says little about the next image. This asks the tool about mutants with other numbers, in one run, and
tells how many of them differ. ``--report FILE`` puts the result into a document. Needs vhd-util; a damaged header
costs it ten seconds without SMFIX_MATRIX_PRELOAD (docs/evidence/matrix.md).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matrix import agreement, mutants, sections, verdicts

FIRST = 1_000_000
"""Far from the recorded numbers."""
STEP = 250


@dataclass(frozen=True)
class Slice:
    """What came of some numbers: how many the tool calls valid, the rules used, the differences by number."""

    count: int
    valid: int
    rules: Counter[str]
    differing: dict[int, str]


def run(numbers: range) -> Slice:
    """Ask the tool and smfix about each of the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        opinions = verdicts.ask(numbers, Path(folder))
    rules: Counter[str] = Counter()
    differing: dict[int, str] = {}
    for number, opinion in zip(numbers, opinions, strict=True):
        image, findings = agreement.seen(mutants.mutant(number), "/sr")
        agreed = agreement.compare(image, findings, opinion)
        rules.update(agreed.rules)
        if agreed.differs:
            differing[number] = agreed.differs
    return Slice(len(numbers), sum(opinion.is_valid for opinion in opinions), rules, differing)


def tell(slices: list[Slice], first: int, seconds: float) -> str:
    """The part of the document."""
    count, valid = sum(s.count for s in slices), sum(s.valid for s in slices)
    differing = {number: said for s in slices for number, said in sorted(s.differing.items())}
    rules = sum((s.rules for s in slices), Counter[str]())
    lines = [
        "## Mutants that no rule was fitted to",
        "",
        (
            f"{sections.stamp()}: mutants {first} to {first + count - 1}, {count} images, {valid} of them valid to "
            f"`vhd-util check`; {seconds:.0f} s. **{len(differing)}** differ in verdict or first message."
        ),
        "",
        "| rule (decision 9) | images it excuses |",
        "|---|---|",
        *(f"| {name} | {number} |" for name, number in rules.most_common()),
    ]
    if differing:
        lines += ["", *(f"* {number}: {said}" for number, said in differing.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run them; 0 when none differs."""
    parser = argparse.ArgumentParser(prog="python -m matrix.fresh", description=__doc__)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--report", type=Path, help="put the result into this document")
    options = parser.parse_args()
    begun = time.monotonic()
    last = options.first + options.count
    parts = [range(at, min(at + STEP, last)) for at in range(options.first, last, STEP)]
    with multiprocessing.Pool() as pool:
        slices = pool.map(run, parts, chunksize=1)
    text = tell(slices, options.first, time.monotonic() - begun)
    print(text)
    if options.report:
        sections.put(options.report, "fresh", text)
    return int(any(part.differing for part in slices))


if __name__ == "__main__":
    sys.exit(main())
