"""What becomes of an image when a repair is struck at any of its system calls.

One repair is traced with strace; then it is run again once for each call that changes anything (write,
fsync, rename, truncate, mkdir, unlink; on the image, the journal, the folders, the lock) and each fault:
SIGKILL before the call, EIO, ENOSPC. The process is the real command line. Afterwards the image must be
as before or repaired, or the next `smfix repair` must bring the repaired bytes, and `smfix undo` the old
ones. Run as a program it prints the table (``--write FILE`` for docs/evidence/fault-table.md).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from smfix.formats.vhd.build import Made, sparse

ROOT = Path(__file__).resolve().parents[1]
SMFIX = (sys.executable, "-m", "smfix")
PYTHONPATH = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
FAULTS = {"SIGKILL": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
SR, VDI = "7a142a29-9556-ee47-1e04-1a8517813369", "1d994938-058e-102f-80dc-001ec95cb0b6"
CHANGING = (
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "fsync", "fdatasync", "sync_file_range"),
    *("ftruncate", "truncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat"),
    *("unlink", "unlinkat", "mkdir", "mkdirat"),
)
_CALL = re.compile(rf"^(?P<name>{'|'.join(CHANGING)})\((?P<rest>.*)$")
_FIRST = re.compile(r"^(?:\d+<(?P<open>[^>]*)>|\"(?P<named>[^\"]*)\")")


# --------------------------------------------------------------------------- what is repaired


@dataclass(frozen=True)
class Case:
    """One kind of edit: `damage` makes the image to be repaired from a sound one."""

    name: str
    damage: Callable[[bytes, Made], bytes]
    undo: bool = False
    device: bool = False
    recovery: bool = False
    """The command is the next repair after one that was killed between its writes."""


def _append(raw: bytes, made: Made) -> bytes:
    return raw[:-512]


def _overwrite(raw: bytes, made: Made) -> bytes:
    return bytes(512) + raw[512:]


def _grow(raw: bytes, made: Made) -> bytes:
    # Inside the last block, behind its written sectors, in the middle of a sector.
    return raw[: made.places[0] + 512 + 4096 + 100]


def _several(raw: bytes, made: Made) -> bytes:
    assert made.header is not None
    cut = bytearray(_grow(raw, made))
    cut[made.header.bat_extent.end + 24] ^= 1  # the batmap's checksum
    return bytes(cut)


def _device(raw: bytes, made: Made) -> bytes:
    return raw[:-512] + bytes(64 << 10)


def _device_several(raw: bytes, made: Made) -> bytes:
    assert made.header is not None
    damaged = bytearray(_device(raw, made))
    damaged[made.header.bat_extent.end + 24] ^= 1
    return bytes(damaged)


CASES = (
    Case("append: the end footer is lost", _append),
    Case("write inside: the backup footer is lost", _overwrite),
    Case("grow, then append: cut off inside the last block", _grow),
    Case("several: batmap damaged, cut off inside the last block", _several),
    Case("undo of the several", _several, undo=True),
    Case("recovery of the several, killed between, and the repair after it", _several, recovery=True),
    Case("block device: the footer in its last sector is lost", _device, device=True),
    Case("block device, several: and the batmap damaged", _device_several, device=True),
    Case("undo of the several on the block device", _device_several, undo=True, device=True),
)


def sound() -> tuple[bytes, Made]:
    """A disk of 4 MiB with some written sectors in both blocks, the second one first in the file."""
    blocks = {1: {n: bytes([n + 1]) * 512 for n in range(9)}, 0: {n: bytes([n + 65]) * 512 for n in range(7)}}
    made = sparse(4 << 20, bytes(range(16)), blocks)
    return made.to_bytes(), made


# --------------------------------------------------------------------------- one place to do it in


@dataclass(frozen=True)
class Kept:
    """What the command can change: the image's bytes, and the files of the state folder."""

    image: bytes
    files: dict[Path, bytes]


