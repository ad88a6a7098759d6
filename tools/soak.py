"""The live test: a log at full speed, rotated in every way, and a follower that is killed again and again.

``python tools/soak.py --seconds 600 --write docs/evidence/soak.md`` is ``make soak``; a run of some seconds is a
test. One process writes the log as the storage manager does (lines of one record apart, others' lines
between them), rotates it by rename (its writer goes on in the old file until its HUP), by rename and
compression, by copy and truncation, and by deletion. Disks are damaged, and the log tells of each. The
follower is killed with SIGKILL, often in the middle of its work, and started again; sometimes after
several rotations. Then everything is counted.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from smfix.demo import traffic
from smfix.formats.vhd import build

ROOT = Path(__file__).resolve().parents[1]
TICK = 0.02
SIZE = 64 << 20
KEPT = 31
PACKERS = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
KINDS = ("rename", "rename, packed", "copy and truncate", "rename", "delete")


@dataclass
class Disk:
    vdi: str
    sr: str
    path: str
    whole: bytes
    told: float = 0.0
    at_risk: str = ""  # why its lines may be in no file any more
    place: tuple[int, int, int] = (0, 0, 0)  # inode, from, to


@dataclass
class Soak:
    """One run. Everything lies in `folder`."""

    folder: str
    seconds: float
    rate: int
    rotations: int
    kills: int
    seed: int = 1
    disks: list[Disk] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.log = os.path.join(self.folder, "log", "SMlog")
        self.mount = os.path.join(self.folder, "sr-mount")
        self.out = os.path.join(self.folder, "events.jsonl")
        self.hooked = os.path.join(self.folder, "hooked.jsonl")
        self.said = os.path.join(self.folder, "stderr")
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.follower = None
        self.file = -1
        self.cpu = 0.0
        self.rss = 0
        os.makedirs(os.path.dirname(self.log))
        os.makedirs(os.path.join(self.folder, "state"))
        policy = f"""
