"""host.usage: holders are found by inode, in real processes and in made-up ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smfix.host.image_file import Identity
from smfix.host.open_files import MAX_HOLDERS, OpenState, open_state, usage_of
from smfix.values import InUse

HOLD = "import os, sys; os.open(sys.argv[1], int(sys.argv[2])); print(flush=True); sys.stdin.read()"


class Holder:
    """A real process that has a file open."""

    def __init__(self, path: Path, flags: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), str(flags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout.readline()

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.communicate()


@pytest.fixture
def disk(tmp_path) -> Path:
    path = tmp_path / "disk.vhd"
    path.write_bytes(b"vhd")
    return path


def identity(path: Path) -> Identity:
    about = path.stat()
    return Identity(about.st_dev, about.st_ino, None, about.st_size, str(path))


class Proc:
    """A /proc of our own: links to real files, so `stat` answers as the kernel would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process("1", "init")

    def process(self, pid: str, comm: str | None = None) -> Path:
        base = self.root / pid
        (base / "fd").mkdir(parents=True)
        (base / "fdinfo").mkdir()
        if comm is not None:
            (base / "comm").write_text(f"{comm}\n")
        return base

    def open(self, pid: str, number: int, path: Path, info: str | None) -> None:
        (self.root / pid / "fd" / str(number)).symlink_to(path)
        if info is not None:
            (self.root / pid / "fdinfo" / str(number)).write_text(info)

    def ask(self, path: Path, sys_root: Path | None = None) -> OpenState:
        root = str(sys_root or self.root / "no-sys")
        return open_state(identity(path), proc=str(self.root), sys=root)


@pytest.fixture
def proc(tmp_path) -> Proc:
    return Proc(tmp_path / "proc")


# ------------------------------------------------------------------------------ real processes


def test_nobody_holds_a_fresh_file(disk):
    seen = open_state(identity(disk))
    assert seen.state in (InUse.NONE, InUse.UNKNOWN)
    assert seen.holders == ()
    assert (seen.state is InUse.UNKNOWN) == (seen.blind is not None)
    if os.geteuid() == 0:
        assert seen.state is InUse.NONE


def test_this_process_itself_is_no_holder(disk):
    with disk.open("r+b"):
        assert open_state(identity(disk)).holders == ()


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY])
def test_a_writer_is_seen_whatever_the_file_is_called(disk, tmp_path, flags):
    other_name = tmp_path / "OLD_x.vhd"
    os.link(disk, other_name)
    with Holder(other_name, flags) as process:
        other_name.unlink()
        seen = open_state(identity(disk))
        assert seen.state is InUse.READ_WRITE
        assert [f"(pid {process.pid}) read-write" in holder for holder in seen.holders] == [True]
    assert open_state(identity(disk)).holders == ()


def test_a_reader_is_a_reader(disk):
    with Holder(disk, os.O_RDONLY) as process:
        seen = open_state(identity(disk))
    assert seen.state is (InUse.READ_ONLY if seen.blind is None else InUse.UNKNOWN)
    assert f"(pid {process.pid}) read-only" in seen.holders[0]


def test_a_path_descriptor_holds_nothing(disk):
    with Holder(disk, os.O_PATH):
        assert open_state(identity(disk)).holders == ()


def test_one_pass_answers_for_many(disk, tmp_path):
    others = []
    for number in range(50):
        path = tmp_path / f"{number}.vhd"
        path.touch()
        others.append(identity(path))
    with Holder(disk, os.O_RDWR):
        seen = usage_of((*others, identity(disk)))
    assert [one.state is InUse.READ_WRITE for one in seen] == [*[False] * 50, True]
    assert usage_of(()) == ()


@pytest.mark.root
@pytest.mark.parametrize("name", ["disk.vhd", "ends in a new line.vhd\n", "deleted.vhd"])
def test_a_loop_device_is_asked_for_the_inode(disk, tmp_path, loop_device, name):
    """Its path may mean nothing here: another namespace's, renamed, ending in a newline, deleted."""
    path = tmp_path / name
    if path != disk:
        path.write_bytes(bytes(512))
    device = loop_device(path)
    seen = identity(path)
    if name.startswith("deleted"):
        path.unlink()
    assert open_state(seen).holders == (f"loop device {Path(device).name} read-write",)


THREADS = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
def hold():
    if sys.argv[2] == "unshared":
        assert libc.unshare(0x400) == 0
    fd = os.open(sys.argv[1], os.O_RDWR)
    print(flush=True)
    sys.stdin.read()
    os._exit(0)
if sys.argv[2] == "unshared":
    threading.Thread(target=hold).start()
    time.sleep(60)
else:
    threading.Thread(target=hold, daemon=True).start()
    libc.pthread_exit(None)
