"""The storage manager's own lock class and ours exclude each other, both ways.

Its sources are not ours to ship: ``SMFIX_SM_SOURCE`` names one or more checkouts of them (separated as in PATH);
without it these tests are skipped. They run in processes of their own. Only its C extension ``fairlock``, which
its lock class does not use, is stood in for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smfix.repair import journal_store
from smfix.sm import locks
from smfix.sm.locks import sm_locks
from smfix.values import Reason
from world import BASE, SR, make_world

SOURCES = [Path(path) for path in os.environ.get("SMFIX_SM_SOURCE", "").split(os.pathsep) if path]

pytestmark = pytest.mark.skipif(not SOURCES, reason="SMFIX_SM_SOURCE names no checkout of the storage manager")

NAMES = [(SR, "running"), (SR, "sr"), (BASE, "vdi")]

# Commands on stdin, one answer each: try, take (waits), drop, cleanup.
PROGRAM = """
import sys
try:
    import lock, util
except ImportError:
    from sm.core import lock, util
util.SMlog = lambda *_, **__: None
lock.Lock.BASE_DIR = sys.argv[1]
held = {}
for line in sys.stdin:
    verb, namespace, name = line.split()
    key = namespace, name
    if verb == "cleanup":
        held.pop(key, None)
        lock.Lock.cleanup(name, namespace)
        print("done", flush=True)
        continue
    if key not in held:
        held[key] = lock.Lock(name, namespace)
    if verb == "try":
        print(held[key].acquireNoblock(), flush=True)
    elif verb == "take":
        held[key].acquire()
        print("True", flush=True)
    else:
        held[key].release()
        print("done", flush=True)
"""


class StorageManager:
    """A process of SM's, with its locks."""

    def __init__(self, source: Path, folder: Path, stubs: Path) -> None:
        (stubs / "fairlock.py").write_text("class Fairlock:\n    pass\n")
        parts = [source / "libs", source / "drivers", source, stubs]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, parts)), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, verb: str, namespace: str, name: str) -> None:
        self.process.stdin.write(f"{verb} {namespace} {name}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        line = self.process.stdout.readline()
        assert line, "SM's lock class could not be run"
        return line.strip()

    def say(self, verb: str, namespace: str, name: str) -> str:
        self.start(verb, namespace, name)
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "lock"


@pytest.fixture(params=SOURCES, ids=lambda path: path.name)
def manager(request, folder, tmp_path):
    made = StorageManager(request.param, folder, tmp_path)
    yield made
    made.close()


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for name in ("RUNNING_WAIT", "SR_WAIT", "VDI_WAIT"):
        monkeypatch.setattr(locks, name, 0.2)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_holds_is_locked_for_us(manager, folder, name):
    assert manager.say("try", *name) == "True"
    with sm_locks(str(folder), SR, BASE) as refusal:
        assert refusal.reason is Reason.LOCKED
        assert os.path.join(*name) in refusal.message
    assert manager.say("drop", *name) == "done"
    with sm_locks(str(folder), SR, BASE) as refusal:
        assert refusal is None


@pytest.mark.parametrize("name", NAMES)
def test_what_we_hold_is_locked_for_it(manager, folder, name):
    with sm_locks(str(folder), SR, BASE) as refusal:
        assert refusal is None
        assert manager.say("try", *name) == "False"
        manager.start("take", *name)  # and it waits, as a starting VM does
        time.sleep(0.2)
    assert manager.answer() == "True"


def test_a_file_that_it_unlinks_is_locked_anew(manager, folder):
    assert manager.say("try", BASE, "vdi") == "True"
    assert manager.say("cleanup", BASE, "vdi") == "done"
    with sm_locks(str(folder), SR, BASE) as refusal:
        assert refusal is None
        assert manager.say("try", BASE, "vdi") == "False"


@pytest.mark.root
def test_a_gc_that_comes_in_the_middle_of_a_repair_skips(manager, folder, world, monkeypatch):
    path = world.damaged()
    create = journal_store.create
    answers = []

    def created(*given):
        answers.extend(manager.say("try", *name) for name in NAMES)
        return create(*given)

    monkeypatch.setattr(journal_store, "create", created)
    assert world.run("repair", path, "--yes", "--sm-lock-dir", folder).code == 1
    assert answers == ["False", "False", "False"]
    assert [manager.say("try", *name) for name in NAMES] == ["True", "True", "True"]


@pytest.mark.root
def test_a_repair_that_comes_in_the_middle_of_gc_waits_or_gives_up(manager, folder, world, monkeypatch):
    path = world.damaged()
    assert manager.say("try", SR, "running") == "True"
    run = world.run("repair", path, "--yes", "--sm-lock-dir", folder, "--json")
    assert run.json["images"][0]["outcome"]["reason"] == "locked"
    monkeypatch.setattr(locks, "RUNNING_WAIT", 20)
    slept = []
    sleep = time.sleep

    def wait(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            manager.say("drop", SR, "running")
        sleep(seconds)

    monkeypatch.setattr("smfix.usecases.guard.HostGuard", _with_clock(wait))
    assert world.run("repair", path, "--yes", "--sm-lock-dir", folder).code == 1
    assert len(slept) >= 3


def _with_clock(wait):
    from smfix.usecases.guard import HostGuard

    return lambda **given: HostGuard(**given, clock=locks.Clock(sleep=wait))
