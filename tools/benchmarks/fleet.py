"""Fifty thousand hosts' outputs in one report: a synthetic fleet with its own truth, time, memory, and correct sums.

``python tools/benchmarks/fleet.py --write docs/evidence/fleet-speed.md``. The fleet is made in a folder that is
removed afterwards: pools of four hosts, each host with a local SR and all with the pool's shared one. The generator
adds up what it writes in the plainest way (sets of names), and the report must say the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from memory import private_kib
from run import commit

ROOT = Path(__file__).resolve().parents[2]
POOL = 4
_CODES = ("VHD101", "VHD102", "VHD103", "VHD301", "VHD401", "VHD501")
_ENDS = (
    ("repaired", None),
    ("repaired", None),
    ("repaired", None),
    ("would-repair", None),
    ("refused", "in-use"),
    ("refused", "needs-confirm"),
    ("refused", "no-fix"),
    ("valid", None),
    ("failed", None),
)
_GROUP = {"repaired": "repaired", "valid": "sound", "resolved": "sound"}
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Truth:
    """What the report must say, added up by the generator."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        self.trouble: set[str] = set()
        self.unreadable = 0
        self.images: set[str] = set()
        self.disks: dict[str, dict[str, Any]] = {}

    def disk(self, sr: str, vdi: str, status: str, code: str | None, first: datetime, reason: str | None) -> None:
        """A disk as the strongest host says it: the caller tells that one."""
        self.disks[f"{sr}/{vdi}"] = {"sr": sr, "status": status, "code": code, "first": first, "reason": reason}

    def sums(self) -> dict[str, Any]:
        """The numbers of the report's summary, of its SRs and of its causes."""
        groups = Counter(_GROUP.get(one["status"], "left") for one in self.disks.values())
        return {
            "hosts": len(self.hosts),
            "hosts_in_trouble": len(self.trouble),
            "unreadable": self.unreadable,
            "images": len(self.images),
            "srs": len({one["sr"] for one in self.disks.values()}),
            "disks": len(self.disks),
            **{name: groups[name] for name in ("repaired", "sound", "left")},
            "since": min(one["first"] for one in self.disks.values()).isoformat(),
            "reasons": dict(Counter(one["reason"] for one in self.disks.values() if one["reason"])),
            "by_sr": dict(Counter(one["sr"] for one in self.disks.values())),
            "by_cause": dict(Counter(one["code"] or "footer-invalid" for one in self.disks.values())),
        }


def told(document: dict[str, Any]) -> dict[str, Any]:
    """The same numbers, as the report has them."""
    summary = document["summary"]
    names = ("hosts", "hosts_in_trouble", "images", "srs", "disks", "repaired", "sound", "left", "since", "reasons")
    return {
        **{name: summary[name] for name in names},
        "unreadable": document["sources"]["unreadable"],
        "by_sr": {one["sr"]: one["disks"] for one in document["srs"]},
        "by_cause": {one["cause"]: one["disks"] for one in document["causes"]},
    }


def uuid(chance: random.Random) -> str:
    """A UUID that looks like one."""
    digits = f"{chance.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def make(folder: Path, hosts: int, seed: int = 1) -> Truth:
    """Write the outputs of `hosts` hosts into `folder`; what is in them."""
    chance, truth = random.Random(seed), Truth()
    for first in range(0, hosts, POOL):
        names = [f"pool{first // POOL:05}-host{n}" for n in range(min(POOL, hosts - first))]
        silent = {name for name in names if chance.random() < 0.01}
        truth.hosts.update(names)
        truth.trouble.update(silent)
        for name in silent:
            _save(
                folder, f"{name}.json", {"schema": "smfix.error/1", "message": f"{name}: No route to host", "exit": 8}
            )
        _pool(folder, [name for name in names if name not in silent], chance, truth)
    return truth


