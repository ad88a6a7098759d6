"""Which rows of the table have nothing to say of an image, proved once for many of them. Pure.

Theory. Most images are sound, and most rows ask the same of them: that both footers are one and the same, that the
header has the values it must have, that no block is at a forbidden place. If such a *claim* holds, the detect of each
row that it silences would find nothing; so it need not be called. That saves two thirds of a diagnosis and may change
none: a claim is written from the detects that it replaces, and a test holds it against them on thousands of damaged
images. A row that no claim names is always asked, so a new row need not know of this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smfix.formats.problem import Context
from smfix.formats.vhd import structs
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.footer import CLOCK_SLACK
from smfix.formats.vhd.problems.header_restore import TABLE_OFFSET
from smfix.formats.vhd.problems.orphan_blocks import block_limit, remnant
from smfix.formats.vhd.structs import (
    BLOCK_SIZE,
    FOOTER_COOKIE,
    FOOTER_RULES,
    HEADER_RULES,
    NO_LOCATORS,
    NULL_UUID,
    PAGE,
    TAP_VERSION_REFUSED,
)
from smfix.values import SECTOR, Damaged, Sound

_FOOTER_FIELDS = tuple(rule.broken for rule in FOOTER_RULES if rule.key not in ("cookie", "checksum"))
_HEADER_FIELDS = tuple(rule.broken for rule in HEADER_RULES if rule.key not in ("cookie", "checksum"))
"""What is asked of the fields of a structure that is sound."""


@dataclass(frozen=True, slots=True, eq=False)  # one is itself: it is looked up for every image
class Claim:
    """If it `holds` of an image, the rows `codes` find nothing in it."""

    what: str
    holds: Callable[[VhdImage, Context], bool]
    codes: frozenset[str]


def _footers_agree(image: VhdImage, context: Context) -> bool:
    end, backup = image.end, image.backup
    if not isinstance(end, Sound) or not isinstance(backup, Sound) or image.tail:
        return False
    footer = end.value
    if footer is not backup.value or footer is not image.footer or footer.cookie != FOOTER_COOKIE:
        return False
    if not footer.is_sparse or footer.timestamp > structs.vhd_time(context.now) + CLOCK_SLACK:
        return False
    return not any(broken(footer) for broken in _FOOTER_FIELDS)


def _header_is_usual(image: VhdImage, _context: Context) -> bool:
    footer = image.footer
    if not isinstance(image.header, Sound) or not isinstance(image.bat, Sound) or footer is None:
        return False
    header = image.header.value
    if header.table_offset != TABLE_OFFSET or header.block_size != BLOCK_SIZE:
        return False
    if header.table_offset + header.max_bat_size * 4 > block_limit(image):
        return False
    if footer.by_tap and footer.creator_version == TAP_VERSION_REFUSED:
        return False
    if footer.has_batmap and not isinstance(image.batmap, Sound):
        return False
    return not any(broken(header) for broken in _HEADER_FIELDS)


def _has_no_parent(image: VhdImage, _context: Context) -> bool:
    if not isinstance(image.header, Sound) or image.footer is None or image.footer.is_differencing:
        return False
    header = image.header.value
    return (
        header.locators == NO_LOCATORS
        and header.parent_uuid == NULL_UUID
        and header.parent_timestamp == 0
        and header.parent_name.count(0) == len(header.parent_name)
    )


def _blocks_lie_right(image: VhdImage, _context: Context) -> bool:
    header, footer = image.geometry, image.footer
    if header is None or footer is None or not isinstance(image.bat, Sound):
        return False
    bat, space, first = image.bat.value, header.block_space, image.end_of_headers
    if bat.beyond:
        return False
    if not bat.allocated:
        return True
    if bat.highest_end(space) > block_limit(image) or bat.overlaps(space)[1]:
        return False
    if next(bat.placements(end=first // SECTOR * SECTOR), None) is not None:
        return False
    size = image.size
    by_page = bat.off_page(header.bitmap_size, PAGE, first, size)
    astray = by_page if footer.by_tap else bat.detached(space, first, size)
    return next(astray, None) is None and next(bat.narrow(space, PAGE + SECTOR, first), None) is None


def _no_room_is_left(image: VhdImage, _context: Context) -> bool:
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound):
        return False
    if image.bat.value.gaps(header.block_space, image.end_of_headers, block_limit(image)):
        return False
    return remnant(image, []) is None


def _batmap_lies_right(image: VhdImage, _context: Context) -> bool:
    if image.batmap is None:
        return True
    if isinstance(image.batmap, Damaged) or image.geometry is None:
        return False
    header = image.batmap.value.header
    fits = header.map_size * 8 >= image.geometry.max_bat_size
    return fits and header.map_offset != 0 and header.map_extent.end <= block_limit(image)


def _batmap_is_clear(image: VhdImage, _context: Context) -> bool:
    if not isinstance(image.batmap, Sound):
        return image.batmap is None
    bits = image.batmap.value.bits
    return bits.count(0) == len(bits)


def _codes(text: str) -> frozenset[str]:
    return frozenset(f"VHD{number}" for number in text.split())


CLAIMS = (
    Claim(
        "footer and backup footer are one, and every field is allowed",
        _footers_agree,
        _codes("101 102 103 104 105 106 107 108 109 110 111 112 113 115 116 117 118 119 901 902 904"),
    ),
    Claim(
        "the header is what tap and qemu write, and BAT and batmap are where it says",
        _header_is_usual,
        _codes("201 202 203 204 205 206 207 208 211 212"),
    ),
    Claim(
        "neither footer nor header names a parent",
        _has_no_parent,
        _codes("209 210 501 502 503 504 505 506 507 903"),
    ),
    Claim(
        "the blocks lie between headers and footer, none over another, each where a writer puts it",
        _blocks_lie_right,
        _codes("301 302 303 305 306 307"),
    ),
    Claim("no block fits between the blocks, and none begins behind them", _no_room_is_left, _codes("304 310")),
    Claim("there is no batmap, or it lies where it must", _batmap_lies_right, _codes("401 403 905")),
    Claim("no bit of the batmap is set", _batmap_is_clear, _codes("402 404")),
)
