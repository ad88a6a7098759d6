"""``vhd-util coalesce`` interrupted for real: killed at random moments, killed at every write, out of space.

``python -m matrix.interruptions [--kills N] [--report FILE]``. A chain as the storage manager has it (base, middle,
leaf); the middle is merged into the base, or the leaf into the middle. After each interruption: ``smfix repair
--yes`` with the children beside it, ``vhd-util check``, the coalesce once more, and the guest disk against that of an
undisturbed merge, read by :mod:`matrix.reader`. Needs vhd-util; strace for the sweep, root for the full file system.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from matrix import bases, reader, sections, treatments, writer
from matrix.writer import ALL

BASE, MIDDLE, LEAF = bases.PARENT, bases.VDI, bases.CHILD
MIB = 1 << 20


@dataclass
class Tally:
    """What came of the runs of one way to interrupt. `bad` are sentences; none may remain."""

    title: str
    runs: int = 0
    states: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    while_full: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


@dataclass
class Chain:
    """The chain in `folder`; `keep` has it as it was. `child` is merged into `parent`."""

    folder: Path
    keep: Path
    parent: str
    child: str
    truth: bytes
    seconds: float = 0.0

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.vhd"

    def restore(self) -> None:
        """The parent as it was before any coalesce; nobody writes to the others."""
        shutil.copyfile(self.keep / f"{self.parent}.vhd", self.path(self.parent))

    def coalesce(self) -> list[str]:
        return ["vhd-util", "coalesce", "-n", str(self.path(self.child))]


def build(home: Path, parent: str, child: str) -> Chain:
    """Make the chain, and merge it once undisturbed to know the truth and how long it takes."""
    folder, keep = treatments.fresh(home / "sr"), treatments.fresh(home / "keep")
    base, middle, leaf = (folder / f"{name}.vhd" for name in (BASE, MIDDLE, LEAF))
    bases.create(base, 64)
    bases.coalesce(base, {0: ALL, 3: ((0, 2000),), 9: ((100, 4000),), 20: ALL}, "base")
    bases.snapshot(base, middle)
    many = {number: ALL if number % 3 else ((number, 4000 - number),) for number in (0, 3, *range(5, 18), 31)}
    writer.put(middle, many, "middle")
    bases.snapshot(middle, leaf)
    writer.put(leaf, {1: ALL, 5: ((0, 3000),), 9: ALL, 22: ((5, 4091),), 23: ALL, 24: ((0, 8),)}, "leaf")
    for path in folder.iterdir():
        shutil.copyfile(path, keep / path.name)
    chain = Chain(folder, keep, parent, child, b"")
    begun = time.monotonic()
    bases.run(*chain.coalesce())
    chain.seconds = time.monotonic() - begun
    chain.truth = merged(chain)
    return chain


def merged(chain: Chain) -> bytes:
    """The guest disk of the parent, through its own parent where it has one."""
    above = reader.guest(chain.path(BASE).read_bytes()) if chain.parent == MIDDLE else None
    return reader.guest(chain.path(chain.parent).read_bytes(), above) or b""


# --------------------------------------------------------------------------- ways to interrupt


def killed(chain: Chain, chance: random.Random) -> str:
    """SIGKILL at a random moment; how the coalesce ended."""
    process = subprocess.Popen(chain.coalesce(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(chance.uniform(0, chain.seconds * 1.1))
    process.send_signal(signal.SIGKILL)
    return "completed" if process.wait() == 0 else "killed"


WRITES = ("pwrite64", "ftruncate")
"""The system calls by which ``vhd-util coalesce`` changes an image."""


def killed_at_write(chain: Chain, call: str, number: int) -> str:
    """SIGKILL when it asks for its `call` number `number` (from 1): that write does not happen."""
    inject = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e"]
    inject.append(f"inject={call}:signal=KILL:when={number}")
    done = subprocess.run([*inject, *chain.coalesce()], capture_output=True, check=False)
    return "completed" if done.returncode == 0 else "killed"


@contextmanager
def small_file_system(home: Path, size: int) -> Iterator[Path | None]:
    """A loop-mounted ext4 of `size` bytes; None where this user may not."""
    image, mount = home / "small.img", home / "small"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, env=environment, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True, env=environment, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, env=environment)


# --------------------------------------------------------------------------- what must hold afterwards


def smfix(chain: Chain, journals: Path) -> dict:
    """``smfix repair --yes --json`` on the parent: its outcome."""
    words = [sys.executable, "-m", "smfix", "repair", "--yes", "--json", "--journal-dir", str(journals)]
    done = subprocess.run([*words, str(chain.path(chain.parent))], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["images"][0]["outcome"]


def state(chain: Chain) -> str:
    """What ``vhd-util check`` says of the parent, without the numbers."""
    line = treatments.vhd_util_check(chain.path(chain.parent)).line
    return re.sub(r"block \d+ \(offset 0x[0-9a-f]+\)", "block N", line).replace("IMAGE is valid", "valid")


def settle(chain: Chain, tally: Tally, what: str, journals: Path) -> None:
    """Repair, check, merge again, compare."""
    tally.states[state(chain)] += 1
    outcome = smfix(chain, journals)
    codes = ",".join(sorted({f["code"] for f in outcome["findings"] if f["severity"] == "error"}))
    tally.outcomes[f"{outcome['status']} {codes}".strip()] += 1
    if outcome["status"] not in ("valid", "repaired"):
        tally.bad.append(f"{what}: smfix: {outcome['status']}: {codes}: {outcome['message']}")
        return
    if outcome["lost_sectors"]:
        tally.bad.append(f"{what}: {outcome['lost_sectors']} sectors named as lost")
    said = treatments.vhd_util_check(chain.path(chain.parent))
    if not said.is_valid:
        tally.bad.append(f"{what}: vhd-util check after smfix: {said.line}")
    again = subprocess.run(chain.coalesce(), capture_output=True, check=False)
    if again.returncode:
        tally.bad.append(f"{what}: the coalesce does not complete: exit {again.returncode}")
    elif merged(chain) != chain.truth:
        tally.bad.append(f"{what}: the merged disk differs from the undisturbed merge")


def run_kills(home: Path, count: int, seed: int) -> Tally:
    tally = Tally("SIGKILL at a random moment")
    chance = random.Random(seed)
    for parent, child in ((BASE, MIDDLE), (MIDDLE, LEAF)):
        chain = build(home, parent, child)
        for number in range(-(-count // 2)):
            chain.restore()
            killed(chain, chance)
            settle(chain, tally, f"kill {number} of {child[:4]} into {parent[:4]}", treatments.fresh(home / "journals"))
            tally.runs += 1
    return tally


def run_sweep(home: Path) -> Tally:
    tally = Tally("SIGKILL at every single write (strace)")
    for parent, child in ((BASE, MIDDLE), (MIDDLE, LEAF)):
        chain = build(home, parent, child)
        for call in WRITES:
            for number in range(1, 10_000):
                chain.restore()
                if killed_at_write(chain, call, number) == "completed":
                    break
                what = f"{call} {number} of {child[:4]}"
                settle(chain, tally, what, treatments.fresh(home / "journals"))
                tally.runs += 1
    return tally


def run_full(home: Path, count: int, seed: int) -> Tally | None:
    """The file system runs full at another place each time; smfix while it is full, and with room again."""
    tally = Tally("file system full")
    chance = random.Random(seed)
    with small_file_system(home, 160 * MIB) as mount:
        if mount is None:
            return None
        chain = build(mount, BASE, MIDDLE)
        shutil.copytree(chain.keep, home / "kept")
        shutil.rmtree(chain.keep)
        chain.keep = home / "kept"
        filler = mount / "filler"
        for number in range(count):
            filler.unlink(missing_ok=True)
            chain.restore()
            room = chance.randrange(0, 30 * MIB, 4096)
            free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(4096, free - room))
            done = subprocess.run(chain.coalesce(), capture_output=True, check=False)
            if done.returncode == 0:
                tally.states["room enough"] += 1
                tally.runs += 1
                continue
            before = state(chain)
            first = smfix(chain, treatments.fresh(home / "journals"))
            tally.while_full[f"{before}: {first['status']}"] += 1
            filler.unlink()
            settle(chain, tally, f"full {number}, {room} bytes free", treatments.fresh(home / "journals"))
            tally.runs += 1
    return tally


def tell(tallies: list[Tally], seconds: float) -> str:
    """The part of docs/evidence/matrix.md."""
    lines = ["## Interrupted coalesces", "", f"{sections.stamp()}; {seconds:.0f} s.", ""]
    lines += ["| | runs | parent valid after smfix, coalesce completes, same bytes | else |", "|---|---|---|---|"]
    lines += [f"| {t.title} | {t.runs} | {t.runs - len(t.bad)} | {len(t.bad)} |" for t in tallies]
    for tally in tallies:
        lines += ["", f"{tally.title}: what `vhd-util check` said before smfix, and what smfix did:", ""]
        lines += [f"* {count} x {name}" for name, count in tally.states.most_common()]
        lines.append(f"* smfix: {', '.join(f'{count} {name}' for name, count in tally.outcomes.most_common())}")
        if tally.while_full:
            said = ", ".join(f"{count} x {name}" for name, count in tally.while_full.most_common())
            lines.append(f"* smfix while it was still full: {said}")
        lines += [f"* **not so**: {sentence}" for sentence in tally.bad[:40]]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run them; 0 when every parent came back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--report", type=Path, help="put the result into this document")
    options = parser.parse_args()
    begun = time.monotonic()
    ways: list[Callable[[Path], Tally | None]] = [lambda home: run_kills(home, options.kills, options.seed)]
    if shutil.which("strace") and not options.no_sweep:
        ways.append(run_sweep)
    if os.geteuid() == 0:
        ways.append(lambda home: run_full(home, options.full, options.seed))
    tallies = []
    for way in ways:
        with tempfile.TemporaryDirectory(prefix="smfix-interrupted-") as home:
            tally = way(Path(home))
        if tally is not None and tally.runs:
            tallies.append(tally)
    text = tell(tallies, time.monotonic() - begun)
    print(text)
    if options.report:
        sections.put(options.report, "interruptions", text)
    return int(any(tally.bad for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
