"""Storage that dies: a real file system stops answering, and every command goes on with the other disks.

See tests/support/hanging_fs.py: ``stall`` is a dead NFS server (who waits can be killed), ``swallow`` is worse.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from hanging_fs import Cannot, served
from schemas import valid
from smfix.follow.state_store import StateFile
from world import BASE, OTHER, ROOT, failed, make_world

DEAD = "deadbeef-0000-4000-8000-000000000001"
SAID = "has not answered for 1 s"
pytestmark = [pytest.mark.root]


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@contextmanager
def dying(world, operation, how):
    """A damaged disk on storage that will die, another on storage that lives, and a log that names both."""
    source, mount = world.folder / "source", world.mount / DEAD
    for folder in (source, mount):
        folder.mkdir(exist_ok=True)
    disk = source / f"{OTHER}.vhd"
    if not disk.exists():
        disk.write_bytes(world.image(OTHER)[:-512] + b"x" * 512)
        world.damaged(BASE)
        world.smlog(failed(OTHER, sr=DEAD, pid=7), failed(BASE, pid=8))
    try:
        with served(mount, source, operation, how) as hang:
            yield mount, disk, hang
    except Cannot as why:
        pytest.skip(str(why))


def run(world, *words):
    """smfix in a process of its own, which must end while the storage is still dead."""
    line = [sys.executable, "-m", "smfix", *map(str, words), *world.options(words[0]), "--json"]
    environment = os.environ | {"SMFIX_PATIENCE": "1"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert done.stderr == ""
    return valid(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("operation", "how"),
    [*((each, "swallow") for each in ("getattr", "opendir", "open", "read")), ("getattr", "stall"), ("open", "stall")],
)
def test_the_other_disks_of_a_log_are_repaired(world, operation, how):
    with dying(world, operation, how) as (_, disk, hang):
        before = disk.read_bytes()
        hang()
        document = run(world, "from-log", world.log, "--yes")
        assert document["exit"] == 13
        dead, alive = (one["outcome"] for one in document["incidents"])
        assert dead["status"] == "failed"
        assert SAID in dead["message"]
        assert alive["status"] == "repaired"
    assert disk.read_bytes() == before


def test_check_scan_and_repair_go_on_with_the_others(world):
    with dying(world, "open", "stall") as (mount, _, hang):
        hang()
        dead, alive = mount / f"{OTHER}.vhd", world.path()
        for words in (("check", dead, alive), ("check", mount, alive)):
            first, second = run(world, *words)["images"]
            assert (first["path"], first["verdict"], second["verdict"]) == (str(words[1]), "unreadable", "invalid")
            assert SAID in first["note"]
        document = run(world, "scan")
        assert document["exit"] == 12
        verdicts = {one["path"]: one["verdict"] for one in document["images"]}
        assert verdicts == {str(mount): "unreadable", str(alive): "invalid"}
        assert [one["verdict"] for one in run(world, "scan", world.sr.name)["images"]] == ["invalid"]
        first, second = run(world, "repair", dead, alive, "--yes")["images"]
        assert (first["outcome"]["status"], second["outcome"]["status"]) == ("failed", "repaired")


def test_a_repair_of_dead_storage_cannot_be_undone_now(world):
    with dying(world, "open", "stall") as (mount, disk, hang):
        before = disk.read_bytes()
        image = run(world, "repair", mount / disk.name, "--yes")["images"][0]
        journal = image["outcome"]["journal"]
        hang()
        outcome = run(world, "undo", journal, "--yes")["outcome"]
        assert (outcome["status"], outcome["journal"]) == ("failed", journal)
        assert SAID in outcome["message"]
    with dying(world, "open", "stall"):
        assert world.run("undo", journal, "--yes").code == 0
    assert disk.read_bytes() == before


def test_a_file_that_another_process_has_open_on_dead_storage_holds_up_nobody(world):
    """Every process' open files are looked at: who has which image open?"""
    with dying(world, "getattr", "swallow") as (mount, disk, hang), world.holding(mount / disk.name, "rb"):
        hang()
        alive = run(world, "repair", world.path(), "--yes")["images"][0]["outcome"]
        assert alive["status"] == "repaired"


