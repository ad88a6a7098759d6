"""Blocks whose BAT entry is wrong or lost: VHD302, VHD303, VHD304, VHD306.

Theory. Of a wrong BAT entry two things are known: which block it was for, and that the block, if it is still in the
file, is at a place that no entry points at (:func:`smfix.formats.vhd.problems.orphan_blocks.orphans`). If shape, size
and batmap leave one assignment, that is offered for consent; if they leave several, nothing is written and the
candidates are named.
Source: ``vhd_util_check_bat``; layout rules of ``allocate_block`` (libvhd.c, tapdisk, qemu vpc.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from smfix.formats.problem import CONFIRM, ERROR, REPORT, WARNING, Context, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.footer import held_open
from smfix.formats.vhd.problems.orphan_blocks import (
    Orphan,
    block_limit,
    block_shaped,
    clear_is_nul,
    forced,
    orphans,
    remnant,
    stray_bits,
    unclear,
    unnamed,
)
from smfix.formats.vhd.structs import PAGE, UNUSED, Header
from smfix.values import SECTOR, Edit, Extent, Finding, Reason, Refusal, Sound, Write

NAMED = 64
"""Blocks that are named one by one at most."""
CROWD = 1 << 16
"""Entries over the headers, and blocks past the end, that are weighed one by one at most: behind that much, the file
was cut, or its BAT is none."""
GLANCE = 1 << 23
"""Bytes without an entry that are searched at most where nothing else is wrong: VHD310."""
DOUBTED = 16
"""Misaligned blocks that are judged at most: where there are more, the image simply is not aligned."""


# --------------------------------------------------------------------------- VHD302


def misplaced(image: VhdImage) -> dict[int, int]:
    """Block -> offset of the entries that no writer can have made.

    Over the headers; across blocks that have the shape of one, without having it; so far after the rest that
    no file ended there; past the end, while the file holds a block that no entry names. Of the first,
    :data:`CROWD` at most; of those past the end none if they are a crowd.
    """
    found = image.layout
    if found is None:
        return {}
    header, bat = found
    wrong = {block: at for at, block in islice(bat.placements(end=_headers_end(image)), CROWD)}
    wrong.update(_across(image, header, bat))
    limit = block_limit(image)
    if _crowded(bat, header, limit):
        return wrong
    end = max(image.end_of_headers, bat.highest_end(header.block_space, below=image.size))
    reaching = {block: at for at, block in bat.covering(Extent(limit, 1 << 62), header.block_space)}
    lost = {block: at for block, at in reaching.items() if not _begins(image, header, at, limit)}
    places = orphans(image, frozenset(wrong | lost)) if lost else []
    if places:
        wrong.update({block: at for block, at in lost.items() if not _follows(image, header, bat, at, places)})
    behind = [(at, block) for block, at in reaching.items() if at >= image.size]
    for at, block in behind:
        if at <= structs.round_up(max(end, image.size), PAGE) + PAGE and block not in wrong:
            end = max(end, at + header.block_space)
        else:
            wrong[block] = at
    return wrong


def _headers_end(image: VhdImage) -> int:
    """Before which byte no block may begin: libvhd counts whole sectors (a locator may end inside one)."""
    return image.end_of_headers // SECTOR * SECTOR


def _crowded(bat: Bat, header: Header, limit: int) -> bool:
    """So many blocks reach past `limit` that they are not weighed one by one."""
    return bat.behind(limit, header.block_space, 0)[1] > CROWD


def _begins(image: VhdImage, header: Header, at: int, limit: int) -> bool:
    """A block that ends after `limit` begins at `at`: its bitmap is whole, and the data up to there fits it.

    Of a bitmap without any data nothing is known: a guest's last sector would look like one.
    """
    if at + header.bitmap_size >= limit:
        return False
    return any(image.bitmap(header, at)) and clear_is_nul(image, header, at)


def _follows(image: VhdImage, header: Header, bat: Bat, at: int, places: list[Orphan]) -> bool:
    """The place of the block after the last one: if the file was cut, the entry may well be right."""
    found = (place.offset + header.block_space for place in places if place.offset < at)
    end = max(image.end_of_headers, bat.highest_end(header.block_space, below=at), *found)
    return at in (end, header.next_block(end))


def _across(image: VhdImage, header: Header, bat: Bat) -> dict[int, int]:
    """The overlapping blocks without a block's shape, where all that they overlap have it."""
    pairs, count = bat.overlaps(header.block_space)
    if not pairs or count > len(pairs):
        return {}
    place = {pair.block: pair.offset for pair in pairs}
    shaped = {block for block, at in place.items() if block_shaped(image, header, at)}
    wrong: dict[int, int] = {}
    for block, at in place.items():
        others = {b for _, b in bat.covering(Extent(at, header.block_space), header.block_space)} - {block}
        if block not in shaped and others <= shaped:
            wrong[block] = at
    return wrong


