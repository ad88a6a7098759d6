"""host.storage: which paths are opened, and that the bytes read and written are the right ones."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix.errors import Unreadable, WriteFailed
from smfix.host import image_file, kernel_path
from smfix.host.image_file import Folders, Identity, OpenImage, open_image
from smfix.values import Backing, Extent, Reason, Refusal, Target

SR = "7a142a29-9556-ee47-1e04-1a8517813369"
VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
DATA = bytes(range(256)) * 8


def file_target(path) -> Target:
    return Target(str(path), Backing.FILE, VDI, SR)


def opened(target: Target, **options) -> OpenImage:
    image = open_image(target, **options)
    assert isinstance(image, OpenImage), image
    return image


def refused(target: Target, **options) -> Refusal:
    refusal = open_image(target, **options)
    assert isinstance(refusal, Refusal), refusal
    return refusal


@contextmanager
def open_descriptors_stay_the_same():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@contextmanager
def unprivileged():
    """Without root's pass through permissions, whoever runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def sr_folder(tmp_path) -> Path:
    folder = tmp_path / "sr-mount" / SR
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def vhd(sr_folder) -> Path:
    path = sr_folder / f"{VDI}.vhd"
    path.write_bytes(DATA)
    return path


# ------------------------------------------------------------------------------ reading


def test_an_image_gives_its_bytes_and_its_identity(vhd, sr_folder):
    with (
        open_descriptors_stay_the_same(),
        opened(file_target(vhd), sr_root=str(sr_folder)) as image,
    ):
        about = vhd.stat()
        assert image.size == len(DATA)
        assert image.growable
        assert not image.writable
        assert image.read(Extent(0, 8)) == DATA[:8]
        assert image.identity == Identity(about.st_dev, about.st_ino, None, len(DATA), os.path.realpath(vhd))
        assert image.target.vdi == VDI
        assert repr(image) == f"<OpenImage {os.path.realpath(vhd)!r}>"


@given(offset=st.integers(-3, 3000), length=st.integers(-3, 3000))
def test_read_is_a_slice_that_ends_where_the_image_ends(tmp_path_factory, offset, length):
    path = tmp_path_factory.getbasetemp() / "slice.vhd"
    if not path.exists():
        path.write_bytes(DATA)
    with opened(file_target(path)) as image:
        wanted = DATA[offset : offset + max(length, 0)] if offset >= 0 else b""
        assert image.read(Extent(offset, length)) == wanted


def test_a_wild_offset_is_behind_the_end(vhd):
    with opened(file_target(vhd)) as image:
        assert image.read(Extent(1 << 70, 512)) == b""
        assert image.read(Extent(512, 1 << 70)) == DATA[512:]


def test_a_hostile_length_is_not_allocated(sr_folder):
    path = sr_folder / "hole.vhd"
    with path.open("wb") as hole:
        hole.truncate(1 << 40)
    with opened(file_target(path)) as image, pytest.raises(Unreadable, match="too many"):
        image.read(Extent(0, 1 << 40))


def test_a_read_in_pieces_is_put_together(vhd, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 100), at))
    with opened(file_target(vhd)) as image:
        assert image.read(Extent(3, 1000)) == DATA[3:1003]


def test_a_file_cut_while_it_is_read_ends_early(vhd, monkeypatch):
    pread = os.pread

    def cut_then_read(fd, length, at):
        os.truncate(vhd, 1000)
        return pread(fd, length, at)

    monkeypatch.setattr(os, "pread", cut_then_read)
    with opened(file_target(vhd)) as image:
        assert image.read(Extent(0, 2048)) == DATA[:1000]
        assert image.size == 1000


