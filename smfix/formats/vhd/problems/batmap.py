"""The batmap: VHD4xx. A cache of which blocks are wholly written, kept by tapdisk.

Theory. tapdisk asks the batmap first and the sector bitmap only if the batmap's bit is clear; a damaged
batmap it ignores (read-only) or refuses to open (read-write), and every other tool fails on it. So while the
batmap is damaged the guest reads by the bitmaps alone, and clearing it changes nothing that is read: tapdisk
sets the bits again. A *sound* batmap is never edited over an allocated block: there it is what the guest reads.

Source: ``vhd_read_batmap``, ``vhd_util_check_validate_batmap``, ``vhd_util_check_batmap`` (blktap).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from smfix.formats.problem import CONFIRM, ERROR, REPORT, SAFE, WARNING, Context, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import BAT_LIMIT, Bat
from smfix.formats.vhd.image import MAP_OVER_BLOCKS, Batmap, VhdImage
from smfix.formats.vhd.problems.bat_repair import NAMED, lost_entries, misplaced, overlapping, shifted, whole_block
from smfix.formats.vhd.problems.footer import held_open
from smfix.formats.vhd.problems.orphan_blocks import (
    block_limit,
    clear_runs,
    holds_unmarked,
    orphans,
    remnant,
    stray_bits,
    unclear,
)
from smfix.formats.vhd.structs import (
    BATMAP_COOKIE,
    BATMAP_HEADER_SIZE,
    BATMAP_VERSION_CURRENT,
    BATMAP_VERSION_SIGNED,
    BatmapHeader,
    Header,
    round_up,
)
from smfix.values import SECTOR, Damaged, Edit, Extent, Finding, Reason, Refusal, Sound, Write

COMPARED = 4096
"""Blocks whose bitmap is compared with a set batmap bit at most (8 GiB of guest data)."""


# --------------------------------------------------------------------------- VHD401


def _layout_header(image: VhdImage) -> BatmapHeader | None:
    """The header that a cleared batmap gets: its place by the layout, its key hash kept.

    The place that the damaged header claims is kept if it is before the first block and over none that lost
    its entry; None: nothing fits.
    """
    if not isinstance(image.batmap, Damaged) or image.geometry is None or not isinstance(image.bat, Sound):
        return None
    raw = image.batmap.raw
    if len(raw) < BATMAP_HEADER_SIZE:
        return None
    claimed = structs.parse_batmap_header(raw)
    size = round_up(-(-image.geometry.max_bat_size // 8)) or SECTOR
    home = image.batmap.where.end
    version = claimed.version if claimed.version in (BATMAP_VERSION_SIGNED, BATMAP_VERSION_CURRENT) else None
    largest = max(size, BAT_LIMIT // 8)
    for at, length in ((claimed.map_offset, claimed.map_size), (home, size)):
        fits = size <= length <= largest and at >= home and at % SECTOR == 0
        if fits and _is_free(image, image.geometry, image.bat.value, Extent(at, length)):
            return replace(
                claimed,
                cookie=BATMAP_COOKIE,
                map_offset=at,
                map_size=length,
                version=version or BATMAP_VERSION_CURRENT,
                checksum=structs.batmap_checksum(b"", BATMAP_VERSION_CURRENT),
            )
    return None


def _is_free(image: VhdImage, header: Header, bat: Bat, extent: Extent) -> bool:
    """The extent is inside the headers' part of the file: no block, no locator, no footer there.

    Nor a block that lost its entry, which only its shape shows.
    """
    if extent.end > block_limit(image) or any(loc.entry.extent.overlaps(extent) for loc in image.locators):
        return False
    if next(bat.placements(end=extent.end), None) is not None:
        return False
    return not any(Extent(place.offset, header.block_space).overlaps(extent) for place in orphans(image))


def _detect_damaged(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.batmap, Damaged):
        fits = _layout_header(image) is not None
        unmarked = [] if held_open(context) else _unmarked(image)
        facts = {
            "reasons": "; ".join(image.batmap.reasons),
            "unmarked": [block for block, _ in unmarked],
            "lost": [run for _, runs in unmarked for run in runs],
            "doubt": _doubt(unmarked),
        }
        check = "error calculating end of metadata: -22"
        # A map with a right checksum is read at any place: to clear it may change what the guest reads.
        doubtful = MAP_OVER_BLOCKS in image.batmap.reasons or _knows_better(image, image.batmap)
        mend = CONFIRM if doubtful or unmarked else SAFE
        if doubtful and unmarked:
            mend = REPORT  # the map is there and knows what the bitmap has lost: cleared, no reader would
        yield Detection(facts, check, disposition=mend if fits else REPORT, lossy=bool(unmarked))


def _unmarked(image: VhdImage) -> list[tuple[int, list[list[int]]]]:
    """Blocks that hold data although their bitmap marks none, and [guest offset, length] of the unmarked data.

    A crash leaves that of sectors that were never acknowledged; so does a bitmap that was overwritten, and then only
    the batmap could have told. On a device it is left from other volumes, for tapdisk only clears the bitmap there.
    Of :data:`COMPARED` blocks at most; more than :data:`NAMED` runs of one block are named as one.
    """
    header = image.geometry
    if header is None or not isinstance(image.bat, Sound) or not image.view.growable:
        return []
    wrong = misplaced(image).keys() | shifted(image).keys()
    found: list[tuple[int, list[list[int]]]] = []
    for at, block in islice(image.bat.value.placements(), COMPARED):
        if block in wrong or at + header.block_space > block_limit(image):
            continue
        bits = image.bitmap(header, at)
        if bits.count(0xFF) != len(bits) and holds_unmarked(image, header, at, bits):
            first, length = whole_block(image, header, block)
            runs = clear_runs(bits, length // SECTOR)
            runs = runs if len(runs) <= NAMED else [(runs[0][0], runs[-1][1])]
            found.append((block, [[first + low * SECTOR, (high - low) * SECTOR] for low, high in runs]))
    return found


def _doubt(unmarked: list[tuple[int, list[list[int]]]]) -> str:
    if not unmarked:
        return ""
    return (
        f"{len(unmarked):,} blocks hold data that their sector bitmaps do not mark, the first is block "
        f"{unmarked[0][0]}: never acknowledged, or only the batmap knew of it."
    )


def _knows_better(image: VhdImage, batmap: Damaged) -> bool:
    """The map sums right, only its header is damaged, and it calls a block full whose bitmap does not.

    No reader uses it now. But it may be the last that knows which sectors of the block were written.
    """
    header = image.geometry
    if header is None or image.footer is None or len(batmap.raw) < BATMAP_HEADER_SIZE:
        return False
    claimed = structs.parse_batmap_header(batmap.raw)
    length = structs.batmap_summed_size(image.footer.current_size)
    if not batmap.where.end <= claimed.map_offset < image.size or length > BAT_LIMIT // 8:
        return False
    bits = image.view.read(Extent(claimed.map_offset, length))
    version = BATMAP_VERSION_SIGNED if claimed.version == BATMAP_VERSION_SIGNED else BATMAP_VERSION_CURRENT
    if len(bits) < length or structs.batmap_checksum(bits, version) != claimed.checksum:
        return False
    return bool(_not_full(image, header, Batmap(claimed, bits, length)))


def _fix_damaged(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    header = _layout_header(image)
    if header is None or not isinstance(image.batmap, Damaged):
        return Refusal(Reason.NO_FIX, "there is no room for a batmap where the layout wants one")
    return (Write(header.map_offset, bytes(header.map_size)), Write(image.batmap.where.offset, header.encode()))


# --------------------------------------------------------------------------- VHD403, VHD905


def _placed_wrong(image: VhdImage, batmap: Batmap, header: Header) -> str | None:
    """What ``vhd_util_check_validate_batmap`` says of a batmap that could be read; None: nothing."""
    if batmap.header.map_size * 8 < header.max_bat_size:
        return "batmap-BAT size mismatch"
    if batmap.header.map_offset == 0:
        return "invalid batmap offset"
    return "invalid batmap size" if batmap.header.map_extent.end > block_limit(image) else None


def _is_fresh(image: VhdImage, batmap: Batmap) -> bool:
    """No block yet, and no room for the map's last sector only, which ``create`` does not write."""
    bare = isinstance(image.bat, Sound) and image.bat.value.allocated == 0
    return bare and batmap.header.map_extent.end - block_limit(image) <= SECTOR