def _detect_impossible(image: VhdImage, context: Context) -> Iterator[Detection]:
    wrong = misplaced(image)
    off = shifted(image) if wrong else {}
    wrong = {block: at for block, at in wrong.items() if block not in off}
    found = image.layout
    if not wrong or found is None:
        return
    header, bat = found
    places = orphans(image, frozenset(wrong))
    # A block that the batmap calls full and the BAT has lost claims a place as well.
    claimants = sorted({*wrong, *stray_bits(image)})
    doubt = held_open(context) or unclear(image, places, frozenset(wrong))
    # A block that was cut off may be the one as well.
    doubt = doubt or bool(places and remnant(image, places))
    written = {block for block, at in wrong.items() if _written_over(image, at)}
    answer = {} if doubt or written else forced(image, claimants, places)
    # Where most entries look wrong, the header is: then no entry is cleared.
    few = len(wrong) <= min(NAMED, max(1, bat.allocated // 4)) and not _crowded(bat, header, block_limit(image))
    gone = not places and not doubt and not written and few
    for block in sorted(wrong)[:NAMED]:
        at = wrong[block]
        where, clobbers = _where(image, wrong, at)
        facts = {
            "block": block,
            "offset": at,
            "where": where,
            "candidates": [place.offset for place in places],
            "entry": UNUSED * SECTOR if gone else answer.get(block),
            "found": _WRITTEN if block in written else _found(answer.get(block), places, doubt=doubt or bool(written)),
            "others": len(wrong) - 1,
            "lost": [whole_block(image, header, block)] if gone else [],
        }
        check = f"block {block} (offset 0x{at // SECTOR:x}) clobbers {clobbers}" if clobbers else None
        yield Detection(facts, check, disposition=CONFIRM if gone or block in answer else REPORT, lossy=gone)


_WRITTEN = (
    "A block stands there all the same, over the batmap or the parent locators: a writer that knows neither "
    "(qemu) puts it there, and the guest's data is in it."
)


def _written_over(image: VhdImage, at: int) -> bool:
    """A block has been written at `at`, after the BAT, over a batmap that is none any more.

    Source: qemu's vpc.c puts a disk's first block right after the BAT.
    """
    header = image.geometry
    if header is None or isinstance(image.batmap, Sound) or not header.bat_extent.end <= at < image.end_of_headers:
        return False
    return block_shaped(image, header, at)


def whole_block(image: VhdImage, header: Header, block: int) -> list[int]:
    """[offset, length] of the block on the guest's disk, whose end the last block may reach."""
    first = block * header.block_size
    end = image.footer.current_size if image.footer is not None else first + header.block_size
    return [first, max(0, min(header.block_size, end - first))]


def _where(image: VhdImage, wrong: dict[int, int], at: int) -> tuple[str, str | None]:
    """In words, and what ``vhd-util check`` says it clobbers (None: VHD303 says it)."""
    if at < _headers_end(image):
        return "over the headers", "headers"
    if image.geometry is not None and at + image.geometry.block_space > block_limit(image):
        return f"behind the end of the file ({image.size})", "footer"
    return "across other blocks, where no block begins", None


def _found(entry: int | None, places: list[Orphan], *, doubt: bool) -> str:
    if entry is not None:
        return f"Its block lies at byte {entry:,}, the one place that fits."
    if doubt:
        return "Bytes that no entry names are left in the file, and the evidence does not tell whose they are."
    if places:
        return f"{len(places)} block-shaped places have no entry, and the evidence does not decide."
    return "No block-shaped place without an entry is left: the block is lost, its entry can only be cleared."


def _fix_entry(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    """Point the block's BAT entry at `entry` (bytes; that of no block clears it)."""
    found = image.layout
    entry = finding.facts["entry"]
    if found is None or entry is None:
        return Refusal(Reason.NO_FIX, "the evidence leaves no single place for the block")
    number = int(entry) // SECTOR
    return (Write(found[0].table_offset + 4 * int(finding.facts["block"]), number.to_bytes(4, "big")),)


# --------------------------------------------------------------------------- VHD306


def shifted(image: VhdImage) -> dict[int, tuple[int, int]]:
    """Block -> (entry, right place) of the few entries that are some sectors off their block.

    An image's blocks all begin by one rule: on page boundaries (tap) or back to back (qemu). An entry that
    breaks the rule, and at which no block begins, is off if one begins a few sectors beside it by the rule. So is
    one that begins somewhere inside the block in the gap before it.
    """
    found = image.layout
    if found is None or image.footer is None or found[0].block_size < PAGE:
        return {}
    header, bat = found
    first, end = image.end_of_headers, image.size
    by_page = bat.off_page(header.bitmap_size, PAGE, first, end)
    astray = by_page if image.footer.by_tap else bat.detached(header.block_space, first, end)
    doubted = list(islice(astray, DOUBTED + 1))
    if len(doubted) > DOUBTED:
        return {}
    off: dict[int, tuple[int, int]] = {}
    for at, block in doubted if len(doubted) * 4 <= bat.allocated or len(doubted) == 1 else ():
        places = [spot for spot in _beside(image, header, bat, at) if _may_hold(image, header, spot, block)]
        if len(places) == 1 and not block_shaped(image, header, at):
            off[block] = (at, places[0])
    behind = _behind_gaps(image, header, bat, by_page=image.footer.by_tap)
    off.update((block, (at, spot)) for block, at, spot in behind if block not in off)
    return off


def _behind_gaps(image: VhdImage, header: Header, bat: Bat, *, by_page: bool) -> Iterator[tuple[int, int, int]]:
    """(block, entry, right place) of entries after a gap in which a block begins, and reaches across the entry."""
    for gap, block in bat.narrow(header.block_space, PAGE + SECTOR, image.end_of_headers):
        at, spot = gap.end, gap.offset
        if by_page:
            spot = header.next_block(spot)
        others = bat.covering(Extent(spot, header.block_space), header.block_space)
        if others != [(at, block)] or not any(image.bitmap(header, at)) or block_shaped(image, header, at):
            continue
        if _may_hold(image, header, spot, block):
            yield block, at, spot


def _may_hold(image: VhdImage, header: Header, spot: int, block: int) -> bool:
    """A block begins at `spot`, and it can be `block`: one that the batmap calls full has a bitmap of ones."""
    if not block_shaped(image, header, spot):
        return False
    bits = image.bitmap(header, spot)
    return not image.full(block) or bits.count(0xFF) == len(bits)


def _beside(image: VhdImage, header: Header, bat: Bat, at: int) -> list[int]:
    """Places by the rule within a page of `at` that hold no other block."""
    low = header.next_block(max(image.end_of_headers, at - PAGE))
    spots = {low, low + PAGE, max([image.end_of_headers, *(end for end in _ends(header, bat, at))])}
    return [
        spot
        for spot in sorted(spots)
        if spot >= image.end_of_headers
        and abs(spot - at) <= PAGE
        and spot + header.block_space <= block_limit(image)
        and all(o == at for o, _ in bat.covering(Extent(spot, header.block_space), header.block_space))
    ]


def _ends(header: Header, bat: Bat, at: int) -> Iterator[int]:
    """The end of the block before `at`."""
    for offset, _ in bat.placements(start=max(0, at - header.block_space - PAGE), end=at):
        yield offset + header.block_space


def _detect_shifted(image: VhdImage, context: Context) -> Iterator[Detection]:
    off = shifted(image)
    places = orphans(image, frozenset(off)) if off else []
    # Another place without an entry may be the block's as well: that it is not near says nothing.
    rivals = {place.offset for place in places} - {entry for _, entry in off.values()}
    for block, (at, entry) in sorted(off.items()):
        facts = {"block": block, "offset": at, "entry": entry, "by": (at - entry) // SECTOR}
        yield Detection(facts, disposition=REPORT if held_open(context) or rivals else CONFIRM)


# --------------------------------------------------------------------------- VHD303


def _detect_overlaps(image: VhdImage, context: Context) -> Iterator[Detection]:
    found = image.layout
    if found is None:
        return
    header, bat = found
    pairs, count = bat.overlaps(header.block_space)
    if not pairs:
        return
    wrong = misplaced(image)
    left = [pair for pair in pairs if pair.block not in wrong and pair.other not in wrong]
    if not left:
        return
    first = left[0]
    answer = None if held_open(context) or count != 2 else _owner(image, header, (first.block, first.other))
    facts = {
        "block": answer[0] if answer else first.block,
        "entry": answer[1] if answer else None,
        "offset": first.offset,
        "first": first.block,
        "other": first.other,
        "other_offset": first.other_offset,
        "blocks": [pair.block for pair in pairs],
        "count": count,
        "found": f"Block {answer[0]} lies at byte {answer[1]:,}, the one place that fits." if answer else "",
    }
    check = (
        f"block {first.block} (offset 0x{first.offset // SECTOR:x}) clobbers "
        f"block {first.other} (offset 0x{first.other_offset // SECTOR:x})"
    )
    yield Detection(facts, check, disposition=CONFIRM if answer else REPORT)


def _owner(image: VhdImage, header: Header, pair: tuple[int, int]) -> tuple[int, int] | None:
    """(block, offset): which of two overlapping blocks belongs elsewhere, and where; None: undecided."""
    places = orphans(image)
    if len(places) != 1 or not isinstance(image.bat, Sound) or unclear(image, places):
        return None
    answers: list[tuple[int, int]] = []
    for keeper, mover in (pair, pair[::-1]):
        at = image.bat.value.offset(keeper)
        if at is None or not block_shaped(image, header, at):
            continue
        bits = image.bitmap(header, at)
        keeps = bits.count(0xFF) == len(bits) or not image.full(keeper)
        if keeps and (places[0].full or not image.full(mover)):
            answers.append((mover, places[0].offset))
    return answers[0] if len(answers) == 1 else None


# --------------------------------------------------------------------------- VHD304


def lost_entries(image: VhdImage, places: list[Orphan]) -> dict[int, int]:
    """Block -> offset of each lost entry that the batmap's set bits determine, or that is the only free block.

    A new block goes after all others, and its entry is written before the next one. So only if another one
    follows was the entry once there; the last of all may be one that was never promised to the guest.
    """
    found = image.layout
    if found is None or not places or unclear(image, places):
        return {}
    header, bat = found
    rest = remnant(image, places)
    behind = bat.highest_end(header.block_space) > places[0].offset and rest is None
    if behind and len(bat) - bat.allocated == len(places) == 1:
        return {next(b for b in range(len(bat)) if bat.offset(b) is None): places[0].offset}
    named = stray_bits(image)
    if not named or (rest is not None and rest.full):
        return {}
    return forced(image, named, [place for place in places if place.full])


def _detect_orphans(image: VhdImage, context: Context) -> Iterator[Detection]:
    if held_open(context):
        return
    places = orphans(image)
    rest = remnant(image, places)
    if not (places or rest) or misplaced(image) or overlapping(image):
        return
    answer = {at: block for block, at in lost_entries(image, places).items()}
    for place in places:
        block = answer.get(place.offset)
        facts = {
            "offset": place.offset,
            "full": place.full,
            "block": block,
            "entry": None if block is None else place.offset,
            "owner": f"it can only be block {block}" if block is not None else "no evidence tells which block it is",
        }
        known = block is not None
        check = f"batmap shows unallocated block {block} full" if known and image.full(block or 0) else None
        yield Detection(facts, check, severity=ERROR if known else WARNING, disposition=CONFIRM if known else REPORT)
    if rest is not None:
        facts = {"offset": rest.offset, "full": rest.full, "block": None, "entry": None}
        yield Detection({**facts, "owner": "the file ends inside it, and no evidence tells which block it was"})


def _detect_unnamed(image: VhdImage, context: Context) -> Iterator[Detection]:
    if held_open(context) or image.layout is None or misplaced(image) or overlapping(image):
        return
    found = unnamed(image, orphans(image), most=GLANCE)
    if found is not None and found[1]:
        yield Detection({"offset": found[0]})


def overlapping(image: VhdImage) -> bool:
    """Two BAT entries share bytes."""
    found = image.layout
    return found is not None and found[1].overlaps(found[0].block_space)[1] > 0


_KEEP = "Keep the file as it is. Do not run `vhd-util repair`: it cuts the file off behind the last entry it knows."

ROWS = (
    Problem(
        "VHD302",
        "BAT entry impossible",
        "Block {block} is placed at byte {offset:,}, {where}. {found}",
        ERROR,
        REPORT,
        _detect_impossible,
        also=(CONFIRM,),
        fix=_fix_entry,
        done="the BAT entry was pointed at the block, or cleared where the block is lost",
        todo="point the BAT entry at the block, or clear it where the block is lost",
        turn=12,
        means=(
            "That part of the guest's disk cannot be read, and tools that believe the entry may cut the file in the "
            "wrong place."
        ),
        why="A BAT sector was overwritten or a write to it was cut short; the block itself may still be there.",
        advice=_KEEP,
        source="vhd_util_check_bat: clobbers headers, clobbers footer",
        places_blocks=True,
    ),
    Problem(
        "VHD306",
        "BAT entry beside its block",
        "Block {block} is placed at byte {offset:,}, {by:,} sectors off the block that begins at byte {entry:,}.",
        ERROR,
        REPORT,
        _detect_shifted,
        also=(CONFIRM,),
        fix=_fix_entry,
        done="the BAT entry was pointed at the block",
        todo="point the BAT entry at the block",
        turn=12,
        means="The disk opens, and in that part the guest reads data that is shifted by some sectors.",
        why="A BAT sector was damaged. `vhd-util check` calls such an image valid, and the guest reads shifted data.",
        advice=_KEEP,
        source="allocate_block (libvhd.c): blocks begin on page boundaries; qemu vpc.c: back to back",
    ),
    Problem(
        "VHD303",
        "blocks overlap",
        "Block {first} (byte {offset:,}) overlaps block {other} (byte {other_offset:,}), {count:,} are in it. {found}",
        ERROR,
        REPORT,
        _detect_overlaps,
        also=(CONFIRM,),
        fix=_fix_entry,
        done="the BAT entry of the block that lies elsewhere was pointed at it",
        todo="point the BAT entry of the block that lies elsewhere at it",
        turn=13,
        means="Two parts of the guest's disk share one place: writing to one changes the other.",
        why="Two BAT entries point at the same place: one of them is wrong, and its block lies elsewhere or is lost.",
        advice=_KEEP,
        source="vhd_util_check_bat: clobbers block",
        places_blocks=True,
    ),
    Problem(
        "VHD304",
        "block without a BAT entry",
        "What looks like a block stands at byte {offset:,} without a BAT entry: {owner}.",
        WARNING,
        REPORT,
        _detect_orphans,
        also=(CONFIRM,),
        fix=_fix_entry,
        done="the lost BAT entry was restored",
        todo="restore the lost BAT entry",
        turn=14,
        means=(
            "Nothing reads this data, and the next writer overwrites it. Most often it was never acknowledged to the "
            "guest."
        ),
        why=(
            "tapdisk writes block and bitmap first, then the entry: a crash in between leaves data that was never "
            "acknowledged. Or the entry of a living block was lost."
        ),
        advice=(
            "The next writer (attach, coalesce, `vhd-util repair`) overwrites it: copy the file first if its data is "
            "missed."
        ),
        is_orphan=True,
        source="tapdisk block-vhd.c: allocate_block, schedule_bat_write",
        places_blocks=True,
    ),
    Problem(
        "VHD310",
        "data without a BAT entry",
        "Data lies behind byte {offset:,}, where there is no block but room for one; it does not look like a block.",
        WARNING,
        REPORT,
        _detect_unnamed,
        means="Nothing reads this data, and the next writer overwrites it. It may be a block that lost its BAT entry.",
        why=(
            "The BAT entry of a block was lost whose sector bitmap was overwritten, or that holds data which was never "
            "acknowledged. Or something else was written into the file."
        ),
        advice=(
            "The next writer (attach, coalesce, `vhd-util repair`) overwrites it: copy the file first if its data is "
            "missed."
        ),
        source="vhd_end_of_data, vhd_write_footer (libvhd.c): what lies behind the last block is cut off",
    ),
)
