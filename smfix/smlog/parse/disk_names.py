"""How logs name a disk: full UUIDs, image paths, and the storage manager's short VDI names.

Pure. Everything returned was read, never completed: a prefix stays a prefix. Sources: `VDI.__str__`
in the storage manager's cleanup.py over its whole history, and the paths its drivers build.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from smfix.smlog.patterns import pattern

HEX8 = r"[0-9a-fA-F]{8}"
UUID = rf"{HEX8}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}"
# An image as a program received it: a path, or a name in the folder of an earlier `cd`.
GIVEN = rf"(?:/[^\s:'\"]{{1,500}}+|(?:[\w.-]{{1,80}}+/){{0,3}}+(?:VHD-|OLD_)?{UUID}(?:\.vhd)?)"
_WHOLE_UUID = pattern(rf"{UUID}\Z")
_TMP = pattern(r"tmp[A-Za-z0-9_]{1,32}\Z")
_FOLDER_NAME = pattern(r"[\w-]{1,128}\Z")
_MAPPER = pattern(r"VG_XenStorage--(?P<sr>[0-9a-f-]{1,48}?)-(?P<lv>(?:VHD|LV|QCOW2)--[0-9a-f-]{1,48})\Z")
# A path begins only at a word's start: "./UUID.vhd" is a parent locator, relative to a disk that the line omits.
# It ends at any quote around it, at blanks, and at the colon of "error opening PATH: -22".
_PATH = pattern(r"(?<![\w./~-])/[^\s'\"`:,;|<>()\[\]{}\\*?]{1,600}")
_FILE_NAME = pattern(rf"(?P<temporary>OLD_|DELETED_)?(?P<vdi>{UUID})(?:\.(?:vhd|qcow2|raw|vhdcache)(?P<new>\.new)?)?\Z")
_LV_NAME = pattern(rf"(?:VHD|LV|QCOW2)-(?P<temporary>OLD_|DELETED_)?(?P<vdi>{UUID})\Z")
FILES = "/sr-mount/"  # a path below it is no volume
_DRBD = pattern(r"/dev/drbd/by-res/(?P<volume>[\w.-]{1,80})/\d{1,4}\Z")

Disk = tuple[str, str | None]
"""A VDI as it was reported (a full UUID, or a prefix), and its SR."""


class ImagePath(NamedTuple):
    """An image as a path names it.

    `vdi` and `sr` are full UUIDs in lower case, or None if the path does not hold them (a
    LINSTOR volume; a bare file or volume name has no SR). `copy` marks a file below a ``tmp*``
    folder of the SR (a download or an upload); `temporary` a name that the storage manager gives
    while it works (``OLD_``, ``DELETED_``, ``.vhd.new``).
    """

    path: str
    vdi: str | None
    sr: str | None
    copy: bool = False
    temporary: bool = False

    @property
    def format(self) -> str:
        """Return ``qcow2`` if the name says so, else ``vhd``."""
        name = self.path.rpartition("/")[2]
        return "qcow2" if name.removesuffix(".new").endswith(".qcow2") or name.startswith("QCOW2-") else "vhd"


def is_uuid(text: str) -> bool:
    """Return True for a full UUID: 32 hex digits in five groups."""
    return _WHOLE_UUID.match(text) is not None


def image_path(path: str) -> ImagePath | None:
    """Parse the identity of an image from `path`; return None if it does not look like an image.

    ``…/<SR>/<VDI>.vhd``, ``…/<SR>/tmpXXXX/<VDI>.vhd``, ``/dev/VG_XenStorage-<SR>/VHD-<VDI>`` (also
    ``LV-``, ``QCOW2-``), its device-mapper form with doubled dashes, and
    ``/dev/drbd/by-res/<volume>/0``, which names no VDI.
    """
    if _DRBD.match(path):
        return ImagePath(path, vdi=None, sr=None)
    parts = path.split("/")
    name, folder = parts[-1], parts[-2] if len(parts) > 1 else ""
    if mapper := _MAPPER.match(name):
        name = mapper["lv"].replace("--", "-")
        folder = f"VG_XenStorage-{mapper['sr'].replace('--', '-')}"
    if folder.startswith("VG_XenStorage-") or (not folder and _LV_NAME.match(name)):
        found, sr = _LV_NAME.match(name), folder.removeprefix("VG_XenStorage-")
        copy = False
    else:
        found = _FILE_NAME.match(name)
        copy = _TMP.match(folder) is not None and len(parts) > 2
        sr = parts[-3] if copy else folder
        if "sr-mount" in parts[:-3] and not is_uuid(sr):  # a folder in the SR: nova's os-images, for example
            inner = parts[parts.index("sr-mount") + 1 : -1]
            if all(map(_FOLDER_NAME.match, inner)):
                copy, sr = True, inner[0]
    if found is None:
        return None
    return ImagePath(
        path,
        vdi=found["vdi"].lower(),
        sr=sr.lower() if is_uuid(sr) else None,
        copy=copy,
        temporary=(found["temporary"] or found.groupdict().get("new")) is not None,
    )


def linstor_volume(path: str) -> bool:
    """Return True for a DRBD device of LINSTOR: its name is not the VDI's UUID."""
    return _DRBD.match(path) is not None


def volume_path(name: str, sr: str | None) -> str | None:
    """Return the path of volume `name` on an LVM SR: its group is named after the SR. None for other names."""
    return f"/dev/VG_XenStorage-{sr}/{name}" if sr is not None and _LV_NAME.match(name) else None


def image_paths(text: str) -> Iterator[ImagePath]:
    """Yield every image path in `text`, in order."""
    for found in _PATH.finditer(text):
        if image := image_path(found.group()):
            yield image


# --------------------------------------------------------------------------- short names

# "*1d994938(40.00G/14.27G)", "OLD_b545[VHD](8.000G//8.020G|n)", "dce4b0fc(2.000G?)[vhd]".
# The sizes hold no parenthesis; both ends are bounded, so no input makes this slow.
VDI_NAME = (
    r"\*?(?P<short>OLD_[0-9a-fA-F]{4}|DELETED_?|[0-9a-fA-F]{8}(?:-[0-9a-fA-F-]{1,27})?)"
    r"(?:\[[A-Za-z0-9]{1,8}\])?(?:\([^()\n]{0,80}\))?(?:\[[A-Za-z0-9]{1,8}\])?"
)
_TEMPORARY_SHORT = pattern(r"(?:OLD_|DELETED_?)(?P<digits>[0-9a-fA-F]{0,4})\Z")


class ShortName(NamedTuple):
    """The first digits of a VDI's UUID, as `VDI.__str__` prints them, lower case.

    Eight of them; four if the VDI carries the temporary name ``OLD_``, none after ``DELETED_``
    (the name is cut at eight characters).
    """

    digits: str
    temporary: bool = False


def short_name(text: str) -> ShortName:
    """Return the meaning of the group ``short`` of :data:`VDI_NAME`."""
    if temporary := _TEMPORARY_SHORT.match(text):
        return ShortName(temporary["digits"].lower(), temporary=True)
    return ShortName(text.lower())
