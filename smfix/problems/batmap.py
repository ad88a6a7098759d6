"""The batmap: VHD4xx. A cache of which blocks are wholly written, kept by tapdisk.

Source: ``vhd_read_batmap``, ``vhd_util_check_validate_batmap``, ``vhd_util_check_batmap`` (blktap).
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.model import SECTOR, Damaged, Sound
from smfix.problems.rows import ERROR, REPORT, Context, Hit, Problem
from smfix.vhd import structs
from smfix.vhd.image import VhdImage
from smfix.vhd.structs import FOOTER_SIZE


def _detect_damaged(image: VhdImage, context: Context) -> Iterator[Hit]:
    if isinstance(image.batmap, Damaged):
        check = "error calculating end of metadata: -22"
        yield Hit({"reasons": "; ".join(image.batmap.reasons)}, check)


def _placed_wrong(image: VhdImage) -> str | None:
    """What ``vhd_util_check_validate_batmap`` says of a batmap that could be read; None: nothing."""
    if not isinstance(image.batmap, Sound) or image.geometry is None:
        return None
    head = image.batmap.value.header
    if head.map_size * 8 < image.geometry.max_bat_size:
        return "batmap-BAT size mismatch"
    if head.map_offset == 0 or head.map_offset % SECTOR:
        return "invalid batmap offset"
    return "invalid batmap size" if head.map_extent.end > image.size - FOOTER_SIZE else None


def _is_fresh(image: VhdImage) -> bool:
    """No block yet, and only the map's last sector, which ``create`` does not write, is under the footer."""
    if not isinstance(image.batmap, Sound) or not isinstance(image.bat, Sound) or not isinstance(image.end, Sound):
        return False
    over = image.batmap.value.header.map_extent.end - image.end.where.offset
    return image.bat.value.allocated == 0 and over == SECTOR


def _detect_placed(image: VhdImage, context: Context) -> Iterator[Hit]:
    why = _placed_wrong(image)
    if why is not None and not (why == "invalid batmap size" and _is_fresh(image)):
        yield Hit({"why": why}, f"batmap is invalid: {why}")


def _detect_fresh(image: VhdImage, context: Context) -> Iterator[Hit]:
    if _placed_wrong(image) == "invalid batmap size" and _is_fresh(image):
        yield Hit({}, "batmap is invalid: invalid batmap size")


def _detect_unallocated(image: VhdImage, context: Context) -> Iterator[Hit]:
    if not isinstance(image.batmap, Sound) or not isinstance(image.bat, Sound):
        return
    bat, bits = image.bat.value, image.batmap.value.bits
    stray: list[int] = []
    for index, byte in enumerate(bits[: -(-len(bat) // 8)]):
        if byte:
            here = range(index * 8, min(index * 8 + 8, len(bat)))
            stray.extend(n for n in here if structs.bit(bits, n) and bat.offset(n) is None)
    if stray:
        facts = {"block": stray[0], "blocks": stray[:64], "count": len(stray)}
        yield Hit(facts, f"batmap shows unallocated block {stray[0]} full")


ROWS = (
    Problem(
        "VHD401",
        "batmap damaged",
        "The batmap is damaged: {reasons}.",
        ERROR,
        REPORT,
        _detect_damaged,
        why="A writer was interrupted between the map and its checksum, or the sectors were overwritten.",
        advice="Keep the file as it is: `vhd-util repair` needs a sound batmap and fails with -22.",
        source="vhd_read_batmap; vhd_validate_batmap",
    ),
    Problem(
        "VHD403",
        "batmap misplaced",
        "The batmap's checksum is right, but its place or size is not ({why}).",
        ERROR,
        REPORT,
        _detect_placed,
        why="The header or the batmap's own header was changed without the other.",
        advice="Keep the file as it is; compare `smfix show` with a healthy disk of the same size.",
        source="vhd_util_check_validate_batmap",
    ),
    Problem(
        "VHD905",
        "fresh image, batmap's unwritten last sector",
        "The batmap's last sector lies under the footer: a new image that `vhd-util create` leaves so.",
        ERROR,
        REPORT,
        _detect_fresh,
        why="For some sizes `vhd-util create` writes one sector less than the batmap it announces.",
        advice="Nothing is to be repaired: the first block written moves the footer.",
        source="vhd_create_batmap; vhd_write_batmap",
    ),
    Problem(
        "VHD404",
        "batmap marks blocks that are not allocated",
        "The batmap marks {count} blocks as full that have no place in the file, the first is block {block}.",
        ERROR,
        REPORT,
        _detect_unallocated,
        why="A BAT entry was lost, or the batmap is older than the BAT.",
        advice="A set bit over an empty entry can be the trace of a lost block: rescue the file before it is attached.",
        source="vhd_util_check_batmap",
    ),
)
