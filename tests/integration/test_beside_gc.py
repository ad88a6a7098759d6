"""A good neighbour of the storage manager's garbage collector: its run is never ended, by a lock or by advice."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_loop import Live

from smfix.follow.incident_state import Stage
from smfix.follow.policy import Policy
from smfix.repair import journal_store
from smfix.sm import gc_lock, locks
from smfix.sm.gc_lock import Collector, GcWait, collector
from smfix.sm.locks import Clock, sm_locks
from smfix.values import Reason
from world import BASE, LEAF, OTHER, ROOT, SR, failed, make_world

# GC as its locks show it: `gc_active` for its whole life, `running` on request.
GC = """
import fcntl, os, struct, sys
def lock(path, kind):
    try:
        fcntl.fcntl(files[path], fcntl.F_SETLK, struct.pack("hhqql", kind, 0, 0, 0, 0))
    except OSError:
        return False
    return True
files = {}
for path in sys.argv[1:]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    files[path] = open(path, "w+")
print(lock(sys.argv[1], fcntl.F_WRLCK), flush=True)
for line in sys.stdin:
    verb = line.strip()
    print(lock(sys.argv[2], fcntl.F_WRLCK if verb == "run" else fcntl.F_UNLCK), flush=True)
"""


class Gc:
    """A process that is GC of one SR until it is ended."""

    def __init__(self, folder: Path, sr: str = SR) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GC, str(folder / sr / "gc_active"), str(folder / sr / "running")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "True\n"

    def say(self, verb: str) -> bool:
        self.process.stdin.write(verb + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "True\n"

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.communicate()


@contextmanager
def gc_at_work(folder: Path, sr: str = SR):
    gc = Gc(folder, sr)
    try:
        yield gc
    finally:
        gc.end()


class FakeTime:
    """A clock that only sleeps; `then` runs after the sleep with that number."""

    def __init__(self, then=None) -> None:
        self.time, self.naps, self.then = 0.0, 0, then or {}

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.naps += 1
        self.then.get(self.naps, lambda: None)()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "sm-locks"


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def live(world, folder):
    made = Live(world, lock_dir=str(folder))
    yield made
    if made.follower is not None and made.follower._store._lock >= 0:
        made.stop()


# --------------------------------------------------------------------------- who holds the lock, and since when


def test_the_holder_is_named_by_the_kernel_and_dated_by_its_start(folder):
    assert collector(str(folder), SR) is None
    with gc_at_work(folder) as gc:
        os.utime(folder / SR / "gc_active", (0, 0))
        found = collector(str(folder), SR)
        assert found.pid == gc.process.pid
        assert abs(datetime.now(UTC) - found.since) < timedelta(seconds=20)
        assert f"(process {gc.process.pid})" in found.words
        assert found.since.isoformat(sep=" ", timespec="seconds") in found.words
        assert SR in found.words
    assert (folder / SR / "gc_active").exists()
    assert collector(str(folder), SR) is None


def test_a_look_takes_and_drops_no_lock(folder):
    path = folder / SR / "gc_active"
    with gc_at_work(folder):
        for _ in range(3):
            assert collector(str(folder), SR) is not None
    with open(path, "w+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        assert collector(str(folder), SR) is None  # our own lock is no other's


@pytest.mark.parametrize("damage", ["no stat", "no btime", "short"])
def test_a_holder_that_cannot_be_dated_is_named_all_the_same(folder, tmp_path, damage):
    proc = tmp_path / "proc"
    with gc_at_work(folder) as gc:
        place = proc / str(gc.process.pid)
        place.mkdir(parents=True)
        (proc / "stat").write_text("" if damage == "no btime" else "cpu 1\nbtime 1700000000\n")
        if damage != "no stat":
            (place / "stat").write_text("1 (a) b) S 1" if damage == "short" else f"1 (a) b) S {'100 ' * 40}")
        assert collector(str(folder), SR, proc=str(proc)) == Collector(SR, gc.process.pid, None)


def test_a_holder_without_a_number_is_gc(folder, monkeypatch):
    with gc_at_work(folder):
        monkeypatch.setattr(fcntl, "fcntl", lambda *_: struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, -1))
        assert collector(str(folder), SR).words == f"GC has been at work on SR {SR}"


# --------------------------------------------------------------------------- the locks


def test_no_lock_is_taken_between_two_iterations_of_gc(folder):
    """`running` is free for a moment, and must be GC's when it asks for it again."""
    with gc_at_work(folder) as gc:
        time = FakeTime({n: lambda: asked.append(gc.say("run") and gc.say("rest")) for n in range(1, 99)})
        asked = []
        with sm_locks(str(folder), SR, BASE, clock=time.clock) as refusal:
            assert refusal.reason is Reason.LOCKED
            assert str(gc.process.pid) in refusal.message
            assert gc.say("run")
        assert asked
        assert all(asked)
    assert time.time == pytest.approx(gc_lock.GC_WAIT)
    assert not (folder / BASE).exists()


