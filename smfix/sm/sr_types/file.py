"""File SRs (ext, NFS, SMB and others): the image of a VDI is the file ``<mount>/<sr>/<vdi>.vhd``.

Source: sm drivers/FileSR.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from smfix.errors import Unreadable
from smfix.host.mounts import mount_of
from smfix.sm.paths import Life, is_uuid, read_path
from smfix.sm.sr_types.base import Found, SrType
from smfix.values import Backing, Target

SUFFIX = ".vhd"

# File systems that several hosts can mount: those of the storage manager's SRs, and others of the same nature.
SHARED_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ocfs2", "gfs", "gfs2", "ceph", "lustre", "beegfs"),
    *("glusterfs", "moosefs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.mfs"),
    *("fuse.moosefs", "fuse.sshfs"),
}


class FileSr(SrType):
    """An SR whose images are the files of one folder."""

    name = "file"

    def keeps(self, target: Target) -> bool:
        """True for every file, also outside of an SR."""
        return not target.is_device

    def roots(self, mounts: Sequence[str]) -> Iterator[str]:
        """Give the folders below `mounts` that have a UUID as their name. Raises Unreadable."""
        for mount in mounts:
            try:
                names = sorted(filter(is_uuid, os.listdir(mount)))
            except OSError as error:
                raise Unreadable(
                    f"cannot list {mount}: {error.strerror}; name the mount point with --sr-mount"
                ) from error
            yield from (os.path.join(mount, name) for name in names)

    def root_of(self, sr: str, mounts: Sequence[str]) -> str | None:
        """Return the first folder of this name below `mounts`."""
        return next((root for root in self.mounted(sr, mounts) if os.path.isdir(root)), None)

    def mounted(self, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
        """Give the folder of `sr` below each of `mounts`, or (None) of every SR. Raises Unreadable."""
        for mount in mounts:
            for name in [sr] if sr else sorted(filter(is_uuid, _names(mount))):
                yield os.path.join(mount, name)

    def holds_image(self, root: str) -> bool:
        """True if a file of the folder has an image's name. Raises Unreadable."""
        from smfix.formats.registry import suffixes

        try:
            return any(name.endswith(suffixes()) for name in os.listdir(root))
        except OSError as error:
            raise Unreadable(f"cannot list {root}: {error.strerror}") from error

    def find(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:
        """Give the files of the VDI, of its old leaf too. Raises Unreadable."""
        for root in self.mounted(sr, mounts):
            # A full name is asked for by name: an SR can hold tens of thousands of files.
            names = [f"{ref}{SUFFIX}"] if is_uuid(ref) else sorted(_names(root))
            for name in names:
                path = os.path.join(root, name)
                image = read_path(os.path.join(os.path.basename(root), name))
                wanted = name.startswith(ref) and image.life in (Life.PLAIN, Life.OLD)
                # In a search through all SRs, one that cannot be read must not hide the others' images.
                if wanted and (os.path.lexists(path) if sr is None else _is_there(path)):
                    yield Found(Target(path, Backing.FILE, image.vdi, image.sr), root)

    def patterns(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
        """Give one pattern for each mount."""
        for mount in mounts:
            yield os.path.join(mount, sr or "*", f"{ref}{'' if is_uuid(ref) else '*'}{SUFFIX}")

    def locate(self, path: str, mounts: Sequence[str]) -> tuple[list[Found], list[str]]:
        """Look for the file below this host's `mounts`: the log's mount point is not trusted. Raises Unreadable."""
        name = read_path(path)
        if name.sr is None or name.rest is None:
            return [], [f"{path} (not a path in a storage repository)"]
        places = [(os.path.join(place, name.rest), place) for place in self.mounted(name.sr, mounts)]
        found = [
            Found(Target(place, Backing.FILE, name.vdi, name.sr), root) for place, root in places if _is_there(place)
        ]
        return found, [place for place, _ in places]

    def neighbours(self, target: Target, suffixes: tuple[str, ...]) -> list[Target]:
        """Return the images of the folder, and the files whose names begin with the image's: its copies."""
        folder, name = os.path.split(os.path.realpath(target.path))
        try:
            endings = (*suffixes, *(f"{suffix}.new" for suffix in suffixes))  # a snapshot before it takes its name
            names = {other for other in os.listdir(folder) if other.endswith(endings) or other.startswith(name)}
        except OSError:
            return []
        return [Target(os.path.join(folder, other), Backing.FILE) for other in sorted(names - {name})]

    def shared_storage(self, target: Target, resolved: str, proc: str) -> str | None:  # noqa: ARG002 - as SrType has it
        """Name the file system if several hosts can mount it."""
        mount = mount_of(resolved, proc)
        if mount is None or mount.kind not in SHARED_FILE_SYSTEMS:
            return None
        return f"a shared file system ({mount.kind})"


def files_in(folder: str) -> tuple[Found, ...]:
    """Return every VHD of any folder, by name; links and FIFOs too, so that each is refused. Raises Unreadable."""
    from smfix.formats.registry import suffixes  # imported here: most runs resolve no folder

    names = sorted(name for name in _names(folder) if name.endswith(suffixes()))
    if not names:
        raise Unreadable(f"{folder} holds no VHD (no file named *{SUFFIX})")
    images = []
    for name in names:
        path = os.path.join(folder, name)
        image = read_path(path)
        images.append(Found(Target(path, Backing.FILE, image.vdi, image.sr), folder))
    return tuple(images)


def _is_there(path: str) -> bool:
    """True if there is a file, or a link that leads nowhere. Raises Unreadable if that cannot be known."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return False
        raise Unreadable(f"cannot look at {path}: {error.strerror}") from error
    return True


def _names(folder: str) -> list[str]:
    """Return the names in a folder; none if there is no such folder. Raises Unreadable."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unreadable(f"cannot list {folder}: {error.strerror}") from error


FILE = FileSr()
