"""smfix beside the tools that search logs today: 1 GiB of SMlog, and a rotated set. Run: ``make bench-logs``.

smfix tells whole incidents, with SR, path and evidence; the others find lines. All read from the page cache,
whole processes, in turns (see run.py). Writes ``docs/evidence/log-speed.md``. Needs 1.5 GiB of disk, and minutes.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import make_smlog
from memory import private_kib
from run import commit

HERE = Path(__file__).resolve().parent
SMFIX = str(Path(sysconfig.get_path("scripts")) / "smfix")
PATTERN = "EXCEPTION.*corrupted|footer invalid|appears invalid|clobbers|scan-error"
WIKI = "/EXCEPTION/ && /corrupt/ {print substr($8,2,8)}"
# Installed packages have their bytecode, and so shall what is measured: the first run writes it.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
READ = """
import sys
from smfix.smlog.reader import read_logs
found = read_logs(sys.argv[1:], tz="UTC", year=2025, since=None, until=None).incidents
print(len(found), "incidents,", sum(one.path is not None for one in found), "with their path")
"""
LOOP = """
import re, sys
pattern = re.compile(rb"EXCEPTION.*corrupted|footer invalid|appears invalid|clobbers|scan-error")
for number, line in enumerate(open(sys.argv[1], "rb"), 1):
    if pattern.search(line):
        print(number, line[:80])
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command; `needs` is the program without which it cannot run."""

    name: str
    words: Sequence[str]
    needs: str = ""

    def seconds(self, cores: set[int]) -> float:
        """Wall time of one run on those cores. Raises SystemExit where it fails."""
        begun = time.perf_counter()
        done = subprocess.run(
            self.words, capture_output=True, check=False, env=ENV, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )
        took = time.perf_counter() - begun
        if done.returncode not in (0, 4):
            sys.exit(f"{self.name}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return took


def smfix(name: str, log: Path) -> list[Tool]:
    """The whole command, and its reader without what it does with the incidents."""
    words = [SMFIX, "from-log", "--dry-run", "--json", "--tz", "UTC", "--year", "2025", "--sr-mount", str(log.parent)]
    return [
        Tool(f"smfix from-log{name}", [*words, str(log)]),
        Tool(f"its reader alone{name}", [sys.executable, "-c", READ, str(log)]),
    ]


def without_isal(log: Path) -> list[Tool]:
    """The reader with the standard library's zlib, where isal is installed."""
    if importlib.util.find_spec("isal") is None:
        return []
    block = "import sys; sys.modules['isal'] = None\n"
    return [Tool("its reader alone, 30 files, without isal", [sys.executable, "-c", block + READ, str(log)])]


def plain_tools(log: Path) -> list[Tool]:
    """What people use on one plain file."""
    return [
        Tool("rg -n", ["rg", "-n", PATTERN, str(log)], "rg"),
        Tool("grep -E -n", ["grep", "-E", "-n", PATTERN, str(log)], "grep"),
        Tool("the wiki's awk (mawk)", ["mawk", WIKI, str(log)], "mawk"),
        Tool("the wiki's awk (gawk)", ["gawk", WIKI, str(log)], "gawk"),
        Tool("a Python line loop", [sys.executable, "-c", LOOP, str(log)]),
    ]


def rotated_tools(folder: Path) -> list[Tool]:
    """What people use on a rotated set."""
    files = " ".join(str(path) for path in sorted(folder.glob("SMlog*.gz")))
    return [
        Tool("zcat into mawk", ["sh", "-c", f"zcat -f {files} {folder}/SMlog | mawk '{WIKI}'"], "mawk"),
        Tool("rg -z -n", ["rg", "-z", "-n", PATTERN, str(folder)], "rg"),
    ]


