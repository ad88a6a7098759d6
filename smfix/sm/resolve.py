"""Where a VDI lives on this host: a name from a log or from the command line -> the image's path.

Theory. A name is resolved, never guessed: exactly one image, or all candidates, or where was
looked. What a log says becomes part of a path only after it has been read as a UUID, a prefix of
one, or a path of the storage manager's own making (:mod:`smfix.sm.paths`), and then only its
part below the SR's folder: the mount point is this host's.

An SR type is a row of `SR_TYPES`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from smfix.errors import Unanswered, Unreadable, UsageError
from smfix.host import image_file, kernel_path
from smfix.sm.paths import GROUP, Life, is_prefix, is_uuid, read_path, volume_at
from smfix.sm.sr_types import lvm_volumes
from smfix.values import Backing, Log, Refusal, Target, VdiRef

_log = Log(__name__)

DEFAULT_MOUNTS = ("/run/sr-mount", "/var/run/sr-mount")


class Found(NamedTuple):
    """The one image. `root`: the SR's folder (for ``open_image(sr_root=...)``), None if unknown."""

    target: Target
    root: str | None = None


class Ambiguous(NamedTuple):
    """Several images fit; the operator says which."""

    candidates: tuple[Found, ...]


class NotFound(NamedTuple):
    """No image fits. `looked`: the paths and patterns that were looked at, for people."""

    looked: tuple[str, ...]


class SrType(NamedTuple):
    """How one kind of SR names its images.

    `find(ref, sr, mounts)` gives every image of the named VDI: `ref` is a UUID or a prefix, `sr` a
    UUID or None for every SR. `patterns` says where it looks.
    """

    name: str
    find: Callable[[str, str | None, Sequence[str]], Iterator[Found]]
    patterns: Callable[[str, str | None, Sequence[str]], Iterator[str]]


def sr_mounts(given: Sequence[str] = ()) -> tuple[str, ...]:
    """Where file SRs are mounted: `given`, else the first default that exists.

    Raises UsageError for a given folder that does not exist.
    """
    for folder in given:
        if not os.path.isdir(folder):
            raise UsageError(f"--sr-mount {folder}: no such folder")
    if given:
        return tuple(map(kernel_path.named, given))
    return (next(filter(os.path.isdir, DEFAULT_MOUNTS), DEFAULT_MOUNTS[0]),)


def locate(vdi: VdiRef, sr: str | None, path: str | None, mounts: Sequence[str]) -> Found | Ambiguous | NotFound:
    """Where the image of an incident is: `vdi`, `sr` and `path` as the log has them.

    The path is exact and wins; of a file's path the mount point is replaced by `mounts`. Without a
    path the VDI is looked for in `sr`, or in every SR. Raises Unreadable for a folder that cannot
    be listed.
    """
    if path is not None:
        return _locate_path(path, mounts)
    return _locate_vdi(_as_on_disk(vdi.text), sr and sr.lower(), mounts)


def resolve(text: str, mounts: Sequence[str]) -> tuple[Found, ...] | Ambiguous | NotFound:
    """The images that a TARGET of the command line names (contract.md, Commands).

    A path (also when it looks like a UUID, where such a file exists), a block device, a VDI's UUID
    or a prefix of at least 8 hex digits, ``SR-UUID/VDI-UUID``, or a folder: all its VHDs.

    A path becomes the one that the kernel resolves it to (:mod:`smfix.host.kernel_path`).

    Raises UsageError for what cannot be a name, UnsafePath where no path leads to it, Unreadable for a path that
    is missing or may not be read, and for a folder without any VHD.
    """
    if "\0" in text or not text:
        raise UsageError("an image's name is empty, or holds a NUL character")
    group = text.rstrip("/").removeprefix(f"{image_file.DEVICES}/{GROUP}")
    if is_uuid(group) and group != text:
        return _all_volumes(group, text)
    if not os.path.lexists(text):
        if read_path(text).backing is Backing.BLOCK and read_path(text).vdi is not None:
            found = _locate_path(text, mounts)
            return (found,) if isinstance(found, Found) else found
        sr, _, vdi = text.rpartition("/")
        sr, vdi = sr.lower(), _as_on_disk(vdi)
        if is_prefix(vdi) and (not sr or is_uuid(sr)):
            found = _locate_vdi(vdi, sr or None, mounts)
            return (found,) if isinstance(found, Found) else found
        if "/" not in text and set(text.lower()) <= set("0123456789abcdef-"):
            raise UsageError(f"{text} is not a VDI's UUID, nor the first 8 or more hex digits of one")
    try:
        is_folder = stat.S_ISDIR(os.stat(text).st_mode)
    except OSError as error:
        # A link that leads nowhere is refused as a link, when it is opened.
        if not os.path.islink(text):
            raise Unreadable(f"cannot open {text}: {error.strerror}") from error
        is_folder = False
    # From here on by the name that the kernel gives it: the text may name another SR, or another disk.
    path = kernel_path.named(text)
    return _all_in(path) if is_folder else (_at_path(path),)


