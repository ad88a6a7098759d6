"""The names of device-mapper's block devices, and the one by which an image in such a device is called.

``/dev/dm-<n>`` is another device after the next activation, so a device of device-mapper is always called by its name
below ``/dev/mapper`` or by its volume's name. Source: Documentation/ABI/testing/sysfs-block-dm.
"""

from __future__ import annotations

import os
import stat

from smfix.sm.paths import Life, read_path
from smfix.values import Reason, Refusal, Target

DEVICES = "/dev"
BLOCK_DEVICES = "/sys/dev/block"
"""The folder in which the kernel has one folder for each block device, named by its number."""


def name_at(path: str) -> str | None:
    """Return device-mapper's name of the block device that `path` leads to; None for anything else."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return _name_of(about.st_rdev) if stat.S_ISBLK(about.st_mode) else None


def mapper_path(rdev: int) -> str | None:
    """Return the path below ``/dev/mapper`` that leads to the device `rdev`; None if there is none."""
    name = _name_of(rdev)
    path = f"{DEVICES}/mapper/{name}"
    try:
        return path if name and os.stat(path).st_rdev == rdev else None
    except OSError:
        return None


def _name_of(rdev: int) -> str | None:
    try:
        with open(
            f"{BLOCK_DEVICES}/{os.major(rdev)}:{os.minor(rdev)}/dm/name", encoding="utf-8", errors="replace"
        ) as name:
            return name.read(256).strip()
    except OSError:
        return None


def named_device(target: Target, rdev: int) -> Target | Refusal:
    """Return the target of the block device `rdev` by its volume's name, and whose disk that is, if it is a volume.

    Returns a Refusal if the path is named as another disk's volume: SM's locks would be the wrong ones.
    """
    path, mapped = target.path, mapper_path(rdev)
    if mapped is None:
        return target
    given, real = read_path(path), read_path(mapped)
    if given.life is not Life.FOREIGN:
        if (given.sr, given.vdi) == (real.sr, real.vdi):
            return target
        return Refusal(Reason.UNSAFE_PATH, f"{path} leads to another volume, {mapped}; name that one")
    if real.life is Life.FOREIGN and path.startswith(f"{DEVICES}/") and not _is_dm_node(path):
        return target
    return target._replace(path=mapped, vdi=target.vdi or real.vdi, sr=target.sr or real.sr)


def _is_dm_node(path: str) -> bool:
    return os.path.basename(path).startswith("dm-") and os.path.dirname(path) == DEVICES