def _misplaced(image: VhdImage) -> Iterator[tuple[str, bool]]:
    """(the finding's words on a batmap that could be read, whether it is only a fresh image's)."""
    if isinstance(image.batmap, Sound) and image.geometry is not None:
        why = _placed_wrong(image, image.batmap.value, image.geometry)
        if why is not None:
            yield why, why == "invalid batmap size" and _is_fresh(image, image.batmap.value)


def _detect_placed(image: VhdImage, context: Context) -> Iterator[Detection]:
    for why, fresh in _misplaced(image):
        if not fresh:
            yield Detection({"why": why}, f"batmap is invalid: {why}")


def _detect_fresh(image: VhdImage, context: Context) -> Iterator[Detection]:
    # Without a footer there is nothing to say: the one that is appended goes after the whole map.
    for why, fresh in _misplaced(image):
        if fresh and isinstance(image.end, Sound):
            yield Detection({}, f"batmap is invalid: {why}")


# --------------------------------------------------------------------------- VHD404, VHD402


def _set_bits(batmap: Batmap, blocks: int) -> Iterator[int]:
    for index, byte in enumerate(batmap.bits[: -(-blocks // 8)]):
        if byte:
            here = range(index * 8, min(index * 8 + 8, blocks))
            yield from (block for block in here if structs.bit(batmap.bits, block))


def _detect_unallocated(image: VhdImage, context: Context) -> Iterator[Detection]:
    stray = stray_bits(image)
    places = orphans(image) if stray and not held_open(context) else []
    if not stray or image.geometry is None or set(stray) <= lost_entries(image, places).keys():
        return
    # A bit is set last: the block was there once. If the file was cut, it may have gone with the missing bytes.
    cut = image.view.growable and (isinstance(image.end, Damaged) or remnant(image, places) is not None)
    doubt = held_open(context) or bool(places) or unclear(image, places) or (cut and len(stray) > NAMED)
    facts = {
        "block": stray[0],
        "blocks": stray[:NAMED],
        "count": len(stray),
        "lost": [whole_block(image, image.geometry, block) for block in stray] if cut and not doubt else [],
        "effect": "The file was cut, and they may be lost with what is missing." if cut else "",
    }
    check = f"batmap shows unallocated block {stray[0]} full"
    disposition = REPORT if doubt else CONFIRM if cut else SAFE
    yield Detection(facts, check, disposition=disposition, lossy=cut and not doubt)


def _fix_unallocated(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    if not isinstance(image.batmap, Sound):
        return Refusal(Reason.NO_FIX, "the batmap is damaged")
    batmap = image.batmap.value
    bits = bytearray(batmap.bits)
    for block in stray_bits(image):
        bits[block >> 3] &= ~(0x80 >> (block & 7))
    total = structs.batmap_checksum(bytes(bits[: batmap.summed]), batmap.header.version)
    header = replace(batmap.header, checksum=total)
    return (Write(header.map_offset, bytes(bits)), Write(image.batmap.where.offset, header.encode()))


def _not_full(image: VhdImage, header: Header, batmap: Batmap) -> list[int]:
    """The blocks that the batmap calls full, and their bitmaps do not."""
    if not isinstance(image.bat, Sound):
        return []
    bat = image.bat.value
    placed = (block for block in _set_bits(batmap, len(bat)) if bat.offset(block) is not None)
    blocks = list(islice(placed, COMPARED))
    if not blocks or overlapping(image):
        return []
    wrong = misplaced(image).keys() | shifted(image).keys()
    want = b"\xff" * (header.block_size // SECTOR // 8)
    found: list[int] = []
    for block in blocks:
        bits = image.bitmap(header, bat.offset(block) or 0)
        if block not in wrong and len(bits) == len(want) and bits != want:
            found.append(block)
    return found


def _detect_not_full(image: VhdImage, context: Context) -> Iterator[Detection]:
    if not isinstance(image.batmap, Sound) or image.geometry is None or held_open(context):
        return
    found = _not_full(image, image.geometry, image.batmap.value)
    if found:
        yield Detection({"block": found[0], "blocks": found[:64], "count": len(found)})


ROWS = (
    Problem(
        "VHD401",
        "batmap damaged",
        "The batmap is damaged: {reasons}. {doubt}",
        ERROR,
        SAFE,
        _detect_damaged,
        also=(CONFIRM, REPORT),
        fix=_fix_damaged,
        done="the batmap was cleared (tapdisk sets its bits again), its key hash kept",
        todo="clear the batmap (tapdisk sets its bits again), keep its key hash",
        turn=16,
        means=(
            "No tool repairs or coalesces the disk. The guest's data does not depend on it: the batmap only saves work."
        ),
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
        means="Tools that look for the batmap refuse the disk. The guest's data is where it was.",
        why="The header or the batmap's own header was changed without the other.",
        advice="Keep the file as it is; compare `smfix show` with a healthy disk of the same size.",
        source="vhd_util_check_validate_batmap",
    ),
    Problem(
        "VHD905",
        "fresh image, batmap's unwritten last sector",
        "The batmap's last sector lies under the footer: a new image, as `vhd-util create` leaves it.",
        ERROR,
        REPORT,
        _detect_fresh,
        means="`vhd-util check` refuses the new disk; everything that reads it works.",
        why="For some sizes `vhd-util create` writes one sector less than the batmap it announces.",
        advice="There is nothing to repair: the first block that is written moves the footer.",
        source="vhd_create_batmap; vhd_write_batmap",
        may_remain=True,
    ),
    Problem(
        "VHD404",
        "batmap marks blocks that are not allocated",
        "The batmap marks {count:,} blocks as full that have no place in the file, the first is {block}. {effect}",
        ERROR,
        SAFE,
        _detect_unallocated,
        also=(CONFIRM, REPORT),
        fix=_fix_unallocated,
        done="the bits over unallocated blocks were cleared",
        todo="clear the bits over unallocated blocks",
        turn=26,
        means=(
            "Tools take these blocks for fully written although they have no place in the file: they refuse the disk, "
            "or read something other than was meant."
        ),
        why="A BAT entry was lost, or the batmap is older than the BAT.",
        advice="A set bit over an empty entry can be the trace of a lost block: rescue the file before it is attached.",
        source="vhd_util_check_batmap",
        places_blocks=True,
    ),
    Problem(
        "VHD402",
        "batmap and sector bitmap disagree",
        "The batmap calls {count:,} blocks full whose sector bitmaps are not; the first is block {block}.",
        WARNING,
        REPORT,
        _detect_not_full,
        means=(
            "Different tools read different data in those blocks: what the guest sees, and what a copy holds, may "
            "not be the same."
        ),
        why="The block's bitmap was overwritten, or the batmap's bit was set too early.",
        advice=(
            "tapdisk and coalesce read by the batmap, vhd-util by the bitmap: either edit would change what the guest "
            "reads. Copy the disk while tapdisk reads it, then compare."
        ),
        source="tapdisk block-vhd.c: read_bitmap_cache; vhd_util_coalesce_block",
    ),
)
