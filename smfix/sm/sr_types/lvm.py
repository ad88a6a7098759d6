"""LVM SRs (local, iSCSI, Fibre Channel): the image of a VDI is the logical volume ``VG_XenStorage-<sr>/VHD-<vdi>``.

Theory. Most volumes are inactive and have no node below ``/dev``, so LVM is asked for them
(:mod:`smfix.sm.sr_types.lvm_volumes`), and a repair activates them (:mod:`smfix.sm.sr_types.lvm_activation`).
Source: sm drivers/LVHDSR.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from smfix.errors import Unreadable
from smfix.host import device_mapper, storage_probe
from smfix.sm.paths import GROUP, MAPPER, is_uuid, read_path
from smfix.sm.sr_types import lvm_volumes
from smfix.sm.sr_types.base import Found, SrType
from smfix.sm.sr_types.device import BlockDevice
from smfix.values import Refusal, Target

if TYPE_CHECKING:
    from smfix.sm.sr_types.lvm_activation import Volumes


class LvmSr(BlockDevice):
    """An SR whose images are logical volumes of one group."""

    name = "lvm"
    can_be_inactive = True

    def keeps(self, target: Target) -> bool:
        """True for a device whose SR is known, or that is a volume of an SR by one of its names."""
        return target.is_device and (target.sr is not None or lvm_volumes.volume_named(target.path) is not None)

    def roots(self, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG002 - as SrType has it
        """Give the folder below ``/dev`` of each attached group."""
        yield from map(lvm_volumes.folder_of, lvm_volumes.attached())

    def root_of(self, sr: str, mounts: Sequence[str]) -> str | None:  # noqa: ARG002 - as SrType has it
        """Return the folder of the group's active volumes."""
        return lvm_volumes.folder_of(sr) if lvm_volumes.attached(sr) else None

    def holds_image(self, root: str) -> bool:
        """True if a volume of the group is a disk, active or not. Raises Unanswered."""
        return any(volume.vdi is not None for volume in lvm_volumes.volumes(_sr_of(root)))

    def images_in(self, folder: str) -> tuple[Found, ...] | None:
        """Return every disk of the group, by name, active or not. Raises Unreadable if there is none."""
        sr = _sr_of(folder)
        if not is_uuid(sr) or sr == folder:
            return None
        found = [volume for volume in lvm_volumes.volumes(sr) if volume.vdi is not None]
        if not found:
            raise Unreadable(f"{folder} holds no VHD (no volume named {lvm_volumes.DISK}*)")
        return tuple(Found(lvm_volumes.as_target(volume)) for volume in sorted(found, key=lambda volume: volume.name))

    def find(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:  # noqa: ARG002 - as SrType has it
        """Give the volumes of the VDI. Raises Unanswered."""
        for group in lvm_volumes.attached(sr):
            for volume in lvm_volumes.volumes(group):
                if volume.vdi is not None and volume.name.removeprefix(lvm_volumes.DISK).startswith(ref):
                    yield Found(lvm_volumes.as_target(volume))

    def patterns(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG002 - as SrType has it
        """Give one pattern for each attached group: none on most hosts."""
        for group in lvm_volumes.attached(sr):
            yield f"{lvm_volumes.folder_of(group)}/{lvm_volumes.DISK}{ref}{'' if is_uuid(ref) else '*'}"

    def locate(self, path: str, mounts: Sequence[str]) -> tuple[list[Found], list[str]]:
        """Ask LVM for a volume that has no node. Raises Unanswered."""
        name = read_path(path)
        if name.vdi is not None and name.sr is not None and not os.path.exists(path):
            return list(self.find(name.vdi, name.sr, mounts))[:1], [path]
        return super().locate(path, mounts)

    def place_at(self, path: str) -> str | None:
        """Return LVM's name of the volume."""
        volume = lvm_volumes.volume_named(path)
        return None if volume is None else volume.path

    def node_at(self, path: str) -> str | None:
        """Return the volume's node in LVM's or in device-mapper's folder."""
        volume = lvm_volumes.volume_named(path)
        return None if volume is None else lvm_volumes.node_of(volume)

    def folders_beside(self, path: str) -> tuple[str, ...]:
        """Return the folder of the group as well, by whichever name the volume was given."""
        volume = lvm_volumes.volume_named(path)
        if volume is None:
            return super().folders_beside(path)
        return tuple(dict.fromkeys((lvm_volumes.folder_of(volume.sr), MAPPER, *SrType.folders_beside(self, path))))

    def may_have_relative(self, path: str, place: str) -> bool:
        """True for a volume of the same group: in ``/dev`` and ``/dev/mapper`` is every device of the host."""
        volume, other = lvm_volumes.volume_named(path), lvm_volumes.volume_named(place)
        if volume is None:
            return super().may_have_relative(path, place)
        return other is not None and other.sr == volume.sr

    def neighbours(self, target: Target, suffixes: tuple[str, ...]) -> list[Target]:  # noqa: ARG002 - as SrType has it
        """Return the active disks of the group whose storage answers: the others cannot be read."""
        volume = lvm_volumes.volume_named(target.path)
        with suppress(Unreadable):
            every = () if volume is None else lvm_volumes.volumes(volume.sr)
            active = [lvm_volumes.as_target(one) for one in every if one.vdi is not None and one.is_active]
            silent = storage_probe.silent_devices(one.path for one in active)
            return [one for one in active if one.path not in silent]
        return []

    def names_beside(self, target: Target, folder: str) -> list[str]:
        """Return the names of all volumes of the group: most have no node. Raises Unanswered."""
        names = [volume.name for volume in lvm_volumes.volumes(target.sr)] if target.sr is not None else []
        return sorted(names) or super().names_beside(target, folder)

    def inactive_refusal(self, target: Target) -> Refusal | None:
        """Refuse to read a volume that is not active: an activation needs consent. Raises Unreadable."""
        return lvm_volumes.inactive(target)

    def active(self, target: Target, volumes: Volumes) -> AbstractContextManager[Refusal | None]:
        """Activate the volume under SM's locks, and deactivate it after the block."""
        return volumes.active(target)

    def writable(self, target: Target, volumes: Volumes) -> AbstractContextManager[Refusal | None]:
        """Make the volume writable under SM's locks, and read-only again after the block."""
        return volumes.writable(target)


def _sr_of(root: str) -> str:
    return root.rstrip("/").removeprefix(f"{device_mapper.DEVICES}/{GROUP}")


LVM = LvmSr()