[[hook]]
command = ["/bin/sh", "-c", "cat >> {self.hooked}"]
"""
        Path(self.folder, "policy.toml").write_text(policy, encoding="utf-8")

    # ------------------------------------------------------------ the host

    def make_disks(self):
        """Sound disks, each cut short by its footer, in SRs of twenty."""
        number = max(6, int(self.seconds * 0.7))
        for index in range(number):
            sr = str(UUID(int=0x5A << 120 | index // 20))
            vdi = str(UUID(int=self.random.getrandbits(128), version=4))
            image = build.sparse(SIZE, UUID(vdi).bytes, {0: {3: bytes([index % 251 + 1]) * 512}})
            whole = image.to_bytes()
            path = os.path.join(self.mount, sr, f"{vdi}.vhd")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                for piece in image.writes:
                    file.seek(piece.offset)
                    file.write(piece.data)
                file.truncate(len(whole) - 512)
            digest = whole  # of small files; most of it is NUL
            self.disks.append(Disk(vdi, sr, path, digest))

    def lines(self, messages):
        now = datetime.now()  # noqa: DTZ005 - as syslog does
        stamp = f"{now:%b} {now.day:2d} {now:%H:%M:%S} soak"
        return "".join(f"{stamp} {ident}: [{pid}] {text}\n" for ident, pid, text in messages).encode()

    def report(self, disk, pid):
        """What a garbage collector says of a disk it finds corrupted."""
        path = f"/var/run/sr-mount/{disk.sr}/{disk.vdi}.vhd"
        return [
            ("SMGC", pid, f"=== SR {disk.sr}: gc ==="),
            ("SM", pid, f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '{path}', '-B']"),
            ("SM", pid, "FAILED in util.pread: (rc 22) stdout: 'primary footer invalid: invalid cookie"),
            ("SM", pid, f"{path} appears invalid; dumping metadata"),
            ("SM", pid, "VHD Footer Summary:"),
            ("SM", pid, "', stderr: ''"),
            ("SMGC", pid, f"coalesce: EXCEPTION <class 'util.SMException'>, VHD *{disk.vdi[:8]}(64.000M/6M) corrupted"),
        ]

    def proof(self, disk, pid):
        path = f"/var/run/sr-mount/{disk.sr}/{disk.vdi}.vhd"
        return [
            ("SM", pid, f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '{path}']"),
            ("SM", pid, "  pread SUCCESS"),
        ]

    def open_log(self):
        if self.file >= 0:
            os.close(self.file)
        self.file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self):
        """The storage manager: traffic at the rate, and the incidents in it, until the time is over."""
        noise = random.Random(2)
        stock = [traffic._ordinary(noise, number) for number in range(4000)]
        every = (self.seconds - min(6.0, self.seconds / 3)) / len(self.disks)
        start, number, told, written = time.monotonic(), 0, 0, 0
        open_runs = []
        while (now := time.monotonic() - start) < self.seconds:
            if told < len(self.disks) and now >= told * every:
                disk = self.disks[told]
                open_runs.append((disk, iter(self.report(disk, 10_000 + told))))
                told += 1
            owed = int(now * self.rate) - written
            messages = []
            while len(messages) < owed:
                number += 1
                messages += stock[number % len(stock)]
            written += len(messages)
            with self.lock:
                begin = os.fstat(self.file)
                for disk, run in list(open_runs):
                    line = next(run, None)
                    if line is None:
                        open_runs.remove((disk, run))
                        disk.told = time.time()
                        if noise.random() < 0.3:
                            threading.Timer(1.5, self.prove, (disk, number)).start()
                    else:
                        messages.insert(len(messages) // 2, line)
                    if disk.place == (0, 0, 0) or disk.place[0] != begin.st_ino:
                        disk.place = (begin.st_ino, begin.st_size, begin.st_size)
                data = self.lines(messages)
                os.write(self.file, data)
                for disk, _ in open_runs:
                    disk.place = (*disk.place[:2], begin.st_size + len(data))
            self.tally["lines"] += len(messages)
            self.tally["bytes"] += len(data)
            time.sleep(TICK)
        self.over.set()

    def prove(self, disk, pid):
        with self.lock:
            if self.file >= 0:
                os.write(self.file, self.lines(self.proof(disk, 20_000 + pid % 9000)))
                self.tally["proofs"] += 1

    # ------------------------------------------------------------ rotation

    def shift(self):
        folder = os.path.dirname(self.log)
        ages = {}
        for name in os.listdir(folder):
            parts = name.split(".")
            if len(parts) > 1 and parts[1].isdigit():
                ages[int(parts[1])] = name
        for age in sorted(ages, reverse=True):
            name = os.path.join(folder, ages[age])
            if age >= KEPT:
                os.unlink(name)
            else:
                ending = ages[age].split(".")[2:]
                os.rename(name, ".".join([f"{self.log}.{age + 1}", *ending]))

    def pack(self, how):
        name = f"{self.log}.1"
        if os.path.exists(name):
            with open(name, "rb") as plain, PACKERS[how](f"{name}.{how}", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            os.unlink(name)

    def rotate(self, kind):
        self.tally[f"rotations by {kind}"] += 1
        if kind == "copy and truncate":
            self.shift()
            shutil.copyfile(self.log, f"{self.log}.1")
            copied = os.path.getsize(f"{self.log}.1")
            with self.lock:
                cut = os.fstat(self.file)
                os.ftruncate(self.file, 0)
            self.risk(cut.st_ino, copied, cut.st_size, "written between the copy and the cut")
            for disk in self.disks:  # the inode says nothing of the new text
                if disk.place[0] == cut.st_ino:
                    disk.place = (0, 0, 0) if not disk.told and disk.place[2] else (-1, 0, 0)
        elif kind == "delete":
            with self.lock:
                gone = os.fstat(self.file)
                os.unlink(self.log)
                self.open_log()
            self.risk(gone.st_ino, 0, gone.st_size, "in a file that was deleted")
        else:
            self.shift()
            os.rename(self.log, f"{self.log}.1")
            time.sleep(self.random.uniform(0.0, 0.05))  # until rsyslog gets its HUP
            with self.lock:
                self.open_log()
            if "packed" in kind:
                self.pack(self.random.choice(sorted(PACKERS)))

    def risk(self, inode, begin, end, why):
        """Reports that lie in those bytes are in no file any more; who had read them has them."""
        with self.lock:
            for disk in self.disks:
                at, start, stop = disk.place
                if at == inode and start < end and stop > begin:
                    disk.at_risk = why

    # ------------------------------------------------------------ the follower

    def start(self):
        command = [
            sys.executable, "-m", "smfix", "from-log", "--follow", self.log, "--yes", "--json", "--no-rescan",
            "--sr-mount", self.mount, "--journal-dir", f"{self.folder}/journal", "--state-dir", f"{self.folder}/state",
            "--policy", f"{self.folder}/policy.toml", "--metrics", f"{self.folder}/smfix.prom",
        ]  # fmt: skip
        with open(self.out, "ab") as out, open(self.said, "ab") as said:
            self.follower = subprocess.Popen(command, stdout=out, stderr=said, cwd=ROOT)

    def measure(self):
        try:
            fields = Path(f"/proc/{self.follower.pid}/status").read_text(encoding="ascii")
            peak = next(line for line in fields.splitlines() if line.startswith("VmHWM"))
            self.rss = max(self.rss, int(peak.split()[1]) << 10)
        except (OSError, StopIteration):
            pass

    def kill(self):
        self.measure()
        os.kill(self.follower.pid, signal.SIGKILL)
        self.follower.wait()
        self.tally["kills"] += 1

    def plan(self):
        """When what happens: rotations and kills at random times of the run."""
        steps = []
        for number in range(self.rotations):
            at = (number + self.random.uniform(0.1, 0.9)) * self.seconds / self.rotations
            steps.append((at, "rotate", KINDS[number % len(KINDS)]))
        for number in range(self.kills):
            at = (number + self.random.uniform(0.1, 0.9)) * self.seconds / self.kills
            steps.append((at, "kill", "rotations" if number % 5 == 4 else ""))
        return sorted(steps)

    def run(self):
        self.make_disks()
        self.open_log()
        self.start()
        while not any(name.endswith(".json") for name in os.listdir(f"{self.folder}/state")):
            time.sleep(0.02)  # until its first checkpoint: whoever has none starts at the log's beginning
        began = time.monotonic()
        writer = threading.Thread(target=self.write)
        writer.start()
        for at, what, how in self.plan():
            time.sleep(max(0.0, began + at - time.monotonic()))
            if what == "rotate":
                self.rotate(how)
                continue
            self.kill()
            if how:
                for packed in ("rename, packed", "rename", "rename, packed"):
                    self.rotate(packed)
                self.tally["kills with several rotations before the restart"] += 1
            else:
                time.sleep(self.random.uniform(0.0, 0.3))
            self.start()
        writer.join()
        self.settle()
        self.stop()
        self.judge()

    def settle(self):
        """Wait until the follower has nothing left to do."""
        until = time.monotonic() + 30
        time.sleep(3)
        while time.monotonic() < until:
            if self.follower.poll() is not None:
                self.failures.append(f"the follower ended by itself with {self.follower.returncode}")
                return
            told = {one["incident"]["vdi"] for one in self.events()}
            missing = [disk for disk in self.disks if disk.vdi not in told and not disk.at_risk]
            repaired = {one["incident"]["vdi"] for one in self.events() if one["event"] == "repaired"}
            if not missing and repaired >= told:
                time.sleep(1.5)
                return
            time.sleep(0.5)

    def stop(self):
        self.measure()
        began = time.monotonic()
        self.follower.send_signal(signal.SIGTERM)
        try:
            code = self.follower.wait(20)
        except subprocess.TimeoutExpired:
            self.follower.kill()
            code = self.follower.wait()
        took = time.monotonic() - began
        self.tally["ms from SIGTERM to the end"] = int(took * 1000)
        self.claim(code == 0, f"SIGTERM: exit {code}, not 0")
        self.claim(took < 1.0, f"SIGTERM took {took:.2f} s")
        with self.lock:
            os.close(self.file)
            self.file = -1

    # ------------------------------------------------------------ the judgement

    def claim(self, holds, what):
        if not holds:
            self.failures.append(what)

    def events(self, path=None):
        found = []
        for line in Path(path or self.out).read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                self.tally["torn lines (killed while writing)"] += 1
        return found

    def judge(self):
        events = self.events()
        known = {disk.vdi: disk for disk in self.disks}
        seen = {one["incident"]["vdi"] for one in events}
        ids = {}
        for one in events:
            ids.setdefault(one["incident"]["vdi"], set()).add(one["incident"]["id"])
        self.claim(all(len(each) == 1 for each in ids.values()), "an incident had two ids")
        self.claim(seen <= set(known), f"incidents that nobody wrote: {sorted(seen - set(known))[:3]}")
        missed = [disk for disk in self.disks if disk.vdi not in seen]
        lost = [disk for disk in missed if disk.at_risk]
        self.tally["incidents written"] = len(self.disks)
        self.tally["incidents reported"] = len(seen)
        self.tally["incidents whose lines no file held any more"] = len(lost)
        self.tally["incidents missed"] = len(missed) - len(lost)
        for disk in missed:
            if not disk.at_risk:
                self.failures.append(f"missed: {disk.vdi}")
        marks = Counter()
        repairs = Counter()
        for name in os.listdir(f"{self.folder}/journal"):
            mark = name.rpartition(".")[2]
            marks[mark] += 1
        from smfix.repair.journal_store import list_journals

        for entry in list_journals(f"{self.folder}/journal"):
            if entry.mark.value == "verified":
                repairs[entry.journal.target.path] += 1
        self.tally["repairs verified"] = marks["verified"]
        self.tally["repairs interrupted by SIGKILL and put back"] = marks["rolled-back"] + marks["rolled_back"]
        for disk in self.disks:
            if disk.vdi in seen:
                self.claim(repairs[os.path.realpath(disk.path)] == 1, f"{disk.vdi} repaired {repairs[disk.path]} times")
            content = Path(disk.path).read_bytes()
            expected = disk.whole if disk.vdi in seen else disk.whole[:-512]
            self.claim(content == expected, f"{disk.vdi}: not the bytes it had before the damage")
        self.tally["disks whose every byte is as before the damage"] = sum(
            Path(disk.path).read_bytes() == disk.whole for disk in self.disks
        )
        numbers = Counter((one["number"], one["event"]) for one in events)
        self.tally["events delivered"] = len(numbers)
        self.tally["events delivered twice"] = sum(count - 1 for count in numbers.values())
        stages = Counter(event for _, event in numbers)
        for event, count in sorted(stages.items()):
            self.tally[f"events {event}"] = count
        for need in ("seen", "repaired"):
            told = {one["incident"]["vdi"] for one in events if one["event"] == need}
            self.claim(told == seen, f"no event {need} for {sorted(seen - told)[:3]}")
        hooked = self.events(self.hooked)
        told = {(one["number"], one["event"]) for one in hooked}
        self.tally["hook runs"] = len(hooked)
        self.claim(told >= set(numbers), f"no hook for {sorted(set(numbers) - told)[:3]}")
        said = Path(self.said).read_text(encoding="utf-8")
        self.tally["gaps said"] = said.count("bytes that were seen in it were never read")
        if lost and self.seconds >= 60:  # a file that came and went while nobody looked leaves no trace
            self.claim(self.tally["gaps said"] > 0, "text was lost, and nobody said so")
        self.claim("Traceback" not in said and "unexpected" not in said, f"trouble on stderr: {said[-500:]}")
        self.tally["peak RSS, MiB"] = self.rss >> 20
        self.claim(self.rss < 60 << 20, f"RSS {self.rss >> 20} MiB")

    def table(self):
        rows = [f"| {name} | {number:,} |" for name, number in self.tally.items()]
        return "\n".join(["| what | how many |", "|---|---|", *rows])


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--rate", type=int, default=5000)
    options.add_argument("--rotations", type=int, default=100)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--write", metavar="FILE")
    options.add_argument("--keep", action="store_true")
    asked = options.parse_args()
    folder = tempfile.mkdtemp(prefix="smfix-soak-")
    soak = Soak(folder, asked.seconds, asked.rate, asked.rotations, asked.kills, asked.seed)
    try:
        soak.run()
    finally:
        if soak.follower is not None and soak.follower.poll() is None:
            soak.follower.kill()
            soak.follower.wait()
        if not asked.keep and not soak.failures:
            shutil.rmtree(folder)
    broken = "\n".join(f"* {one}" for one in soak.failures)
    verdict = f"FAILED:\n\n{broken}" if broken else "Every claim holds."
    print(soak.table(), f"\n\n{verdict}")
    if soak.failures:
        print(f"\nkept in {folder}")
    if asked.write:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
        ).stdout.strip()
        command = f"`make soak`: {asked.seconds:g} s at {asked.rate:,} lines a second"
        head = f"# The live test, last run\n\n{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}. {command}.\n"
        what = "The method: `tools/soak.py`. More than 100 rotations, some while smfix was down.\n"
        Path(asked.write).write_text(f"{head}\n{what}\n{soak.table()}\n\n{verdict}\n", encoding="utf-8")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
