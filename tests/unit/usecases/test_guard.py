"""host.guard: every reason not to write an image now, and none where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from smfix.errors import Unreadable
from smfix.host.image_file import OpenImage, open_image
from smfix.host.mounts import mount_of
from smfix.sm import locks
from smfix.usecases.guard import HostGuard, shared_refusal
from smfix.values import Backing, Reason, Refusal, Target
from smfix.xapi.records import Attachment, PoolDiskState, PoolHost

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
CHILD = "c5c0cdc3-c2c4-4c43-a5a2-845f36b866a4"
STRANGER = "00000000-c2c4-4c43-a5a2-845f36b866a4"


@pytest.fixture
def sr_folder(tmp_path) -> Path:
    folder = tmp_path / "sr-mount" / SR
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def vhd(sr_folder) -> Path:
    path = sr_folder / f"{VDI}.vhd"
    path.write_bytes(bytes(1024))
    return path


def target(path: Path | str, *, vdi: str | None = VDI, sr: str | None = SR) -> Target:
    return Target(str(path), Backing.FILE, vdi, sr)


def mountinfo(root: Path, *lines: str) -> str:
    (root / "self").mkdir(parents=True, exist_ok=True)
    (root / "1").mkdir(exist_ok=True)
    rows = ("22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw", *lines)
    (root / "self" / "mountinfo").write_text("\n".join(rows) + "\n")
    return str(root)


# ------------------------------------------------------------------------------ shared storage


def test_a_local_file_system_is_not_shared(vhd, tmp_path):
    proc = mountinfo(tmp_path / "proc")
    assert shared_refusal(target(vhd), str(vhd), hidden=False, proc=proc) is None
    none = str(tmp_path / "none")
    assert shared_refusal(target(vhd), str(vhd), hidden=False, proc=none) is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.glusterfs", "gfs2", "ceph"])
def test_on_a_shared_one_only_hidden_disks_are_written(vhd, sr_folder, tmp_path, kind):
    row = f"40 22 0:44 / {sr_folder} rw,relatime - {kind} server:/export rw"
    proc = mountinfo(tmp_path / "proc", row)
    conf = str(tmp_path / "pool.conf")
    for hidden in (False, None):
        refusal = shared_refusal(target(vhd), str(vhd), hidden=hidden, proc=proc, pool_conf=conf)
        assert refusal.reason is Reason.SHARED_SR_UNKNOWN
        assert kind in refusal.message
        assert "copy the image" in refusal.message
    assert shared_refusal(target(vhd), str(vhd), hidden=True, proc=proc, pool_conf=conf) is None
    Path(conf).write_text("master")
    assert shared_refusal(target(vhd), str(vhd), hidden=True, proc=proc, pool_conf=conf) is None
    Path(conf).write_text("slave:192.0.2.1")
    refusal = shared_refusal(target(vhd), str(vhd), hidden=True, proc=proc, pool_conf=conf)
    assert refusal.reason is Reason.SHARED_SR_UNKNOWN
    assert "coordinator" in refusal.message


def test_a_coalesce_of_another_host_is_seen_by_its_journal(vhd, sr_folder, tmp_path):
    proc = mountinfo(tmp_path / "proc", f"40 22 0:44 / {sr_folder} rw - nfs4 s:/e rw")
    (sr_folder / f"relink_{STRANGER}").touch()
    conf = str(tmp_path / "none")
    assert shared_refusal(target(vhd), str(vhd), hidden=True, proc=proc, pool_conf=conf) is None
    (sr_folder / f"coalesce_{STRANGER}").touch()
    refusal = shared_refusal(target(vhd), str(vhd), hidden=True, proc=proc, pool_conf=conf)
    assert refusal.reason is Reason.SM_PENDING
    assert f"coalesce_{STRANGER}" in refusal.message


def test_the_last_and_longest_mount_counts(tmp_path):
    rows = (
        "40 22 0:44 / /run/sr\\040mount rw - nfs4 s:/e rw",
        "41 22 0:45 / /run/sr\\040mount rw - ext4 /dev/sdb rw",
        "42 22 0:46 / /run/sr\\040mount/deep rw - cifs //s/e rw",
        "43 22 0:47 / /run/sr\\040mountain rw - nfs4 s:/e rw",
    )
    proc = mountinfo(tmp_path, *rows)
    assert mount_of("/run/sr mount/a.vhd", proc).kind == "ext4"
    assert mount_of("/run/sr mount/deep/a.vhd", proc).kind == "cifs"
    assert mount_of("/run/sr mount/deeper/a.vhd", proc).kind == "ext4"
    assert mount_of("/etc/a.vhd", proc).kind == "ext4"
    mountinfo(tmp_path, "nonsense")
    assert mount_of("/etc/a.vhd", proc).kind == "ext4"


def test_an_srs_volume_may_be_on_another_host_too():
    device = Target(f"/dev/VG_XenStorage-{SR}/VHD-{VDI}", Backing.BLOCK, VDI, SR)
    assert shared_refusal(device, "/dev/dm-3", hidden=False).reason is Reason.SHARED_SR_UNKNOWN
    assert shared_refusal(device, "/dev/dm-3", hidden=True, pool_conf="/none") is None
    loop = Target("/dev/loop0", Backing.BLOCK)
    assert shared_refusal(loop, "/dev/loop0", hidden=False) is None


# ------------------------------------------------------------------------------ all together

HOLD = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"


def opened(path: Path, **options) -> OpenImage:
    image = open_image(target(path, **options), write=True)
    assert isinstance(image, OpenImage)
    return image


@pytest.fixture
def host(tmp_path) -> HostGuard:
    return HostGuard(
        hidden=lambda view: False,
        sm_locks=str(tmp_path / "sm-locks"),
        state=str(tmp_path / "state"),
        proc=mountinfo(tmp_path / "proc"),
        sys=str(tmp_path / "sys"),
        pool_conf=str(tmp_path / "pool.conf"),
    )


def reason(refusal: Refusal | None) -> Reason | None:
    return refusal and refusal.reason


def test_nothing_speaks_against_a_disk_at_rest(host, vhd):
    with opened(vhd) as image:
        assert host.objection(image) is None
        with host.own_lock(image) as own, host.host_locks(image) as theirs:
            assert own is None
            assert theirs is None
            assert host.objection(image) is None
            with host.own_lock(image) as second:
                assert reason(second) is Reason.LOCKED


def test_a_disk_that_moved_on_is_stale(host, vhd):
    with opened(vhd) as image:
        vhd.rename(vhd.with_name(f"OLD_{VDI}.vhd"))
        assert reason(host.objection(image)) is Reason.STALE


def test_a_disk_that_another_process_writes_is_in_use(vhd, tmp_path):
    host = HostGuard(lambda view: False, None, str(tmp_path))
    with opened(vhd) as image:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(vhd)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline()
        refusal = host.objection(image)
        process.communicate()
        assert reason(refusal) is Reason.IN_USE
        assert f"(pid {process.pid}) read-write" in refusal.message
        assert reason(host.objection(image)) is None


def test_what_cannot_be_seen_forbids_only_where_a_storage_manager_is(host, vhd, monkeypatch):
    fd = Path(host.proc) / "71" / "fd"
    fd.mkdir(parents=True)
    listdir = os.listdir

    def listing(path):
        if str(path) == str(fd):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listing)
    with opened(vhd) as image:
        refusal = host.objection(image)
        assert reason(refusal) is Reason.IN_USE
        assert "processes of other users" in refusal.message
        assert refusal.message.endswith("run smfix as root")
        elsewhere = HostGuard(lambda view: False, None, host.state, proc=host.proc, sys=host.sys)
        assert elsewhere.objection(image) is None


def test_names_and_shared_storage_are_asked_about(host, vhd, sr_folder, tmp_path):
    with opened(vhd) as image:
        mountinfo(Path(host.proc), f"40 22 0:44 / {os.path.realpath(sr_folder)} rw - nfs s:/e rw")
        assert reason(host.objection(image)) is Reason.SHARED_SR_UNKNOWN
        hidden = HostGuard(lambda view: True, None, host.state, (CHILD,), host.proc, host.sys, host.pool_conf)
        assert hidden.objection(image) is None
        (sr_folder / f"coalesce_{CHILD}").touch()
        assert reason(hidden.objection(image)) is Reason.SM_PENDING


def test_sms_locks_are_taken_for_disks_of_an_sr_on_its_host(host, vhd, tmp_path):
    sm = tmp_path / "sm-locks"
    with opened(vhd, vdi=None, sr=None) as image, host.host_locks(image) as refusal:
        assert refusal is None
        assert (sm / SR / "running").exists()
        assert (sm / VDI / "vdi").exists()


def test_no_locks_of_sm_elsewhere(host, vhd, tmp_path):
    free = tmp_path / "disk.vhd"
    free.touch()
    with opened(free, vdi=None, sr=None) as image, host.host_locks(image) as refusal:
        assert refusal is None
    nowhere = HostGuard(lambda view: False, None, str(tmp_path))
    with opened(vhd) as image, nowhere.host_locks(image) as refusal:
        assert refusal is None
    assert not (tmp_path / "sm-locks").exists()


def test_only_uuids_are_names_of_locks(host, vhd, tmp_path):
    with opened(vhd, vdi=VDI[:8], sr="..") as image, host.host_locks(image) as refusal:
        assert refusal is None
        assert sorted(os.listdir(tmp_path / "sm-locks")) == sorted([SR, VDI])


# ------------------------------------------------------------------------------ the pool

FREE = PoolDiskState((), (), left_over=False, shared=True, is_master_here=True, master="xen-1")
THERE = PoolHost("ref", "uuid", "xen-2")


class Pool:
    """XAPI as the guard asks it: an answer, or why there is none."""

    def __init__(self, answer: PoolDiskState | Unreadable) -> None:
        self.answer = answer
        self.paused_now: list[str] = []
        self.pauses: list[str] = []
        self.trouble: Unreadable | None = None
        self.on_resume = lambda: None

    def warm(self, sr: str) -> None:
        if isinstance(self.answer, Unreadable):
            raise self.answer

    def disk_state(self, vdi: str, sr: str) -> PoolDiskState:
        assert (vdi, sr) == (VDI, SR)
        if isinstance(self.answer, Unreadable):
            raise self.answer
        return self.answer

    @contextmanager
    def paused(self, vdi: str):
        if self.trouble is not None:
            raise self.trouble
        self.pauses.append(vdi)
        self.paused_now.append(vdi)
        yield
        self.on_resume()
        self.paused_now.remove(vdi)


def asks(host: HostGuard, pool: Pool, **other) -> HostGuard:
    return replace(host, pool=pool, **other)


def shared(host: HostGuard, sr_folder: Path) -> None:
    mountinfo(Path(host.proc), f"40 22 0:44 / {os.path.realpath(sr_folder)} rw - nfs s:/e rw")


def test_xapi_frees_a_leaf_on_shared_storage(host, vhd, sr_folder):
    shared(host, sr_folder)
    pool = Pool(FREE)
    guarded = asks(host, pool)
    with opened(vhd) as image, guarded.host_locks(image) as refusal:
        assert refusal is None
        assert pool.paused_now == [VDI]
        assert guarded.objection(image) is None
    assert pool.paused_now == []


def test_sms_locks_are_free_before_the_pause_ends(host, vhd, sr_folder):
    """XAPI may take its time to answer; a VM that starts must not wait for that."""
    pool = Pool(FREE)
    free = []

    def look() -> None:
        with locks.sm_locks(host.sm_locks, SR, VDI) as refusal:
            free.append(refusal)

    pool.on_resume = look
    with opened(vhd) as image, asks(host, pool).host_locks(image):
        assert pool.paused_now == [VDI]
    assert free == [None]


@pytest.mark.parametrize(
    ("answer", "hidden", "pauses"),
    [
        (FREE, False, [VDI]),
        (FREE, None, [VDI]),
        (FREE, True, []),
        (replace(FREE, shared=False), False, []),
        (replace(FREE, is_master_here=False), False, []),
    ],
)
def test_who_is_paused(host, vhd, answer, hidden, pauses):
    pool = Pool(answer)
    with opened(vhd) as image, asks(host, pool, hidden=lambda view: hidden).host_locks(image) as refusal:
        assert refusal is None
    assert pool.pauses == pauses


def test_a_pause_that_fails_on_shared_storage_is_a_refusal(host, vhd, sr_folder):
    pool = Pool(FREE)
    pool.trouble = Unreadable("XAPI has gone")
    with opened(vhd) as image:
        with asks(host, pool).host_locks(image) as refusal:
            assert refusal is None  # a local file system: nobody but this host has it
        shared(host, sr_folder)
        with asks(host, pool).host_locks(image) as refusal:
            assert reason(refusal) is Reason.SHARED_SR_UNKNOWN
            assert "XAPI has gone" in refusal.message


def test_without_an_answer_the_rules_for_the_unseen_hold(host, vhd, sr_folder):
    guarded = asks(host, Pool(Unreadable("XAPI has gone")))
    with opened(vhd) as image:
        assert guarded.objection(image) is None
        shared(host, sr_folder)
        refusal = guarded.objection(image)
        assert reason(refusal) is Reason.SHARED_SR_UNKNOWN
        assert refusal.message.endswith("(XAPI has gone)")
        assert asks(host, guarded.pool, hidden=lambda view: True).objection(image) is None


def test_away_from_the_hosts_xapi_may_forbid_and_not_allow(host, vhd, sr_folder):
    away = replace(FREE, is_master_here=False)
    there = replace(away, attached=(Attachment("ref", THERE, True, False),))
    with opened(vhd) as image:
        assert reason(asks(host, Pool(there), sm_locks=None).objection(image)) is Reason.IN_USE
        assert asks(host, Pool(away), sm_locks=None).objection(image) is None
        shared(host, sr_folder)
        assert reason(asks(host, Pool(away), sm_locks=None).objection(image)) is Reason.SHARED_SR_UNKNOWN
        hidden = asks(host, Pool(away), sm_locks=None, hidden=lambda view: True)
        assert hidden.objection(image) is None


def test_a_childs_journal_is_known_by_xapi(host, vhd, sr_folder):
    (sr_folder / f"coalesce_{CHILD}").touch()
    with opened(vhd) as image:
        assert asks(host, Pool(FREE)).objection(image) is None
        assert reason(asks(host, Pool(replace(FREE, children=(CHILD,)))).objection(image)) is Reason.SM_PENDING


def test_an_image_of_no_sr_is_not_asked_about(host, tmp_path):
    free = tmp_path / "disk.vhd"
    free.touch()
    with opened(free, vdi=None, sr=None) as image:
        assert asks(host, Pool(Unreadable("never asked"))).objection(image) is None


@pytest.mark.parametrize(
    ("hidden", "only_appends", "on_host", "forbidden"),
    [
        (False, False, True, True),
        (None, False, True, True),
        (False, True, True, False),
        (True, False, True, False),
        (False, False, False, False),
    ],
)
def test_a_reader_is_an_obstacle_where_it_reads(host, vhd, hidden, only_appends, on_host, forbidden):
    base = Path(host.proc) / "71"
    (base / "fd").mkdir(parents=True)
    (base / "fdinfo").mkdir()
    (base / "fd" / "3").symlink_to(vhd)
    (base / "fdinfo" / "3").write_text("flags:\t0100000\n")
    guarded = replace(host, hidden=lambda view: hidden, only_appends=only_appends)
    guarded = guarded if on_host else replace(guarded, sm_locks=None)
    with opened(vhd) as image:
        assert (reason(guarded.objection(image)) is Reason.IN_USE) is forbidden
