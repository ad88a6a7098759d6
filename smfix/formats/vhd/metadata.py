"""An image's metadata in the layout of ``vhd-util read -p``. Pure.

Engineers read, paste and compare these dumps, so labels, widths, blank lines and the order are those of
blktap's ``vhd-util-read.c``, and what is read is what libvhd reads (:mod:`smfix.formats.vhd.libvhd`). The comparison
with the real tool is a test; decision 14 names the few differences. Text from the image is made printable.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, tzinfo
from typing import Any

from smfix.formats.base import RawStructure
from smfix.formats.vhd import libvhd, structs
from smfix.formats.vhd.image import MARK, Locator, VhdImage
from smfix.formats.vhd.libvhd import Opened
from smfix.formats.vhd.structs import BatmapHeader, Footer, Header, ParentLocator, PlatformCode
from smfix.report.escape import printable
from smfix.values import SECTOR, Damaged, Sound, uuid_text

_TYPES = (
    "None",
    "Reserved (deprecated)",
    "Fixed hard disk",
    "Dynamic hard disk",
    "Differencing hard disk",
    "Reserved (deprecated)",
    "Reserved (deprecated)",
)
_SYSTEMS = {0x5769326B: "Windows", 0x4D616320: "Macintosh"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NOT_OPENED = "Failed to open {path}: -{error}\n\n{path} appears invalid; dumping headers\n\n"
_NO_BAT = "Failed to get bat for {path}: -{error}\n"


def metadata(seen: Opened, path: str, zone: tzinfo | None = None) -> str:
    """What ``vhd-util read -p -n PATH`` prints of what libvhd has `seen`; times in `zone` (None: this machine's).

    Behind the line by which the tool gives up on a BAT, this goes on.
    """
    shown = printable(path)
    footer, header = seen.footer, seen.header
    if seen.error:
        first = _NOT_OPENED.format(path=shown, error=seen.error)
        return first + _footer(footer, zone) + _header(header, footer, zone)
    if not footer.is_sparse:
        return _footer(footer, zone)
    parts = [_NO_BAT.format(path=shown, error=seen.bat_error)] if seen.bat_error else []
    parts += [_footer(footer, zone), _header(header, footer, zone)]
    if footer.is_differencing:
        parts.append(_locators(seen.locators))
    if isinstance(seen.batmap, int):
        parts.append("failed to get batmap header\n")
    elif seen.batmap is not None:
        parts.append(_batmap(seen.batmap))
    return "".join(parts)


def footers(image: VhdImage) -> tuple[RawStructure, ...]:
    """Both footers as they are in the file, the backup footer first."""
    return tuple(_raw(name, footer, image) for name, footer in (("Backup footer", image.backup), ("Footer", image.end)))


def _raw(name: str, footer: Sound[Footer] | Damaged, image: VhdImage) -> RawStructure:
    is_sound = isinstance(footer, Sound)
    if isinstance(footer, Sound):
        raw, state = footer.value.encode()[: footer.where.length], "sound"
    else:
        raw, state = footer.raw, "damaged: " + "; ".join(footer.reasons)
    like = None if image.footer is None else image.footer.encode()
    return RawStructure(
        f"{name} at byte {footer.where.offset} ({state})",
        footer.where.offset,
        raw,
        is_sound=is_sound,
        is_metadata=is_sound or raw == MARK[: len(raw)],
        is_of_guest=footer is image.backup and image.header is None,
        like=like,
    )


def fields(image: VhdImage) -> dict[str, Any]:
    """Every structure with its place, its fields, and the reasons against it."""
    bat = image.bat.value if isinstance(image.bat, Sound) else None
    batmap = image.batmap
    header = batmap.value.header if isinstance(batmap, Sound) else None
    return {
        "size": image.size,
        "end_of_headers": image.end_of_headers,
        "end_of_data": image.end_of_data,
        "footer": _structure(image.end, _value(image.end)),
        "backup_footer": _structure(image.backup, _value(image.backup)),
        "header": _structure(image.header, _value(image.header)),
        "bat": _structure(image.bat, None if bat is None else {"entries": len(bat), "allocated": bat.allocated}),
        "batmap": _structure(batmap, None if header is None else _fields(header)),
        "parent_locators": [
            {"index": found.index, "path": found.path, **_fields(found.entry)} for found in image.locators
        ],
    }


def _value(structure: Sound[Any] | Damaged | None) -> dict[str, Any] | None:
    return _fields(structure.value) if isinstance(structure, Sound) else None


def _structure(found: Sound[Any] | Damaged | None, fields: dict[str, Any] | None) -> dict[str, Any] | None:
    """A structure, None if the image has none; its fields are None if it is damaged."""
    if found is None:
        return None
    return {
        "offset": found.where.offset,
        "length": found.where.length,
        "sound": isinstance(found, Sound),
        "reasons": list(found.reasons) if isinstance(found, Damaged) else [],
        "fields": fields,
    }


def _fields(structure: Footer | Header | ParentLocator | BatmapHeader) -> dict[str, Any]:
    """The fields by name: cookies and creators as text, UUIDs as UUIDs, other values as they are."""
    named: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(structure)):
        value = getattr(structure, name)
        if name in ("cookie", "creator_app"):
            named[name] = value.rstrip(b"\0").decode("latin-1")
        elif name in ("uuid", "parent_uuid"):
            named[name] = uuid_text(value)
        elif name != "locators":
            named[name] = value
    return named


def notes(image: VhdImage, seen: Opened) -> tuple[str, ...]:
    """Notes for a reader of the dump on facts that it does not show."""
    return tuple(filter(None, (_about_footer(image, seen), _about_header(seen))))


def _about_footer(image: VhdImage, seen: Opened) -> str:
    if isinstance(image.end, Sound):
        return ""
    why = "; ".join(image.end.reasons)
    if isinstance(image.backup, Sound):
        return f"the footer at the end is damaged ({why}); what is shown is the backup footer"
    both = f"the footer at the end is damaged ({why}), and so is the backup footer"
    if seen.blank_footer:
        return f"{both}; the fields that are shown as 0 are nowhere in the image; --layout shows what is there"
    if image.tail:
        return f"{both}; a sound one is at byte {image.tail[-1].where.offset:,}, see --layout"
    return both


def _about_header(seen: Opened) -> str:
    if not seen.blank_header or not (seen.error or seen.footer.is_sparse):
        return ""
    if not seen.footer.is_sparse:
        return "the footer's type is not one that has a header: none was read, its fields are shown as 0"
    return (
        f"there is no header at byte {seen.footer.data_offset:,}, where the footer says that it is: its fields are "
        "shown as 0"
    )


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([title, "-" * 19, *lines, "", ""])


def _row(label: str, text: str) -> str:
    return f"{label:<20}: {text}"


def _text(raw: bytes) -> str:
    """A C string of the image: up to its first NUL."""
    return printable(raw.split(b"\0", 1)[0].decode("ascii", "surrogateescape"))


def _clock(seconds: int, zone: tzinfo | None) -> str:
    """As ctime(3), which knows no locale."""
    when: datetime = structs.from_vhd_time(seconds).astimezone(zone)
    day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    return f"{day} {month} {when.day:2d} {when:%H:%M:%S} {when.year}"


def _sum(stored: int, counted: int) -> str:
    return f"0x{stored:x}|0x{counted:x} ({'Good!' if stored == counted else 'Bad!'})"


def _version(value: int) -> str:
    return f"Major: {value >> 16}, Minor: {value & 0xFFFF}"


def _footer(footer: Footer, zone: tzinfo | None) -> str:
    temporary = "<TEMP>" if footer.features & 1 else ""
    reserved = "<RESV>" if footer.features & 2 else ""
    cylinders, heads = footer.geometry >> 16, footer.geometry >> 8 & 0xFF
    spt = footer.geometry & 0xFF
    sectors = cylinders * heads * spt
    kind = _TYPES[footer.type] if footer.type < len(_TYPES) else "Unknown type!\n"
    hidden = footer.hidden - 256 if footer.hidden > 127 else footer.hidden  # a C char
    return _section(
        "VHD Footer Summary:",
        [
            _row("Cookie", _text(footer.cookie)),
            _row("Features", f"(0x{footer.features:08x}) {temporary}{reserved}"),
            _row("File format version", _version(footer.version)),
            _row("Data offset", str(footer.data_offset)),
            _row("Timestamp", _clock(footer.timestamp, zone)),
            _row("Creator Application", f"'{_text(footer.creator_app)}'"),
            _row("Creator version", _version(footer.creator_version)),
            _row("Creator OS", _SYSTEMS.get(footer.creator_os, "Unknown!")),
            _row("Original disk size", _disk(footer.original_size)),
            _row("Current disk size", _disk(footer.current_size)),
            _row("Geometry", f"Cyl: {cylinders}, Hds: {heads}, Sctrs: {spt}"),
            _row("", f"= {sectors >> 11} MB ({sectors << 9} Bytes)"),
            _row("Disk type", kind),
            _row("Checksum", _sum(footer.checksum, footer.sealed().checksum)),
            _row("UUID", uuid_text(footer.uuid)),
            _row("Saved state", "Yes" if footer.saved else "No"),
            _row("Hidden", str(hidden)),
        ],
    )


def _disk(size: int) -> str:
    return f"{size >> 20} MB ({size} Bytes)"


def _header(header: Header, footer: Footer, zone: tzinfo | None) -> str:
    name = libvhd.parent_name(footer, header)
    return _section(
        "VHD Header Summary:",
        [
            _row("Cookie", _text(header.cookie)),
            _row("Data offset (unusd)", str(header.data_offset)),
            _row("Table offset", str(header.table_offset)),
            _row("Header version", f"0x{header.version:08x}"),
            _row("Max BAT size", str(header.max_bat_size)),
            _row("Block size", f"{header.block_size} ({header.block_size >> 20} MB)"),
            _row("Parent name", "failed to read name" if name is None else printable(name)),
            _row("Parent UUID", uuid_text(header.parent_uuid)),
            _row("Parent timestamp", _clock(header.parent_timestamp, zone)),
            _row("Checksum", _sum(header.checksum, header.sealed().checksum)),
        ],
    )


def _locators(locators: tuple[Locator, ...]) -> str:
    lines = []
    for locator in locators:
        index, entry, path = locator.index, locator.entry, locator.path
        lines += [
            _row("locator:", str(index)),
            _row("       code", f"PLAT_CODE_{PlatformCode(entry.code).name}"),
            _row("       data_space", str(entry.data_space)),
            _row("       data_length", str(entry.data_length)),
            _row("       data_offset", str(entry.data_offset)),
            "failed to read parent name" if path is None else _row("       decoded name", printable(path)),
            "",
        ]
    return "".join(f"{line}\n" for line in ("VHD Parent Locators:", "--------------------", *lines))


def _batmap(header: BatmapHeader) -> str:
    return _section(
        "VHD Batmap Summary:",
        [
            _row("Batmap offset", str(header.map_offset)),
            _row("Batmap size (secs)", str(header.map_size // SECTOR)),
            _row("Batmap version", f"0x{header.version:08x}"),
            *_key_hash(header),
            _row("Checksum", _sum(header.checksum, header.checksum)),  # one that does not fit is refused before
        ],
    )


def _key_hash(header: BatmapHeader) -> list[str]:
    """Nonce and hash of an encrypted image's key (``struct vhd_keyhash``: cookie, 32, 32 bytes)."""
    if header.key_hash[0] != 1:
        return []
    nonce, digest = header.key_hash[1:33], header.key_hash[33:65]
    return [f"Batmap keyhash nonce: {nonce.hex()}", f"Batmap keyhash hash : {digest.hex()}"]
