"""host.locks: SM's locks against real processes, both ways; smfix's own against itself."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from smfix.errors import WriteFailed
from smfix.host.image_file import Identity
from smfix.sm import locks
from smfix.sm.locks import Clock, own_lock, sm_lock_folder, sm_locks, state_folder
from smfix.values import Reason, Refusal

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
IMAGE = Identity(0x801, 0x2A, None, 512, "/run/sr-mount/x.vhd")

# The storage manager's way: F_SETLK on the whole file, through a struct flock.
SM = """
import fcntl, os, struct, sys
path, until = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
lock_file = open(path, "w+")
try:
    fcntl.fcntl(lock_file, fcntl.F_SETLK, struct.pack("hhqql", fcntl.F_WRLCK, 0, 0, 0, 0))
except OSError:
    print("busy", flush=True)
else:
    print("locked", flush=True)
    if until == "stdin":
        sys.stdin.read()
"""


class StorageManager:
    """Another process that holds one lock, until the block ends."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SM, str(path), "stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "locked\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def release(self):
        if self.process.stdin.closed:
            return
        self.process.communicate()


def tried_by_sm(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", SM, str(path), "now"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class FakeTime:
    """A clock that only sleeps; `at` runs what somebody else does meanwhile."""

    at: dict[int, object] = field(default_factory=dict)
    time: float = 0.0
    naps: int = 0

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.naps += 1
        if self.naps in self.at:
            self.at[self.naps]()

    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "lock" / "sm"


def places(folder: Path) -> list[Path]:
    return [folder / SR / "running", folder / SR / "sr", folder / VDI / "vdi"]


# ------------------------------------------------------------------------------ SM's locks


def test_sm_is_shut_out_while_they_are_held_and_not_after(folder):
    with sm_locks(str(folder), SR, VDI) as refusal:
        assert refusal is None
        assert [tried_by_sm(path) for path in places(folder)] == ["busy"] * 3
        assert tried_by_sm(folder / SR / "gc_active") == "locked"
    assert [tried_by_sm(path) for path in places(folder)] == ["locked"] * 3
    assert all(path.exists() for path in places(folder))


def test_without_a_vdi_there_are_two(folder):
    with sm_locks(str(folder), SR, None) as refusal:
        assert refusal is None
    assert not (folder / VDI).exists()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_lock_of_sm_refuses_after_a_bounded_wait(folder, which):
    time = FakeTime()
    busy = places(folder)[which]
    with StorageManager(busy):
        with sm_locks(str(folder), SR, VDI, clock=time.clock()) as refusal:
            assert isinstance(refusal, Refusal)
            assert refusal.reason is Reason.LOCKED
            assert str(busy) in refusal.message
            # What had been taken before is free again.
            for free in places(folder)[:which]:
                assert tried_by_sm(free) == "locked"
        wait = (locks.RUNNING_WAIT, locks.SR_WAIT, locks.VDI_WAIT)[which]
        assert wait <= time.time <= wait + 0.2
        # The refused attempt has not dropped SM's lock either.
        assert tried_by_sm(busy) == "busy"
    with sm_locks(str(folder), SR, VDI) as refusal:
        assert refusal is None


def test_a_lock_that_comes_free_in_time_is_taken(folder):
    sm = StorageManager(folder / SR / "sr")
    time = FakeTime(at={3: sm.release})
    with sm_locks(str(folder), SR, VDI, clock=time.clock()) as refusal:
        assert refusal is None
        assert time.naps >= 3


def test_a_real_wait_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(locks, "RUNNING_WAIT", 0.2)
    with StorageManager(folder / SR / "running"), sm_locks(str(folder), SR, VDI) as refusal:
        assert refusal is not None


def test_a_file_that_sm_unlinked_under_us_is_not_a_lock(folder, monkeypatch):
    """SM deletes the VDI between our open and our lock; another process locks the new file."""
    path = folder / SR / "running"
    lockf = fcntl.lockf
    unlinked = []

    def unlink_first(fd, operation):
        if not unlinked:
            path.unlink()
            unlinked.append(1)
        return lockf(fd, operation)

    monkeypatch.setattr(fcntl, "lockf", unlink_first)
    with sm_locks(str(folder), SR, None) as refusal:
        assert refusal is None
        assert tried_by_sm(path) == "busy"


def test_a_file_replaced_under_us_is_not_a_lock(folder, monkeypatch):
    path = folder / SR / "running"
    lockf = fcntl.lockf
    replaced = []

    def replace_first(fd, operation):
        if not replaced:
            path.unlink()
            replaced.append(path.open("w"))
        return lockf(fd, operation)

    monkeypatch.setattr(fcntl, "lockf", replace_first)
    with sm_locks(str(folder), SR, None) as refusal:
        replaced[0].close()
        assert refusal is None


def test_a_namespace_that_is_removed_at_the_wrong_moment_is_made_again(folder, monkeypatch):
    real_open, lost = os.open, []

    def lose_once(path, *rest, **named):
        if str(path).endswith("running") and not lost:
            lost.append(1)
            raise FileNotFoundError(errno.ENOENT, "gone")
        return real_open(path, *rest, **named)

    monkeypatch.setattr(os, "open", lose_once)
    with sm_locks(str(folder), SR, None) as refusal:
        assert refusal is None
        assert lost


def test_this_process_does_not_lock_twice(folder):
    """A second descriptor would drop the first lock when it is closed."""
    with sm_locks(str(folder), SR, VDI):
        with sm_locks(str(folder), SR, VDI) as second:
            assert second is not None
        assert tried_by_sm(folder / SR / "running") == "busy"


def test_release_is_in_reverse(folder, monkeypatch):
    closed = []
    close = os.close

    def note(fd):
        closed.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        close(fd)

    with sm_locks(str(folder), SR, VDI):
        monkeypatch.setattr(os, "close", note)
    monkeypatch.undo()
    assert [name for name in closed if name in ("running", "sr", "vdi")] == ["vdi", "sr", "running"]


def test_an_interrupt_releases_everything(folder):
    with pytest.raises(KeyboardInterrupt), sm_locks(str(folder), SR, VDI):
        raise KeyboardInterrupt
    assert [tried_by_sm(path) for path in places(folder)] == ["locked"] * 3


def test_an_interrupt_while_waiting_leaves_no_descriptor(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "lockf", interrupt)
    with pytest.raises(KeyboardInterrupt), sm_locks(str(folder), SR, VDI):
        pass
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_link_is_not_followed_and_an_error_is_a_refusal(folder, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / SR).mkdir(parents=True)
    (folder / SR / "running").symlink_to(victim)
    with sm_locks(str(folder), SR, VDI) as refusal:
        assert refusal.reason is Reason.LOCKED
        assert "cannot be taken" in refusal.message
    (folder / SR / "running").unlink()

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with sm_locks(str(folder), SR, VDI) as refusal:
        assert "No locks available" in refusal.message
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(("sr", "vdi"), [("..", VDI), (SR, "../x"), (SR[:8], None), ("", VDI)])
def test_names_that_are_no_uuids_become_no_files(folder, sr, vdi):
    with pytest.raises(ValueError, match="no UUIDs"), sm_locks(str(folder), sr, vdi):
        pass
    assert not folder.exists()


def test_locks_are_sought_where_a_storage_manager_is(tmp_path):
    inventory = tmp_path / "inventory"
    assert sm_lock_folder(inventory=str(inventory)) is None
    assert sm_lock_folder("/given", inventory=str(inventory)) == "/given"
    inventory.touch()
    assert sm_lock_folder(inventory=str(inventory)) == "/var/lock/sm"


def test_time_is_the_real_one_where_none_is_given():
    clock = Clock()
    before = clock.now()
    clock.sleep(0)
    assert clock.now() >= before


# ------------------------------------------------------------------------------ smfix's own

OWN = """
import sys
from smfix.sm.locks import own_lock
from smfix.host.image_file import Identity
with own_lock(Identity(0x801, 0x2A, None, 512, "elsewhere"), sys.argv[1]) as refusal:
    print(refusal.message if refusal else "locked", flush=True)
    if not refusal:
        sys.stdin.read()
"""


def other_smfix(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_smfix_per_image(folder):
    with own_lock(IMAGE, str(folder)) as refusal:
        assert refusal is None
        said, _ = other_smfix(folder).communicate()
        assert said == f"another smfix (pid {os.getpid()}) is at work on this image\n"
        assert stat.S_IMODE((folder / f"{IMAGE.key}.lock").stat().st_mode) == 0o600
        with own_lock(IMAGE, str(folder)) as again:
            assert again.reason is Reason.LOCKED
        other = Identity(0x801, 0x2B, None, 512, IMAGE.path)
        with own_lock(other, str(folder)) as beside:
            assert beside is None
    with own_lock(IMAGE, str(folder)) as refusal:
        assert refusal is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.listdir(folder) == []


def test_the_other_way_round_and_a_killed_one_leaves_no_lock(folder):
    other = other_smfix(folder)
    assert other.stdout.readline() == "locked\n"
    with own_lock(IMAGE, str(folder)) as refusal:
        assert f"pid {other.pid}" in refusal.message
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with own_lock(IMAGE, str(folder)) as refusal:
        assert refusal is None


def test_a_lock_whose_file_was_removed_before_it_was_had_is_taken_anew(folder, monkeypatch):
    """The other one ends between our open and our flock: it removed the file that we locked."""
    flock, removed = fcntl.flock, []

    def remove_first(fd, operation):
        if not removed:
            removed.append(1)
            (folder / f"{IMAGE.key}.lock").unlink()
        return flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    before = set(os.listdir("/proc/self/fd"))
    with own_lock(IMAGE, str(folder)) as refusal:
        assert refusal is None
        assert other_smfix(folder).communicate()[0].startswith("another smfix")
    assert set(os.listdir("/proc/self/fd")) == before


def test_many_at_once_have_it_one_at_a_time(folder, tmp_path):
    program = (
        "import sys, os\n"
        "from smfix.sm.locks import own_lock\n"
        "from smfix.host.image_file import Identity\n"
        "for _ in range(300):\n"
        "    with own_lock(Identity(1, 2, None, 0, ''), sys.argv[1]) as refusal:\n"
        "        if refusal is None:\n"
        "            os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))\n"
        "            os.unlink(sys.argv[2])\n"
    )
    words = [sys.executable, "-c", program, str(folder), str(tmp_path / "one")]
    crowd = [subprocess.Popen(words, stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[1] for process in crowd] == [b""] * 4
    assert os.listdir(folder) == []


def test_an_owner_that_left_no_name_is_a_process(folder):
    folder.mkdir(parents=True)
    with (folder / f"{IMAGE.key}.lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        with own_lock(IMAGE, str(folder)) as refusal:
            assert "another process" in refusal.message


def test_a_planted_link_is_not_followed(folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder.mkdir(parents=True)
    (folder / f"{IMAGE.key}.lock").symlink_to(victim)
    with pytest.raises(WriteFailed, match="cannot lock"), own_lock(IMAGE, str(folder)):
        pass
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(WriteFailed, match="cannot lock"), own_lock(IMAGE, str(link)):
        pass
    assert victim.read_text() == "mine"


def test_a_planted_fifo_is_no_lock(folder):
    folder.mkdir(parents=True)
    os.mkfifo(folder / f"{IMAGE.key}.lock")
    with pytest.raises(WriteFailed, match="is not a file"), own_lock(IMAGE, str(folder)):
        pass


def test_a_folder_of_others_is_not_trusted(folder, monkeypatch):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(WriteFailed, match="others may write"), own_lock(IMAGE, str(folder)):
        pass
    folder.chmod(0o700)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(WriteFailed, match="others may write"), own_lock(IMAGE, str(folder)):
        pass


def test_a_system_without_locks_is_said_and_a_full_disk_is_none_the_worse(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with own_lock(IMAGE, str(folder)) as refusal:
            assert refusal is None
    monkeypatch.setattr(fcntl, "flock", full)
    with pytest.raises(WriteFailed, match="No space left"), own_lock(IMAGE, str(folder)):
        pass


def test_where_own_locks_lie(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_folder() == "/run/smfix"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert state_folder() == "/run/user/1000/smfix"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/.state")
    assert state_folder() == "/home/a/.state/smfix/lock"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", "/home/a")
    assert state_folder() == "/home/a/.local/state/smfix/lock"