def test_an_io_error_is_unreadable_and_says_where(vhd, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(file_target(vhd)) as image:
        monkeypatch.setattr(os, "pread", broken)
        with pytest.raises(Unreadable, match=r"8 bytes at 16 of .*\.vhd: Input/output error"):
            image.read(Extent(16, 8))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", broken)
            with pytest.raises(Unreadable, match="its size"):
                _ = image.size
        monkeypatch.setattr(os, "fstatvfs", broken)
        with pytest.raises(Unreadable, match="its file system"):
            image.free_space()


# ------------------------------------------------------------------------------ which paths


def test_host_made_folder_links_are_followed(tmp_path, vhd, sr_folder):
    (tmp_path / "run").symlink_to(sr_folder.parent)
    (tmp_path / "smb").mkdir()
    (tmp_path / "smb" / SR).symlink_to(sr_folder)
    for folder in (tmp_path / "run" / SR, tmp_path / "smb" / SR):
        with opened(file_target(folder / vhd.name), sr_root=str(folder)) as image:
            assert image.identity.path == os.path.realpath(vhd)


def test_a_relative_path_is_taken_from_here(vhd, monkeypatch):
    monkeypatch.chdir(vhd.parent)
    with opened(file_target(vhd.name)) as image:
        assert image.identity.path == os.path.realpath(vhd)


def test_an_image_that_is_a_link_is_refused(vhd, sr_folder):
    link = sr_folder / "link.vhd"
    link.symlink_to(vhd)
    with open_descriptors_stay_the_same():
        refusal = refused(file_target(link))
    assert refusal.reason is Reason.UNSAFE_PATH
    assert "symbolic link" in refusal.message


def test_an_image_outside_of_its_sr_is_refused(tmp_path, sr_folder):
    outside = tmp_path / "passwd"
    outside.write_bytes(DATA)
    (sr_folder / "deep").symlink_to(tmp_path)
    for path in (sr_folder / "deep" / "passwd", f"{sr_folder}/../../passwd"):
        refusal = refused(file_target(path), sr_root=str(sr_folder))
        assert refusal.reason is Reason.UNSAFE_PATH
        assert "outside of its SR" in refusal.message


def test_a_sister_folder_with_the_same_beginning_is_outside(sr_folder, tmp_path):
    sister = Path(f"{sr_folder}x")
    sister.mkdir()
    (sister / "a.vhd").write_bytes(DATA)
    assert refused(file_target(sister / "a.vhd"), sr_root=str(sr_folder)).reason is Reason.UNSAFE_PATH


def test_a_folder_below_the_sr_is_inside(sr_folder):
    (sr_folder / "tmpab12").mkdir()
    path = sr_folder / "tmpab12" / "0.vhd"
    path.write_bytes(DATA)
    with opened(file_target(path), sr_root=str(sr_folder)) as image:
        assert image.size == len(DATA)


def test_what_is_no_regular_file_is_no_vhd(sr_folder):
    folder, fifo, bound = sr_folder / "d", sr_folder / "f", sr_folder / "s"
    folder.mkdir()
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(sr_folder, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/s")  # a socket's path has 108 bytes
        finally:
            os.close(here)
        with open_descriptors_stay_the_same():
            for path, kind in ((folder, "a folder"), (fifo, "a FIFO"), (bound, "a socket")):
                for write in (False, True):
                    refusal = refused(file_target(path), write=write)
                    assert refusal.reason is Reason.NOT_A_VHD
                    assert refusal.message == f"{path} is {kind}"
    assert refused(file_target("/dev/null")).message == "/dev/null is a character device"
    assert refused(file_target(f"{sr_folder}/")).reason is Reason.NOT_A_VHD
    assert refused(file_target(f"{sr_folder}/..")).reason is Reason.NOT_A_VHD


def test_a_nul_in_a_path_is_refused(vhd):
    assert refused(file_target(f"{vhd}\0.vhd")).reason is Reason.UNSAFE_PATH


def test_a_missing_file_is_unreadable(sr_folder):
    with pytest.raises(Unreadable, match="No such file"):
        open_image(file_target(sr_folder / "none.vhd"))
    with pytest.raises(Unreadable, match="No such file"):
        open_image(file_target(sr_folder / "none" / "none.vhd"))
    with pytest.raises(Unreadable, match="No such file"):
        open_image(file_target(sr_folder / "none.vhd"), sr_root=str(sr_folder / "gone"))


def test_no_permission_is_said(vhd):
    vhd.chmod(0)
    with unprivileged(), open_descriptors_stay_the_same():
        with pytest.raises(Unreadable, match="Permission denied"):
            open_image(file_target(vhd))
        with pytest.raises(WriteFailed, match="for writing: Permission denied"):
            open_image(file_target(vhd), write=True)


def test_an_open_that_fails_late_leaks_nothing(vhd, monkeypatch):
    def broken(*_):
        raise Unreadable("late")

    monkeypatch.setattr(image_file, "_identify", broken)
    with open_descriptors_stay_the_same(), pytest.raises(Unreadable, match="late"):
        open_image(file_target(vhd))


def test_a_folder_swapped_for_a_link_is_not_followed(vhd, sr_folder, tmp_path, monkeypatch):
    """Between resolving and opening, somebody puts a link where the SR's folder was."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / vhd.name).write_bytes(b"not yours")
    place_of = kernel_path.place_of

    def swap_after(folder):
        resolved = place_of(folder)
        if sr_folder.is_dir() and not sr_folder.is_symlink():
            sr_folder.rename(tmp_path / "moved")
            sr_folder.symlink_to(elsewhere)
        return resolved

    monkeypatch.setattr(kernel_path, "place_of", swap_after)
    with open_descriptors_stay_the_same(), pytest.raises(Unreadable):
        open_image(file_target(vhd))


def test_a_folder_that_is_kept_is_walked_once(vhd, sr_folder, tmp_path, monkeypatch):
    other, twin, far = sr_folder / "other.vhd", tmp_path / "twin", tmp_path / "far.vhd"
    other.write_bytes(b"other")
    far.write_bytes(b"far away")
    twin.symlink_to(sr_folder)
    walked = []
    walk = image_file._walk
    monkeypatch.setattr(image_file, "_walk", lambda folder: walked.append(folder) or walk(folder))
    with open_descriptors_stay_the_same(), Folders() as folders:
        read = []
        for path in (vhd, other, twin / other.name, far, vhd):
            with opened(file_target(path), sr_root=str(path.parent), folders=folders) as image:
                read.append(image.read(Extent(0, 5)))
                assert image.identity.path == os.path.join(os.path.realpath(path.parent), path.name)
    assert read == [DATA[:5], b"other", b"other", b"far a", DATA[:5]]
    assert walked == [str(sr_folder), str(tmp_path), str(sr_folder)]


def test_a_folder_that_is_kept_refuses_what_it_would_refuse_alone(vhd, sr_folder, tmp_path):
    (sr_folder / "link.vhd").symlink_to(vhd)
    (sr_folder / "folder.vhd").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    asked = [
        (str(vhd), str(sr_folder)),
        (f"{sr_folder}/link.vhd", str(sr_folder)),
        (f"{sr_folder}/folder.vhd", str(sr_folder)),
        (f"{sr_folder}/", str(sr_folder)),
        (f"{sr_folder}/..", str(sr_folder)),
        (str(vhd), str(outside)),
        (str(vhd), None),
    ]
    with open_descriptors_stay_the_same(), Folders() as folders:
        for path, root in asked:
            alone = open_image(file_target(path), sr_root=root)
            kept = open_image(file_target(path), sr_root=root, folders=folders)
            if isinstance(alone, Refusal):
                assert kept == alone
            else:
                assert isinstance(kept, OpenImage)
                assert kept.identity == alone.identity
                kept.close()
                alone.close()


def test_a_folder_that_is_kept_is_not_the_root_for_a_name_alone(tmp_path, monkeypatch):
    """``x.vhd`` lies here, ``/x.vhd`` does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.vhd").write_bytes(DATA)
    with Folders() as folders:
        opened(file_target("x.vhd"), folders=folders).close()
        with pytest.raises(Unreadable, match="No such file"):
            open_image(file_target("/x.vhd"), folders=folders)


def test_a_file_swapped_for_another_is_not_taken(vhd, sr_folder, monkeypatch):
    real_open = os.open

    def swap_before(path, flags, *args, **options):
        if path == vhd.name:
            other = sr_folder / "other"
            other.write_bytes(b"not yours")
            other.rename(vhd)
        return real_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", swap_before)
    with open_descriptors_stay_the_same():
        refusal = refused(file_target(vhd), write=True)
    assert refusal.reason is Reason.STALE
    assert vhd.read_bytes() == b"not yours"


def test_a_file_swapped_for_a_link_is_not_followed(vhd, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    real_open = os.open

    def swap_before(path, flags, *args, **options):
        if path == vhd.name:
            vhd.unlink()
            vhd.symlink_to(secret)
        return real_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", swap_before)
    assert refused(file_target(vhd), write=True).reason is Reason.UNSAFE_PATH
    assert secret.read_bytes() == b"not yours"


# ------------------------------------------------------------------------------ writing


def test_what_is_written_is_read_back(vhd):
    with opened(file_target(vhd), write=True) as image:
        image.write(100, b"x" * 50)
        image.write(len(DATA), b"tail")
        image.sync()
        assert image.size == len(DATA) + 4
        assert image.read(Extent(90, 70)) == DATA[90:100] + b"x" * 50 + DATA[150:160]
        image.resize(4096)
        assert image.read(Extent(len(DATA), 10)) == b"tail" + bytes(6)
        image.resize(len(DATA))
        image.sync()
        assert image.free_space() > 0
        assert repr(image).endswith(" writable>")
    assert vhd.read_bytes() == DATA[:100] + b"x" * 50 + DATA[150:]


def test_a_short_write_is_continued(vhd, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    with opened(file_target(vhd), write=True) as image:
        image.write(5, bytes(100))
    assert vhd.read_bytes() == DATA[:5] + bytes(100) + DATA[105:]


def test_a_failing_write_says_how_far_it_came(vhd, monkeypatch):
    answers = iter([4, 0])
    monkeypatch.setattr(os, "pwrite", lambda *_: next(answers))
    with (
        opened(file_target(vhd), write=True) as image,
        pytest.raises(WriteFailed, match="cannot write 6 bytes at 4 of .*the system wrote nothing"),
    ):
        image.write(0, bytes(10))


def test_the_systems_own_limit_is_an_error_not_a_crash(vhd):
    """RLIMIT_FSIZE stands in for a full disk: the kernel writes a part, then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(file_target(vhd), write=True) as image:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) + 100, hard))
        try:
            with pytest.raises(WriteFailed, match="412 bytes at 2148 .*File too large"):
                image.write(len(DATA), bytes(512))
            with pytest.raises(WriteFailed, match="set the length to 8192 .*File too large"):
                image.resize(8192)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_fsync_that_fails_is_not_success(vhd, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with opened(file_target(vhd), write=True) as image:
        image.write(0, b"a")
        with pytest.raises(WriteFailed, match="durable .*Input/output error"):
            image.sync()


def test_a_file_system_without_advice_is_none_the_worse(vhd, monkeypatch):
    def no_advice(*_):
        raise OSError(errno.ENOSYS, "no")

    monkeypatch.setattr(os, "posix_fadvise", no_advice)
    with opened(file_target(vhd), write=True) as image:
        image.write(0, b"a")
        image.sync()


def test_mistakes_of_the_caller_are_not_disk_errors(vhd):
    with opened(file_target(vhd)) as image:
        with pytest.raises(ValueError, match="reading only"):
            image.write(0, b"a")
        with pytest.raises(ValueError, match="resized"):
            image.resize(0)
    with opened(file_target(vhd), write=True) as image:
        with pytest.raises(ValueError, match="at 2049"):
            image.write(len(DATA) + 1, b"a")
        with pytest.raises(ValueError, match="at -1"):
            image.write(-1, b"a")
        with pytest.raises(ValueError, match="resized"):
            image.resize(-1)
    image.close()
    assert vhd.read_bytes() == DATA


def test_every_error_without_words_has_some():
    assert image_file._why(OSError("bare")) == "bare"


# ------------------------------------------------------------------------------ asking again


def test_reopen_is_the_same_inode_or_nothing(vhd, sr_folder):
    with opened(file_target(vhd), sr_root=str(sr_folder)) as image:
        fresh = image.reopen(write=True)
        assert isinstance(fresh, OpenImage)
        with fresh:
            assert fresh.writable
            assert fresh.identity == image.identity
        assert image.is_in_place()
        vhd.rename(sr_folder / "OLD_x.vhd")
        assert not image.is_in_place()
        vhd.write_bytes(DATA)
        assert not image.is_in_place()
        again = image.reopen()
        assert isinstance(again, Refusal)
        assert again.reason is Reason.STALE
        assert image.read(Extent(0, 4)) == DATA[:4]


def test_identities_are_compared_by_inode_or_device():
    one = Identity(5, 7, None, 10, "/a")
    assert one.is_same(Identity(5, 7, None, 20, "/b"))
    assert not one.is_same(Identity(5, 8, None, 10, "/a"))
    node = Identity(5, 7, os.makedev(252, 3), 10, "/dev/dm-3")
    assert not one.is_same(node)
    assert not node.is_same(one)
    assert node.is_same(Identity(5, 9, os.makedev(252, 3), 10, "/dev/mapper/x"))
    assert one.key == "file-5-7"
    assert node.key == "block-252-3"


# ------------------------------------------------------------------------------ block devices


def test_a_device_target_must_be_a_device(vhd, tmp_path, monkeypatch):
    monkeypatch.setattr(image_file, "DEVICES", str(tmp_path))
    link = tmp_path / "VG_XenStorage-x"
    link.symlink_to(vhd)
    for path in (vhd, link):
        refusal = refused(Target(str(path), Backing.BLOCK))
        assert refusal.reason is Reason.UNSAFE_PATH
        assert "not a block device" in refusal.message


def test_a_device_link_outside_of_dev_is_refused(tmp_path):
    link = tmp_path / "mine"
    link.symlink_to("/dev/loop0")
    refusal = refused(Target(str(link), Backing.BLOCK))
    assert refusal.reason is Reason.UNSAFE_PATH
    assert "symbolic link" in refusal.message


def test_a_device_that_the_kernel_has_claimed_is_in_use(vhd, monkeypatch):
    def busy(*_, **__):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(image_file, "_open", busy)
    assert refused(Target(str(vhd), Backing.FILE), write=True).reason is Reason.IN_USE


@pytest.mark.root
@pytest.mark.tools("losetup")
def test_a_block_device_is_read_and_written_in_place(vhd, loop_device, tmp_path, monkeypatch):
    device = loop_device(vhd)
    target = Target(device, Backing.BLOCK, VDI, SR)
    flushed = []
    ioctl = fcntl.ioctl
    monkeypatch.setattr(fcntl, "ioctl", lambda *a: flushed.append(a[1]) or ioctl(*a))
    with open_descriptors_stay_the_same(), opened(target, write=True) as image:
        assert image.size == len(DATA)
        assert not image.growable
        assert image.free_space() is None
        assert image.identity.rdev == os.stat(device).st_rdev
        image.write(len(DATA) - 512, b"f" * 512)
        image.sync()
        assert flushed == [image_file._BLKFLSBUF] * 2
        assert image.read(Extent(len(DATA) - 512, 600)) == b"f" * 512
        with pytest.raises(ValueError, match="nothing can be written"):
            image.write(len(DATA) - 511, b"f" * 512)
        with pytest.raises(ValueError, match="resized"):
            image.resize(4096)
        assert refused(target, write=True).reason is Reason.IN_USE
        reader = image.reopen()
        assert isinstance(reader, OpenImage)
        reader.close()
    assert vhd.read_bytes()[-512:] == b"f" * 512
    assert refused(file_target(device)).reason is Reason.UNSAFE_PATH
    link = tmp_path / "VHD-x"
    link.symlink_to(device)
    monkeypatch.setattr(image_file, "DEVICES", str(tmp_path))
    with opened(Target(str(link), Backing.BLOCK)) as image:
        assert image.identity.path == device


@pytest.mark.root
@pytest.mark.tools("mount", "umount")
def test_a_read_only_file_system_is_said(tmp_path):
    room = tmp_path / "ro"
    room.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(room)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no mounts here: {mounted.stderr.strip()}")
    try:
        path = room / "a.vhd"
        path.write_bytes(DATA)
        subprocess.run(["mount", "-o", "remount,ro", str(room)], check=True)
        with pytest.raises(WriteFailed, match="Read-only file system"):
            open_image(file_target(path), write=True)
        with opened(file_target(path)) as image:
            assert image.read(Extent(0, 4)) == DATA[:4]
    finally:
        subprocess.run(["umount", str(room)], check=True)
