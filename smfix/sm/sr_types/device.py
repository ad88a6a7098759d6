"""Images in block devices of any kind: what LVM and LINSTOR SRs, and devices outside of every SR, have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence

from smfix.sm.paths import MAPPER, Life, read_path
from smfix.sm.sr_types.base import Found, SrType, image_at
from smfix.values import Backing, Target


class BlockDevice(SrType):
    """An image in a block device. Its size is fixed, and its neighbours are unknown."""

    name = "device"
    has_folder = False

    def keeps(self, target: Target) -> bool:
        """True for every block device."""
        return target.backing is Backing.BLOCK

    def locate(self, path: str, mounts: Sequence[str]) -> tuple[list[Found], list[str]]:  # noqa: ARG002 - as SrType has it
        """Return the device at `path` if it has a name of the storage manager's and is there."""
        if read_path(path).life is Life.FOREIGN:
            return [], [f"{path} (not a path in a storage repository)"]
        return [image_at(path)] if os.path.exists(path) else [], [path]

    def folders_beside(self, path: str) -> tuple[str, ...]:
        """Return the folder of `path`, of device-mapper's nodes, and of the node itself.

        libvhd takes a volume's name in ``/dev/mapper``, else its real path. Source: blktap vhd/lib/canonpath.c.
        """
        path = os.path.abspath(path)
        return tuple(dict.fromkeys((os.path.dirname(path), MAPPER, *super().folders_beside(path))))

    def journal_value(self, path: str) -> str | None:
        """Return None if nothing can be read: the journal's volume may be inactive."""
        return super().journal_value(path) or None

    def shared_storage(self, target: Target, resolved: str, proc: str) -> str | None:  # noqa: ARG002 - as SrType has it
        """Count every SR's volume as shared: it may be on iSCSI or Fibre Channel, or replicated to another host."""
        return "an SR's volume" if read_path(os.path.abspath(target.path)).life is not Life.FOREIGN else None

    def probed_path(self, target: Target) -> str | None:
        """Return the device itself: its name was found without a read of its storage."""
        return target.path

    def is_without_node(self, target: Target) -> bool:
        """True if the device of a VDI is not there."""
        return target.vdi is not None and not os.path.exists(target.path)


DEVICE = BlockDevice()