def table(ours: Tool, theirs: Sequence[Tool], cores: set[int], pairs: int) -> list[str]:
    """One line for each tool that is installed: median seconds, and the median of the pairs' ratios."""
    lines = []
    for tool in theirs:
        if tool.needs and shutil.which(tool.needs) is None:
            lines.append(f"| {ours.name} | {tool.name} | not installed | | | |")
            continue
        ours.seconds(cores)
        tool.seconds(cores)
        mine: list[float] = []
        others: list[float] = []
        for number in range(pairs):
            for one, times in ((ours, mine), (tool, others)) if number % 2 else ((tool, others), (ours, mine)):
                times.append(one.seconds(cores))
        ratio = statistics.median(b / a for a, b in zip(mine, others, strict=True))
        seconds, other_seconds = statistics.median(mine), statistics.median(others)
        lines.append(
            f"| {ours.name} | {tool.name} | {len(cores)} | {seconds:.2f} | {other_seconds:.2f} | **{ratio:.2f}** |"
        )
        print(lines[-1], flush=True)
    return lines


def private_mib(words: Sequence[str]) -> float:
    """The most private memory (MiB) that the processes of a command had together at any moment."""
    process = subprocess.Popen(words, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, private_kib(process.pid))
        time.sleep(0.01)
    return most / 1024


def rotated_set(log: Path, folder: Path) -> None:
    """Thirty files of 100 MB, 29 of them packed: SMlog.29.gz ... SMlog.1.gz, SMlog."""
    folder.mkdir()
    size = 100_000_000
    with log.open("rb") as source:
        pieces = max(1, log.stat().st_size // size)
        for number in range(pieces):
            text = source.read(size) + source.readline()
            (folder / f"piece{number}").write_bytes(gzip.compress(text, 6))
        (folder / "SMlog").write_bytes(text)
    for number in range(29, 0, -1):
        shutil.copy(folder / f"piece{(29 - number) % pieces}", folder / f"SMlog.{number}.gz")
    for piece in folder.glob("piece*"):
        piece.unlink()


WORDS = "## What it means"
"""From here on the page is written by hand, and kept."""


def main() -> int:
    """Measure, print, write the table unless ``--print``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the plain log (1 GiB)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs per row (7)")
    parser.add_argument("--print", action="store_true", help="print the table, write no file")
    options = parser.parse_args()
    every = os.sched_getaffinity(0)
    one = {min(every)}
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="smfix-bench-") as name:
        log = Path(name, "SMlog")
        with log.open("wb") as file:
            make_smlog.write(file, options.size)
        told = subprocess.run([sys.executable, "-c", READ, str(log)], capture_output=True, text=True, check=True).stdout
        for tool in smfix("", log):
            lines += table(tool, plain_tools(log), one, options.pairs)
            lines += table(tool, plain_tools(log)[:1], every, options.pairs)
        quarter = Path(name, "quarter")
        with quarter.open("wb") as part:
            make_smlog.write(part, options.size // 4)
        memory = [
            ("a quarter of the log", private_mib(smfix("", quarter)[1].words)),
            ("the log", private_mib(smfix("", log)[1].words)),
            ("the whole command on it", private_mib(smfix("", log)[0].words)),
        ]
        quarter.unlink()
        rotated = Path(name, "rotated")
        rotated_set(log, rotated)
        for tool in [*smfix(", 30 files", rotated), *without_isal(rotated)]:
            lines += table(tool, rotated_tools(rotated), every, min(3, options.pairs))
        memory.append(("30 files, 29 packed", private_mib(smfix("", rotated)[1].words)))
    about = f"Python {platform.python_version()}, {len(every)} cores, {platform.system()}"
    text = "\n".join(
        [
            "# Speed on logs",
            "",
            f"Measured {datetime.now(UTC):%Y-%m-%d} at {commit()}: {about}. Written by `make bench-logs`.",
            "",
            (
                f"A log of {options.size / (1 << 30):.2f} GiB, one incident in {make_smlog.EVERY:,} lines; smfix"
                f" reports {told.strip()}, the others print lines. Everything is in the page cache. Above 1, smfix is "
                "faster."
            ),
            "",
            "| smfix | beside | cores | s | s | times as fast |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            "Private memory of all processes together, at most: "
            + "; ".join(f"{what} {mib:.0f} MiB" for what, mib in memory)
            + ".",
            "",
        ]
    )
    print(text, end="")
    if not options.print:
        page = HERE.parents[1] / "docs" / "evidence" / "log-speed.md"
        kept = page.read_text(encoding="utf-8").partition(WORDS)
        page.write_text("".join([text, "\n", *kept[1:]]) if kept[1] else text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
