"""Run the damage matrix: ``python -m matrix [--only WORD] [--base NAME] [--json FILE] [--report FILE]``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from matrix import bases, cases, report, sections, treatments
from matrix.kinds import KINDS


def _family(job: tuple[bases.Base, str, list[str]]) -> list[cases.Case]:
    base, home, names = job
    work = cases.place(base, Path(home) / f"work-{os.getpid()}" / base.name)
    done = [cases.run_case(base, kind, work) for kind in KINDS if kind.name in names]
    return [case for case in done if case is not None]


def main() -> int:
    """Run what was asked for; 0 when every number that must be 0 is 0."""
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument("--only", default="", help="kinds whose name contains one of these words (comma)")
    parser.add_argument("--skip", default="none", help="but not those whose name contains one of these")
    parser.add_argument("--base", default="", help="bases whose name contains one of these words (comma)")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--json", type=Path, help="write every case there")
    parser.add_argument("--report", type=Path, help="write the report there (markdown)")
    parser.add_argument("--load", type=Path, help="report on cases that --json wrote, run nothing")
    parser.add_argument("--recorded", default="", help="day and commit of the run that --load reports on")
    options = parser.parse_args()
    if options.load:
        done, seconds = [_loaded(entry) for entry in json.loads(options.load.read_text())], 0.0
    else:
        begun = time.monotonic()
        done = _run(options.only, options.skip, options.base, options.workers)
        seconds = time.monotonic() - begun
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(case) for case in done], indent=1))
    text, clean = report.tell(done, seconds, options.recorded)
    print(text)
    if options.report:
        sections.put(options.report, "matrix", text)
    return 0 if clean else 1


def _loaded(entry: dict) -> cases.Case:
    results = {name: cases.Result(**result) for name, result in entry.pop("results").items()}
    return cases.Case(**entry, results=results)


def _asked(words: str, name: str) -> bool:
    return any(word in name for word in words.split(","))


def _run(only: str, skip: str, base_name: str, workers: int) -> list[cases.Case]:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="smfix-matrix-", dir=os.environ.get("SMFIX_MATRIX_DIR", fast)))
    try:
        made = [bases.make(recipe, home / "bases") for recipe in bases.RECIPES if _asked(base_name, recipe.name)]
        names = [kind.name for kind in KINDS if _asked(only, kind.name) and not _asked(skip, kind.name)]
        jobs = [(base, str(home), names[start::8]) for base in made for start in range(8)]
        done: list[cases.Case] = []
        with multiprocessing.Pool(workers, treatments.alone) as pool:
            for index, some in enumerate(pool.imap_unordered(_family, jobs), 1):
                done += some
                print(f"\r{index * 100 // len(jobs)} %, {len(done)} cases", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    order = {kind.name: n for n, kind in enumerate(KINDS)}
    by_base = {recipe.name: n for n, recipe in enumerate(bases.RECIPES)}
    return sorted(done, key=lambda case: (order[case.kind], by_base[case.base]))


if __name__ == "__main__":
    sys.exit(main())
