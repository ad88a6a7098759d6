"""LINSTOR SRs: the image of a VDI is a DRBD volume, ``/dev/drbd/by-res/xcp-volume-<resource>/0``.

The path names neither the VDI nor the SR, so such an image is found by its path only, and no lock of SM can be taken
for it. Source: sm drivers/LinstorSR.py.
"""

from __future__ import annotations

from smfix.sm.paths import Life, read_path
from smfix.sm.sr_types.device import BlockDevice
from smfix.values import Target


class LinstorSr(BlockDevice):
    """An SR whose images are DRBD volumes."""

    name = "linstor"

    def keeps(self, target: Target) -> bool:
        """True for a device that has a name of the storage manager's, but names no SR."""
        if not target.is_device:
            return False
        name = read_path(target.path)
        return name.life is not Life.FOREIGN and name.sr is None


LINSTOR = LinstorSr()
