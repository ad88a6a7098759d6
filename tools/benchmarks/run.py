"""smfix beside the tools people use today: whole processes, in pairs, as ratios. Run: ``make bench``.

What is compared runs in turns (A B, B A, ...), so a machine that gets slower or hotter meanwhile
does so for both; each pair gives one ratio, and the median of the ratios is the result. Absolute
times are of this machine only. A tool that is not installed is named and left out. The table is
written to ``docs/evidence/speed.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import images
from smfix.formats.vhd.build import sparse

HERE = Path(__file__).resolve().parent
SMFIX = str(Path(sysconfig.get_path("scripts")) / "smfix")
NOTHING = [sys.executable, "-c", "pass"]

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
GIB = 1 << 30
LOG_BYTES = 10_000_000

# The lines that engineers paste from the wiki ("Repair a single corrupt VHD"), less the glob.
WIKI = """
fn="$1"
DATA=$(wc -c $fn | awk '{print (512-($1 % 512))%512}')
if [ "$DATA" -ne "0" ]; then for i in $(eval echo {1..$DATA}); do echo -n '0' >> $fn; done; fi
head -c 512 $fn >> $fn
vhd-util repair -n $fn
"""

# A minute of ordinary traffic, between which the one line that matters stands once a megabyte.
TRAFFIC = """\
SM: [{pid}] lock: opening lock file /var/lock/sm/{vdi}/vdi
SM: [{pid}] lock: acquired /var/lock/sm/{vdi}/vdi
SM: [{pid}] ['/usr/bin/vhd-util', 'query', '--debug', '-vsf', '-n', '/run/sr-mount/{sr}/{vdi}.vhd']
SM: [{pid}]   pread SUCCESS
SM: [{pid}] lock: released /var/lock/sm/{vdi}/vdi
SM: [{pid}] vdi_attach {{'sr_uuid': '{sr}', 'vdi_uuid': '{vdi}', 'command': 'vdi_attach'}}
SMGC: [{pid}] SR 7a14 ('local') (8 VDIs in 2 VHD trees): no changes
SMGC: [{pid}] No work, exiting
""".splitlines()
FAILURE = """\
SM: [26919] ['/usr/bin/vhd-util', 'check', '--debug', '-n', '/run/sr-mount/{sr}/{vdi}.vhd']
SM: [26919] FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie
SM: [26919] /run/sr-mount/{sr}/{vdi}.vhd appears invalid; dumping metadata
SM: [26919] ', stderr: ''
SMGC: [26919] coalesce: EXCEPTION <class 'util.SMException'>, VHD *{short}(8.000G/4.002G) corrupted
""".splitlines()


@dataclass(frozen=True, slots=True)
class Contender:
    """A command; `needs` are the tools without which it cannot run, `codes` the exits of success."""

    name: str
    words: Sequence[str]
    needs: Sequence[str] = ()
    codes: Sequence[int] = (0,)

    @property
    def missing(self) -> list[str]:
        """The tools that are not installed."""
        return [tool for tool in self.needs if shutil.which(tool) is None]

    def seconds(self, before: Callable[[], None]) -> float:
        """Wall time of one run, after `before` (not timed). Raises SystemExit where it fails."""
        before()
        start = time.perf_counter()
        done = subprocess.run(self.words, capture_output=True, check=False)
        took = time.perf_counter() - start
        if done.returncode not in self.codes:
            sys.exit(f"{self.name}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return took


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians in seconds, and the median of the pairs' ratios."""

    name: str
    other: str
    seconds: float
    other_seconds: float
    ratio: float
    pairs: int

    def markdown(self) -> str:
        """The row, times in milliseconds."""
        return (
            f"| {self.name} | {self.other} | {self.seconds * 1000:.0f} | {self.other_seconds * 1000:.0f} "
            f"| **{self.ratio:.2f}** | {self.pairs} |"
        )


def compare(one: Contender, other: Contender, pairs: int, before: Callable[[], None] = lambda: None) -> Row:
    """Run both in turns, after one run of each that is not counted (caches, byte code)."""
    one.seconds(before)
    other.seconds(before)
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(pairs):
        turns = ((one, mine), (other, theirs))
        for contender, times in turns if number % 2 == 0 else reversed(turns):
            times.append(contender.seconds(before))
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    medians = statistics.median(mine), statistics.median(theirs), statistics.median(ratios)
    return Row(one.name, other.name, *medians, pairs)


def make_log(path: Path) -> None:
    """`LOG_BYTES` of today's syslog form, with a failure once a megabyte."""
    values = {"sr": SR, "vdi": VDI, "short": VDI[:8]}
    lines, size, second = [], 0, 0
    while size < LOG_BYTES:
        second += 1
        clock = f"Nov 20 {second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02} xcp-host "
        block = [line.format(pid=1000 + second % 30000, **values) for line in TRAFFIC]
        if second % 1500 == 0:
            block += [line.format(**values) for line in FAILURE]
        for text in block:
            lines.append(f"{clock}{text}\n")
            size += len(lines[-1])
    path.write_text("".join(lines), encoding="ascii")


