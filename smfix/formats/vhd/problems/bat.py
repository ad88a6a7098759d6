"""The BAT and the blocks: VHD3xx.

Theory. The footer holds the size of the disk, the BAT the places of its blocks, and each block's sector bitmap
which of its sectors were ever written. A block that reaches past the end of the file has lost the
bytes there; the bitmap (and the batmap, which tapdisk asks first) shows whether they held data.

Source: ``vhd_util_check_bat``, ``vhd_end_of_data``, ``allocate_block`` (blktap). Offsets in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from smfix.formats.problem import CONFIRM, ERROR, REPORT, SAFE, Context, Detection, Problem
from smfix.formats.vhd import structs
from smfix.formats.vhd.bat import Bat
from smfix.formats.vhd.image import VhdImage
from smfix.formats.vhd.problems.bat_repair import misplaced, shifted, whole_block
from smfix.formats.vhd.problems.footer import held_open
from smfix.formats.vhd.problems.orphan_blocks import block_limit, clear_is_nul, written_sector
from smfix.formats.vhd.problems.witness import children
from smfix.formats.vhd.structs import PAGE, Header
from smfix.values import SECTOR, Damaged, Edit, Extent, Finding, Reason, Refusal, Resize, Sound, Write

NAMED = 64
"""Blocks that are named one by one at most; where there are more, nothing is repaired."""


# --------------------------------------------------------------------------- VHD305


def _detect_unreadable(image: VhdImage, context: Context) -> Iterator[Detection]:
    if isinstance(image.bat, Damaged):
        yield Detection({"reasons": "; ".join(image.bat.reasons)}, "error reading bat: -22")


# --------------------------------------------------------------------------- VHD301


def missing_part(image: VhdImage, header: Header, at: int, block: int) -> tuple[list[list[int]], bool]:
    """The guest data that is lost of a block that starts at `at` and reaches past :func:`block_limit`.

    ([[guest offset, length], ...] in bytes of the written sectors that are gone, whether the block's
    bitmap is whole). Without a bitmap every sector of the block may be gone, and all are named.
    """
    first = block * header.block_size
    guest_end = image.footer.current_size if image.footer is not None else first + header.block_size
    data, end = at + header.bitmap_size, block_limit(image)
    whole = data <= end
    gone_from = max(0, (end // SECTOR * SECTOR - data) // SECTOR - _padded(image, end))
    sectors = header.block_size // SECTOR
    if not whole:
        gone_from = 0
    bits = image.bitmap(header, at) if whole and not image.full(block) else b"\xff" * -(-sectors // 8)
    lost: list[list[int]] = []
    for index in range(gone_from, sectors):
        guest = first + index * SECTOR
        if guest >= guest_end:
            break
        if structs.bit(bits, index):
            if lost and sum(lost[-1]) == guest:
                lost[-1][1] += SECTOR
            else:
                lost.append([guest, SECTOR])
    return lost, whole


def _padded(image: VhdImage, end: int) -> int:
    """1 if the sector before a footer inside a block ends in ASCII `0`: the wiki's padding, over lost data."""
    if not isinstance(image.end, Sound):
        return 0
    return int(image.view.read(Extent(end - 1, 1)) == b"0")


def _held_by_child(context: Context, image: VhdImage, block: int) -> bool:
    """An intact child holds the block: an interrupted coalesce was about to copy it down."""
    for child in children(context):
        header = child.geometry
        if header is None or image.footer is None or header.parent_uuid != image.footer.uuid:
            continue
        if not isinstance(child.bat, Sound) or header.block_size != (image.geometry or header).block_size:
            continue
        at = child.bat.value.offset(block)
        if at is not None and at + header.block_space <= child.size:
            return True
    return False


def _interrupted(image: VhdImage, header: Header, bat: Bat, at: int) -> bool:
    """The block's entry was written, the block not yet: the old footer is still at the previous end.

    libvhd leaves exactly that (``__vhd_io_allocate_block``): without that footer the file may as well have been
    cut there, and what the block held would be lost.
    """
    end = max(image.end_of_headers, bat.highest_end(header.block_space, below=at))
    stands = isinstance(image.end, Sound) and image.end.where.offset == end
    return stands and end <= at < end + PAGE and at + header.bitmap_size > block_limit(image)


def _next_in_line(image: VhdImage, header: Header, bat: Bat, at: int) -> bool:
    """The block begins at the place of a new one: after the previous end, on a page boundary for tap.

    Then its entry is right, and what its bitmap calls unwritten is what an interrupted coalesce had copied so far.
    """
    end = max(image.end_of_headers, bat.highest_end(header.block_space, below=at))
    page = header.next_block(end)
    return at == (page if image.footer is not None and image.footer.by_tap else end)


