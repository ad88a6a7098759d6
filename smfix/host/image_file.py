"""Opens one image and gives its bytes: the only place where smfix touches an image's descriptor.

Theory. The file that is checked must be the file that is written, so a path is resolved **once**: links that the
host makes (``/var/run``, an SMB SR's folder, ``/dev/VG_*/...``) are followed, then the resolved
folder is walked down with ``O_NOFOLLOW`` from the root, and the last component is opened below that
folder's descriptor. The opened file must be the one that the path leads to (:mod:`smfix.host.kernel_path`).
From there on only the descriptor counts: `target.path` of an open image is a name that leads to it, for
every process of this host. If a name is swapped meanwhile, the image is refused, never written elsewhere.

Reads are ``pread``, not a memory map: a file that is truncated while it is mapped kills the
reader with SIGBUS; here it ends the read early, which the contract of ``ByteView`` allows.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from types import TracebackType
from typing import NamedTuple, Self

from smfix.errors import Unreadable, WriteFailed
from smfix.host import kernel_path
from smfix.host.device_mapper import DEVICES, named_device
from smfix.host.statx import Lineage, lineage
from smfix.sm.paths import read_path
from smfix.values import Extent, Reason, Refusal, Target

MAX_READ = 1 << 30
"""Largest single read, bytes: no structure of a VHD comes near, so no hostile length may."""

_SMALL = 1 << 16
_FAR = 1 << 62
"""A larger offset is none to the system, and no image is as long."""

_BLKFLSBUF = 0x1261
"""``_IO(0x12, 97)``, linux/fs.h: write back and drop the buffer cache of a block device."""

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_NAMES = ("", os.curdir, os.pardir)
"""Last components of a path that name a folder."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}


class Identity(NamedTuple):
    """The inode that was opened, by any of its names.

    `device`, `inode`: ``st_dev``, ``st_ino``. `rdev`: the device number of a block device, else
    None. `size`: bytes when it was opened. `path`: the resolved path, for people.
    """

    device: int
    inode: int
    rdev: int | None
    size: int
    path: str

    def is_same(self, other: Identity) -> bool:
        """True when both are one inode, or two nodes of one block device."""
        if self.rdev is not None or other.rdev is not None:
            return self.rdev == other.rdev
        return (self.device, self.inode) == (other.device, other.inode)

    @property
    def key(self) -> str:
        """A name for this inode or device, free of any path: what smfix's locks are keyed by."""
        if self.rdev is not None:
            return f"block-{os.major(self.rdev)}-{os.minor(self.rdev)}"
        return f"file-{self.device:x}-{self.inode:x}"


