"""Find a VDI on this host: a name from a log or from the command line -> the image's path.

Theory. A name is resolved, never guessed: the result is exactly one image, or all candidates, or the places that were
searched. A name from a log becomes part of a path only after it has been read as a UUID, a prefix of
one, or a path that the storage manager makes (:mod:`smfix.sm.paths`), and then only its
part below the SR's folder: the mount point is this host's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from smfix.errors import Unanswered, Unreadable, UsageError
from smfix.host import kernel_path
from smfix.sm.paths import Life, is_prefix, is_uuid, read_path
from smfix.sm.sr_types.base import Found, image_at
from smfix.sm.sr_types.file import files_in
from smfix.sm.sr_types.registry import SR_TYPES, node_at, place_of, sr_type_of, target_named
from smfix.values import Log, VdiRef

__all__ = ["Ambiguous", "Found", "NotFound", "locate", "resolve", "sr_mounts"]

_log = Log(__name__)

DEFAULT_MOUNTS = ("/run/sr-mount", "/var/run/sr-mount")


class Ambiguous(NamedTuple):
    """Several images fit; the operator says which."""

    candidates: tuple[Found, ...]


class NotFound(NamedTuple):
    """No image fits. `looked`: the paths and patterns that were looked at, for people."""

    looked: tuple[str, ...]


def sr_mounts(given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the folders in which file SRs are mounted: `given`, else the first default that exists.

    Raises UsageError for a given folder that does not exist.
    """
    for folder in given:
        if not os.path.isdir(folder):
            raise UsageError(f"--sr-mount {folder}: no such folder")
    if given:
        return tuple(map(kernel_path.named, given))
    return (next(filter(os.path.isdir, DEFAULT_MOUNTS), DEFAULT_MOUNTS[0]),)


def locate(vdi: VdiRef, sr: str | None, path: str | None, mounts: Sequence[str]) -> Found | Ambiguous | NotFound:
    """Find the image of an incident: `vdi`, `sr` and `path` as the log has them.

    The path is exact and wins; of a file's path the mount point is replaced by `mounts`. Without a
    path the VDI is looked for in `sr`, or in every SR. Raises Unreadable for a folder that cannot
    be listed.
    """
    if path is not None:
        return _locate_path(path, mounts)
    return _locate_vdi(_as_on_disk(vdi.text), sr and sr.lower(), mounts)


def resolve(text: str, mounts: Sequence[str]) -> tuple[Found, ...] | Ambiguous | NotFound:
    """Return the images that a TARGET of the command line names (contract.md, Commands).

    A path (also when it looks like a UUID, where such a file exists), a block device, a VDI's UUID
    or a prefix of at least 8 hex digits, ``SR-UUID/VDI-UUID``, or a folder: all its VHDs.

    A path becomes the one that the kernel resolves it to (:mod:`smfix.host.kernel_path`).

    Raises UsageError for a text that cannot be a name, UnsafePath if no path leads to it, Unreadable for a path that
    is missing or may not be read, and for a folder without any VHD.
    """
    if "\0" in text or not text:
        raise UsageError("an image's name is empty, or holds a NUL character")
    images = _images_in(text)
    if images is not None:
        return images
    if not os.path.lexists(text):
        if sr_type_of(target_named(text)).is_without_node(target_named(text)):
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
    return (_images_in(path) or files_in(path)) if is_folder else (_at_path(path),)


def _as_on_disk(ref: str) -> str:
    """UUIDs are lower case there, the mark of a temporary name is not."""
    mark = ref[:4].upper()
    return mark + ref[4:].lower() if mark == "OLD_" else ref.lower()


def _images_in(folder: str) -> tuple[Found, ...] | None:
    """Return the images of the SR that is named by its folder; None if no SR type knows `folder`."""
    return next((images for each in SR_TYPES if (images := each.images_in(folder)) is not None), None)


def _locate_path(path: str, mounts: Sequence[str]) -> Found | Ambiguous | NotFound:
    found, looked = sr_type_of(target_named(path)).locate(path, mounts)
    return _verdict(found, looked)


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
    by_inode = {place_of(image.target.path): image for image in reversed(found)}
    _log.debug("looked at %s, found %s", looked, list(by_inode))
    if not by_inode:
        return NotFound(tuple(looked))
    if len(by_inode) == 1:
        return next(iter(by_inode.values()))
    return Ambiguous(tuple(sorted(by_inode.values(), key=lambda image: image.target.path)))


def _at_path(path: str) -> Found:
    """Return the image at an absolute path that the operator (or a log's device path) names.

    A device is called by the name that it keeps: its number is another one after the next activation.
    """
    return image_at((node_at(path) if read_path(path).life is Life.FOREIGN else None) or path)