def _detect_past_end(image: VhdImage, context: Context) -> Iterator[Detection]:
    layout = image.layout
    if layout is None or held_open(context):
        return
    header, bat = layout
    end = block_limit(image)
    if not bat.behind(end, header.block_space, 0)[1]:
        return
    wrong = misplaced(image).keys() | shifted(image).keys()
    reaching, count = bat.behind(end, header.block_space, NAMED + len(wrong))
    reaching = [spot for spot in reaching if spot[1] not in wrong]
    count -= sum((bat.offset(block) or 0) + header.block_space > end for block in wrong)
    for at, block in reaching[:NAMED]:
        lost, whole = missing_part(image, header, at, block)
        single = count == 1 and not wrong
        fits = whole and (clear_is_nul(image, header, at) or _next_in_line(image, header, bat, at))
        if fits and not lost:
            disposition, lossy = SAFE, False
        elif not whole and not image.full(block) and single and _interrupted(image, header, bat, at):
            proved = _held_by_child(context, image, block)
            disposition, lossy = (SAFE, False) if proved else (CONFIRM, True)
        else:
            disposition, lossy = CONFIRM, True
            if not fits and not image.full(block):
                # The entry may point beside the block, at data for a bitmap: it proves no sector unwritten.
                lost = [whole_block(image, header, block)]
        if not image.view.growable or count > NAMED:
            # Extended over, the blocks that are not named here would look as if nothing were missing.
            disposition = REPORT
        covered = isinstance(image.end, Sound) and written_sector(image, end) is not None
        facts = {
            "block": block,
            "offset": at,
            "end": at + header.block_space,
            "missing": at + header.block_space - end,
            "kept": "; the bytes of the footer stay where they are: they may be the guest's own" if covered else "",
            "bitmap": "whole" if whole else "missing",
            "lost": lost if lossy else [],
            "effect": _effect(lost if lossy else [], whole=whole, fits=fits or image.full(block)),
            "others": count - 1,
        }
        check = f"block {block} (offset 0x{at // SECTOR:x}) clobbers footer"
        yield Detection(facts, check, disposition=disposition, lossy=lossy)


def _effect(lost: list[list[int]], *, whole: bool, fits: bool) -> str:
    count = sum(length for _, length in lost) // SECTOR
    if not count:
        return "no written guest sector is missing"
    first = lost[0][0] // SECTOR
    if not whole:
        return f"its sector bitmap is gone too: up to {count:,} guest sectors are lost, from sector {first:,}"
    if not fits:
        return f"its sector bitmap does not fit its data: up to {count:,} guest sectors are lost, from sector {first:,}"
    return f"{count:,} written guest sectors are lost, from sector {first:,}"


def _fix_past_end(image: VhdImage, finding: Finding, context: Context) -> tuple[Edit, ...] | Refusal:
    if not image.view.growable:
        return Refusal(Reason.NO_FIX, "a device cannot be extended: grow the logical volume first")
    end = int(finding.facts["end"])
    edits: list[Edit] = [Resize(end)] if end > image.size else []
    if not isinstance(image.end, Sound):
        return tuple(edits)
    at = image.end.where.offset
    if written_sector(image, at) is None:
        return (Write(at, bytes(image.size - at)), *edits)
    if end == at + SECTOR == structs.round_up(image.end_of_data):
        # These bytes may be the guest's own. They stay the last of the block, and the footer goes after them.
        footer = image.backup.value if isinstance(image.backup, Sound) else image.end.value
        edits.append(Write(end, footer.encode()))
    return tuple(edits)


ROWS = (
    Problem(
        "VHD305",
        "BAT not readable",
        "The BAT cannot be read: {reasons}.",
        ERROR,
        REPORT,
        _detect_unreadable,
        means="No tool opens the disk: nothing says where its blocks lie. The blocks themselves may all be there.",
        why="The header's fields do not fit the file, or the file was cut inside the BAT.",
        advice="Keep the file as it is. Without its BAT nothing tells which block is which.",
        source="vhd_read_bat; vhd_util_check_bat",
    ),
    Problem(
        "VHD301",
        "a block reaches past the end of the file",
        "Block {block} is cut off: its last {missing:,} bytes are behind the end, or under the footer: {effect}{kept}.",
        ERROR,
        SAFE,
        _detect_past_end,
        lossy=False,
        also=(CONFIRM, REPORT),
        fix=_fix_past_end,
        done="the file was extended with zeros to the block's end",
        todo="extend the file with zeros to the block's end",
        turn=20,
        means=(
            "Tools refuse the disk, and what is missing of the block is not in the file. The finding says whether the "
            "guest had ever written there."
        ),
        why=(
            "The file was truncated, a footer was appended inside the block, or a coalesce was interrupted between "
            "the BAT entry and the block."
        ),
        advice="The named sectors are gone from this file: look for them in its child, or restore a backup.",
        source="vhd_util_check_bat: clobbers footer; libvhd.c: vhd_io_write",
    ),
)
