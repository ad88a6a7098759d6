"""Read an image's path: its SR, its VDI, and its stage of life. Pure.

The forms are the storage manager's (FileSR.py, LVHDSR.py, LinstorSR.py, cleanup.py):

========================================  ==========================================================
``<mount>/<sr>/<vdi>.vhd``                a disk of a file SR
``<mount>/<sr>/OLD_<vdi>.vhd``            the old leaf, while a leaf-coalesce renames
``<mount>/<sr>/<vdi>.vhd.new``            a snapshot that has not taken its name yet
``<mount>/<sr>/tmpXXXXXX/<any>.vhd``      a downloaded or uploaded copy (Python's mkdtemp names)
``/dev/VG_XenStorage-<sr>/VHD-<vdi>``     a disk of an LVM SR; :func:`volume_at` reads its other names too
``/dev/drbd/by-res/xcp-volume-<r>/0``     a LINSTOR volume: `r` is no VDI, and the SR is not named
``DELETED_<vdi>``                         a LINSTOR volume on its way out
========================================  ==========================================================
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

GROUP = "VG_XenStorage-"
"""The name of an LVM SR's volume group begins with this; the SR's UUID follows."""
MAPPER = "/dev/mapper"
"""The folder in which device-mapper has the node of every active volume of every group."""

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Compiled by `re` at their first use, and kept there: compiling all of them takes 8 ms, and most runs need none.
_MARK = r"(?P<mark>OLD_|DELETED_)?"
_FULL = UUID
_FILE = rf"{_MARK}(?P<vdi>{UUID})\.vhd(?P<new>\.new)?"
_TEMPORARY = r"tmp[A-Za-z0-9_]{6,8}"
_VOLUME = rf"/dev/{GROUP}(?P<sr>{UUID})/(?P<name>(?!{GROUP})[^/]+)"
_MAPPED = r"/dev/mapper/(?P<group>(?:[^-/]|--)+)-(?P<volume>(?:[^-/]|--)+)"
_DISK = rf"VHD-{_MARK}(?P<vdi>{UUID})"
_LINSTOR = rf"/dev/drbd/by-res/xcp-volume-{UUID}/0"

# The hex digits of a prefix, and the fewest that may name a disk (contract, TARGET; model.VdiRef).
_PREFIX = r"(?P<mark>OLD_)?(?P<hex>[0-9a-f]{1,8}(?:-[0-9a-f]{0,12}){0,4})"
SHORTEST = 8
SHORTEST_OLD = 4


class Life(Enum):
    """The stage of an image's life, by its name."""

    PLAIN = "plain"
    OLD = "old"
    DELETED = "deleted"
    NEW = "new"
    COPY = "copy"
    FOREIGN = "foreign"


class ImageName(NamedTuple):
    """The parts of a path. `vdi`, `sr`: lower-case UUIDs, None if it names none.

    `rest` is the part below the SR's folder, one or two components; None if the storage
    manager makes no such path (FOREIGN) or the path names a device (`is_device`).
    """

    life: Life
    sr: str | None = None
    vdi: str | None = None
    rest: str | None = None
    is_device: bool = False


class VolumeName(NamedTuple):
    """A logical volume of an LVM SR: the SR's UUID and the volume's name in its group."""

    sr: str
    name: str

    @property
    def path(self) -> str:
        """Its node as LVM names it."""
        return f"/dev/{GROUP}{self.sr}/{self.name}"

    @property
    def mapped(self) -> str:
        """Its node as device-mapper names it: a hyphen inside of either name is doubled."""
        group, name = ((part.replace("-", "--")) for part in (f"{GROUP}{self.sr}", self.name))
        return f"{MAPPER}/{group}-{name}"


def volume_at(path: str) -> VolumeName | None:
    """The SR's volume that an absolute path names, in LVM's or in device-mapper's spelling; None: no volume of an SR.

    libvhd writes device-mapper's spelling into a child's header and parent locators, the storage manager LVM's.
    Source: blktap vhd/lib/canonpath.c; sm drivers/lvhdutil.py (``extractUuid``).
    """
    mapped = re.fullmatch(_MAPPED, path)
    if mapped:
        group, name = (mapped[part].replace("--", "-") for part in ("group", "volume"))
        path = f"/dev/{group}/{name}"
    match = re.fullmatch(_VOLUME, path)
    return None if match is None or match["name"] in (".", "..") else VolumeName(match["sr"], match["name"])


def is_uuid(text: str) -> bool:
    """True for 32 lower-case hex digits with their four dashes, and nothing else."""
    return re.fullmatch(_FULL, text) is not None


def is_prefix(text: str) -> bool:
    """True when `text` may name a disk: a UUID, or its first >= 8 hex digits (``OLD_``: >= 4).

    So it holds no character that means something to a path or to a pattern.
    """
    match = re.fullmatch(_PREFIX, text)
    if match is None:
        return False
    digits = match["hex"]
    if len(digits.replace("-", "")) < (SHORTEST_OLD if match["mark"] else SHORTEST):
        return False
    # Only with the dashes of a UUID is it a prefix of a real name.
    return all((char == "-") == (at in (8, 13, 18, 23)) for at, char in enumerate(digits))


def read_path(path: str) -> ImageName:
    """Read any text as a path, without a look at the machine; FOREIGN if no part is known."""
    if path.startswith("/dev/"):
        return _read_device(path)
    parts = [part for part in path.split("/") if part]
    if not parts or "." in parts or ".." in parts:
        return ImageName(Life.FOREIGN)
    file = re.fullmatch(_FILE, parts[-1])
    vdi = file["vdi"] if file else None
    if len(parts) >= 2 and is_uuid(parts[-2]):
        if file:
            return ImageName(_life(file), parts[-2], vdi, parts[-1])
        if re.match(_TEMPORARY, parts[-1]):
            return ImageName(Life.COPY, parts[-2], None, parts[-1])
    if len(parts) >= 3 and is_uuid(parts[-3]) and re.fullmatch(_TEMPORARY, parts[-2]):
        return ImageName(Life.COPY, parts[-3], vdi, "/".join(parts[-2:]))
    if file:
        return ImageName(_life(file), None, vdi)
    return ImageName(Life.FOREIGN)


def _read_device(path: str) -> ImageName:
    volume = volume_at(path)
    disk = None if volume is None else re.fullmatch(_DISK, volume.name)
    if volume is not None and disk is not None:
        return ImageName(_life(disk), volume.sr, disk["vdi"], is_device=True)
    if re.fullmatch(_LINSTOR, path):
        return ImageName(Life.PLAIN, is_device=True)
    return ImageName(Life.FOREIGN, is_device=True)


def _life(match: re.Match[str]) -> Life:
    if match["mark"]:
        return Life.OLD if match["mark"] == "OLD_" else Life.DELETED
    return Life.NEW if match.groupdict().get("new") else Life.PLAIN
