"""host.pending: temporary names, copies, and journals that say that SM is not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from smfix.errors import Unreadable
from smfix.sm.journals import coalescing, name_refusal, names_beside
from smfix.sm.sr_types import lvm_volumes
from smfix.sm.sr_types.lvm_volumes import Volume
from smfix.values import Backing, Reason, Target
from steps import lines

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


def test_a_plain_disk_is_free(vhd):
    assert name_refusal(target(vhd)) is None
    assert name_refusal(target(vhd, vdi=None, sr=None)) is None


@pytest.mark.parametrize("name", [f"OLD_{VDI}.vhd", f"DELETED_{VDI}.vhd", f"{VDI}.vhd.new"])
def test_temporary_names_are_the_storage_managers(sr_folder, name):
    refusal = name_refusal(target(sr_folder / name, sr=None))
    assert refusal.reason is Reason.SM_PENDING
    assert "temporary name" in refusal.message
    assert lines(refusal.next) == (f"xe sr-scan uuid={SR}",)


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


# ------------------------------------------------------------------------------ of an LVM SR


@pytest.fixture
def volumes(monkeypatch):
    """The names of the SR's volumes; none is active."""
    names: list[str] = []
    monkeypatch.setattr(
        lvm_volumes,
        "volumes",
        lambda sr: tuple(Volume(sr, name, 4 << 20, False, False, False) for name in names),
    )
    return names


DEVICE = Target(f"/dev/VG_XenStorage-{SR}/VHD-{VDI}", Backing.BLOCK, VDI, SR)


def test_journals_of_volumes(volumes):
    volumes += [f"VHD-{VDI}", f"VHD-{CHILD}", "MGT", f"inflate_{STRANGER}_1"]
    assert name_refusal(DEVICE) is None
    volumes.append(f"coalesce_{CHILD}_1")
    assert name_refusal(DEVICE) is None
    assert name_refusal(DEVICE, [CHILD]).reason is Reason.SM_PENDING
    assert coalescing(names_beside(DEVICE, "/dev")) == f"coalesce_{CHILD}_1"
    volumes[-1] = f"inflate_{VDI}_4096"
    assert name_refusal(DEVICE).reason is Reason.SM_PENDING
    assert coalescing(names_beside(DEVICE, "/dev")) is None


def test_a_leaf_journal_of_volumes_does_not_say_whose_parent(volumes):
    """Its name would be too long with the parent in it, and an inactive volume cannot be read."""
    volumes.append(f"leaf_{STRANGER}")
    assert name_refusal(DEVICE).reason is Reason.SM_PENDING


def test_a_leaf_journal_of_a_child(vhd, sr_folder):
    (sr_folder / f"leaf_{CHILD}").touch()
    assert name_refusal(target(vhd)) is None
    assert name_refusal(target(vhd), [CHILD]).reason is Reason.SM_PENDING


def test_an_lvm_that_fails_is_no_empty_folder(monkeypatch):
    def fails(sr):
        raise Unreadable("lvs failed")

    monkeypatch.setattr(lvm_volumes, "volumes", fails)
    with pytest.raises(Unreadable):
        name_refusal(DEVICE)