"""


@pytest.mark.parametrize("how", ["unshared", "first thread ended"])
def test_descriptors_of_a_thread_alone_are_seen(disk, how):
    with subprocess.Popen(
        [sys.executable, "-c", THREADS, str(disk), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()
        assert open_state(identity(disk)).state is InUse.READ_WRITE
        process.stdin.close()


@pytest.mark.root
@pytest.mark.tools("losetup")
def test_the_file_behind_a_loop_device_is_in_use(disk, loop_device):
    disk.write_bytes(bytes(4096))
    device = loop_device(disk)
    seen = open_state(identity(disk))
    assert seen.state is InUse.READ_WRITE
    assert seen.holders == (f"loop device {Path(device).name} read-write",)
    about = os.stat(device)
    node = Identity(about.st_dev, about.st_ino, about.st_rdev, 4096, device)
    assert open_state(node).state is InUse.NONE
    with Holder(Path(device), os.O_RDWR) as process:
        seen = open_state(node)
        assert seen.state is InUse.READ_WRITE
        assert f"(pid {process.pid})" in seen.holders[0]


# ------------------------------------------------------------------------------ made-up ones


def test_two_descriptors_of_a_process_are_one_holder(proc, disk):
    proc.process("71", "tapdisk")
    proc.open("71", 3, disk, "pos:\t0\nflags:\t0100000\n")
    proc.open("71", 4, disk, "pos:\t0\nflags:\t0100002\n")
    proc.open("71", 5, disk, "pos:\t0\nflags:\t0100000\n")
    assert proc.ask(disk) == OpenState(InUse.READ_WRITE, ("tapdisk (pid 71) read-write",), None)


def test_writers_are_named_first_and_the_rest_is_counted(proc, disk):
    for pid in range(70, 80):
        proc.process(str(pid), "tapdisk")
        proc.open(str(pid), 3, disk, f"flags:\t010000{2 if pid == 79 else 0}\n")
    seen = proc.ask(disk)
    assert seen.state is InUse.READ_WRITE
    assert seen.holders[0] == "tapdisk (pid 79) read-write"
    assert len(seen.holders) == MAX_HOLDERS + 1
    assert seen.holders[-1] == "2 more"


@pytest.mark.parametrize("info", ["", "flags:\n", "flags:\tnine\n"])
def test_flags_that_cannot_be_read_are_taken_for_writing(proc, disk, info):
    proc.process("71")
    proc.open("71", 3, disk, info)
    assert proc.ask(disk) == OpenState(InUse.READ_WRITE, ("a process (pid 71) read-write",), None)


def test_what_closes_or_ends_meanwhile_holds_nothing(proc, disk, tmp_path):
    proc.process("71", "")
    proc.open("71", 3, disk, None)
    proc.open("71", 4, tmp_path / "nowhere", "flags:\t02\n")
    (proc.root / "72").mkdir()
    (proc.root / "self").mkdir()
    assert proc.ask(disk) == OpenState(InUse.NONE, (), None)


def forbid(monkeypatch, *folders: str) -> None:
    listdir = os.listdir

    def listing(path):
        if any(str(path).endswith(folder) for folder in folders):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listing)


def test_what_cannot_be_seen_is_counted_without_kernel_threads(proc, disk, monkeypatch):
    for pid, stat in (
        ("2", "2 (kthreadd) S 0 0"),
        ("3", "3 (a) b (c)) S 2 0"),
        ("71", "71 (tapdisk) S 1 0"),
        ("72", "nonsense"),
    ):
        (proc.process(pid, "x") / "stat").write_text(stat)
    proc.process("73", "x")
    forbid(monkeypatch, "/2/fd", "/3/fd", "/71/fd", "/72/fd", "/73/fd")
    assert proc.ask(disk) == OpenState(InUse.UNKNOWN, (), "the files of 3 processes of other users")
    proc.process("74", "cat")
    proc.open("74", 3, disk, "flags:\t00\n")
    seen = proc.ask(disk)
    assert seen.state is InUse.UNKNOWN
    assert seen.holders == ("cat (pid 74) read-only",)
    proc.open("74", 4, disk, "flags:\t02\n")
    assert proc.ask(disk).state is InUse.READ_WRITE


def test_a_proc_that_hides_processes_is_noticed(proc, disk, monkeypatch):
    (proc.root / "1").rename(proc.root / "9")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seen = proc.ask(disk)
    assert seen == OpenState(InUse.UNKNOWN, (), "processes of other users, which /proc hides here")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert proc.ask(disk).state is InUse.NONE


def test_no_proc_at_all_is_said(disk, tmp_path):
    seen = open_state(identity(disk), proc=str(tmp_path / "none"), sys=str(tmp_path))
    assert seen.state is InUse.UNKNOWN
    assert "No such file" in seen.blind


def test_loop_devices_are_asked_for_their_files(proc, disk, tmp_path):
    block = tmp_path / "sys" / "block"
    for name, file, read_only in (
        ("loop0", f"{disk}\n", "1\n"),
        ("loop1", f"{tmp_path}/gone (deleted)\n", "0\n"),
        ("loop2", None, "0\n"),
        ("sda", f"{disk}\n", "0\n"),
    ):
        (block / name / "loop").mkdir(parents=True)
        (block / name / "ro").write_text(read_only)
        if file is not None:
            (block / name / "loop" / "backing_file").write_text(file)
    seen = proc.ask(disk, tmp_path / "sys")
    assert seen == OpenState(InUse.READ_ONLY, ("loop device loop0 read-only",), None)
    (block / "loop0" / "ro").write_text("0\n")
    assert proc.ask(disk, tmp_path / "sys").state is InUse.READ_WRITE


def test_what_is_stacked_on_a_device_or_mounts_it_holds_it(proc, tmp_path):
    node = Identity(5, 7, os.makedev(252, 3), 4096, "/dev/dm-3")

    def ask() -> OpenState:
        return open_state(node, proc=str(proc.root), sys=str(tmp_path / "sys"))

    assert ask() == OpenState(InUse.NONE, (), None)
    mounts = proc.root / "self" / "mountinfo"
    mounts.parent.mkdir()
    mounts.write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 252:3 / /mnt ro,relatime - ext4 /dev/dm-3 rw\n"
    )
    assert ask() == OpenState(InUse.READ_ONLY, ("mount /mnt read-only",), None)
    (tmp_path / "sys/dev/block/252:3/holders/dm-9").mkdir(parents=True)
    assert ask().holders == ("device dm-9 read-write", "mount /mnt read-only")
    mounts.write_text("nonsense\n")
    assert ask().holders == ("device dm-9 read-write",)
