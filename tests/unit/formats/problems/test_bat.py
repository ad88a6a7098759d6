"""Blocks that reach past the end of the file: what is lost is named, what is not is not."""

from __future__ import annotations

import struct

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    NOW,
    PARTIAL,
    SECTORS,
    UUID,
    Holes,
    base,
    bat_entry,
    child,
    codes,
    empty,
    lost_footer,
    planned,
    put,
    qemu,
    rebatted,
    refooted,
    reheaded,
    repaired,
    seen,
    small,
    some,
    with_entry,
)
from smfix.formats.problem import Context
from smfix.formats.vhd.build import ParentRef, sparse
from smfix.formats.vhd.problems.bat import NAMED, missing_part
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.structs import BLOCK_SIZE, round_up
from smfix.repair.plan import plan
from smfix.values import SECTOR, Disposition, InUse, Reason, Refusal, Resize, Write

CHILD_UUID = bytes(range(32, 48))


def block_at(raw: bytes, block: int) -> int:
    image = seen(raw)
    return next(at for at, number in image.blocks() if number == block)


# --------------------------------------------------------------------------- VHD305


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (lambda: reheaded(base(), max_bat_size=3), "the disk has 4 blocks, the BAT only 3 entries"),
        (lambda: base()[:1544], "reaches past the end of the file"),
    ],
)
def test_a_bat_that_cannot_be_read_is_reported(raw, why):
    made = planned(raw(), "VHD101", "VHD305")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD305")
    assert why in finding.message
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