def _pool(folder: Path, names: list[str], chance: random.Random, truth: Truth) -> None:
    """The hosts of one pool that answer: incidents on the shared SR, told by all of them, and each one's own."""
    shared, incidents = uuid(chance), {name: list[dict[str, Any]]() for name in names}
    images = [uuid(chance) for _ in range(20)]
    for _ in range(chance.randrange(3) if names else 0):
        vdi, first = uuid(chance), _START + timedelta(minutes=chance.randrange(400_000))
        master, code = chance.choice(names), chance.choice(_CODES)
        for name in names:
            end = ("repaired", None) if name == master else ("refused", "shared-sr-unknown")
            # The master's log has the whole name, some others' only eight digits of it.
            known = vdi if name == master or chance.random() < 0.7 else vdi[:8]
            incidents[name].append(_incident(known, shared, end, code, first))
        truth.disk(shared, vdi, "repaired", code, first, None)
    for name in names:
        local = uuid(chance)
        for _ in range(chance.randrange(5)):
            vdi, first = uuid(chance), _START + timedelta(minutes=chance.randrange(400_000))
            how: Any = chance.choice((*_ENDS, None, "resolved"))
            told = _incident(vdi, local, how, chance.choice(_CODES), first)
            incidents[name].append(told)
            outcome = told["outcome"]
            cause = outcome["findings"][0]["code"] if outcome and outcome["findings"] else None
            status = outcome["status"] if outcome else "resolved" if how == "resolved" else "reported"
            truth.disk(local, vdi, status, cause, first, outcome["reason"] if outcome else None)
        own = [uuid(chance) for _ in range(chance.randrange(30))]
        seen = [*((shared, one) for one in images), *((local, one) for one in own)]
        truth.images.update(f"{sr}/{vdi}" for sr, vdi in seen)
        _save(
            folder,
            f"{name}.from-log.json",
            {"schema": "smfix.from-log/1", "log": _LOG, "incidents": incidents[name], "rescans": [], "exit": 0},
        )
        _save(
            folder, f"{name}.scan.json", {"schema": "smfix.scan/1", "images": [_image(*one) for one in seen], "exit": 0}
        )
        if chance.random() < 0.005:  # and a third file that was cut short
            (folder / f"{name}.status.json").write_text('{"schema": "smfix.status/1", "followers": [{')
            truth.trouble.add(name)
            truth.unreadable += 1


_LOG = {
    "files": ["/var/log/SMlog"],
    "bytes": 1,
    "first": None,
    "last": None,
    "year_assumed": False,
    "zone_assumed": False,
    "since": None,
    "until": None,
}
_NAMES: dict[str, Any] = {"vdi": None, "sr": None, "vms": []}


def _save(folder: Path, name: str, document: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(document, indent=1))


def _incident(vdi: str, sr: str, end: Any, code: str, first: datetime) -> dict[str, Any]:
    path = f"/run/sr-mount/{sr}/{vdi}.vhd" if len(vdi) == 36 else None
    outcome = None
    if isinstance(end, tuple):
        status, reason = end
        finding = {
            "code": code,
            "title": "t",
            "message": "m" * 80,
            "severity": "error",
            "disposition": "SAFE",
            "lossy": False,
            "facts": {},
        }
        outcome = {
            "status": status,
            "reason": reason,
            "message": f"{status}: " + "w" * 60,
            "findings": [] if status == "valid" else [finding],
            "plan": None,
            "remaining": [],
            "lost_sectors": 0,
            "journal": None,
            "undo": None,
            "next": [],
        }
    text = (
        "SMGC: [26919] coalesce: EXCEPTION <class 'util.SMException'>, VHD *" + vdi[:8] + "(40.000G/14.271G) corrupted"
    )
    return {
        "id": vdi[:8],
        "vdi": vdi,
        "sr": sr,
        "path": path,
        "names": _NAMES,
        "kinds": ["footer-invalid"],
        "first_seen": first.isoformat(),
        "last_seen": (first + timedelta(hours=5)).isoformat(),
        "count": 2,
        "state": "resolved" if end == "resolved" else "open",
        "evidence": [{"file": "/var/log/SMlog", "line": 7, "text": text}] * 3,
        "outcome": outcome,
    }


def _image(sr: str, vdi: str) -> dict[str, Any]:
    return {
        "path": f"/run/sr-mount/{sr}/{vdi}.vhd",
        "vdi": vdi,
        "sr": sr,
        "verdict": "valid",
        "size": 1 << 30,
        "end_of_data": 1 << 30,
        "virtual_size": 1 << 34,
        "allocated": 9,
        "aligned": True,
        "hidden": False,
        "in_use": "none",
        "uuid": vdi,
        "parent_uuid": None,
        "parent": None,
        "depth": 0,
        "standing": "root",
        "findings": [],
        "note": None,
        "names": _NAMES,
    }


