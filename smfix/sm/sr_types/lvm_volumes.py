"""Find the logical volumes of an LVM SR: ``VG_XenStorage-<sr>/VHD-<vdi>`` is a disk of the storage manager's.

Most hidden ones are inactive: they have no node below ``/dev``. ``lvs`` is the host's.
:mod:`smfix.sm.sr_types.lvm_activation` changes volumes for the time of a repair.

Source: lvs(8) on ``lv_attr``: the 2nd character is the permission, the 5th the state, the 6th whether it is open.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from smfix.errors import Unanswered, Unreadable
from smfix.host import device_mapper, storage_probe, subprocesses
from smfix.sm.paths import GROUP, MAPPER, VolumeName, is_uuid, read_path, volume_at
from smfix.values import Backing, Reason, Refusal, Target

DISK = "VHD-"

LIMIT = 30.0
"""Seconds for one command of LVM, or as long as storage may be silent, if that is less."""

_FIELDS = "vg_name,lv_name,lv_attr,lv_size"


class Volume(NamedTuple):
    """One logical volume of an SR. `size` in bytes. `is_writable`: as LVM's metadata has it."""

    sr: str
    name: str
    size: int
    is_active: bool
    is_open: bool
    is_writable: bool

    @property
    def path(self) -> str:
        """Its node, which is there while it is active."""
        return f"{folder_of(self.sr)}/{self.name}"

    @property
    def vdi(self) -> str | None:
        """The disk it is; None for a journal of SM's, metadata, a raw disk."""
        return read_path(self.path).vdi


def attached(sr: str | None = None) -> tuple[str, ...]:
    """Return the UUIDs of the LVM SRs attached here; of `sr` only, if it is given.

    Each has the active volume ``MGT``, hence a folder below ``/dev``, whichever of its disks are active.
    """
    if sr is not None:
        return (sr,) if is_uuid(sr) and os.path.isdir(folder_of(sr)) else ()
    try:
        names = sorted(os.listdir(device_mapper.DEVICES))
    except OSError:
        return ()
    return tuple(filter(is_uuid, (name.removeprefix(GROUP) for name in names if name.startswith(GROUP))))


def folder_of(sr: str) -> str:
    """Return the folder of the nodes of an SR's active volumes."""
    return f"{device_mapper.DEVICES}/{GROUP}{sr}"


def volume_named(path: str) -> VolumeName | None:
    """Return the SR's volume that `path` leads to: in any spelling, also by ``/dev/dm-<n>``; None if there is none.

    An inactive volume has no node: then only its two spellings are known.
    """
    path = os.path.abspath(path)
    named = volume_at(path)
    if named is not None or not path.startswith(f"{device_mapper.DEVICES}/"):
        return named
    name = device_mapper.name_at(path)
    return volume_at(os.path.realpath(path) if name is None else f"{MAPPER}/{name}")


def node_of(volume: VolumeName) -> str:
    """Return the path of a volume's node; LVM's spelling if there is none."""
    return next((path for path in (volume.path, volume.mapped) if os.path.lexists(path)), volume.path)


def volumes(sr: str) -> tuple[Volume, ...]:
    """Return all volumes of an SR, active or not; none without LVM, or if the SR is not attached here.

    Raises Unanswered if ``lvs`` fails, hangs, or prints something else than a table.
    """
    found = subprocesses.program("lvs")
    if found is None or not attached(sr):
        return ()
    form = ["--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", _FIELDS]
    try:
        return parse(run([found, *form, GROUP + sr]))
    except Unanswered:
        raise
    except Unreadable as error:
        raise Unanswered(str(error)) from error


def run(words: list[str]) -> str:
    """Run a command of LVM and return its output. Raises Unreadable.

    Each command reads the disks of all groups, so while one waits for a disk that does not answer, each other would.
    """
    return subprocesses.run(words, min(LIMIT, storage_probe.patience()), "LVM")


def parse(text: str) -> tuple[Volume, ...]:
    """The volumes in the output of ``lvs`` as it is called here. Raises Unreadable."""
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    try:
        return tuple(
            Volume(group.removeprefix(GROUP), name, int(size), attr[4] == "a", attr[5] == "o", attr[1] != "r")
            for group, name, attr, size in rows
            if group.startswith(GROUP)
        )
    except (ValueError, IndexError) as error:
        raise Unreadable(f"lvs printed what cannot be understood: {text.strip()[:80]!r}") from error


def volume_of(target: Target) -> Volume | None:
    """Return the volume that a target names; None for a file, a device of another kind, a host without LVM.

    Raises Unreadable.
    """
    if not target.is_device or target.sr is None or target.vdi is None:
        return None
    named = volume_at(os.path.abspath(target.path))
    name = DISK + target.vdi if named is None else named.name
    return next((one for one in volumes(target.sr) if one.name == name), None)


def inactive(target: Target) -> Refusal | None:
    """Return why the target's volume cannot be read without a change of the host; None if it can.

    Raises Unreadable.
    """
    volume = volume_of(target)
    if volume is None or volume.is_active:
        return None
    return Refusal(
        Reason.POLICY,
        f"{target.path} is not active, and to look at it is to activate it, which is not done without a yes",
    )


def as_target(volume: Volume) -> Target:
    """Return the volume as a target."""
    return Target(volume.path, Backing.BLOCK, volume.vdi, volume.sr)