def test_the_locks_are_taken_as_soon_as_gc_has_ended(folder):
    gc = Gc(folder)
    time = FakeTime({3: gc.end})
    drawn = []
    with sm_locks(str(folder), SR, BASE, clock=time.clock, gc=GcWait(draw=drawn.append)) as refusal:
        assert refusal is None
    assert time.time == pytest.approx(3 * gc_lock.GC_STEP)
    assert "waiting" in drawn[0]
    assert str(gc.process.pid) in drawn[0]
    assert drawn[-1] == ""


def test_a_run_waits_once_and_not_for_each_disk(folder):
    wait, time = GcWait(10.0), FakeTime()
    with gc_at_work(folder):
        for vdi in (BASE, LEAF, OTHER):
            with sm_locks(str(folder), SR, vdi, clock=time.clock, gc=wait) as refusal:
                assert refusal.reason is Reason.LOCKED
    assert time.time == pytest.approx(10)


def test_a_gc_that_begins_while_sr_is_waited_for_meets_no_running(folder):
    """It becomes active under `sr`, scans, and only then asks for `running`."""
    begun, met = [], []

    def begin():
        begun.append(Gc(folder))
        met.append(begun[0].say("run") and begun[0].say("rest"))

    busy = subprocess.Popen(
        [sys.executable, "-c", GC, str(folder / SR / "sr"), str(folder / SR / "other")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert busy.stdout.readline() == "True\n"
    time = FakeTime({2: begin, 5: busy.communicate})
    try:
        with sm_locks(str(folder), SR, BASE, clock=time.clock, gc=GcWait(5.0)) as refusal:
            assert refusal.reason is Reason.LOCKED
        assert met == [True]
    finally:
        if busy.poll() is None:
            busy.communicate()
        for one in begun:
            one.end()


def test_a_gc_that_begins_at_the_last_moment_is_let_go_first(folder, monkeypatch):
    """Between the look at `gc_active` and the lock of `sr`: under `sr` it is looked at again."""
    looks = []

    def look(where, sr):
        looks.append(sr)
        return Collector(sr, 7, None) if len(looks) == 2 else None

    monkeypatch.setattr(locks, "collector", look)
    monkeypatch.setattr(gc_lock, "collector", look)
    with sm_locks(str(folder), SR, BASE, clock=FakeTime().clock) as refusal:
        assert refusal is None
    assert len(looks) == 4


def test_a_lock_file_that_cannot_be_read_is_a_refusal(folder):
    (folder / SR).mkdir(parents=True)
    (folder / SR / "gc_active").symlink_to("/etc/passwd")
    with sm_locks(str(folder), SR, BASE) as refusal:
        assert refusal.reason is Reason.LOCKED
        assert "gc_active" in refusal.message


def test_the_gap_is_taken_where_patience_is_over(folder):
    with gc_at_work(folder), sm_locks(str(folder), SR, BASE, gc=GcWait(takes_gap=True)) as refusal:
        assert refusal is None


# --------------------------------------------------------------------------- a run that ends


def options(folder, *words):
    return ("--yes", "--json", "--sm-lock-dir", folder, *words)


def test_a_run_beside_gc_writes_nothing_and_says_when_to_come_back(world, folder):
    path = world.damaged()
    before = path.read_bytes()
    with gc_at_work(folder) as gc:
        run = world.run("repair", path, *options(folder, "--gc-wait", "1s"))
    outcome = run.json["images"][0]["outcome"]
    assert run.code == 12
    assert (outcome["status"], outcome["reason"]) == ("refused", "locked")
    assert f"process {gc.process.pid}" in outcome["message"]
    assert " since 20" in outcome["message"]
    assert "--gc-wait" in outcome["message"]
    assert path.read_bytes() == before
    (again,) = outcome["next"]
    assert again.startswith(f"smfix repair {path} --yes")
    assert "--gc-wait 1s" in again
    assert world.run("repair", path, *options(folder)).code == 1


def test_a_run_waits_for_gc_and_then_repairs(world, folder):
    path = world.damaged()
    with gc_at_work(folder) as gc:
        process = world.start("repair", path, *options(folder))
        time.sleep(1.5)
        assert gc.say("run")
        assert process.poll() is None
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1, out


def test_the_wait_is_shown_on_a_terminal_only(world, folder):
    path = world.damaged()
    with gc_at_work(folder):
        run = world.run("repair", path, *options(folder, "--gc-wait", "1s"))
    assert run.err == ""


def test_undo_waits_too(world, folder):
    path = world.damaged()
    broken = path.read_bytes()
    journal = world.run("repair", path, *options(folder)).json["images"][0]["outcome"]["journal"]
    with gc_at_work(folder) as gc:
        run = world.run("undo", journal, *options(folder, "--gc-wait", "0s"))
        outcome = run.json["outcome"] if "outcome" in run.json else run.json["images"][0]["outcome"]
        assert outcome["reason"] == "locked"
        assert f"process {gc.process.pid}" in outcome["message"]
        assert outcome["next"][0].startswith(f"smfix undo {journal} --yes")
    world.run("undo", journal, *options(folder))
    assert path.read_bytes() == broken


def test_the_recovery_of_an_interrupted_repair_waits_too(world, folder):
    path = world.damaged()
    broken = path.read_bytes()
    world.run("repair", path, *options(folder))
    (entry,) = journal_store.list_journals(str(world.journals))
    os.rename(entry.path, re.sub(r"\.verified$", ".unfinished", entry.path))
    path.write_bytes(broken)
    with gc_at_work(folder) as gc:
        run = world.run("repair", path, *options(folder, "--gc-wait", "0s"))
    outcome = run.json["images"][0]["outcome"]
    assert outcome["reason"] == "locked"
    assert f"process {gc.process.pid}" in outcome["message"]
    assert outcome["next"][0].startswith("smfix repair ")
    assert path.read_bytes() == broken
    assert world.run("repair", path, *options(folder)).code == 1


@pytest.mark.parametrize("text", ["1", "-1s", "soon", "1y", "", "2H", "٣s"])
def test_a_wait_that_is_no_duration_is_refused(world, text):
    run = world.run("repair", world.damaged(), "--yes", "--gc-wait", text)
    assert run.code == 16
    assert "--gc-wait" in run.err


def test_a_follower_has_its_policy_instead(world):
    world.smlog("")
    run = world.run("from-log", world.log, "--follow", "--gc-wait", "1h")
    assert run.code == 16
    assert "gc-patience" in run.err


# --------------------------------------------------------------------------- a follower


def test_a_follower_waits_for_gc_and_repairs_when_it_has_ended(live, world, folder):
    path = world.damaged()
    before = path.read_bytes()
    with gc_at_work(folder) as gc:
        live.start().append(failed())
        live.until(lambda: "waiting" in live.names())
        outcome = live.last()
        assert (outcome["status"], outcome["reason"]) == ("refused", "locked")
        assert f"process {gc.process.pid}" in outcome["message"]
        assert " since 20" in outcome["message"]
        assert outcome["next"] == []
        looks = live.case().progress.tries
        end = time.monotonic() + 5
        while time.monotonic() < end:
            live.follower.round()
            assert gc.say("run")
            assert gc.say("rest")
            time.sleep(0.1)
        assert live.case().progress.tries == looks, "only GC's lock is looked at meanwhile"
        assert path.read_bytes() == before
        assert 0 <= live.follower._until_next() <= 2
    live.until(lambda: "repaired" in live.names(), 10)
    assert live.names() == ["seen", "diagnosed", "waiting", "repaired"]


def test_another_gc_is_named_in_its_turn(live, world, folder):
    world.damaged()
    with gc_at_work(folder):
        live.start().append(failed())
        live.until(lambda: "waiting" in live.names())
    with gc_at_work(folder) as second:
        live.until(lambda: f"process {second.process.pid}" in live.case().disk.outcome.message)
    assert live.names() == ["seen", "diagnosed", "waiting"]


def test_a_follower_whose_patience_is_over_takes_the_gap(live, world, folder):
    world.damaged()
    with gc_at_work(folder) as gc:
        assert gc.say("run")
        live.start(policy=Policy(gc_patience=timedelta(seconds=4))).append(failed())
        live.until(lambda: "waiting" in live.names())
        assert gc.say("rest")
        began = time.monotonic()
        live.until(lambda: "repaired" in live.names(), 20)
        assert time.monotonic() - began > 2
        assert collector(str(folder), SR) is not None


ENDED = (
    "[28000] 2012-05-15 03:00:00\t=== SR {sr}: gc ===\n"
    "[28000] 2012-05-15 03:00:01\tUnable to acquire GC running lock.\n"
)


def test_a_gc_that_ended_at_our_lock_is_started_again_once(live, world):
    asked = []

    def rescan(sr):
        asked.append(sr)
        return True, "rescanned"

    world.damaged()
    live.start(rescan=rescan).append(failed())
    live.until(lambda: live.names()[-1:] == ["rescanned"])
    assert asked == [SR]
    live.append(ENDED.format(sr=OTHER))
    live.append(failed(OTHER, pid=7))
    live.until(lambda: "waiting" in live.names(OTHER))
    assert asked == [SR], "the GC of an SR on which nothing was repaired is not ours"
    live.append(ENDED.format(sr=SR))
    live.until(lambda: len(asked) == 2)
    live.append(ENDED.format(sr=SR))
    live.append(failed(LEAF, pid=8))
    live.until(lambda: "waiting" in live.names(LEAF))
    assert asked == [SR, SR]


# --------------------------------------------------------------------------- what now is allowed


def test_a_policy_that_allows_now_wakes_what_waited_for_it(live, world):
    world.damaged()
    rules = [Policy(srs=("00000000*",)), Policy()]
    live.start(policy=rules[0], read_policy=lambda: rules[1]).append(failed())
    live.until(lambda: "waiting" in live.names())
    assert live.last()["reason"] == "policy"
    live.wake.reload = True
    live.until(lambda: "repaired" in live.names())


def test_a_run_with_leave_wakes_what_one_without_has_only_reported(live, world):
    world.damaged()
    live.start(may_write=False).append(failed())
    live.until(lambda: "waiting" in live.names())
    live.stop()
    live.start()
    live.until(lambda: "repaired" in live.names())
    assert live.case().progress.stage is Stage.REPAIRED


def test_with_leave_to_write_no_event_speaks_of_a_dry_run(live, world):
    world.damaged()
    live.start().append(failed())
    live.until(lambda: "repaired" in live.names())
    diagnosed = live.told[1]["incident"]["outcome"]
    assert diagnosed["status"] == "would-repair"
    assert "VHD101" in diagnosed["message"]
    for one in live.told:
        message = (one["incident"]["outcome"] or {"message": ""})["message"]
        assert "dry run" not in message
        assert "nothing was written" not in message
    assert diagnosed["next"] == []


# --------------------------------------------------------------------------- words

ENDS_GC = re.compile(
    r"systemctl\s+(?:\S+\s+)*?(?:stop|kill|restart)\s+\S*SMGC"
    r"|cleanup(?:\.py)?\s+(?:\S+\s+)*?(?:-\w*[Gaxf]\b|--abort|--gc_force|--disable|--force)"
    r"|/ipc/\S*abort|gc_force\(|\babort\s+(?:the\s+)?GC\b|(?:kill|pkill|killall)\s+[^.\n]{0,40}(?:cleanup|vhd-util)"
)
SAYS = (*(ROOT / "smfix").rglob("*"), *(ROOT / "docs").rglob("*"), *(ROOT / "ansible").rglob("*"), *ROOT.glob("*.md"))


@pytest.mark.parametrize(
    "line",
    [
        "systemctl stop SMGC@7a142a29",
        "systemctl --no-block stop 'SMGC@x'",
        "/opt/xensource/sm/cleanup.py -G -u SR",
        "cleanup.py -u SR --abort",
        "touch /run/sm/ipc/SR/abort",
        "pkill vhd-util",
    ],
)
def test_a_command_that_ends_gc_is_known_as_one(line):
    assert ENDS_GC.search(line)


@pytest.mark.parametrize("line", ["systemctl status SMGC@7a", "cleanup.py -g -u SR", "xe sr-scan uuid=SR"])
def test_a_look_or_a_start_is_none(line):
    assert not ENDS_GC.search(line)


def test_no_word_of_the_product_ends_a_gc():
    """`vhd-util coalesce` is killed with it, which makes the very damage that is repaired here."""
    said = []
    for path in SAYS:
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".xz", ".gz"):
            text = path.read_text(encoding="utf-8", errors="replace")
            said += [f"{path.relative_to(ROOT)}: {found.group()}" for found in ENDS_GC.finditer(text)]
    assert said == []
