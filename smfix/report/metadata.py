"""An image's metadata in the layout of ``vhd-util read -p``. Pure.

Engineers read, paste and compare these dumps, so labels, widths, blank lines and the order are
those of blktap's ``vhd-util-read.c`` (even its spelling of an unknown platform code); the
comparison with the real tool is a test. Where the tool gives up, this prints what it would have
printed plus what can still be read. Text from the image is made printable.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

from smfix.model import Damaged, Sound
from smfix.report.escape import printable
from smfix.vhd import structs
from smfix.vhd.image import Batmap, Locator, VhdImage
from smfix.vhd.structs import BatmapHeader, Footer, Header, PlatformCode

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
_NOT_OPENED = "Failed to open {path}: -22\n\n{path} appears invalid; dumping headers\n\n"


def metadata(image: VhdImage, path: str, zone: tzinfo | None = None) -> str:
    """What ``vhd-util read -p -n PATH`` prints; times in `zone` (None: this machine's)."""
    shown = printable(path)
    footer, header = image.footer, image.header
    if footer is None or isinstance(header, Damaged):
        return _NOT_OPENED.format(path=shown) + _dump(image, zone)
    parts = [_footer(footer, zone)]
    if isinstance(header, Sound):
        parts.append(_header(header.value, zone))
        if footer.is_differencing:
            parts.append(_locators(image.locators))
        if image.batmap is not None:
            parts.append(_batmap(image.batmap, footer))
    if isinstance(image.bat, Damaged):
        parts.insert(0, f"Failed to get bat for {shown}: -22\n")
    return "".join(parts)


def footers(image: VhdImage) -> tuple[tuple[str, int, bytes], ...]:
    """Both footers as they stand in the file: (title, offset in bytes, raw bytes)."""
    found = []
    for name, footer in (("Backup footer", image.backup), ("Footer", image.end)):
        if isinstance(footer, Sound):
            raw, state = footer.value.encode()[: footer.where.length], "sound"
        else:
            raw, state = footer.raw, "damaged: " + "; ".join(footer.reasons)
        found.append((f"{name} at byte {footer.where.offset} ({state}):", footer.where.offset, raw))
    return tuple(found)


def notes(image: VhdImage) -> tuple[str, ...]:
    """What a reader of the dump must know and the dump does not say."""
    if isinstance(image.end, Sound):
        return ()
    why = "; ".join(image.end.reasons)
    if image.footer is None:
        return (f"the footer at the end is damaged ({why}), and so is the backup footer",)
    which = "backup footer" if isinstance(image.backup, Sound) else "footer found in the tail"
    return (f"the footer at the end is damaged ({why}); what is shown is the {which}",)


def _dump(image: VhdImage, zone: tzinfo | None) -> str:
    """The footer and header whose bytes are there, sound or not."""
    footer = image.footer
    if footer is None and isinstance(image.backup, Damaged):
        footer = structs.parse_footer(image.backup.raw)
    parts = [] if footer is None else [_footer(footer, zone)]
    header = image.header
    if isinstance(header, Sound):
        parts.append(_header(header.value, zone))
    elif header is not None and len(header.raw) == structs.HEADER_SIZE:
        parts.append(_header(structs.parse_header(header.raw), zone))
    return "".join(parts)


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
            _row("UUID", structs.uuid_text(footer.uuid)),
            _row("Saved state", "Yes" if footer.saved else "No"),
            _row("Hidden", str(hidden)),
        ],
    )


def _disk(size: int) -> str:
    return f"{size >> 20} MB ({size} Bytes)"


def _header(header: Header, zone: tzinfo | None) -> str:
    name = header.parent_name_text()
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
            _row("Parent UUID", structs.uuid_text(header.parent_uuid)),
            _row("Parent timestamp", _clock(header.parent_timestamp, zone)),
            _row("Checksum", _sum(header.checksum, header.sealed().checksum)),
        ],
    )


def _locators(locators: tuple[Locator, ...]) -> str:
    lines = []
    for locator in locators:
        entry = locator.entry
        lines += [
            _row("locator:", str(locator.index)),
            _row("       code", _platform(entry.code)),
            _row("       data_space", str(entry.data_space)),
            _row("       data_length", str(entry.data_length)),
            _row("       data_offset", str(entry.data_offset)),
            "failed to read parent name"
            if locator.path is None
            else _row("       decoded name", printable(locator.path)),
            "",
        ]
    return "".join(f"{line}\n" for line in ("VHD Parent Locators:", "--------------------", *lines))


def _platform(code: int) -> str:
    try:
        return f"PLAT_CODE_{PlatformCode(code).name}"
    except ValueError:
        return "UNKOWN"  # so spelled by the tool


def _batmap(batmap: Sound[Batmap] | Damaged, footer: Footer) -> str:
    if isinstance(batmap, Damaged):
        return "failed to get batmap header\n"
    header = batmap.value.header
    summed = batmap.value.bits[: structs.batmap_summed_size(footer.current_size)]
    return _section(
        "VHD Batmap Summary:",
        [
            _row("Batmap offset", str(header.map_offset)),
            _row("Batmap size (secs)", str(header.map_size // 512)),
            _row("Batmap version", f"0x{header.version:08x}"),
            *_key_hash(header),
            _row("Checksum", _sum(header.checksum, structs.batmap_checksum(summed, header.version))),
        ],
    )


def _key_hash(header: BatmapHeader) -> list[str]:
    """Nonce and hash of an encrypted image's key (``struct vhd_keyhash``: cookie, 32, 32 bytes)."""
    if header.key_hash[0] != 1:
        return []
    nonce, digest = header.key_hash[1:33], header.key_hash[33:65]
    return [f"Batmap keyhash nonce: {nonce.hex()}", f"Batmap keyhash hash : {digest.hex()}"]