def _as_on_disk(ref: str) -> str:
    """UUIDs are lower case there, the mark of a temporary name is not."""
    mark = ref[:4].upper()
    return mark + ref[4:].lower() if mark == "OLD_" else ref.lower()


def _locate_path(path: str, mounts: Sequence[str]) -> Found | Ambiguous | NotFound:
    name = read_path(path)
    if name.backing is Backing.BLOCK and name.life is not Life.FOREIGN:
        if os.path.exists(path) or name.vdi is None or name.sr is None:
            return _at_path(path) if os.path.exists(path) else NotFound((path,))
        # Its volume is not active, so that it has no node.
        return next(_find_volumes(name.vdi, name.sr, mounts), None) or NotFound((path,))
    if name.sr is None or name.rest is None:
        return NotFound((f"{path} (not a path in a storage repository)",))
    places = [(os.path.join(mount, name.sr), name.rest) for mount in mounts]
    found = [
        Found(Target(place, Backing.FILE, name.vdi, name.sr), root)
        for root, rest in places
        if _is_there(place := os.path.join(root, rest))
    ]
    return _verdict(found, [os.path.join(*place) for place in places])


def _locate_vdi(ref: str, sr: str | None, mounts: Sequence[str]) -> Found | Ambiguous | NotFound:
    if not is_prefix(ref) or (sr is not None and not is_uuid(sr)):
        return NotFound((f"{ref} (not the name of a VDI)",))
    found: list[Found] = []
    silent: Unanswered | None = None
    for row in SR_TYPES:
        try:
            found += row.find(ref, sr, mounts)
        except Unanswered as error:
            silent = error
    if silent is not None and not (found and is_uuid(ref)):
        raise silent  # the disk may be there, or another one with the same first digits
    return _verdict(found, [place for row in SR_TYPES for place in row.patterns(ref, sr, mounts)])


def _verdict(found: Sequence[Found], looked: Sequence[str]) -> Found | Ambiguous | NotFound:
    """One, several or none; a file that is reached by two mounts is one."""
    by_inode = {lvm_volumes.place_of(image.target.path): image for image in reversed(found)}
    _log.debug("looked at %s, found %s", looked, list(by_inode))
    if not by_inode:
        return NotFound(tuple(looked))
    if len(by_inode) == 1:
        return next(iter(by_inode.values()))
    return Ambiguous(tuple(sorted(by_inode.values(), key=lambda image: image.target.path)))


def _at_path(path: str) -> Found:
    """The image at an absolute path that the operator (or a log's device path) names."""
    below_dev = path.startswith(f"{image_file.DEVICES}/")
    named = lvm_volumes.volume_named(path) if below_dev else None
    if named is not None and volume_at(path) is None:
        path = lvm_volumes.node_of(named)  # device-mapper's number for it is another one after the next activation
    name = read_path(path)
    try:
        about = os.stat(path, follow_symlinks=below_dev)
    except OSError:
        about = None
    if about is not None and stat.S_ISBLK(about.st_mode):
        volume = Target(path, Backing.BLOCK, name.vdi, name.sr)
        own = image_file.named_device(volume, about.st_rdev)
        return Found(volume if isinstance(own, Refusal) else own)
    root = None
    if name.rest is not None:
        root = path[: -len(name.rest) - 1]
    return Found(Target(path, Backing.FILE, name.vdi, name.sr), root)


