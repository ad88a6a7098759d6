"""A damaged header, restored if one answer is left: the repair of VHD201.

Theory. Most of the header is constant, and the rest shows in the layout: at the end of the BAT is the batmap's
cookie, its entries place blocks one after the other, the footer holds their number. The stored
checksum arbitrates a single wrong field. More than one wrong field is restored only if the parent fields,
which nothing else repeats, are known to be empty or lead to the very parent.

Source: ``vhd_initialize_header``, ``vhd_validate_header`` (libvhd.c); specification, "Dynamic Disk Header".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from smfix.formats.problem import Context
from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import read_bat
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.footer import BLOCKS_OF_2_TIB
from smfix.formats.vhd.problems.orphan_blocks import block_limit, orphans
from smfix.formats.vhd.structs import (
    BATMAP_COOKIE,
    BLOCK_SIZE,
    HEADER_COOKIE,
    HEADER_RULES,
    HEADER_SIZE,
    LOCATORS,
    NO_OFFSET,
    NULL_UUID,
    PATH_CODES,
    Footer,
    Header,
    ParentLocator,
)
from smfix.values import SECTOR, Damaged, Extent, Sound

TABLE_OFFSET = 3 * SECTOR
_CONSTANTS: dict[str, Any] = {
    "cookie": HEADER_COOKIE,
    "data_offset": NO_OFFSET,
    "table_offset": TABLE_OFFSET,
    "version": 0x00010000,
    "block_size": BLOCK_SIZE,
    "reserved1": 0,
    "reserved2": bytes(256),
}
_NO_PARENT: dict[str, Any] = {
    "parent_uuid": NULL_UUID,
    "parent_timestamp": 0,
    "parent_name": bytes(512),
    "locators": (ParentLocator(0, 0, 0, 0, 0),) * LOCATORS,
}


def restored(image: VhdImage, context: Context) -> tuple[Header, str] | None:
    """The header that the evidence leaves, and by what; None: none, or more than one."""
    footer = image.footer
    if not isinstance(image.header, Damaged) or len(image.header.raw) < HEADER_SIZE or footer is None:
        return None
    parsed = structs.parse_header(image.header.raw)
    sizes = _bat_sizes(image, footer)
    single = {h.encode(): h for h in _single(parsed, footer, sizes) if _lies_right(image, footer, h)}
    if single:
        return (next(iter(single.values())), "the header's own checksum") if len(single) == 1 else None
    if not _parent_is_known(parsed, footer, image, context):
        return None
    base = replace(parsed, **_CONSTANTS)
    if not footer.is_differencing:
        base = replace(base, **_NO_PARENT)
    whole = [replace(base, max_bat_size=size).sealed() for size in sorted({*sizes, base.max_bat_size})]
    fitting = [header for header in whole if _lies_right(image, footer, header)]
    return (fitting[0], "its constants and the layout of BAT, batmap and blocks") if len(fitting) == 1 else None


def relaid(image: VhdImage) -> Header | None:
    """The header by which BAT, batmap and blocks are in place, if the sealed one places them elsewhere.

    BAT after the header and blocks of 2 MiB are what tap and qemu write. A header that says otherwise is believed
    unless the usual layout fits and, without a batmap to prove it, leaves no block without an entry. A BAT of another
    length is proved by the batmap that follows it, and not the end of the BAT by the header, or by entries in
    use after those that the header counts.
    """
    footer = image.footer
    if not isinstance(image.header, Sound) or footer is None:
        return None
    header = image.header.value
    usual: dict[str, Any] = {"table_offset": TABLE_OFFSET, "block_size": BLOCK_SIZE}
    wrong = {name: value for name, value in usual.items() if getattr(header, name) != value}
    if wrong and (footer.by_tap or orphans(image)):
        candidate = replace(header, **wrong).sealed()
        if _lies_right(image, footer, candidate):
            return candidate
    if not footer.has_batmap:
        return None
    if begins_batmap(image, header.bat_extent.end) and not _uncounted(image, footer, header):
        return None
    sizes = _bat_sizes(image, footer) - {header.max_bat_size}
    fitting = [replace(header, **wrong, max_bat_size=size).sealed() for size in sizes]
    fitting = [candidate for candidate in fitting if _lies_right(image, footer, candidate)]
    return fitting[0] if len(fitting) == 1 else None


def _uncounted(image: VhdImage, footer: Footer, header: Header) -> bool:
    """The BAT of the disk's size has entries in use after those that the header counts."""
    blocks = -(-footer.current_size // BLOCK_SIZE)
    rest = Extent(header.table_offset + 4 * header.max_bat_size, 4 * max(0, blocks - header.max_bat_size))
    raw = image.view.read(rest) if rest.length <= SECTOR else b""
    return raw.count(0xFF) != len(raw)


def begins_batmap(image: VhdImage, at: int) -> bool:
    """A batmap begins at byte `at`."""
    return image.view.read(Extent(at, len(BATMAP_COOKIE))) == BATMAP_COOKIE


def _bat_sizes(image: VhdImage, footer: Footer) -> set[int]:
    """How many entries the BAT may have: by the disk's size, by SM's largest disk, by the batmap's place."""
    blocks = -(-footer.current_size // BLOCK_SIZE)
    sizes = {blocks, BLOCKS_OF_2_TIB}
    return {n for n in sizes if blocks <= n and TABLE_OFFSET + 4 * n <= image.size}


def _single(parsed: Header, footer: Footer, sizes: set[int]) -> Iterator[Header]:
    """Headers that differ in one field and have the stored checksum."""
    changes: list[dict[str, Any]] = [{name: value} for name, value in _CONSTANTS.items()]
    changes += [{"max_bat_size": size} for size in sizes]
    if not footer.is_differencing:
        changes += [{name: value} for name, value in _NO_PARENT.items()]
    for change in changes:
        header = replace(parsed, **change)
        if header != parsed and structs.checksum(header.encode(), 36) == parsed.checksum:
            yield header


def _lies_right(image: VhdImage, footer: Footer, header: Header) -> bool:
    """The header is allowed, and BAT, batmap and blocks are at the places that it names."""
    if any(rule.broken(header) for rule in HEADER_RULES):
        return False
    if header.table_offset + header.max_bat_size * 4 > block_limit(image):
        return False
    blocks = header.blocks_of(footer.current_size)
    bat = read_bat(image.view, header.table_offset, blocks, header.max_bat_size, header.block_space)
    if not isinstance(bat, Sound) or bat.value.beyond:
        return False
    end = header.bat_extent.end
    behind = header.table_offset + header.max_bat_size * 4
    rest = image.view.read(Extent(behind, end - behind))
    if any(rest) and rest.count(0xFF) != len(rest):
        # What fills the BAT's last sector up is no entry.
        return False
    if footer.has_batmap:
        if not begins_batmap(image, end):
            return False
    elif not bat.value.allocated:
        return False
    inside = all(end <= at and at + header.bitmap_size <= block_limit(image) for at, _ in bat.value.placements())
    return inside and not bat.value.overlaps(header.block_space)[1]


def _parent_is_known(parsed: Header, footer: Footer, image: VhdImage, context: Context) -> bool:
    """Nothing of the parent fields is in doubt: there is none, or they lead to the very parent.

    A footer that says that there is none is not enough if the other one or the rest of the header says that
    there is one: a differencing disk would become a dynamic one, and whatever its parent holds would be gone.
    """
    if not footer.is_differencing:
        sound = [each.value for each in (image.end, image.backup) if isinstance(each, Sound)]
        left = parsed.parent_name_text() or any(loc.code in PATH_CODES for loc in parsed.locators)
        return not left and not any(each.is_differencing for each in sound)
    name = parsed.parent_name_text()
    paths = [locator.path for locator in image.locators if locator.path]
    if not name or not paths or any(path.rsplit("/", 1)[-1] != name for path in paths):
        return False
    return context.parent is not None and context.parent.uuid == parsed.parent_uuid != NULL_UUID