# --------------------------------------------------------------------------- VHD301: what is lost


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 5, 6, 8, 9, 100, 101, 4000, 4094, 4095])
def test_every_written_sector_behind_the_cut_is_named(kept):
    """Block 1 of `small` holds PARTIAL; the file ends `kept` sectors into its data."""
    at = block_at(small(), 1)
    raw = small()[: at + 512 + kept * 512]
    made = planned(raw, "VHD301")
    gone = [index for index in PARTIAL if index >= kept]
    assert codes(made) == (["VHD101", "VHD301"])
    finding = made.diagnosis.findings[1]
    assert finding.disposition is Disposition.CONFIRM
    assert finding.lossy
    assert made.plan.lost_sectors == len(gone)
    named = {n for run in made.plan.lost for n in range(run.offset // 512, run.end // 512)}
    assert named == {SECTORS + index for index in gone}
    after = repaired(raw, "VHD301")
    whole, left = guest_data(small()), guest_data(after)
    assert {n: data for n, data in left.items() if n not in named} == {
        n: data for n, data in whole.items() if n not in named
    }
    assert all(left[n] == bytes(512) for n in named)


@pytest.mark.parametrize("over", [1, 100, 511])
def test_a_sector_cut_in_the_middle_is_lost(over):
    at = block_at(small(), 1)
    raw = small()[: at + 512 + 100 * 512 + over]
    made = planned(raw, "VHD301")
    assert made.plan.lost_sectors == 3
    assert made.plan.lost[0].offset == (SECTORS + 100) * 512
    assert len(repaired(raw, "VHD301")) == len(small())


def without_last_sectors(raw: bytes) -> bytes:
    """`small` with the last two sectors of block 1 neither marked nor written."""
    at = block_at(raw, 1)
    last = raw[at + 511] & 0xFC
    return put(put(raw, at + 511, bytes([last])), -512 - 1024, bytes(1024))


@pytest.mark.parametrize("cut", [1, 512, 1000, 1024, 5000, 100000])
def test_where_nothing_written_is_missing_extending_is_safe(cut):
    raw = without_last_sectors(small())
    made = planned(raw[: -512 - cut])
    assert "VHD301" in codes(made)
    assert made.plan.refusal is None
    assert made.plan.lost == ()
    assert "no written guest sector is missing" in next(
        f.message for f in made.diagnosis.findings if f.code == "VHD301"
    )
    assert repaired(raw[: -512 - cut]) == raw


def test_what_a_coalesce_had_copied_into_the_next_block_is_no_doubt():
    """libvhd writes data before the bitmap: cut in between, sectors that are not marked hold data."""
    raw = without_last_sectors(small())
    dirty = put(raw, block_at(raw, 1) + 512 + 50 * 512, b"\1")
    made = planned(dirty[: -512 - 512])
    assert made.plan.refusal is None
    assert made.plan.lost == ()


def test_unwritten_sectors_that_are_not_nul_cast_doubt_on_a_block_out_of_line():
    raw = without_last_sectors(small())
    at = block_at(raw, 1)
    dirty = put(raw, at + 512 + 50 * 512, b"\1")
    astray = with_entry(dirty, 1, at // 512 + 8)
    made = planned(put(astray, at + 8 * 512, bytes(512))[: -512 - 512])
    assert made.plan.needs == ("VHD301",)


def test_a_bitmap_that_does_not_fit_its_data_proves_no_sector_unwritten():
    """The entry may point beside the block, at data for a bitmap: then all of the block may be lost."""
    raw = with_entry(small(), 1, bat_entry(small(), 1) + 1)
    made = planned(lost_footer(put(raw, bat_entry(raw, 1) * SECTOR, bytes(SECTOR)))[:-1024], "VHD301")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD301")
    assert finding.facts["lost"] == [[BLOCK_SIZE, BLOCK_SIZE]]
    assert "does not fit" in finding.message


def test_a_batmap_bit_overrides_the_bitmap():
    raw = rebatted(without_last_sectors(small()), bits=b"\x40")
    made = planned(raw[: -512 - 512], "VHD301")
    assert made.plan.lost_sectors == 1
    assert guest_data(repaired(raw[: -512 - 512], "VHD301")).keys() == guest_data(raw).keys()


def test_without_its_bitmap_all_of_the_block_may_be_lost():
    raw = small()[: block_at(small(), 1) + 100]
    made = planned(raw)
    assert made.plan.needs == ("VHD301",)
    agreed = planned(raw, "VHD301")
    assert agreed.plan.lost_sectors == SECTORS
    assert "its sector bitmap is gone too: up to 4,096 guest sectors are lost, from sector 4,096" in (
        agreed.diagnosis.findings[-1].message
    )


def test_the_guest_ends_before_the_last_block_does():
    raw = qemu()
    swapped = put(put(raw, 1536 + 8, raw[1536:1540]), 1536, raw[1536 + 8 : 1536 + 12])
    # Block 2 (three sectors of it are the guest's) now lies last, and ends with the file's cut.
    assert codes(planned(swapped[: -512 - 512])) == ["VHD101", "VHD301"]
    assert planned(swapped[: -512 - 512]).plan.lost == ()


def test_nothing_is_known_of_the_guests_end_without_a_footer():
    raw = put(lost_footer(small())[:-512], 0, bytes(512))
    image = seen(raw)
    header = image.geometry
    assert header is not None
    lost, whole = missing_part(image, header, block_at(small(), 1), 1)
    assert (lost, whole) == ([[(2 * SECTORS - 1) * 512, 512]], True)


def test_a_footer_appended_inside_a_block_is_taken_out_of_it():
    """What today's tools leave behind: a file cut inside a block, with a footer glued to the cut."""
    cut = small()[: block_at(small(), 1) + 512 + 200 * 512]
    raw = cut + small()[-512:]
    made = planned(raw, "VHD301")
    assert codes(made) == ["VHD301"]
    assert made.plan.lost_sectors == 2
    assert made.plan.edits[0] == Write(len(cut), bytes(512))
    after = repaired(raw, "VHD301")
    assert len(after) == len(small())
    assert after[: len(cut)] == cut
    assert not any(after[len(cut) : -512])


def test_a_short_footer_inside_a_block_too():
    cut = small()[: block_at(small(), 1) + 512 + 200 * 512]
    raw = cut + small()[-512:-1]
    after = repaired(raw, "VHD301")
    assert len(after) == len(small())


def test_several_blocks_can_be_cut():
    blocks = {0: some(0, PARTIAL), 1: some(1, PARTIAL), 2: some(2, PARTIAL)}
    raw = sparse(DISK_SIZE, UUID, blocks, timestamp=1000).to_bytes()
    cut = raw[: block_at(raw, 1) + 512 + 3 * 512]
    made = planned(cut, "VHD301")
    assert codes(made) == ["VHD101", "VHD301", "VHD301"]
    assert made.plan.lost_sectors == len(PARTIAL) - 3 + SECTORS
    assert repaired(cut, "VHD301")[: len(cut)] == cut


def many(blocks: int) -> Holes:
    """A disk of that many blocks, one behind the other, of which only the first one's place is in the file."""
    made = sparse(blocks * BLOCK_SIZE, UUID, {0: some(0, PARTIAL)}, timestamp=1000)
    assert made.header is not None
    space = made.header.block_space
    first = made.places[0] // SECTOR
    table = struct.pack(f">{blocks}I", *(first + n * space // SECTOR for n in range(blocks)))
    pieces = {write.offset: write.data for write in made.writes}
    pieces[made.header.table_offset] = table.ljust(len(pieces[made.header.table_offset]), b"\0")
    del pieces[made.size - 512]
    return Holes(made.size - 512, pieces)


def test_more_cut_blocks_than_can_be_named_are_never_extended_over():
    """Else the first ones' repair would make the loss of the others invisible."""
    made = plan(many(NAMED + 1), CONTEXT, frozenset({"VHD301"}))
    assert made.plan.lost_sectors == NAMED * SECTORS
    assert made.plan.refusal is None
    assert len(made.plan.edits) == 2
    made = plan(many(NAMED + 2), CONTEXT, frozenset({"VHD301"}))
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX
    assert made.diagnosis.findings[-1].facts["others"] == NAMED


# --------------------------------------------------------------------------- VHD301: who can help


def interrupted() -> bytes:
    """A coalesce was killed between the BAT entry of block 3 and the block itself: the old footer stands."""
    end = len(base()) - 512
    return with_entry(base(), 3, (round_up(end + 512, 4096) - 512) // 512)  # its data on a page boundary


def holding(block: int, parent: bytes = UUID, cut: int = 0):
    ref = ParentRef(parent, "disk.vhd", 900)
    raw = sparse(DISK_SIZE, CHILD_UUID, {block: some(block, PARTIAL)}, parent=ref, timestamp=1000).to_bytes()
    return seen(raw[: len(raw) - cut])


def test_an_interrupted_coalesce_is_safe_with_the_child_that_holds_the_block():
    context = Context(NOW, children=(holding(3),))
    made = planned(interrupted(), context=context)
    assert codes(made) == ["VHD301"]
    assert made.diagnosis.findings[0].disposition is Disposition.SAFE
    assert made.plan.lost == ()
    after = repaired(interrupted(), context=context)
    assert guest_data(after) == guest_data(base())


@pytest.mark.parametrize(
    "children",
    [
        (),
        (holding(1),),
        (holding(3, cut=4096),),
        (seen(put(child(), 600, b"\1")),),
        (seen(reheaded(child(), parent_uuid=UUID, max_bat_size=3)),),
        (seen(refooted(reheaded(child(), parent_uuid=UUID, block_size=1 << 20, max_bat_size=8))),),
    ],
)
def test_without_such_a_child_it_needs_consent(children):
    made = planned(interrupted(), context=Context(NOW, children=children))
    assert made.plan.needs == ("VHD301",)
    assert made.plan.lost_sectors == SECTORS


def test_the_block_must_lie_right_behind_the_previous_end():
    raw = with_entry(interrupted(), 3, (len(base()) - 512 + 4096) // 512)
    made = planned(raw, context=Context(NOW, children=(holding(3),)))
    assert made.plan.refusal is not None


def test_a_full_block_is_never_an_interrupted_one():
    raw = rebatted(interrupted(), bits=b"\x90")
    made = planned(raw, context=Context(NOW, children=(holding(3),)))
    assert made.plan.needs == ("VHD301",)


def test_the_first_block_of_all_can_be_the_interrupted_one():
    end = len(empty()) - 512
    raw = with_entry(empty(), 3, (round_up(end + 512, 4096) - 512) // 512)
    made = planned(raw, context=Context(NOW, children=(holding(3),)))
    assert made.plan.refusal is None


def test_without_the_old_footer_the_file_may_have_been_cut_there():
    made = planned(lost_footer(interrupted()), context=Context(NOW, children=(holding(3),)))
    assert made.plan.needs == ("VHD301",)


def test_the_wikis_padding_before_a_glued_footer_lies_over_lost_data():
    at = block_at(small(), 1)
    cut = small()[: at + 512 + 100 * 512 + 10]
    glued = cut + b"0" * 502 + small()[-512:]
    assert planned(glued, "VHD301").plan.lost_sectors == 3
    assert planned(cut + bytes(502) + small()[-512:], "VHD301").plan.lost_sectors == 2


def test_a_device_is_not_extended():
    raw = lost_footer(base())
    made = planned(raw, "VHD301", growable=False)
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD301")
    assert finding.disposition is Disposition.REPORT
    problem = row("VHD301")
    assert problem is not None
    assert problem.fix is not None
    assert isinstance(problem.fix(seen(raw, growable=False), finding, CONTEXT), Refusal)


def test_a_running_disk_is_not_judged():
    assert codes(planned(small()[:-3000], context=Context(NOW, InUse.READ_WRITE))) == ["VHD901"]


def test_no_edit_where_the_file_is_long_enough_by_now():
    raw = small()[: block_at(small(), 1) + 512 + 3 * 512]
    finding = planned(raw).diagnosis.findings[-1]
    problem = row("VHD301")
    assert problem is not None
    assert problem.fix is not None
    assert problem.fix(seen(lost_footer(small())), finding, CONTEXT) == ()
    assert problem.fix(seen(raw), finding, CONTEXT) == (Resize(len(small()) - 512),)
