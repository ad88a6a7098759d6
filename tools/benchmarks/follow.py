"""How long from the log line to the verified repair, and what the follower costs while nothing happens.

``python tools/benchmarks/follow.py [--repairs N] [--idle SECONDS]``. The clock starts right before the line is
written and stops when the event `repaired` can be read on the follower's stdout: the write of the line,
inotify, the time in which a record settles, diagnosis, plan, proof, journal, write, verification, state.
The share of fsync is taken by strace in a run of its own, for tracing costs time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from smfix.formats.vhd import build
from smfix.smlog.scanner import SETTLE

ROOT = Path(__file__).resolve().parents[2]
SR = "7a142a29-9556-ee47-1e04-1a8517813369"
SIZE = 64 << 20
_SYNC = re.compile(r"\b(?:fsync|fdatasync)\(.*<(?P<seconds>[0-9.]+)>")


class Bench:
    """A throw-away SR, its log, and a follower of it."""

    def __init__(self, folder: str, repairs: int) -> None:
        self.folder = folder
        self.log = os.path.join(folder, "SMlog")
        self.vdis = [str(UUID(int=(number + 1) << 96 | 0xBE)) for number in range(repairs)]
        os.makedirs(os.path.join(folder, "sr-mount", SR))
        Path(self.log).touch()
        for vdi in self.vdis:
            image = build.sparse(SIZE, UUID(vdi).bytes, {0: {3: b"x" * 512}}).to_bytes()
            Path(folder, "sr-mount", SR, f"{vdi}.vhd").write_bytes(image[:-512])

    def start(self, *wrapper: str) -> subprocess.Popen[bytes]:
        """The follower, ready."""
        line = [
            *wrapper, sys.executable, "-m", "smfix", "from-log", "-f", self.log, "--yes", "--json", "--no-rescan",
            "--sr-mount", f"{self.folder}/sr-mount", "--journal-dir", f"{self.folder}/journal",
            "--state-dir", f"{self.folder}/state",
        ]  # fmt: skip
        process = subprocess.Popen(line, stdout=subprocess.PIPE, cwd=ROOT)
        while not any(Path(self.folder).glob("state/*.json")):
            time.sleep(0.01)
        return process

    def report(self, vdi: str) -> bytes:
        """What SM logs of a disk it finds corrupted."""
        path = f"/var/run/sr-mount/{SR}/{vdi}.vhd"
        says = (
            "FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie",
            f"{path} appears invalid; dumping metadata",
            "', stderr: ''",
        )
        stamp = time.strftime("%b %d %H:%M:%S")
        pid = 1000 + self.vdis.index(vdi)
        return "".join(f"{stamp} bench SM: [{pid}] {text}\n" for text in says).encode()

    def repair(self, process: subprocess.Popen[bytes], vdi: str) -> float:
        """Seconds from the line's write to its event `repaired`."""
        assert process.stdout is not None
        began = time.perf_counter()
        with open(self.log, "ab") as log:
            log.write(self.report(vdi))
        while True:
            event = json.loads(process.stdout.readline())
            if event["event"] == "repaired" and event["incident"]["vdi"] == vdi:
                return time.perf_counter() - began


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)
    if process.stdout is not None:
        process.stdout.close()


def latency(repairs: int) -> list[float]:
    """Seconds of each of `repairs` repairs, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, repairs)
        process = bench.start()
        try:
            return [bench.repair(process, vdi) for vdi in bench.vdis]
        finally:
            _stop(process)


def sync_seconds(repairs: int) -> float | None:
    """Seconds of fsync in one repair, on average; None without strace."""
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, repairs)
        trace = os.path.join(folder, "trace")
        process = bench.start("strace", "-f", "-T", "-e", "trace=fsync,fdatasync", "-o", trace)
        try:
            before = _synced(trace)
            for vdi in bench.vdis:
                bench.repair(process, vdi)
            return (_synced(trace) - before) / repairs
        finally:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGTERM)  # strace lets go of it, and would leave it running
            _stop(process)


def _synced(trace: str) -> float:
    return sum(float(found["seconds"]) for found in _SYNC.finditer(Path(trace).read_text(encoding="utf-8")))


def idle(seconds: float) -> tuple[float, int]:
    """The share of one CPU, and the RSS in bytes, of a follower that has nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, 1)
        process = bench.start()
        try:
            time.sleep(2)
            before, began = _cpu(process.pid), time.monotonic()
            time.sleep(seconds)
            used = _cpu(process.pid) - before
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10
            return used / (time.monotonic() - began), resident
        finally:
            _stop(process)


def _cpu(pid: int) -> float:
    """CPU seconds, by the scheduler's nanoseconds: the ticks of /proc/PID/stat are too coarse for this."""
    return sum(
        int(Path(task, "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repairs", type=int, default=100)
    options.add_argument("--idle", type=float, default=600)
    asked = options.parse_args()
    times = sorted(latency(asked.repairs))
    sync = sync_seconds(min(asked.repairs, 30))
    cpu, resident = idle(asked.idle)
    print("| from the line's write to the verified repair's event | |")
    print("|---|---|")
    print(f"| repairs | {len(times)} |")
    print(f"| median | {statistics.median(times) * 1000:.0f} ms |")
    print(f"| 99th percentile | {times[int(len(times) * 0.99) - 1] * 1000:.0f} ms |")
    print(f"| of it waiting for the record to be whole | {SETTLE * 1000:.0f} ms |")
    if sync is not None:
        print(f"| of it fsync, by strace | {sync * 1000:.1f} ms ({100 * sync / statistics.median(times):.0f} %) |")
    print(f"| idle for {asked.idle:g} s: CPU | {cpu * 100:.3f} % |")
    print(f"| idle: RSS | {resident / (1 << 20):.0f} MiB |")


if __name__ == "__main__":
    main()