def measure(folder: Path, out: Path, *words: str) -> tuple[float, float, float, int]:
    """Run the report: seconds, MiB of private memory at its most, MiB in files without a name, exit code.

    Looking costs something too: twenty times a second.
    """
    before = time.monotonic()
    line = [sys.executable, "-m", "smfix", "fleet", "report", str(folder), *words]
    memory, files = 0, 0
    with (
        out.open("wb") as stream,
        subprocess.Popen(line, stdout=stream, stderr=subprocess.DEVNULL, cwd=ROOT) as process,
    ):
        while process.poll() is None:
            memory, files = max(memory, private_kib(process.pid)), max(files, _unnamed(process.pid))
            time.sleep(0.05)
    return time.monotonic() - before, memory / 1024, files / (1 << 20), process.returncode


def _unnamed(pid: int) -> int:
    """Bytes on the disk of the files without a name that a process has open."""
    size = 0
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                about = link.stat()
                size += 512 * about.st_blocks * (stat.S_ISREG(about.st_mode) and about.st_nlink == 0)
    return size


def main() -> int:
    """Make, measure, compare; 1 where a sum is not the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    rows, wrong = [], 0
    for hosts in options.hosts:
        with tempfile.TemporaryDirectory() as place:
            folder, out = Path(place, "results"), Path(place, "report.json")
            folder.mkdir()
            truth = make(folder, hosts)
            files = list(folder.iterdir())
            size = sum(path.stat().st_size for path in files)
            words = ("--json", "--html", str(Path(place, "report.html")))
            runs = [measure(folder, out, *words) for _ in range(options.runs)]
            document = json.loads(out.read_text())
            have, want = told(document), truth.sums()
            same = have == want and document["summary"]["complete"]
            for name in sorted(name for name in want if have[name] != want[name]):
                print(f"{hosts} hosts: {name}: report {str(have[name])[:200]}, truth {str(want[name])[:200]}")
            wrong += not same
            seconds, _, _, code = min(runs)
            memory, spilled = max(run[1] for run in runs), max(run[2] for run in runs)
            rows.append(
                f"| {hosts:,} | {len(files):,} | {size / 1e6:,.0f} MB | {have['disks']:,} | {have['images']:,} | "
                f"{seconds:.1f} s | {memory:.0f} MiB | {spilled:.0f} MiB | {code} | {'yes' if same else 'NO'} |"
            )
            print(rows[-1], flush=True)
    page = PAGE.format(
        day=datetime.now(UTC).date(),
        commit=commit(),
        python=platform.python_version(),
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        runs=options.runs,
        rows="\n".join(rows),
    )
    print(page)
    if options.write and not wrong:
        options.write.write_text(page, encoding="utf-8")
    return 1 if wrong else 0


PAGE = """# Speed on a fleet

Measured {day} at {commit} with `tools/benchmarks/fleet.py`: Python {python}, {cores} cores, Linux, page cache, `smfix
fleet report FOLDER --json --html FILE`; the least time of {runs}, the most memory of them. Load: {load:.1f}.

| hosts | files | size | disks in trouble | images | time | private memory | temporary | exit | sums are right |
|---|---|---|---|---|---|---|---|---|---|
{rows}

The fleet: pools of four, each host with its own SR and all with the pool's; each shared disk is reported by every host
of the pool and counts once; 1 host in 100 cannot be reached, 1 in 200 has a file that was cut short. The sums: hosts,
those in trouble, unreadable files, images, SRs, disks, repaired, sound, left, the first report, reasons, and the disks
of every SR and of every cause.

The memory is that of all processes together: one for each core reads, one adds up. The reports are sorted in
unnamed files below TMPDIR (`smfix/fleet/sorted_store.py`), so it does not grow with the fleet; but the names of all
hosts of one SR are in memory while that SR is added up, and a document is, whole, while it is read (32 MiB at most).
"""


if __name__ == "__main__":
    sys.exit(main())
