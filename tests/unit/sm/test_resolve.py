"""host.sr: names from logs and from the command line become one image, or say why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smfix.errors import Unreadable, UsageError
from smfix.host import device_mapper
from smfix.host.image_file import OpenImage, open_image
from smfix.sm import resolve as sr_module
from smfix.sm.resolve import Ambiguous, Found, NotFound, locate, resolve, sr_mounts
from smfix.sm.sr_types import lvm_volumes
from smfix.values import Backing, Target, VdiRef

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
OTHER_SR = "aaaaaaaa-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
TWIN = "1d994938-ffff-102f-80dc-001ec95cb0b6"


def put(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"vhd")
    return path


@pytest.fixture(autouse=True)
def no_volumes_of_other_tests(tmp_path, monkeypatch):
    """Tests that run at the same time make volume groups below /dev."""
    monkeypatch.setattr(device_mapper, "DEVICES", str(tmp_path / "dev"))


@pytest.fixture
def mount(tmp_path) -> Path:
    put(tmp_path / "sr-mount" / SR, f"{VDI}.vhd")
    return tmp_path / "sr-mount"


def found(path: Path, *, vdi=VDI, sr=SR, root=...) -> Found:
    target = Target(str(path), Backing.FILE, vdi, sr)
    return Found(target, str(path.parent) if root is ... else root)


# ------------------------------------------------------------------------------ mounts


def test_the_mounts_are_those_given_or_the_first_default_there_is(tmp_path, monkeypatch):
    new, old = tmp_path / "run", tmp_path / "var"
    monkeypatch.setattr(sr_module, "DEFAULT_MOUNTS", (str(new), str(old)))
    assert sr_mounts() == (str(new),)
    old.mkdir()
    assert sr_mounts() == (str(old),)
    new.mkdir()
    assert sr_mounts() == (str(new),)
    assert sr_mounts([str(old), str(new)]) == (str(old), str(new))
    with pytest.raises(UsageError, match="no such folder"):
        sr_mounts([str(tmp_path / "none")])


# ------------------------------------------------------------------------------ from a log


@pytest.mark.parametrize("log_mount", ["/var/run/sr-mount", "/run/sr-mount", "/elsewhere"])
def test_a_path_of_the_log_is_looked_for_below_our_mounts(mount, log_mount):
    path = f"{log_mount}/{SR}/{VDI}.vhd"
    assert locate(VdiRef(VDI), SR, path, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")


def test_a_prefix_and_its_sr_are_one_disk(mount):
    put(mount / OTHER_SR, f"{TWIN}.vhd")
    for ref in (VDI[:8], VDI[:13], VDI[:20], VDI, VDI.upper()):
        assert locate(VdiRef(ref), SR, None, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")
    assert locate(VdiRef(VDI), SR.upper(), None, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")


def test_without_an_sr_every_sr_is_looked_at(mount):
    (mount / "lost+found").mkdir()
    assert locate(VdiRef(VDI[:8]), None, None, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")
    twin = put(mount / OTHER_SR, f"{TWIN}.vhd")
    assert locate(VdiRef(VDI[:8]), None, None, [str(mount)]) == Ambiguous(
        (found(mount / SR / f"{VDI}.vhd"), found(twin, vdi=TWIN, sr=OTHER_SR))
    )


def test_two_disks_with_one_prefix_are_ambiguous(mount):
    put(mount / SR, f"{TWIN}.vhd")
    outcome = locate(VdiRef("1d994938"), SR, None, [str(mount)])
    assert isinstance(outcome, Ambiguous)
    assert [image.target.vdi for image in outcome.candidates] == [VDI, TWIN]


def test_temporary_names_are_resolved_by_their_own_prefix(mount):
    old = put(mount / SR, f"OLD_{TWIN}.vhd")
    assert locate(VdiRef("OLD_1d99"), SR, None, [str(mount)]) == found(old, vdi=TWIN)
    assert locate(VdiRef("1d994938"), SR, None, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")


def test_what_is_no_disk_is_no_candidate(mount):
    for name in (f"{TWIN}.vhd.new", f"{TWIN}.raw", f"{TWIN}.vhdcache", f"{TWIN[:20]}.vhd", "1d994938"):
        put(mount / SR, name)
    assert locate(VdiRef("1d994938"), SR, None, [str(mount)]) == found(mount / SR / f"{VDI}.vhd")


def test_one_sr_behind_two_mounts_is_one_disk(mount, tmp_path):
    (tmp_path / "var").symlink_to(mount)
    both = [str(mount), str(tmp_path / "var")]
    for path in (None, f"/run/sr-mount/{SR}/{VDI}.vhd"):
        assert locate(VdiRef(VDI), SR, path, both) == found(mount / SR / f"{VDI}.vhd")


def test_a_copy_is_found_below_its_sr(mount):
    copy = put(mount / SR / "tmpAb3_x9", f"{TWIN}.vhd")
    path = f"/var/run/sr-mount/{SR}/tmpAb3_x9/{TWIN}.vhd"
    assert locate(VdiRef(TWIN), SR, path, [str(mount)]) == found(copy, vdi=TWIN, root=str(mount / SR))


def test_not_found_says_where_was_looked(mount, tmp_path):
    both = [str(mount), str(tmp_path)]
    assert locate(VdiRef(TWIN), SR, None, both) == NotFound((f"{mount}/{SR}/{TWIN}.vhd", f"{tmp_path}/{SR}/{TWIN}.vhd"))
    assert locate(VdiRef("abcdef01"), OTHER_SR, None, [str(mount)]) == NotFound((f"{mount}/{OTHER_SR}/abcdef01*.vhd",))
    assert locate(VdiRef("abcdef01"), None, None, [str(mount)]) == NotFound((f"{mount}/*/abcdef01*.vhd",))
    assert locate(VdiRef(TWIN), SR, f"/run/sr-mount/{SR}/{TWIN}.vhd", [str(mount)]) == NotFound(
        (f"{mount}/{SR}/{TWIN}.vhd",)
    )


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/var/run/sr-mount/../../etc/shadow",
        f"/run/sr-mount/{SR}/../{SR}/{VDI}.vhd",
        "/dev/sda",
        "",
    ],
)
def test_a_hostile_path_is_not_followed(mount, path):
    assert isinstance(locate(VdiRef(VDI), SR, path, [str(mount)]), NotFound)


@pytest.mark.parametrize(
    ("vdi", "sr"),
    [("../../../etc/passwd", SR), (VDI, ".."), (VDI, "../" + SR), ("*", SR), ("", SR), ("1d99", SR)],
)
def test_a_hostile_name_is_not_put_into_a_path(mount, vdi, sr):
    assert isinstance(locate(VdiRef(vdi), sr, None, [str(mount)]), NotFound)


def test_a_device_of_the_log_is_itself_or_nothing(mount, monkeypatch):
    device = f"/dev/VG_XenStorage-{SR}/VHD-{VDI}"
    monkeypatch.setattr(device_mapper, "DEVICES", "/dev")
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    monkeypatch.setattr(lvm_volumes, "attached", lambda _sr=None: ())
    assert locate(VdiRef(VDI), SR, device, [str(mount)]) == NotFound((device,))
    monkeypatch.setattr(os.path, "exists", lambda path: path == device)
    number = {"st_rdev": os.makedev(999, 7)}  # no such device
    monkeypatch.setattr(os, "stat", lambda *_, **__: os.stat_result((0o60600, *[0] * 9), number))
    assert locate(VdiRef(VDI), SR, device, [str(mount)]) == Found(Target(device, Backing.BLOCK, VDI, SR))


def test_a_folder_that_may_not_be_listed_is_said(mount, monkeypatch):
    def forbidden(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(Unreadable, match="cannot list .*Permission denied"):
        locate(VdiRef("1d994938"), SR, None, [str(mount)])


@pytest.mark.parametrize("path", [None, f"/run/sr-mount/{SR}/{VDI}.vhd"])
def test_a_disk_that_may_not_be_looked_at_is_not_called_missing(mount, monkeypatch, path):
    def forbidden(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "lstat", forbidden)
    with pytest.raises(Unreadable, match="cannot look at .*Permission denied"):
        locate(VdiRef(VDI), SR, path, [str(mount)])


def test_a_name_too_long_to_be_a_file_is_not_there(mount):
    path = f"/run/sr-mount/{SR}/{'x' * 300}/{VDI}.vhd"
    assert isinstance(locate(VdiRef(VDI), SR, path, [str(mount)]), NotFound)


def test_what_was_found_can_be_opened(mount):
    image = locate(VdiRef(VDI[:8]), None, None, [str(mount)])
    opened = open_image(image.target, sr_root=image.root)
    assert isinstance(opened, OpenImage)
    opened.close()


# ------------------------------------------------------------------------------ TARGET


def test_a_target_is_a_uuid_a_prefix_or_both_uuids(mount):
    path = found(mount / SR / f"{VDI}.vhd")
    for text in (VDI, VDI.upper(), VDI[:8], f"{SR}/{VDI}", f"{SR}/{VDI[:8]}", f"{SR.upper()}/{VDI}"):
        assert resolve(text, [str(mount)]) == (path,)
    assert isinstance(resolve(f"{OTHER_SR}/{VDI}", [str(mount)]), NotFound)
    assert isinstance(resolve(TWIN, [str(mount)]), NotFound)
    put(mount / SR, f"{TWIN}.vhd")
    assert isinstance(resolve(VDI[:8], [str(mount)]), Ambiguous)
    old = put(mount / SR, f"OLD_{TWIN}.vhd")
    assert resolve("OLD_1d99", [str(mount)]) == (found(old, vdi=TWIN),)


def test_a_target_is_a_path(mount, tmp_path, monkeypatch):
    path = mount / SR / f"{VDI}.vhd"
    assert resolve(str(path), []) == (found(path),)
    free = put(tmp_path, "disk.vhd")
    assert resolve(str(free), []) == (found(free, vdi=None, sr=None, root=None),)
    monkeypatch.chdir(tmp_path)
    assert resolve("disk.vhd", []) == (found(free, vdi=None, sr=None, root=None),)
    monkeypatch.chdir(mount / SR)
    assert resolve(f"{VDI}.vhd", []) == (found(path),)
    copy = put(mount / SR / "tmpAb3_x9", "0.vhd")
    assert resolve(str(copy), []) == (found(copy, vdi=None, root=str(mount / SR)),)


def test_a_file_that_looks_like_a_uuid_is_a_path(mount, tmp_path, monkeypatch):
    file = put(tmp_path, VDI)
    monkeypatch.chdir(tmp_path)
    assert resolve(VDI, [str(mount)]) == (found(file, vdi=None, sr=None, root=None),)


def test_a_target_is_a_folder_and_means_all_its_vhds(mount, tmp_path):
    folder = mount / SR
    put(folder, f"{TWIN}.vhd")
    put(folder, "notes.txt")
    (folder / "link.vhd").symlink_to("/etc/passwd")
    assert resolve(str(folder), []) == (
        found(folder / f"{VDI}.vhd"),
        found(folder / f"{TWIN}.vhd", vdi=TWIN),
        found(folder / "link.vhd", vdi=None, sr=None),
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unreadable, match="holds no VHD"):
        resolve(str(tmp_path / "empty"), [])


@pytest.mark.parametrize("text", ["1d99", "abc", "1d9949380", "", "a\0b"])
def test_what_cannot_be_a_name_is_a_usage_error(mount, text):
    with pytest.raises(UsageError):
        resolve(text, [str(mount)])


def test_a_missing_path_is_unreadable(mount):
    for text in ("none.vhd", f"{mount}/none", f"{mount}/{SR}/{VDI}.vhd/"):
        with pytest.raises(Unreadable, match="cannot open"):
            resolve(text, [str(mount)])


def test_a_link_is_passed_on_to_be_refused_aloud(tmp_path):
    link = tmp_path / "x.vhd"
    link.symlink_to(tmp_path / "nowhere")
    assert resolve(str(link), []) == (found(link, vdi=None, sr=None, root=None),)


def test_a_file_that_goes_while_it_is_named_is_left_to_the_open(tmp_path):
    assert sr_module._at_path(str(tmp_path / "gone.vhd")).target.backing is Backing.FILE


@pytest.mark.root
@pytest.mark.tools("losetup")
def test_a_target_is_a_block_device(tmp_path, loop_device, monkeypatch):
    image = tmp_path / "lv"
    image.write_bytes(bytes(4096))
    device = loop_device(image)
    assert resolve(device, []) == (Found(Target(device, Backing.BLOCK)),)
    link = tmp_path / "link"
    link.symlink_to(device)
    assert resolve(str(link), [])[0].target.backing is Backing.FILE
    monkeypatch.setattr(device_mapper, "DEVICES", str(tmp_path))
    assert resolve(str(link), [])[0].target.backing is Backing.BLOCK