def _all_in(folder: str) -> tuple[Found, ...]:
    """Every VHD of a folder, by name; links and odd kinds too, so that they are refused aloud."""
    from smfix.formats.registry import suffixes  # imported here: most runs resolve no folder

    names = sorted(name for name in _names(folder) if name.endswith(suffixes()))
    if not names:
        raise Unreadable(f"{folder} holds no VHD (no file named *.vhd)")
    below = os.path.join(folder, "")
    images = []
    for name in names:
        said = read_path(below + name)
        images.append(Found(Target(below + name, Backing.FILE, said.vdi, said.sr), folder))
    return tuple(images)


def _all_volumes(sr: str, folder: str) -> tuple[Found, ...]:
    """Every VHD of an LVM SR, by name, active or not."""
    found = [volume for volume in lvm_volumes.volumes(sr) if volume.vdi is not None]
    if not found:
        raise Unreadable(f"{folder} holds no VHD (no volume named {lvm_volumes.DISK}*)")
    return tuple(Found(lvm_volumes.as_target(volume)) for volume in sorted(found, key=lambda volume: volume.name))


def _is_there(path: str) -> bool:
    """Something is at `path`, a dangling link too. Raises Unreadable where that cannot be known."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return False
        raise Unreadable(f"cannot look at {path}: {error.strerror}") from error
    return True


def _names(folder: str) -> list[str]:
    """The names in a folder; none where there is no such folder. Raises Unreadable."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unreadable(f"cannot list {folder}: {error.strerror}") from error


# ------------------------------------------------------------------------------ SR types


def sr_folders(sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
    """Where the file SR is, or (None) every one: folders below `mounts`. Raises Unreadable."""
    for mount in mounts:
        for name in [sr] if sr else sorted(filter(is_uuid, _names(mount))):
            yield os.path.join(mount, name)


def _find_files(ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:
    for root in sr_folders(sr, mounts):
        # A full name is asked for by name: an SR can hold tens of thousands.
        names = [f"{ref}.vhd"] if is_uuid(ref) else sorted(_names(root))
        for name in names:
            path = os.path.join(root, name)
            said = read_path(os.path.join(os.path.basename(root), name))
            wanted = name.startswith(ref) and said.life in (Life.PLAIN, Life.OLD)
            # Of a search through every SR, one that does not answer must not spoil the rest.
            if wanted and (os.path.lexists(path) if sr is None else _is_there(path)):
                yield Found(Target(path, Backing.FILE, said.vdi, said.sr), root)


def _file_patterns(ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
    for mount in mounts:
        yield os.path.join(mount, sr or "*", f"{ref}{'' if is_uuid(ref) else '*'}.vhd")


def _find_volumes(ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:  # noqa: ARG001 - a row's shape
    for group in lvm_volumes.attached(sr):
        for volume in lvm_volumes.volumes(group):
            if volume.vdi is not None and volume.name.removeprefix(lvm_volumes.DISK).startswith(ref):
                yield Found(lvm_volumes.as_target(volume))


def _volume_patterns(ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG001 - as above
    # Only where there is such an SR: on most hosts it would be noise.
    for group in lvm_volumes.attached(sr):
        yield f"{image_file.DEVICES}/{GROUP}{group}/{lvm_volumes.DISK}{ref}{'' if is_uuid(ref) else '*'}"


SR_TYPES = (SrType("file", _find_files, _file_patterns), SrType("lvm", _find_volumes, _volume_patterns))
"""File SRs (ext, NFS, SMB, ...): ``<mount>/<sr>/<vdi>.vhd``. LVM SRs: ``VG_XenStorage-<sr>/VHD-<vdi>``."""
