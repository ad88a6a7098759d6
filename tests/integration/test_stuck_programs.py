"""Programs of the host that wait in the kernel for storage that does not answer: each costs its time limit, once.

A read of a file on a FUSE file system that swallows it is such a wait: SIGKILL does not end it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace

import pytest

from hanging_fs import Cannot, served
from lvm_host import LvmHost
from schemas import valid
from smfix.errors import LeftBehind, Unanswered
from smfix.follow.hooks import HookRun
from smfix.host import subprocesses
from world import BASE, LEAF, OTHER, ROOT, SR, failed, make_world

pytestmark = [pytest.mark.root]
LVM_SR = "deadbeef-0000-4000-8000-000000000002"
STUCK = "waits in the kernel for storage that does not answer, and no signal ends it"


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def dead(tmp_path):
    """A file whose reader waits in the kernel from now on, until the file system is taken away."""
    source, mount = tmp_path / "source", tmp_path / "dead"
    for folder in (source, mount):
        folder.mkdir()
    (source / "file").write_bytes(b"x" * 4096)
    try:
        with served(mount, source, "read", "swallow") as hang:
            hang()
            yield mount / "file"
    except Cannot as why:
        pytest.skip(str(why))


def stub(folder, name, body):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


@contextmanager
def at_most(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def states(wanted):
    """The states of the processes with this command line."""
    listed = subprocess.run(["ps", "-ww", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line.split()[0][0] for line in listed.splitlines() if line.split(None, 1)[1] == wanted]


# ------------------------------------------------------------------------------ one program


def test_it_is_left_behind_and_holds_nothing(tmp_path, dead):
    inherited = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    tool = stub(tmp_path, "tool", f"echo said; exec cat {dead}")
    open_now = sorted(os.listdir("/proc/self/fd"))
    with (
        at_most(4),
        pytest.raises(LeftBehind, match=rf"^tool did not end within 0.5 seconds: tool \(pid \d+\) {STUCK}"),
    ):
        subprocesses.run([tool], 0.5)
    assert sorted(os.listdir("/proc/self/fd")) == open_now
    (left,) = subprocesses._LEFT
    assert states(f"cat {dead}") == ["D"]
    links = {os.readlink(f"/proc/{left.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{left.pid}/fd")}
    assert not [link for link in links if not link.startswith("pipe:") and link != str(dead)]
    os.close(inherited)


def test_while_it_is_there_no_other_of_its_kind_is_started(tmp_path, dead):
    once = tmp_path / "count"
    tool = stub(tmp_path, "lvs", f"echo x >> {once}; exec cat {dead}")
    other = stub(tmp_path, "lvchange", "echo done")
    with pytest.raises(LeftBehind):
        subprocesses.run([tool, "a"], 0.3, "LVM")
    with at_most(0.3), pytest.raises(LeftBehind, match=rf"lvchange was not started, because lvs \(pid \d+\) {STUCK}"):
        subprocesses.run([other, "b"], 5, "LVM")
    assert once.read_text() == "x\n"
    assert subprocesses.run([other, "b"], 5) == "done\n"


def test_when_its_storage_answers_again_it_is_gone(tmp_path):
    source, mount = tmp_path / "source", tmp_path / "dead"
    for folder in (source, mount):
        folder.mkdir()
    (source / "file").write_bytes(b"x")
    tool = stub(tmp_path, "tool", f"exec cat {mount}/file")
    try:
        with served(mount, source, "read", "swallow") as hang:
            hang()
            with pytest.raises(LeftBehind):
                subprocesses.run([tool], 0.2)
    except Cannot as why:
        pytest.skip(str(why))
    stub(tmp_path, "tool", "echo well")
    deadline = time.monotonic() + 10
    while True:
        with suppress(LeftBehind):
            assert subprocesses.run([tool], 5) == "well\n"
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_ends_when_it_is_told_is_not_left_behind(tmp_path):
    tool = stub(tmp_path, "tool", "trap '' TERM; echo $$ > " + f"{tmp_path}/pid; while :; do sleep 0.1; done")
    with at_most(3), pytest.raises(Unanswered, match=r"^tool did not end within 0.3 seconds$") as raised:
        subprocesses.run([tool], 0.3)
    assert not isinstance(raised.value, LeftBehind)
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")


def test_a_hook_that_cannot_be_ended(dead, capfd):
    run = HookRun(("/bin/sh", "-c", f"echo heard; exec cat {dead}"), "", 0.3)
    with at_most(3):
        while (said := run.poll()) is None:
            time.sleep(0.01)
    assert said.startswith("hook /bin/sh: killed after 0.3 s; it waits in the kernel (pid ")
    with at_most(2):
        assert not HookRun(("/bin/cat", str(dead)), "", 60).stop()
    assert capfd.readouterr().err == "heard\n"


# ------------------------------------------------------------------------------ every command


@pytest.fixture
def group(tmp_path, dead):
    """A volume group of an SR, whose `lvs` is stuck."""

    def no_device(file):
        raise AssertionError(file)

    made = LvmHost(tmp_path, LVM_SR, no_device)
    stub(made.bin, "lvs", f"echo lvs >> {made.log}; exec cat {dead}")
    made.dead = dead
    yield made
    made.close()


WAITS = r"(smfix: still waiting for vhd-util \(pid \d+\), which has not ended for 5 s; it is given up after 10 s\n)?"


def run(world, group, *words, limit=25, is_stuck=True):
    """smfix in a process of its own; whoever reads what it prints must not wait for what it left behind."""
    line = [sys.executable, "-m", "smfix", *map(str, words), *world.options(words[0]), "--json"]
    environment = os.environ | {"SMFIX_PATIENCE": "1", "PATH": f"{group.bin}:{os.environ['PATH']}"}
    with at_most(limit):
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert re.fullmatch(WAITS, done.stderr)
    if is_stuck:
        assert "D" in states(f"cat {group.dead}")
    return valid(json.loads(done.stdout))


def two_disks(world):
    """A log that names a volume and a damaged file, the volume first."""
    world.damaged(BASE)
    volume = f"/dev/VG_XenStorage-{LVM_SR}/VHD-{OTHER}"
    record = failed(OTHER, sr=LVM_SR, pid=7).replace(f"/var/run/sr-mount/{LVM_SR}/{OTHER}.vhd", volume)
    assert volume in record
    return world.smlog(record, failed(BASE, pid=8))


def test_from_log_repairs_the_files(world, group):
    document = run(world, group, "from-log", two_disks(world), "--yes")
    assert document["exit"] == 13
    dead, alive = (one["outcome"] for one in document["incidents"])
    assert (dead["status"], alive["status"]) == ("failed", "repaired")
    assert STUCK in dead["message"]
    assert group.log.read_text() == "lvs\n"


def test_check_and_repair_go_on_with_the_files(world, group):
    world.damaged(BASE)
    volume = f"/dev/{group.group}/VHD-{OTHER}"
    for name in (volume, f"{LVM_SR}/{OTHER}", f"/dev/{group.group}", LEAF[:8]):
        dead, alive = run(world, group, "check", name, world.path())["images"]
        assert (dead["verdict"], alive["verdict"]) == ("unreadable", "invalid")
        assert STUCK in dead["note"]
    dead, alive = run(world, group, "repair", volume, BASE, "--yes")["images"]
    assert (dead["outcome"]["status"], alive["outcome"]["status"]) == ("failed", "repaired")


def test_scan_goes_on_with_the_files(world, group):
    world.put(world.image(BASE), BASE)
    for words in ((), (LVM_SR, SR), (f"/dev/{group.group}", SR)):
        images = {one["path"]: one for one in run(world, group, "scan", *words)["images"]}
        assert images.pop(str(world.path()))["verdict"] == "valid"
        (dead,) = images.values()
        assert dead["verdict"] == "unreadable"
        assert STUCK in dead["note"]


def test_a_stuck_vhd_util_is_said_and_the_repair_stands(world, group, dead):
    stub(group.bin, "vhd-util", f"exec cat {dead}")
    stub(group.bin, "lvs", f"exec cat {dead}")
    world.damaged(BASE)
    line = ("repair", world.path(), f"/dev/{group.group}/VHD-{OTHER}", "--yes")
    images = run(world, group, *line)["images"]
    outcome = next(one["outcome"] for one in images if one["path"] == str(world.path()))
    assert outcome["status"] == "repaired"
    assert "vhd-util" in outcome["message"]
    assert STUCK in outcome["message"]


def test_a_disk_whose_whole_name_is_known_needs_no_answer_of_lvm(world, group):
    """Its first digits do: another disk may begin with them."""
    world.damaged(BASE)
    (outcome,) = (one["outcome"] for one in run(world, group, "repair", BASE, "--yes")["images"])
    assert outcome["status"] == "repaired"
    (image,) = run(world, group, "check", BASE[:8])["images"]
    assert (image["verdict"], STUCK in image["note"]) == ("unreadable", True)


def test_an_lvm_that_fails_spoils_no_file(world, group):
    stub(group.bin, "lvs", "echo '  Cannot process volume group' >&2; exit 5")
    world.damaged(BASE)
    images = {one["path"]: one["verdict"] for one in run(world, group, "scan", is_stuck=False)["images"]}
    assert images == {f"/dev/{group.group}": "unreadable", str(world.path()): "invalid"}
    dead, alive = run(world, group, "repair", f"{LVM_SR}/{OTHER}", BASE, "--yes", is_stuck=False)["images"]
    assert (dead["outcome"]["status"], alive["outcome"]["status"]) == ("failed", "repaired")
    assert dead["outcome"]["message"] == "lvs failed (5): Cannot process volume group"


def test_a_stuck_tap_ctl_is_said_and_costs_its_limit_once(world, group, dead):
    stub(group.bin, "tap-ctl", f"echo tap-ctl >> {group.log}; exec cat {dead}")
    paths = [world.damaged(vdi) for vdi in (BASE, OTHER)]
    images = run(world, group, "repair", *paths, "--yes")["images"]
    assert [one["outcome"]["status"] for one in images] == ["repaired", "repaired"]
    assert group.log.read_text() == "tap-ctl\n"


def test_a_stuck_lvchange_is_said_and_what_it_may_still_do(world, group, dead):
    name = f"VHD-{OTHER}"
    stub(group.bin, "lvs", f"echo '  {group.group}|{name}|-ri-------|8388608'")
    stub(group.bin, "lvchange", f"exec cat {dead}")
    world.damaged(BASE)
    volume = f"/dev/{group.group}/{name}"
    images = run(world, group, "repair", volume, world.path(), "--yes")["images"]
    outcomes = {one["path"]: one["outcome"] for one in images}
    assert outcomes[str(world.path())]["status"] == "repaired"
    assert outcomes[volume]["status"] == "failed"
    assert STUCK in outcomes[volume]["message"]
    assert outcomes[volume]["message"].endswith(
        f"; {volume} is not active and may become so when the storage answers again"
    )


def test_a_follower_repairs_the_files_and_ends_when_told(world, group):
    out, folder = world.folder / "out", world.folder / "follow"
    line = [sys.executable, "-m", "smfix", "from-log", "-f", str(two_disks(world)), "--json", "--yes"]
    line += ["--state-dir", str(folder), *world.options("from-log")]
    environment = os.environ | {"SMFIX_PATIENCE": "1", "PATH": f"{group.bin}:{os.environ['PATH']}"}
    with out.open("wb") as to:
        follower = subprocess.Popen(line, stdout=to, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    try:
        with at_most(30):
            told = {}
            while {vdi: one["status"] for vdi, one in told.items()} != {BASE: "repaired", OTHER: "failed"}:
                time.sleep(0.05)
                events = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
                told = {one["incident"]["vdi"]: one["incident"]["outcome"] for one in events if one.get("incident")}
                told = {vdi: outcome for vdi, outcome in told.items() if outcome}
        with at_most(15):
            follower.send_signal(signal.SIGTERM)
            assert follower.wait(15) == 0
            follower.stderr.read()  # what it left behind does not hold it open
    finally:
        follower.kill()
        follower.stderr.close()
        follower.wait()


def test_a_repair_of_a_volume_cannot_be_undone_now(world, tmp_path, loop_device, dead, monkeypatch):
    group = LvmHost(tmp_path, LVM_SR, loop_device)
    group.dead = dead
    try:
        raw = world.image(OTHER, hidden=1)
        group.volume(f"VHD-{OTHER}", raw[:-512] + bytes(512), size=len(raw))
        monkeypatch.setenv("PATH", f"{group.bin}:{os.environ['PATH']}")
        (image,) = world.run("repair", f"{LVM_SR}/{OTHER}", "--yes", "--json").json["images"]
        journal = image["outcome"]["journal"]
        lvs = (group.bin / "lvs").read_text()
        stub(group.bin, "lvs", f"exec cat {dead}")
        outcome = run(world, group, "undo", journal, "--yes")["outcome"]
        assert (outcome["status"], outcome["journal"]) == ("failed", journal)
        assert STUCK in outcome["message"]
        stub(group.bin, "lvs", lvs.partition("\n")[2])
        assert world.run("undo", journal, "--yes").code == 0
    finally:
        group.close()


# ------------------------------------------------------------------------------ devices


@pytest.fixture
def dying_device(tmp_path, loop_device):
    """A function bytes -> (a loop device with them, a function after which its reads are not answered)."""
    source, mount = tmp_path / "source", tmp_path / "dead"
    with ExitStack() as stack:

        def make(raw):
            for folder in (source, mount):
                folder.mkdir()
            (source / "file").write_bytes(raw)
            hang = stack.enter_context(served(mount, source, "read", "swallow"))
            return loop_device(mount / "file"), hang

        make.revive = stack.close
        try:
            yield make
        except Cannot as why:
            pytest.skip(str(why))


def test_a_volume_whose_disk_is_dead_is_not_opened(world, tmp_path, dying_device):
    """Its first sectors are in the cache: that they can be read says nothing of the disk."""
    device = []

    def attach(file):
        node, hang = dying_device(file.read_bytes())
        device.append(hang)
        return node

    group = LvmHost(tmp_path, LVM_SR, attach)
    try:
        raw = world.image(OTHER)
        group.volume(f"VHD-{OTHER}", raw[:-512] + bytes(512), active=True, rw=True)
        path = f"/dev/{group.group}/VHD-{OTHER}"
        with open(path, "rb") as volume:
            volume.read(1 << 20)
        world.damaged(BASE)
        device[0]()
        said = "has not answered for 1 s"
        for words in (("check", path, world.path()), ("scan", LVM_SR, SR)):
            images = {one["path"]: one for one in run(world, group, *words, is_stuck=False)["images"]}
            assert (images[path]["verdict"], images[str(world.path())]["verdict"]) == ("unreadable", "invalid")
            assert said in images[path]["note"]
        document = run(world, group, "from-log", two_disks(world), "--yes", is_stuck=False)
        dead, alive = (one["outcome"] for one in document["incidents"])
        assert (dead["status"], alive["status"]) == ("failed", "repaired")
        assert said in dead["message"]
    finally:
        dying_device.revive()
        group.close()


def test_a_loop_device_over_a_dead_disk_holds_up_nobody(world, tmp_path, dying_device):
    """Asked which file is behind it, the kernel asks that file's storage."""
    _, hang = dying_device(bytes(1 << 20))
    path = world.damaged(BASE)
    hang()
    group = SimpleNamespace(bin=tmp_path)
    assert run(world, group, "repair", path, "--yes", is_stuck=False)["images"][0]["outcome"]["status"] == "repaired"


def test_a_volume_that_is_activated_is_asked_for_then(world, tmp_path, dying_device):
    """Before it has no node, so nothing that could be silent."""
    device = []

    def attach(file):
        node, hang = dying_device(file.read_bytes())
        device.append(hang)
        return node

    group = LvmHost(tmp_path, LVM_SR, attach)
    try:
        raw = world.image(OTHER, hidden=1)
        group.volume(f"VHD-{OTHER}", raw[:-512] + bytes(512))
        device[0]()
        world.damaged(BASE)
        images = run(world, group, "repair", f"{LVM_SR}/{OTHER}", world.path(), "--yes", is_stuck=False)["images"]
        outcomes = {one["path"]: one["outcome"] for one in images}
        dead = outcomes[f"/dev/{group.group}/VHD-{OTHER}"]
        assert (dead["status"], outcomes[str(world.path())]["status"]) == ("failed", "repaired")
        assert "has not answered for 1 s" in dead["message"]
    finally:
        dying_device.revive()
        group.close()