def make_image(path: Path) -> int:
    """An 8 GiB disk, half of it written, as a file with holes; returns where its footer begins."""
    made = sparse(8 * GIB, bytes(range(16)), {2 * block: {0: b"x" * 512} for block in range(2048)})
    with path.open("wb") as image:
        image.truncate(made.size)
        for write in made.writes:
            image.seek(write.offset)
            image.write(write.data)
    return made.size - 512


def start_up(pairs: int, log: Path, mount: Path) -> list[Row]:
    """What a command costs before it does anything, and with 10 MB of log."""
    nothing = Contender("python -c pass", NOTHING)
    words = [SMFIX, "from-log", "--dry-run", "--sr-mount", str(mount), str(log)]
    reading = Contender("smfix from-log, 10 MB", words, codes=(4,))
    return [
        compare(Contender("smfix --version", [SMFIX, "--version"]), nothing, pairs),
        compare(reading, nothing, pairs),
    ]


def repairs(pairs: int, image: Path, footer: int, folder: Path) -> tuple[list[Row], list[str]]:
    """One lost footer put back, beside those who do it today; and what was left out."""
    words = [SMFIX, "repair", "--yes", "--journal-dir", str(folder / "journal"), str(image)]
    ours = Contender("smfix repair", words, codes=(1,))
    rows, left_out = [], []
    for other in (
        Contender("the wiki's lines", ["bash", "-c", WIKI, "wiki", str(image)], ("vhd-util", "awk")),
        Contender("vhd-util repair", ["vhd-util", "repair", "-n", str(image)], ("vhd-util",)),
        Contender("vhd-util check", ["vhd-util", "check", "-n", str(image)], ("vhd-util",), (0, 22)),
    ):
        if other.missing:
            left_out.append(f"{other.name}: {', '.join(other.missing)} not installed")
        else:
            rows.append(compare(ours, other, pairs, lambda: os.truncate(image, footer)))
    return rows, left_out


def checks(pairs: int, folder: Path) -> tuple[list[Row], list[str]]:
    """`check` and `scan` of large and many images; and what was left out."""
    rows: list[Row] = []
    left_out: list[str] = []

    def beside(name: str, words: list[str], other: str, theirs: list[str], most: int) -> None:
        ours = Contender(name, words, codes=(0, 4))
        them = Contender(other, theirs, [other.split(maxsplit=1)[0]] if other.startswith("vhd-util") else (), (0, 22))
        if them.missing:
            left_out.append(f"{other}: not installed")
        else:
            rows.append(compare(ours, them, min(pairs, most)))

    images.measure(folder, SMFIX, beside)
    return rows, left_out


def commit() -> str:
    """The commit that was measured, marked where the tree is not it."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def report(rows: Sequence[Row], left_out: Sequence[str]) -> str:
    """The table as Markdown."""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    about = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}"
    head = [
        "# Speed of the commands",
        "",
        f"Measured {now} at {commit()}: {about}. Written by `make bench`.",
        "",
        "Whole processes, in turns; a ratio below 1 means that smfix is faster. The repair is of an 8 GiB disk,",
        "half written, whose end footer was cut off. It includes steps that the others leave out: diagnosis, proof,",
        "a durable undo journal, a fresh look afterwards, and `vhd-util check -B` if that is installed.",
        "`vhd-util scan -f` reads less than a check: it passes missing footers and bad BATs.",
        "",
        "| smfix | beside | ms | ms | ratio | pairs |",
        "|---|---|---|---|---|---|",
    ]
    notes = ["", *(f"Left out: {note}." for note in left_out)] if left_out else []
    return "\n".join([*head, *(row.markdown() for row in rows), *notes]) + "\n"


def main() -> int:
    """Measure, print the table, write it unless ``--print``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs per row (15)")
    parser.add_argument("--print", action="store_true", help="print the table, write no file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smfix-bench-") as name:
        folder = Path(name)
        mount = folder / "sr-mount"
        (mount / SR).mkdir(parents=True)
        image, log = mount / SR / f"{VDI}.vhd", folder / "SMlog"
        make_log(log)
        footer = make_image(image)
        os.truncate(image, footer)
        rows = start_up(options.pairs, log, mount)
        more, left_out = repairs(options.pairs, image, footer, folder)
        rest, also = checks(options.pairs, folder / "images")
    text = report(rows + more + rest, left_out + also)
    print(text, end="")
    if not options.print:
        (HERE.parents[1] / "docs" / "evidence" / "speed.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