@dataclass
class Bench:
    """A folder with the SR, the journals and (for a device) the loop device of one case."""

    case: Case
    folder: Path
    damaged: bytes = b""
    device: str | None = None
    journal: str = ""
    start: Kept | None = None

    def __enter__(self) -> Self:
        self.damaged = self.case.damage(*sound())
        self.image.parent.mkdir(parents=True)
        if self.case.device:
            self.image.write_bytes(self.damaged)
            self.device = _run("losetup", "--find", "--show", str(self.image)).stdout.strip()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device:
            _run("losetup", "--detach", self.device)

    @property
    def image(self) -> Path:
        return self.folder / "sr" / SR / f"{VDI}.vhd"

    @property
    def target(self) -> str:
        return self.device or str(self.image)

    @property
    def journals(self) -> Path:
        return self.folder / "state" / "journal"

    def reset(self) -> None:
        """Where the case's command starts: the damaged image and no journal, or one to be undone."""
        if self.start is None:
            self._put(self.damaged)
            if self.case.undo or self.case.recovery:
                self.journal = outcome(self.smfix("repair"))["journal"]
            if self.case.recovery:
                # The batmap is mended, the file not yet longer.
                name = self.journals / self.journal
                name.with_suffix(".verified").rename(name.with_suffix(".unfinished"))
                self._put(self.bytes()[: len(self.damaged)])
            self.start = self.keep()
        self.restore(self.start)

    def keep(self) -> Kept:
        """The image and the state folder as they are now."""
        state = self.folder / "state"
        files = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} if state.exists() else {}
        return Kept(self.bytes(), files)

    def restore(self, kept: Kept) -> None:
        """Put both back; the image keeps its inode."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        for path, data in kept.files.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
        self._put(kept.image)

    def _put(self, data: bytes) -> None:
        Path(self.target).write_bytes(data)
        if self.device:
            os.sync()

    def smfix(self, command: str, *words: str, strace: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`smfix repair` of the image, or `smfix undo` of a journal, as a process of its own."""
        what = words or ((self.target,) if command == "repair" else (self.journal,))
        options = ("--yes", "--json", "--journal-dir", str(self.journals))
        if not self.device and command == "repair":
            options += ("--sr-mount", str(self.folder / "sr"))
        environment = {
            "PATH": "/nonexistent",  # no vhd-util: its system calls are not ours
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": PYTHONPATH,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [*strace, *SMFIX, command, *options, *what],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=120,
        )

    def bytes(self) -> bytes:
        if not self.device:
            return self.image.read_bytes()
        # Past this process's cache of the device.
        with open(self.device, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.readall()

    def open_journals(self) -> list[str]:
        """Ids of the journals of a repair or an undo that did not end."""
        found = self.journals.iterdir() if self.journals.exists() else ()
        return sorted(path.stem for path in found if path.suffix in (".unfinished", ".undoing"))

    def traced(self, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """The case's command below strace, and the lines of the trace."""
        trace = self.folder / "trace"
        trace.unlink(missing_ok=True)
        # -f writes the pid before each line, and allows the fast filter below. strace counts the calls of each process
        # by itself, so the lines of children (the second opinion, a probe of storage) are left out.
        strace = (STRACE, "-f", "-y", "-o", str(trace), *options)
        done = self.smfix("undo" if self.case.undo else "repair", strace=strace)
        parted = [line.partition(" ") for line in trace.read_text(errors="replace").splitlines()]
        first = min((int(pid) for pid, _, _ in parted), default=0)  # children have later pids
        return done, [rest.lstrip() for pid, _, rest in parted if int(pid) == first]


STRACE = shutil.which("strace") or "strace"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


def outcome(done: subprocess.CompletedProcess[str]) -> dict:
    """The one OUTCOME of a `--json` run; empty where the process died or said nothing."""
    try:
        document = json.loads(done.stdout)
    except ValueError:
        return {}
    return document["images"][0]["outcome"] if "images" in document else document.get("outcome", document)


# --------------------------------------------------------------------------- the calls


@dataclass(frozen=True)
class Call:
    """The call number `number` (from 1) of `name` in the process; `on` is what it is about."""

    name: str
    number: int
    on: str

    def __str__(self) -> str:
        return f"{self.name.removesuffix('64').removesuffix('at')} {self.on}"


def _about(name: str, rest: str, bench: Bench) -> str:
    """What the traced call `name(rest` acts on, in a word."""
    if bench.target in rest or str(bench.image) in rest:
        return "image"
    match = _FIRST.match(rest)
    path = (match["open"] or match["named"]) if match else ""
    journals = str(bench.journals)
    if path == journals:
        # Names are changed below the folder's descriptor.
        return "journal" if name.startswith(("rename", "unlink")) else "journal folder"
    if path.startswith(journals):
        return "journal"
    if path.startswith(str(bench.folder)):
        return "folder above the journals"
    if path.endswith(".lock") or '.lock"' in rest:
        return "lock"
    if path.startswith(("pipe:", "/dev/null", "/dev/pts")):
        return "output"
    return "lock folder" if path.startswith("/run") else "other"


def calls(bench: Bench) -> list[Call]:
    """Every changing call of the case's command, in order, but for its output."""
    bench.reset()
    _, lines = bench.traced("-e", f"trace={','.join('?' + name for name in CHANGING)}")
    counted: Counter[str] = Counter()
    found = []
    for line in lines:
        match = _CALL.match(line)
        if match:
            counted[match["name"]] += 1
            on = _about(match["name"], match["rest"], bench)
            if on != "output":
                found.append(Call(match["name"], counted[match["name"]], on))
    return found


# --------------------------------------------------------------------------- the faults


@dataclass
class Struck:
    """What one fault at one call led to."""

    case: str
    call: Call
    fault: str
    exit: int
    status: str
    image: str
    open: bool
    ways: dict[str, bool] = field(default_factory=dict)

    @property
    def is_safe(self) -> bool:
        """As before or repaired, or brought back; and whatever it is, both ways end well."""
        return all(self.ways.values()) and (self.image != "between" or self.open)

    @property
    def then(self) -> str:
        said = [f"{way}: {'yes' if worked else 'NO'}" for way, worked in self.ways.items()]
        return "; ".join(said)


def strike(bench: Bench, call: Call, fault: str, before: bytes, after: bytes) -> Struck:
    """Run the case's command with `fault` at `call`, look, and go both ways from there.

    `before` and `after` are the bytes the command starts from and the ones it leads to.
    """
    bench.reset()
    options = ("-e", f"trace={call.name}", "-e", f"inject={call.name}:{FAULTS[fault]}:when={call.number}")
    # With the filter only the calls that are looked for stop the process; a signal would be lost then.
    done, lines = bench.traced(*options, *(() if fault == "SIGKILL" else ("--seccomp-bpf",)))
    marked = [line for line in lines if "INJECTED" in line or "killed by SIGKILL" in line]
    assert marked, (call, fault, lines[-3:])
    if fault != "SIGKILL":
        assert _about(call.name, marked[0].partition("(")[2], bench) == call.on, (call, marked)
    damaged, repaired = (after, before) if bench.case.undo else (bench.damaged, after)
    left = bench.keep()
    words = {damaged: "put back", before: "as before", after: "repaired" if not bench.case.undo else "undone"}
    said = outcome(done)
    struck = Struck(
        bench.case.name,
        call,
        fault,
        done.returncode,
        "killed" if done.returncode < 0 else said.get("status", "?"),
        words.get(left.image, "between"),
        bool(bench.open_journals()),
    )
    assert "Traceback" not in done.stderr, done.stderr
    bench.smfix("repair")
    struck.ways["next repair"] = bench.bytes() == repaired and not bench.open_journals()
    if struck.open:
        bench.restore(left)
        for journal in bench.open_journals()[::-1]:
            bench.smfix("undo", journal)
        struck.ways["undo"] = bench.bytes() == damaged and not bench.open_journals()
    return struck


def strike_all(
    case: Case, faults: tuple[str, ...] = tuple(FAULTS), at: Callable[[Call], bool] = lambda call: True
) -> Iterator[Struck]:
    """Every fault at every call of one case; `at` chooses calls."""
    with tempfile.TemporaryDirectory(prefix="smfix-faults-") as folder, Bench(case, Path(folder)) as bench:
        bench.reset()
        before = bench.bytes()
        done = bench.smfix("undo" if case.undo else "repair")
        after = bench.bytes()
        assert after != before, (done.stdout, done.stderr)
        for call in filter(at, calls(bench)):
            for fault in faults:
                yield strike(bench, call, fault, before, after)


# --------------------------------------------------------------------------- the table


def table(rows: list[Struck]) -> str:
    """The rows as Markdown, one table for each case, equal outcomes of several faults in one line."""
    lines: list[str] = []
    for name in dict.fromkeys(row.case for row in rows):
        lines += ["", f"## {name}", "", "| # | system call | fault | exit | status | image then | brought back by |"]
        lines.append("|---|---|---|---|---|---|---|")
        numbers = {call: number for number, call in enumerate(dict.fromkeys(r.call for r in rows if r.case == name), 1)}
        merged: dict[tuple[object, ...], list[str]] = {}
        for row in (row for row in rows if row.case == name):
            end = "-" if row.exit < 0 else row.exit
            image = row.image + (", journal open" if row.open else "")
            merged.setdefault((numbers[row.call], row.call, end, row.status, image, row.then), []).append(row.fault)
        for (number, call, end, status, image, then), faults in merged.items():
            lines.append(f"| {number} | {call} | {', '.join(faults)} | {end} | {status} | {image} | {then} |")
    return "\n".join(lines)


def main() -> int:
    """Strike, print the table, and say how many images were lost (exit code 1 if any)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the table there")
    parser.add_argument("--only", metavar="WORD", default="", help="the cases whose name begins so")
    given = parser.parse_args()
    rows: list[Struck] = []
    for case in CASES:
        if not case.name.startswith(given.only):
            continue
        if case.device and os.geteuid() != 0:
            print(f"left out, not root: {case.name}", file=sys.stderr)
            continue
        for struck in strike_all(case):
            rows.append(struck)
            print(
                f"{struck.case[:12]:12} {struck.call!s:24} {struck.fault:8}",
                struck.status,
                struck.then,
                file=sys.stderr,
            )
    unsafe = [row for row in rows if not row.is_safe]
    git = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*")
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    text = (
        "# Faults: every changing system call of a repair, struck\n\n"
        "Made by `python tools/faults.py --write docs/evidence/fault-table.md` (method: the module's docstring); "
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}.\n\n"
        f"{len(rows)} faults at {len({(row.case, row.call) for row in rows})} calls: "
        f'**{len(unsafe)} images lost**. SIGKILL strikes before the call is carried out. "Brought back by": '
        "the next `smfix repair` leads to the repaired bytes; if a journal is open, `smfix undo` leads to the "
        "old ones.\n" + table(rows) + "\n"
    )
    if given.write:
        given.write.write_text(text)
    else:
        print(text)
    return 1 if unsafe or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