@contextmanager
def following(world):
    out = world.folder / "out"
    line = [sys.executable, "-m", "smfix", "from-log", "-f", str(world.log), "--json", "--yes"]
    line += ["--state-dir", str(world.folder / "follow"), *world.options("from-log")]
    with out.open("ab") as to:
        follower = subprocess.Popen(
            line, stdout=to, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"SMFIX_PATIENCE": "1"}
        )
    try:
        yield follower, lambda: [json.loads(told) for told in out.read_text(encoding="utf-8").splitlines()]
    except BaseException:
        follower.kill()
        raise
    finally:
        follower.stderr.close()


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["stall", "swallow"])
def test_a_follower_goes_on_with_the_other_disks_and_ends_when_told(world, how):
    state = StateFile(str(world.folder / "follow"), str(world.log))
    with dying(world, "read", how) as (_, _, hang):
        hang()
        with following(world) as (follower, told):
            until(lambda: {"repaired", "waiting"} <= {one["event"] for one in told()})
            by_disk = {one["incident"]["vdi"]: one for one in told()}
            assert by_disk[BASE]["event"] == "repaired"
            assert by_disk[OTHER]["incident"]["outcome"]["status"] == "failed"
            assert SAID in by_disk[OTHER]["incident"]["outcome"]["message"]
            assert state.is_held()
            follower.send_signal(signal.SIGTERM)
            if how == "stall":
                assert follower.wait(30) == 0
            until(lambda: not state.is_held())  # another follower may begin, whatever becomes of this process
    assert follower.wait(30) == 0
    (status,) = world.run("status", "--json", "--state-dir", world.folder / "follow").json["followers"]
    assert (status["running"], status["note"]) == (False, None)


@pytest.mark.parametrize("how", ["stall", "swallow"])
def test_storage_that_dies_in_the_middle_of_a_repair(world, how):
    """The write is asked for and never answered: what was begun is put back and made when the storage is there."""
    with dying(world, "write", how) as (_, disk, hang):
        before = disk.read_bytes()
        hang()
        with following(world) as (follower, told):
            until(lambda: BASE in [one["incident"]["vdi"] for one in told() if one["event"] == "repaired"])
            follower.kill()
    follower.wait(30)
    assert [path.suffix for path in world.journals.iterdir()].count(".verified") == 1
    with dying(world, "write", how):
        (image,) = run(world, "repair", f"{DEAD}/{OTHER}", "--yes")["images"]
        # A write that arrived after all leaves a sound image, and recovery closes its journal.
        is_complete = any(one["state"] == "verified" for one in image["outcome"]["recovered"])
        assert image["outcome"]["status"] == ("valid" if is_complete else "repaired")
        assert disk.read_bytes()[-512:] == world.image(OTHER)[-512:]
        assert world.run("undo", image["outcome"]["journal"], "--yes").code == 0
    assert disk.read_bytes() == before


@pytest.mark.parametrize("words", [["from-log", "--yes"], ["check"]])
def test_a_run_that_waits_for_storage_says_so(world, words):
    """Before it gives up, and on stderr: else it looks like one that hangs."""
    with dying(world, "open", "stall") as (mount, _, hang):
        hang()
        target = world.log if words[0] == "from-log" else mount / f"{OTHER}.vhd"
        line = [sys.executable, "-m", "smfix", *words, str(target), *world.options(words[0]), "--json"]
        environment = os.environ | {"SMFIX_PATIENCE": "7"}
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert f"still waiting for the storage of {mount}" in done.stderr
    valid(json.loads(done.stdout))


def test_storage_that_dies_in_the_middle_is_said_too(world):
    with dying(world, "write", "stall") as (mount, _, hang):
        hang()
        path = mount / f"{OTHER}.vhd"
        with world.start("repair", path, "--yes") as process:
            end, said = time.monotonic() + 30, b""
            while b"still waiting" not in said and time.monotonic() < end:
                if select.select([process.stderr], [], [], 0.2)[0]:
                    said += os.read(process.stderr.fileno(), 4096)
            process.kill()
    assert f"still waiting for the storage of {path}" in said.decode()