class OpenImage:
    """An image held open by its descriptor; a :class:`smfix.values.ByteView`. Use it in ``with``.

    All offsets and sizes are bytes. Writing needs ``open_image(..., write=True)``; only
    ``smfix.repair`` does that.
    """

    __slots__ = ("_fd", "_sr_root", "_unsynced", "identity", "target", "writable")

    def __init__(self, fd: int, target: Target, identity: Identity, sr_root: str | None, *, writable: bool) -> None:
        self._fd = fd
        self._sr_root = sr_root
        self._unsynced: list[Extent] = []
        self.target = target
        self.identity = identity
        self.writable = writable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpenImage {self.identity.path!r}{' writable' if self.writable else ''}>"

    def close(self) -> None:
        """Release the descriptor; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    # ------------------------------------------------------------------ the ByteView

    @property
    def growable(self) -> bool:
        """True for a file; a device has the size it has."""
        return not self.target.is_device

    @property
    def links(self) -> int:
        """How many names the file has now (hard links). Raises Unreadable."""
        try:
            return os.fstat(self._fd).st_nlink
        except OSError as error:
            raise self._unreadable("its names", error) from error

    @property
    def size(self) -> int:
        """Bytes **now**, asked anew each time: a disk that grows under us must not go unseen.

        Raises Unreadable.
        """
        try:
            if self.growable:
                return os.fstat(self._fd).st_size
            return os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise self._unreadable("its size", error) from error

    @property
    def lineage(self) -> Lineage:
        """Distinguish this file from a later one with its inode number; empty for a device."""
        return lineage(self._fd) if self.growable else Lineage()

    @property
    def mtime(self) -> int | None:
        """When the file was last written to, nanoseconds of its own file system's clock; None: a device.

        Raises Unreadable.
        """
        try:
            return os.fstat(self._fd).st_mtime_ns if self.growable else None
        except OSError as error:
            raise self._unreadable("its times", error) from error

    def read(self, extent: Extent) -> bytes:
        """Return the bytes of `extent` that exist; fewer only at the end of the image.

        Raises Unreadable on EIO and the like, and for a piece of more than MAX_READ bytes.
        """
        length = extent.length
        if length > _SMALL or extent.offset > _FAR:
            # A small piece needs no check: at the end of the image the system returns less.
            length = min(length, self.size - extent.offset)
        if length <= 0 or extent.offset < 0:
            return b""
        if length > MAX_READ:
            raise Unreadable(
                f"cannot read {self.target.path}: {length} bytes at {extent.offset} in one piece are too many"
            )
        parts: list[bytes] = []
        offset = extent.offset
        try:
            while length > 0 and (part := os.pread(self._fd, length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise self._unreadable(f"{length} bytes at {offset}", error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ------------------------------------------------------------------ changing it

    def write(self, offset: int, data: bytes) -> None:
        """Put all of `data` at `offset`, however many calls it takes.

        `offset` is at or before the end of a file; on a device all of `data` must fit. Raises
        WriteFailed with the system's words; then any part of it may have been written.
        """
        end = offset + len(data)
        if not self.writable:
            raise ValueError(f"{self.target.path} is open for reading only")
        if offset < 0 or (offset if self.growable else end) > self.size:
            raise ValueError(f"{self.target.path}: nothing can be written at {offset}")
        self._unsynced.append(Extent(offset, len(data)))
        view = memoryview(data)
        at = offset
        try:
            while at < end:
                done = os.pwrite(self._fd, view[at - offset :], at)
                if done == 0:
                    raise OSError(errno.EIO, "the system wrote nothing")
                at += done
        except OSError as error:
            raise self._failed(f"write {end - at} bytes at {at} of", error) from error

    def resize(self, size: int) -> None:
        """Set a file's length to `size` bytes; what is new reads as NUL. Raises WriteFailed."""
        if not self.writable or not self.growable or size < 0:
            raise ValueError(f"{self.target.path} cannot be resized to {size}")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failed(f"set the length to {size} of", error) from error

    def sync(self) -> None:
        """Make every write durable, then drop what the cache holds of it.

        So the next read asks the storage, and a tapdisk that reads past the cache (O_DIRECT) sees
        the same bytes. Raises WriteFailed.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed("make durable what was written to", error) from error
        if self.growable:
            for written in self._unsynced:
                # Advice: a file system that does not take it (some FUSE) is none the worse.
                with contextlib.suppress(OSError):
                    os.posix_fadvise(self._fd, *written, os.POSIX_FADV_DONTNEED)
        else:
            _drop_buffers(self._fd)
        self._unsynced.clear()

    # ------------------------------------------------------------------ asking again

    def reopen(self, *, write: bool = False) -> OpenImage | Refusal:
        """A fresh open of the same path, which must still be the same inode.

        A Refusal (stale) if it is another: leaf-coalesce renames a parent to its leaf's path.
        Raises as :func:`open_image`.
        """
        return open_image(self.target, sr_root=self._sr_root, write=write, expect=self.identity)

    def is_in_place(self) -> bool:
        """True while the path still leads to the inode that is open here."""
        try:
            again = self.reopen()
        except Unreadable:
            return False
        if isinstance(again, Refusal):
            return False
        again.close()
        return True

    def free_space(self) -> int | None:
        """Bytes the file system still gives to this user; None for a device, which cannot grow.

        Raises Unreadable.
        """
        if not self.growable:
            return None
        try:
            room = os.fstatvfs(self._fd)
        except OSError as error:
            raise self._unreadable("its file system", error) from error
        return room.f_bavail * room.f_frsize

    def _unreadable(self, what: str, error: OSError) -> Unreadable:
        return Unreadable(f"cannot read {what} of {self.target.path}: {_why(error)}")

    def _failed(self, what: str, error: OSError) -> WriteFailed:
        return WriteFailed(f"cannot {what} {self.target.path}: {_why(error)}")


class Folders:
    """The folder of the image that was opened last, kept open: resolved and walked once for all images in it.

    The folder stays the one that was opened first, also if another is put in its place: so
    use it for reading only, and for a short time. Use it in ``with``.
    """

    __slots__ = ("_asked", "_fd", "_place")

    def __init__(self) -> None:
        self._asked: tuple[str, str | None] | None = None
        self._place = kernel_path.Place("", "")
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._forget()

    def known(self, target: Target, sr_root: str | None) -> tuple[kernel_path.Place, str] | None:
        """Return the folder, and the name in it; None if the folder is another than the last one."""
        folder, name = _parted(target.path)
        if self._asked != (folder, sr_root) or target.is_device or name in _NO_NAMES:
            return None
        return self._place, name

    def below(self, target: Target, sr_root: str | None, place: kernel_path.Place) -> int:
        """A descriptor of the resolved folder of `target`; it stays ours. Raises OSError."""
        if self._fd < 0 or place.resolved != self._place.resolved:
            self._forget()
            self._fd = _walk(place.resolved)
        self._place = place
        self._asked = None if target.is_device else (_parted(target.path)[0], sr_root)
        return self._fd

    def _forget(self) -> None:
        self._asked = None
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _parted(path: str) -> tuple[str, str]:
    """The folder as it was given, its slash included (``/x`` is not ``x``), and the name."""
    at = path.rfind("/") + 1
    return path[:at], path[at:]


def open_image(
    target: Target,
    *,
    sr_root: str | None = None,
    write: bool = False,
    expect: Identity | None = None,
    folders: Folders | None = None,
) -> OpenImage | Refusal:
    """Open the image of `target`, or return why it must not be opened.

    `sr_root` is the SR's folder: a file that resolves outside of it is refused. `expect` is what an
    earlier open found: another inode is refused. `folders` keeps the image's folder open for the next
    one, if many are read.

    The open image's target has the path that its descriptor has: see :func:`_named`.

    Returns a Refusal: unsafe-path (a symlink, outside the SR, not what the target says it is, a path that
    only this process can follow), not-a-vhd (a folder, a FIFO, a socket), in-use (the kernel has claimed the
    device), stale (another inode than `expect`). Raises Unreadable (missing, no permission, EIO), and WriteFailed
    if it can be read but not written (read-only file system, no permission).
    """
    if folders is None:
        with Folders() as own:
            return open_image(target, sr_root=sr_root, write=write, expect=expect, folders=own)
    if "\0" in target.path:
        return Refusal(Reason.UNSAFE_PATH, "the path holds a NUL character")
    try:
        known = folders.known(target, sr_root)
        where = known or _locate(target, sr_root)
        if isinstance(where, Refusal):
            return where
        place, name = where
        resolved = os.path.join(place.resolved, name)
        below = folders.below(target, sr_root, place)
        found = os.stat(name, dir_fd=below, follow_symlinks=False)
        refusal = _wrong_kind(target, found)
        if refusal is not None:
            return refusal
        fd = _open(target, name, below, write=write)
    except kernel_path.UnsafePath as error:
        return Refusal(Reason.UNSAFE_PATH, str(error))
    except OSError as error:
        return _not_opened(target, error, write=write)
    try:
        identity = _identify(fd, resolved)
        refusal = _changed(target, identity, found, expect)
        if refusal is None and known is None and not _is_what_the_kernel_opens(target, fd):
            refusal = Refusal(Reason.STALE, f"{target.path} was replaced while it was opened")
        true_target = refusal or _named(target, place, identity)
        if not isinstance(true_target, Refusal) and target.is_device:
            # An earlier buffered read may have left pages that a tapdisk (O_DIRECT, or one on
            # another host) has since made old.
            _drop_buffers(fd)
    except BaseException:
        os.close(fd)
        raise
    if isinstance(true_target, Refusal):
        os.close(fd)
        return true_target
    return OpenImage(fd, true_target, identity, sr_root, writable=write)


def _locate(target: Target, sr_root: str | None) -> tuple[kernel_path.Place, str] | Refusal:
    """The folder, and the name in it that must not be a link. Raises OSError, UnsafePath."""
    folder, name = os.path.split(target.path)
    if name in _NO_NAMES:
        return Refusal(Reason.NOT_A_VHD, f"{target.path} is a folder")
    place = kernel_path.place_of(folder)
    if target.is_device and _is_below(place.kept, DEVICES):
        # Its link leads to a node that it is not named by.
        resolved, name = os.path.split(os.path.realpath(os.path.join(place.kept, name), strict=True))
        return kernel_path.Place(place.kept, resolved), name
    if sr_root not in (None, folder) and not _is_below(place.resolved, kernel_path.place_of(sr_root or "").resolved):
        return Refusal(Reason.UNSAFE_PATH, f"{target.path} resolves to {place.resolved}, outside of its SR {sr_root}")
    return place, name


def _is_what_the_kernel_opens(target: Target, fd: int) -> bool:
    if target.is_device:
        try:
            return os.stat(target.path).st_rdev == os.fstat(fd).st_rdev
        except OSError:
            return False
    return kernel_path.is_same_file(target.path, fd)


def _named(target: Target, place: kernel_path.Place, opened: Identity) -> Target | Refusal:
    """The target by the name that every process can use: a plain absolute path as it was given, else the resolved one.

    A volume has its name in ``/dev/VG_*`` or ``/dev/mapper``.
    """
    kept = os.path.join(place.kept, os.path.basename(target.path))
    if opened.rdev is not None:
        return named_device(target._replace(path=kept), opened.rdev)
    if kept == target.path:
        return target
    sr = read_path(kept).sr
    if None not in (sr, target.sr) and sr != target.sr:
        return Refusal(Reason.UNSAFE_PATH, f"{target.path} leads into another SR, to {kept}; name it by that path")
    return target._replace(path=kept)


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder


def _walk(folder: str) -> int:
    """A descriptor of the resolved `folder`, reached without following any link."""
    fd = os.open("/", _FOLDER)
    for part in folder.split("/"):
        if part:
            try:
                deeper = os.open(part, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
    return fd


def _wrong_kind(target: Target, found: os.stat_result) -> Refusal | None:
    kind = stat.S_IFMT(found.st_mode)
    wanted = stat.S_IFBLK if target.is_device else stat.S_IFREG
    if kind == wanted:
        return None
    if kind in _KINDS:
        return Refusal(Reason.NOT_A_VHD, f"{target.path} is {_KINDS[kind]}")
    if kind == stat.S_IFLNK:
        return Refusal(
            Reason.UNSAFE_PATH,
            f"{target.path} is a symbolic link; name the image itself",
        )
    what = "a block device" if kind == stat.S_IFBLK else "not a block device"
    return Refusal(Reason.UNSAFE_PATH, f"{target.path} is {what}: not what its SR holds images in")


def _open(target: Target, name: str, below: int, *, write: bool) -> int:
    flags = _OPEN | (os.O_RDWR if write else os.O_RDONLY)
    if write and target.is_device:
        # The kernel refuses a device that is mounted or part of another one (EBUSY).
        flags |= os.O_EXCL
    return os.open(name, flags, dir_fd=below)


def _identify(fd: int, path: str) -> Identity:
    opened = os.fstat(fd)
    if stat.S_ISBLK(opened.st_mode):
        size = os.lseek(fd, 0, os.SEEK_END)
        return Identity(opened.st_dev, opened.st_ino, opened.st_rdev, size, path)
    return Identity(opened.st_dev, opened.st_ino, None, opened.st_size, path)


def _changed(target: Target, opened: Identity, found: os.stat_result, expect: Identity | None) -> Refusal | None:
    """A Refusal when what was opened is not what was looked at, now or earlier."""
    if (opened.device, opened.inode) != (found.st_dev, found.st_ino):
        return Refusal(Reason.STALE, f"{target.path} was replaced while it was opened")
    if expect is not None and not opened.is_same(expect):
        return Refusal(Reason.STALE, f"{target.path} is another file than the one examined before")
    return None


def _not_opened(target: Target, error: OSError, *, write: bool) -> Refusal:
    """The Refusal that `error` amounts to, or the right exception."""
    if error.errno == errno.ELOOP:
        return Refusal(Reason.UNSAFE_PATH, f"{target.path} leads through a symbolic link")
    if error.errno == errno.EBUSY:
        return Refusal(Reason.IN_USE, f"{target.path} is mounted, or part of another device")
    if write and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
        raise WriteFailed(f"cannot open {target.path} for writing: {_why(error)}") from error
    raise Unreadable(f"cannot open {target.path}: {_why(error)}") from error


def _drop_buffers(fd: int) -> None:
    # Not permitted to everybody (CAP_SYS_ADMIN), and not known to every driver.
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _BLKFLSBUF, 0)


def _why(error: OSError) -> str:
    return error.strerror or str(error)
