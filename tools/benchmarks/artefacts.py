"""Size and start-up of what is shipped: ``make bench-artefacts``, after ``make packages``.

Each command is run in turns with ``python -c pass``, RUNS times; the table has the median and the least of each, and
the least processor time of it and its children, which says more on a machine that has other work.
Writes docs/evidence/artefacts.md. More files can be named: they are measured too, and only printed.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 21


def timed(line: list[str]) -> tuple[float, float]:
    """Milliseconds of one run: by the clock, and of the processors."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took * 1000, (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) * 1000


def rows(commands: dict[str, list[str]]) -> list[str]:
    """A line of the table for each command: all of them in turns, so that what disturbs one disturbs all."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for line in commands.values():
        timed(line)  # from the disk into memory
    for _ in range(RUNS):
        for name, line in commands.items():
            taken[name].append(timed(line))
    return [
        f"| {name} | {statistics.median(wall):.0f} | {min(wall):.0f} | {min(used):.0f} |"
        for name, pairs in taken.items()
        for wall, used in (tuple(zip(*pairs, strict=True)),)
    ]


def main(others: list[str]) -> int:
    """Measure, print, and keep what is of the project."""
    dist = ROOT / "dist"
    python = "/usr/bin/python3"
    commands = {"python -c pass": [python, "-c", "pass"]}
    for name, program in (("wheel", str(Path(sys.executable).with_name("smfix"))), ("one file", str(dist / "smfix"))):
        commands[f"{name}: smfix --version"] = [program, "--version"]
        commands[f"{name}: smfix explain VHD101"] = [program, "explain", "VHD101"]
    for other in others:
        commands[f"{other} --version"] = [other, "--version"]
    table = ["| | median, ms | least, ms | processor, least ms |", "|---|---|---|---|", *rows(commands)]
    sizes = ["| artefact | bytes |", "|---|---|"]
    sizes += [
        f"| {path.name} | {path.stat().st_size:,} |"
        for path in sorted(dist.iterdir())
        if path.name == "smfix" or path.suffix in (".rpm", ".deb", ".whl", ".gz")
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    head = (
        "# Sizes and start-up of the shipped files\n\n"
        f"Measured {date.today().isoformat()} at {commit.strip()}: {version}, 2 cores, Linux. "  # noqa: DTZ011
        f"Written by `make bench-artefacts`; {RUNS} runs of each, in turns; "
        f"load average {os.getloadavg()[0]:.1f} at the end.\n"
    )
    text = "\n".join([head, *sizes, "", *table, ""])
    print(text)
    if not others:
        (ROOT / "docs" / "evidence" / "artefacts.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
