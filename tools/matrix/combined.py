"""Several damages on one image: ``python -m matrix.combined [--cases N] [--seed S] [--report FILE]``.

The matrix damages each base in one way. What one damage hides of another (a lost footer over a truncated block, a
batmap that can no longer tell whose a block is) shows only together. So two or three kinds are drawn by chance, the
same for the same seed and number, done to one base one after the other, and the image is measured as the matrix does.

What leaves no trace is no damage here: such a kind is done first, and what the guest reads then is what must be read
in the end. It is a sound disk with other contents. The same holds where damages leave no trace only together
(:mod:`matrix.traceless`). At most one kind changes the length of the file, and it comes last: what is done to the end
of a file that was cut would fall on guest data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from matrix import bases, cases, reader, report, sections, traceless, treatments
from matrix.bases import Base
from matrix.cases import Case
from matrix.damage import FAMILIES, Damaged, Kind, Sample
from matrix.kinds import KINDS

SLICE = 20
"""Combinations that one process makes at a time."""
ATTEMPTS = 64


@dataclasses.dataclass(frozen=True)
class Combination:
    """A base damaged several times over: what it was (with its guest disk `truth`), and what it is."""

    base: Base
    kinds: tuple[Kind, ...]
    sample: Sample
    truth: bytes
    damaged: Damaged

    @property
    def name(self) -> str:
        """The kinds in the order in which they were done."""
        return " + ".join(kind.name for kind in self.kinds)


def drawn(number: int, seed: int, made: Sequence[Base]) -> Combination:
    """The combination of this number: of one of the bases `made`, by chance that is the same in every run."""
    rng = random.Random(f"smfix combined {seed} {number}")
    for _ in range(ATTEMPTS):
        base = rng.choice(made)
        combination = combine(base, _some(rng, of_fixed="fixed" in base.name), f"{base.name} {seed} {number}")
        if combination is not None:
            return combination
    raise AssertionError(f"no combination of number {number}")


def _some(rng: random.Random, *, of_fixed: bool) -> list[Kind]:
    """Two or three kinds: any, or of different families (a fixed disk's are one)."""
    count = rng.choice((2, 2, 3))
    kinds = [kind for kind in KINDS if (kind.family == "fixed") == of_fixed]
    if of_fixed or rng.random() < 0.5:
        return rng.sample(kinds, count)
    families = rng.sample([name for name in FAMILIES if name != "fixed"], count)
    return [rng.choice([kind for kind in kinds if kind.family == name]) for name in families]


def combine(base: Base, kinds: Sequence[Kind], chance: str) -> Combination | None:
    """The kinds done to the base, the silent ones first, the one that changes the length last.

    None: one of them finds nothing to damage, two change the length, or nothing is left of the damage.
    """
    sound, truth = base.image.read_bytes(), base.truth
    alone = {kind.name: kind.damage(Sample(chance, sound)) for kind in kinds}
    if any(damaged is None for damaged in alone.values()):
        return None
    quiet = [kind for kind in kinds if (alone[kind.name] or Damaged(b"")).silent is not None]
    long = [kind for kind in kinds if len((alone[kind.name] or Damaged(b"")).raw) != len(sound)]
    if len(long) > 1 or len(quiet) == len(kinds):
        return None
    for kind in quiet:
        damaged = kind.damage(Sample(chance, sound))
        read = None if damaged is None else reader.guest(damaged.raw, base.parent_truth)
        if damaged is None or read is None or damaged.silent is None or len(read) != len(truth):
            return None
        if reader.layout(damaged.raw).bat.count(None) != reader.layout(sound).bat.count(None):
            return None  # read by another header: hardly the same disk any more
        sound, truth = damaged.raw, read
    done = [*quiet]
    raw, orphans, gained = sound, (), ()
    for kind in (*(kind for kind in kinds if kind not in quiet and kind not in long), *long):
        damaged = kind.damage(Sample(f"{chance} {kind.name}", raw, sound))
        if damaged is None or damaged.silent is not None:
            return None
        done.append(kind)
        raw, orphans, gained = damaged.raw, (*orphans, *damaged.orphans), (*gained, *damaged.gained)
    if raw == sound:
        return None
    other = traceless.other_disk(Sample(chance, sound), raw, orphans)
    if other is not None:
        read = reader.guest(other, base.parent_truth)
        assert read is not None
        sound, truth = other, read
    return Combination(base, tuple(done), Sample(chance, sound), truth, Damaged(raw, orphans, gained))


@cache
def _made(home: Path) -> tuple[Base, ...]:
    """The bases that lie in `home`, in the order of the recipes."""
    return tuple(Base(r.name, r.tool, r.note, home / r.name) for r in bases.RECIPES if (home / r.name).exists())


@cache
def _placed(base: Base, home: Path) -> Path:
    return cases.place(base, home / f"work-{os.getpid()}" / base.name)


def _slice(job: tuple[Path, int, range]) -> list[Case]:
    home, seed, numbers = job
    done = []
    for number in numbers:
        it = drawn(number, seed, _made(home / "bases"))
        work = _placed(it.base, home)
        done.append(cases.treat(it.base, it.name, it.sample, it.truth, it.damaged, work, peers=False))
    return done


def tell(done: list[Case], seed: int, seconds: float) -> tuple[str, bool]:
    """The part of the document, and whether every number that must be 0 is."""
    columns = {name: report.COLUMNS[name] for name in report.SMFIX}
    rows, bad = report.counted(done, columns)
    failing = sum(case.fails for case in done)
    three = sum(case.kind.count(" + ") == 2 for case in done)
    lines = [
        "## Several damages at once",
        "",
        (
            f"{sections.stamp()}: {len(done)} combinations of two or three kinds ({three} of three; seed {seed}) on "
            f"{len({case.base for case in done})} bases, {failing} of which fail `vhd-util check`; {seconds:.0f} s."
        ),
        "",
        "| cases | " + " | ".join(columns.values()) + " |",
        "|---" * (len(columns) + 1) + "|",
        *rows,
        *report.exceptions(done),
        "",
        "The rows are those of the matrix. A kind that leaves no trace is no damage here: it is done first, and",
        "what the guest reads then is what must be read in the end. So it is where a sound disk with other contents,",
        "damaged by the same kinds, would have the very same bytes (`tools/matrix/traceless.py`):",
        "a block of which neither entry, batmap bit nor byte is left; a place that only another block's entry names;",
        "a wild entry and one block without any; a bitmap that a sound batmap leaves to itself. At most one kind",
        "changes the length of the file, and it is done last.",
        "",
        "Losses named by a warning only (claim and codes; with `--yes`, with every `--confirm`):",
        "",
        *_warned(done),
    ]
    return "\n".join(lines) + "\n", bad == 0


def _warned(done: list[Case]) -> list[str]:
    counts: dict[str, Counter[str]] = {}
    for name in report.SMFIX:
        for case in done:
            result = case.results[name]
            if report.reads_wrong(result) and result.warned:
                counts.setdefault(f"{result.claim}, {', '.join(result.warned)}", Counter())[name] += 1
    return [
        f"* {said}: {', '.join(str(count[name]) for name in report.SMFIX)}" for said, count in sorted(counts.items())
    ]


def main() -> int:
    """Run what was asked for; 0 when every number that must be 0 is 0."""
    parser = argparse.ArgumentParser(prog="python -m matrix.combined", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--keep", type=Path, help="make the bases there, or take those that lie there")
    parser.add_argument("--json", type=Path, help="write every case there")
    parser.add_argument("--report", type=Path, help="put the result into this document")
    options = parser.parse_args()
    begun = time.monotonic()
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="smfix-combined-", dir=os.environ.get("SMFIX_MATRIX_DIR", fast)))
    try:
        if options.keep is None or not options.keep.exists():
            for recipe in bases.RECIPES:
                bases.make(recipe, options.keep or home / "bases")
        if options.keep is not None:
            (home / "bases").symlink_to(options.keep.resolve())
        last = options.first + options.cases
        jobs = [(home, options.seed, range(at, min(at + SLICE, last))) for at in range(options.first, last, SLICE)]
        done: list[Case] = []
        with multiprocessing.Pool(options.workers, treatments.alone) as pool:
            for some in pool.imap(_slice, jobs):
                done += some
                for line in filter(None, report.exceptions(some)):
                    print(f"\r{line}", file=sys.stderr)
                print(f"\r{len(done)} of {options.cases}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if options.json:
        numbered = [{"number": options.first + n, **dataclasses.asdict(case)} for n, case in enumerate(done)]
        options.json.write_text(json.dumps(numbered, indent=1))
    text, clean = tell(done, options.seed, time.monotonic() - begun)
    print(text)
    if options.report:
        sections.put(options.report, "combined", text)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
