"""host.guard: every reason not to write an image now, and none where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smfix.host import guard
from smfix.host.guard import HostGuard, name_refusal, shared_refusal
from smfix.host.storage import OpenImage, open_image
from smfix.model import Backing, Reason, Refusal, Target

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


# ------------------------------------------------------------------------------ names


def test_a_plain_disk_is_free(vhd):
    assert name_refusal(target(vhd)) is None
    assert name_refusal(target(vhd, vdi=None, sr=None)) is None


@pytest.mark.parametrize("name", [f"OLD_{VDI}.vhd", f"DELETED_{VDI}.vhd", f"{VDI}.vhd.new"])
def test_temporary_names_are_the_storage_managers(sr_folder, name):
    refusal = name_refusal(target(sr_folder / name, sr=None))
    assert refusal.reason is Reason.SM_PENDING
    assert "temporary name" in refusal.message
    assert refusal.next == (f"xe sr-scan uuid={SR}",)


def test_a_copy_is_not_repaired(sr_folder):
    refusal = name_refusal(target(sr_folder / "tmpAb3_x9" / f"{VDI}.vhd"))
    assert refusal.reason is Reason.IMAGE_COPY
    assert "repair the disk it was made from" in refusal.message


@pytest.mark.parametrize(
    "journal",
    [
        *(f"{kind}_{VDI}" for kind in ("coalesce", "relink", "leaf", "clone", "zero", "inflate", "jvhd")),
        f"leaf_{VDI}_{CHILD}",
        f".journal-{VDI}",
    ],
)
def test_a_journal_for_this_vdi_forbids_it(vhd, sr_folder, journal):
    (sr_folder / journal).write_text("1")
    refusal = name_refusal(target(vhd))
    assert refusal.reason is Reason.SM_PENDING
    assert journal in refusal.message
    # The path alone names the VDI too.
    assert name_refusal(target(vhd, vdi=None)).reason is Reason.SM_PENDING


def test_a_leaf_journal_concerns_the_parent_too(vhd, sr_folder):
    journal = sr_folder / f"leaf_{CHILD}"
    journal.write_text(f"{STRANGER}\n")
    assert name_refusal(target(vhd)) is None
    journal.write_text(f"{VDI}\n")
    assert name_refusal(target(vhd)).reason is Reason.SM_PENDING
    journal.unlink()
    (sr_folder / f"leaf_{CHILD}_{VDI}").touch()
    assert name_refusal(target(vhd)).reason is Reason.SM_PENDING


def test_a_leaf_journal_that_cannot_be_read_names_nobody(vhd, sr_folder):
    (sr_folder / f"leaf_{CHILD}").symlink_to("/etc/hostname")
    (sr_folder / f"leaf_{STRANGER}").mkdir()
    assert name_refusal(target(vhd)) is None


def test_the_coalesce_of_a_known_child_forbids_its_parent(vhd, sr_folder):
    (sr_folder / f"coalesce_{CHILD}").write_text("1")
    assert name_refusal(target(vhd)) is None
    assert name_refusal(target(vhd), (CHILD,)).reason is Reason.SM_PENDING
    assert name_refusal(target(vhd), (STRANGER,)) is None


def test_near_misses_are_no_journals(vhd, sr_folder):
    for name in (f"coalesced_{VDI}", f"coalesce-{VDI}", f"xcoalesce_{VDI}", f"relink_{VDI}x",
                 f"relink_{STRANGER}", f".journal-{STRANGER}", f"{VDI}.vhd.bak"):  # fmt: skip
        (sr_folder / name).touch()
    assert name_refusal(target(vhd)) is None


def test_a_device_without_a_name_and_a_lost_folder_have_no_journals(tmp_path):
    assert name_refusal(Target("/dev/loop0", Backing.BLOCK)) is None
    assert name_refusal(target(tmp_path / "gone" / f"{VDI}.vhd")) is None


def test_a_temporary_name_outside_of_an_sr_has_no_command(tmp_path):
    assert name_refusal(target(tmp_path / f"OLD_{VDI}.vhd", sr=None)).next == ()


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
    assert guard._file_system("/run/sr mount/a.vhd", proc) == "ext4"
    assert guard._file_system("/run/sr mount/deep/a.vhd", proc) == "cifs"
    assert guard._file_system("/run/sr mount/deeper/a.vhd", proc) == "ext4"
    assert guard._file_system("/etc/a.vhd", proc) == "ext4"
    mountinfo(tmp_path, "nonsense")
    assert guard._file_system("/etc/a.vhd", proc) == "ext4"


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
