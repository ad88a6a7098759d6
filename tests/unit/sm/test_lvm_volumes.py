"""host.lvm: what `lvs` says, and volumes that are changed and put back, by stubs that need no root.

With loop devices behind them, and through the command line: test_devices.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smfix.errors import Unreadable
from smfix.host import device_mapper
from smfix.sm import locks
from smfix.sm.locks import Clock
from smfix.sm.sr_types import lvm_activation, lvm_volumes, registry
from smfix.sm.sr_types.lvm_activation import Volumes
from smfix.sm.sr_types.lvm_volumes import Volume, as_target, inactive, parse, volume_of
from smfix.values import Backing, Reason, Target

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
GROUP = f"VG_XenStorage-{SR}"
DISK = Target(f"/dev/{GROUP}/VHD-{VDI}", Backing.BLOCK, VDI, SR)


def test_what_lvs_says():
    text = (
        f"  {GROUP}|MGT|-wi-a-----|4194304\n"
        f"  {GROUP}|VHD-{VDI}|-ri-------|8388608\n"
        f"  {GROUP}|VHD-OLD_{VDI}|-wi-ao----|8388608\n"
        f"  {GROUP}|LV-{VDI}|-Ri-a-----|8388608\n"
        "  other|root|-wi-ao----|1\n\n"
    )
    mgt, disk, old, raw = parse(text)
    assert disk == Volume(SR, f"VHD-{VDI}", 8388608, False, False, False)
    assert (disk.path, disk.vdi) == (DISK.path, VDI)
    assert (mgt.vdi, mgt.is_active, mgt.is_writable) == (None, True, True)
    assert (old.vdi, old.is_open) == (VDI, True)
    assert (raw.vdi, raw.is_writable) == (None, True)  # "R": the volume is writable, its activation is not
    assert as_target(disk) == DISK


def test_a_place_has_one_name(tmp_path, monkeypatch):
    names: dict[str, str] = {}
    monkeypatch.setattr(device_mapper, "name_at", names.get)
    mapped = lvm_volumes.VolumeName(SR, f"VHD-{VDI}").mapped
    assert (
        registry.place_of(DISK.path)
        == registry.place_of(mapped)
        == registry.place_of(f"/dev/../dev/./{mapped[5:]}")
        == DISK.path
    )
    assert registry.place_of("/dev/null") == "/dev/null"
    names["/dev/null"] = os.path.basename(mapped)
    assert registry.place_of("/dev/null") == DISK.path
    names["/dev/null"] = "vg0-root"
    assert registry.place_of("/dev/null") == "/dev/null"
    (tmp_path / "link.vhd").symlink_to(tmp_path / "x.vhd")
    assert registry.place_of(str(tmp_path / "link.vhd")) == str(tmp_path / "x.vhd")


@pytest.mark.parametrize("text", ["rubbish", f"{GROUP}|x|-wi|5", f"{GROUP}|x|-wi-a-----|many", "a|b|c|d|e"])
def test_what_is_not_its_own(text):
    with pytest.raises(Unreadable, match="lvs printed what cannot be understood"):
        parse(text)


class Stub:
    """``lvs`` and ``lvchange`` over one file of state; a folder stands for ``/dev``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dev = folder / "dev"
        (self.dev / GROUP).mkdir(parents=True)
        self.attr = folder / "attr"
        self.log = folder / "log"
        self.log.touch()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        node = self.dev / GROUP / f"VHD-{VDI}"
        lvs = f'echo "{GROUP}|VHD-{VDI}|$(cat {self.attr})|4096"'
        lvchange = (
            f'echo "$*" >> {self.log}; a=$(cat {self.attr})\n[ ! -e {folder}/fail ] || exit 5\n'
            f'case "$1 $2" in\n"-ay "*) touch {node}; a="${{a%??????}}a-----";;\n'
            f'"-an "*) rm {node}; a="${{a%??????}}------";;\n'
            f'"-p rw") a="-w${{a#??}}";;\n"-p r") a="-r${{a#??}}";;\nesac\necho $a > {self.attr}'
        )
        for name, body in (("lvs", lvs), ("lvchange", lvchange)):
            (bin_folder / name).write_text(f"#!/bin/bash\n{body}\n")
            (bin_folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
        monkeypatch.setattr(device_mapper, "DEVICES", str(self.dev))
        monkeypatch.setattr(lvm_activation, "REFCOUNTS", str(folder / "refcount"))
        self.fail = folder / "fail"
        self.bin = bin_folder
        self.is_now("-ri-------")

    def is_now(self, attr: str) -> None:
        self.attr.write_text(attr + "\n")

    @property
    def now(self) -> str:
        return self.attr.read_text().strip()

    @property
    def changes(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self.log.read_text().splitlines()]


@pytest.fixture
def stub(tmp_path, monkeypatch) -> Stub:
    # The names of volumes are read from their paths below /dev, whatever stands for it here.
    monkeypatch.setattr(Volume, "vdi", property(lambda self: self.name.removeprefix("VHD-")))
    return Stub(tmp_path, monkeypatch)


@pytest.fixture
def volumes(tmp_path) -> Volumes:
    return Volumes(str(tmp_path / "locks"), Clock(sleep=lambda _s: None))


def test_a_volume_is_activated_and_put_back(stub, volumes):
    assert inactive(DISK).reason is Reason.POLICY
    with volumes.active(DISK) as refusal:
        assert refusal is None
        assert stub.now[4] == "a"
        assert inactive(DISK) is None
    assert stub.now == "-ri-------"
    assert (stub.changes, volumes.left) == (["-ay", "-an"], [])


def test_a_volume_is_made_writable_and_put_back(stub, volumes):
    with volumes.writable(DISK) as refusal:
        assert refusal is None
        assert stub.now[1] == "w"
    assert stub.now[1] == "r"
    assert stub.changes == ["-p rw", "-p r"]


def test_put_back_though_the_block_raises(stub, volumes):
    with pytest.raises(KeyError), volumes.active(DISK), volumes.writable(DISK):
        raise KeyError
    assert stub.now == "-ri-------"


def test_what_is_so_already_is_left(stub, volumes):
    stub.is_now("-wi-a-----")
    with volumes.active(DISK) as first, volumes.writable(DISK) as second:
        assert (first, second) == (None, None)
    assert stub.changes == []


@pytest.mark.parametrize(
    "target",
    [
        Target("/x.vhd", Backing.FILE, VDI, SR),
        Target("/dev/loop0", Backing.BLOCK),
        Target(DISK.path, Backing.BLOCK, VDI, VDI),
    ],
)
def test_what_is_no_volume_is_left(stub, volumes, target):
    assert volume_of(target) is None
    assert inactive(target) is None
    with volumes.active(target) as first, volumes.writable(target) as second:
        assert (first, second) == (None, None)
    assert stub.changes == []


def test_without_lvm_there_are_no_volumes(stub, monkeypatch):
    monkeypatch.setattr(lvm_volumes.subprocesses, "program", lambda name: None)
    assert lvm_volumes.volumes(SR) == ()
    monkeypatch.setattr(device_mapper, "DEVICES", "/nonexistent")
    assert lvm_volumes.attached() == ()


def test_which_srs_are_attached(stub):
    (stub.dev / "VG_XenStorage-nonsense").mkdir()
    assert lvm_volumes.attached() == (SR,)
    assert lvm_volumes.attached(VDI) == ()


@pytest.mark.parametrize("change", ["active", "writable"])
def test_sm_holds_the_lock(stub, volumes, monkeypatch, change):
    monkeypatch.setattr(locks, "SR_WAIT", 0)
    with (
        locks.record_locks(volumes.sm_locks, [(SR, "sr", 0)]) as mine,
        getattr(volumes, change)(DISK) as refusal,
    ):
        assert mine is None
        assert refusal.reason is Reason.LOCKED
    assert stub.changes == []


def test_what_cannot_be_put_back_is_told(stub, volumes):
    with volumes.active(DISK), volumes.writable(DISK):
        stub.fail.touch()
    assert [line.split(" was ")[1] for line in volumes.left] == [
        "read-only before and is writable now: lvchange failed (5): it said nothing",
        "inactive before and is active now: lvchange failed (5): it said nothing",
    ]


def test_a_lock_that_is_busy_at_the_end_is_told(stub, volumes, monkeypatch):
    for name in ("SR_WAIT", "VDI_WAIT"):
        monkeypatch.setattr(locks, name, 0)
    with locks.record_locks(volumes.sm_locks, []), volumes.active(DISK), volumes.writable(DISK):
        held = locks.record_locks(volumes.sm_locks, [(SR, "sr", 0)])
        held.__enter__()
    held.__exit__(None, None, None)
    assert len(volumes.left) == 2
    assert all("is held" in line for line in volumes.left)


@pytest.mark.parametrize("who", ["sm", "somebody"])
def test_a_volume_in_use_by_then_stays_active(stub, volumes, tmp_path, who, monkeypatch):
    monkeypatch.setattr(lvm_activation, "OPEN_WAIT", 0.1)
    with volumes.active(DISK):
        if who == "sm":
            counts = tmp_path / "refcount" / f"lvm-{SR}"
            counts.mkdir(parents=True)
            (counts / VDI).write_text("1 0")
        else:
            stub.is_now("-ri-ao----")
    assert stub.changes == ["-ay"]
    assert volumes.left == []


def test_who_only_looks_is_waited_for(stub, tmp_path):
    """udev opens a volume after each write to it, for a moment."""
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        with locks.record_locks(str(tmp_path / "locks"), [(SR, "sr", 0)]) as busy:
            assert busy is None  # a VM that starts waits for this lock
        if len(waited) == 3:
            stub.is_now("-ri-a-----")

    volumes = Volumes(str(tmp_path / "locks"), Clock(sleep=sleep))
    with volumes.active(DISK):
        stub.is_now("-ri-ao----")
    assert stub.changes == ["-ay", "-an"]
    assert (len(waited), volumes.left) == (3, [])


def test_a_node_that_does_not_come(stub, tmp_path):
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    (stub.bin / "lvchange").write_text("#!/bin/sh\nexit 0\n")
    volumes = Volumes(None, Clock(lambda: now[0], sleep))
    with pytest.raises(Unreadable, match="was activated, yet it is not there"), volumes.active(DISK):
        pytest.fail("it is not there")
    assert now[0] >= lvm_activation.NODE_WAIT


def test_half_an_lvm(stub, volumes):
    (stub.bin / "lvchange").unlink()
    if lvm_volumes.subprocesses.program("lvchange") is None:
        with pytest.raises(Unreadable, match="lvchange is not installed"), volumes.writable(DISK):
            pytest.fail("nothing was changed")
