"""How soon somebody who watches sees something, and how long nothing moves: ``smfix from-log`` on rotated logs.

    python tools/benchmarks/progress.py [--gib 3] [--keep DIR]

Makes a rotated set (two plain files, the others gzip), runs from-log on a pseudo terminal, first as a dry run, then
with --yes beside an SR that has a damaged disk of 1 TiB for every incident, and prints when the first and the last
bytes came and the longest time without any. A line counts only when it differs from the one before it. Not a test:
it measures the machine too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from smfix.formats.vhd import build  # noqa: E402

SMFIX = [sys.executable, "-m", "smfix"]
FILES = 6
MAKER = str(ROOT / "tools" / "benchmarks" / "make_smlog.py")


def make_logs(folder: Path, size: int) -> None:
    """SMlog, SMlog.1 and SMlog.2.gz to SMlog.5.gz, `size` bytes together when unpacked; the newest is made last."""
    for number in reversed(range(FILES)):
        plain = folder / ("SMlog" if number == 0 else f"SMlog.{number}")
        subprocess.run([sys.executable, MAKER, str(plain), str(size // FILES), str(number)], check=True)
        if number > 1:
            with plain.open("rb") as raw, gzip.open(f"{plain}.gz", "wb", 1) as packed:
                shutil.copyfileobj(raw, packed, 1 << 20)
            plain.unlink()


def make_disks(mount: Path, incidents: list[dict[str, Any]]) -> int:
    """A disk of 1 TiB with some blocks and no footer at its end, for each incident whose SR is known."""
    made = 0
    for one in incidents:
        if one["sr"] is None or len(one["vdi"]) < 36:
            continue
        disk = build.sparse(
            1 << 40, bytes.fromhex(one["vdi"].replace("-", "")), {n * 99: {0: b"x" * 512} for n in range(9)}
        )
        path = mount / one["sr"] / f"{one['vdi']}.vhd"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for write in disk.writes[:-1]:
                file.seek(write.offset)
                file.write(write.data)
            file.truncate(disk.size)
        made += 1
    return made


def watch(words: list[str]) -> tuple[int, list[tuple[float, str]]]:
    """Run on a terminal; the exit code, and when (seconds from the start) which new text came."""
    begun = time.monotonic()
    pid, master = pty.fork()
    if pid == 0:
        os.execv(words[0], words)
    seen: list[tuple[float, str]] = []
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        text = piece.decode(errors="replace")
        if not seen or text != seen[-1][1]:
            seen.append((time.monotonic() - begun, text))
    os.close(master)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seen.append((time.monotonic() - begun, ""))
    return code, seen


def told(what: str, code: int, seen: list[tuple[float, str]]) -> None:
    """One line: first sign, longest silence and what stood there meanwhile, the whole."""
    times = [0.0, *(at for at, _ in seen)]
    gaps = [(later - sooner, index) for index, (sooner, later) in enumerate(pairwise(times))]
    longest, index = max(gaps)
    before = "nothing yet" if index == 0 else ascii(seen[index - 1][1][-70:])
    print(
        f"{what}: exit {code}, first sign {times[1]:.2f} s, longest silence {longest:.2f} s "
        f"(at {times[index]:.2f} s, behind {before}), all {times[-1]:.1f} s"
    )
    for gap, at in sorted(gaps, reverse=True)[1:4]:
        print(f"    then {gap:.2f} s at {times[at]:.2f} s, behind {ascii(seen[at - 1][1][-60:]) if at else 'nothing'}")


def main() -> None:
    """Make, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=3)
    parser.add_argument("--keep", help="a folder for the logs; used again where they are there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(asked.keep or text) / "logs"
        if not folder.exists():
            folder.mkdir(parents=True)
            make_logs(folder, int(asked.gib * (1 << 30)))
        log, mount, journals = str(folder / "SMlog"), Path(text) / "sr-mount", Path(text) / "journal"
        mount.mkdir()
        options = ["--sr-mount", str(mount), "--journal-dir", str(journals)]
        told("dry run", *watch([*SMFIX, "from-log", str(folder), "--dry-run", *options]))
        done = subprocess.run([*SMFIX, "from-log", str(folder), "--json", *options], capture_output=True, check=False)
        incidents = json.loads(done.stdout)["incidents"]
        disks = make_disks(mount, incidents)
        print(f"{len(incidents)} incidents, {disks} disks")
        told("--yes", *watch([*SMFIX, "from-log", str(folder), "--yes", *options]))
        told("one file, --yes again", *watch([*SMFIX, "from-log", log, "--yes", *options]))
        told("check of the SRs", *watch([*SMFIX, "check", *map(str, mount.iterdir()), *options[:2]]))
        told("scan", *watch([*SMFIX, "scan", *options[:2]]))


if __name__ == "__main__":
    main()
