"""All SR types, and which of them keeps an image. To add a type, put an instance into :data:`SR_TYPES`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from smfix.host import device_mapper, storage_probe
from smfix.sm.paths import read_path
from smfix.sm.sr_types.base import SrType
from smfix.sm.sr_types.device import DEVICE
from smfix.sm.sr_types.file import FILE
from smfix.sm.sr_types.linstor import LINSTOR
from smfix.sm.sr_types.lvm import LVM
from smfix.values import Backing, Target

SR_TYPES: list[SrType] = [FILE, LVM, LINSTOR]
"""The SR types, in the order in which they are asked. A type of other files comes before FILE, which keeps any file."""


def sr_type_of(target: Target) -> SrType:
    """Return the type that keeps `target`; for a device outside of every SR that of any device."""
    return next((each for each in SR_TYPES if each.keeps(target)), DEVICE)


def target_named(path: str) -> Target:
    """Return the image that `path` names; nothing is looked at."""
    name = read_path(path)
    return Target(path, Backing.BLOCK if name.is_device else Backing.FILE, name.vdi, name.sr)


def target_at(path: str, sr: str | None = None) -> Target:
    """Return the image at `path` by what is there (/dev/shm holds files); what is missing counts as a file.

    `sr`: its SR, if that is known; None: as the path names it.
    """
    name = read_path(path)
    try:
        is_device = stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        is_device = False
    return Target(path, Backing.BLOCK if is_device else Backing.FILE, name.vdi, sr or name.sr)


def place_of(path: str) -> str:
    """Return one spelling for all names of an image: of a volume LVM's, of everything else the real path."""
    return next((place for each in SR_TYPES if (place := each.place_at(path))), None) or os.path.realpath(path)


def listed_place(path: str) -> str:
    """Return the spelling by which a list has an image once: a file keeps its path, which costs no look at it."""
    return place_of(path) if path.startswith(f"{device_mapper.DEVICES}/") else path


def node_at(path: str) -> str | None:
    """Return a path that opens the image that `path` leads to, if the image has several names; else None."""
    return next((node for each in SR_TYPES if (node := each.node_at(path))), None)


def root_of(sr: str, mounts: Sequence[str]) -> str | None:
    """Return the folder of the SR with the UUID `sr`; None if it is not attached to this host."""
    # FILE comes last here: of an SR of another type an empty folder may be left below `mounts`.
    return next((root for each in reversed(SR_TYPES) if (root := each.root_of(sr, mounts))), None)


def sr_folders(sr: str | None, mounts: Sequence[str]) -> Iterator[str]:
    """Give the folders whose storage must answer before an image of `sr` (None: any) is looked for."""
    for each in SR_TYPES:
        yield from each.mounted(sr, mounts)


def silent_targets(targets: Iterable[Target]) -> frozenset[str]:
    """Return the paths of those images whose own storage does not answer in time. Raises UsageError."""
    paths = (sr_type_of(target).probed_path(target) for target in targets)
    return storage_probe.silent_devices(path for path in paths if path is not None)


def is_silent(target: Target) -> bool:
    """True if the image's own storage does not answer in time; False if its folder's was asked. Raises UsageError."""
    path = sr_type_of(target).probed_path(target)
    return path is not None and storage_probe.is_silent(path)
