"""BAT entries that are wrong or lost: the block is found again where the evidence leaves one place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    PARTIAL,
    SECTORS,
    UUID,
    base,
    base_made,
    bat_entry,
    codes,
    device,
    empty,
    footer_of,
    header_of,
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
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.image import MARK
from smfix.formats.vhd.problems import bat_repair as places_module
from smfix.formats.vhd.problems.bat_repair import misplaced, shifted
from smfix.formats.vhd.problems.orphan_blocks import (
    Orphan,
    block_limit,
    block_shaped,
    clear_is_nul,
    forced,
    orphans,
    unclear,
)
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.structs import BLOCK_SIZE, UNUSED
from smfix.values import SECTOR, Disposition, InUse, Reason, Refusal, Severity

SPACE = BLOCK_SIZE + SECTOR
BUSY = Context(NOW, InUse.READ_WRITE)


def three() -> bytes:
    """Blocks 0, 1 and 2 with some sectors each, 3 free; all three of another shape."""
    blocks = {0: some(0, PARTIAL), 1: some(1, range(50)), 2: some(2, (7, 9))}
    return sparse(DISK_SIZE, UUID, blocks, timestamp=1000).to_bytes()


def crowded() -> bytes:
    """All of two blocks, the first full."""
    blocks = {0: some(0, range(SECTORS)), 1: some(1, PARTIAL)}
    return sparse(2 * BLOCK_SIZE, UUID, blocks, timestamp=1000).to_bytes()


# --------------------------------------------------------------------------- VHD302


@pytest.mark.parametrize("entry", [0, 1, 4, 0x20000000, 0x7FFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("block", [0, 2])
def test_an_impossible_entry_is_put_right_where_one_place_is_left(block, entry):
    raw = with_entry(base(), block, entry)
    made = planned(raw)
    assert "VHD302" in codes(made)
    assert made.plan.needs[0] == "VHD302"
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NEEDS_CONFIRM
    assert repaired(raw, *made.plan.needs) == base()


def test_two_impossible_entries_of_blocks_of_one_shape_are_not_guessed():
    raw = with_entry(with_entry(three(), 0, 0), 1, 1)
    made = planned(raw, "VHD302")
    assert codes(made) == ["VHD302", "VHD302"]
    finding = made.diagnosis.findings[0]
    assert finding.disposition is Disposition.REPORT
    assert len(finding.facts["candidates"]) == 2
    assert "2 block-shaped places have no entry" in finding.message
    assert made.plan.edits == ()


def test_the_batmap_tells_two_of_them_apart():
    raw = with_entry(with_entry(base(), 0, 0), 2, 1)
    made = planned(raw)
    assert made.plan.needs == ("VHD302",)
    assert repaired(raw, "VHD302") == base()


def test_an_impossible_entry_without_a_place_is_cleared_and_the_block_named_lost():
    raw = with_entry(base(), 3, 0x20000000)
    made = planned(raw)
    finding = made.diagnosis.findings[0]
    assert finding.disposition is Disposition.CONFIRM
    assert finding.lossy
    assert "the block is lost, its entry can only be cleared" in finding.message
    assert made.plan.needs == ("VHD302",)
    assert made.plan.lost_sectors == SECTORS
    assert made.plan.lost[0].offset == 3 * BLOCK_SIZE
    assert repaired(raw, "VHD302") == base()


def test_where_most_entries_look_wrong_the_header_is_doubted_and_none_is_cleared():
    raw = reheaded(base(), max_bat_size=1 << 19)
    made = planned(raw, "VHD302")
    assert "VHD302" in codes(made)
    assert not any(finding.lossy for finding in made.diagnosis.findings)
    assert made.plan.needs == ("VHD212",)
    assert [finding.code for finding in made.plan.fixes] == ["VHD212"]


def test_a_block_that_qemu_wrote_over_the_batmap_is_not_called_lost():
    behind_bat = header_of(empty()).bat_extent.end
    data = bytes(range(256)) * (BLOCK_SIZE // 256)
    raw = with_entry(empty()[:behind_bat] + bytes([0xFF]) * SECTOR + data + empty()[-512:], 0, behind_bat // SECTOR)
    made = planned(raw, "VHD302", "VHD401")
    assert codes(made)[0] == "VHD302"
    finding = made.diagnosis.findings[0]
    assert finding.disposition is Disposition.REPORT
    assert not finding.lossy
    assert "the guest's data is in it" in finding.message
    assert made.plan.edits == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


def test_of_a_partial_last_block_only_what_the_guest_has_is_lost():
    made = planned(with_entry(qemu(), 1, 1), "VHD302")
    assert made.plan.lost_sectors == SECTORS
    swapped = with_entry(with_entry(qemu(), 1, bat_entry(qemu(), 2)), 2, 1)
    assert planned(swapped, "VHD302").plan.lost_sectors == 3


def test_a_lost_block_that_the_batmap_names_claims_the_place_first():
    """Block 0's entry is lost, and block 1's is wild: the one orphan is block 0's."""
    raw = with_entry(with_entry(base(), 0, UNUSED), 1, 0x20000003)
    made = planned(raw, "VHD302", "VHD304")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_an_entry_far_behind_the_end_does_not_grow_the_file():
    raw = lost_footer(with_entry(base(), 2, 0x20000000))
    made = planned(raw)
    assert codes(made) == ["VHD101", "VHD302"]
    assert made.plan.needs == ("VHD302",)
    assert repaired(raw, "VHD302") == base()


def test_an_entry_across_two_blocks_that_have_the_shape():
    raw = with_entry(three(), 3, bat_entry(three(), 1) - 2000)
    made = planned(raw, "VHD302")
    assert codes(made) == ["VHD302"]
    assert "across other blocks, where no block begins" in made.diagnosis.findings[0].message
    assert made.diagnosis.findings[0].facts["vhd_util"] is None
    assert made.plan.lost_sectors == SECTORS
    assert repaired(raw, "VHD302") == three()
    moved = with_entry(three(), 0, bat_entry(three(), 1) + 2000)
    assert repaired(moved, "VHD302") == three()


def test_an_entry_past_the_end_while_a_block_has_no_entry():
    """Not a cut block: the block is in the file, and its entry is wrong."""
    raw = three()
    end = len(raw) // SECTOR
    moved = with_entry(raw, 1, end + 7)
    made = planned(moved)
    assert "VHD301" not in codes(made)
    assert repaired(moved, *made.plan.needs) == raw


def test_a_cut_block_does_not_get_the_place_of_another_one():
    """Block 1's entry is lost, block 2 is cut in the middle: what stands at its entry is the beginning of a block."""
    raw = with_entry(three(), 1, UNUSED)[: -512 - 3000 * 512]
    made = planned(raw, "VHD302", "VHD301")
    assert codes(made) == ["VHD101", "VHD301", "VHD304"]
    assert made.plan.lost == ()
    assert bat_entry(repaired(raw, "VHD301"), 2) == bat_entry(three(), 2)


def test_the_last_guest_sector_is_no_bitmap_while_the_block_itself_is_there():
    """Past it nothing is in the file that could speak against it."""
    entry = block_limit(seen(small())) // SECTOR - 1
    raw = with_entry(small(), 1, entry)
    assert any(raw[entry * SECTOR :][:SECTOR])
    assert "VHD302" in codes(planned(raw, "VHD302"))
    assert repaired(raw, "VHD302") == small()


def test_a_cut_block_is_not_taken_for_a_wrong_entry():
    made = planned(three()[:-5000])
    assert "VHD302" not in codes(made)
    assert "VHD301" in codes(made)


def test_on_a_running_disk_nothing_is_offered():
    made = planned(with_entry(base(), 0, 1), "VHD302", context=BUSY)
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT


def test_a_device_is_looked_at_as_far_as_its_blocks_reach():
    raw = device(base())
    broken = with_entry(raw, 2, 1)
    assert repaired(broken, "VHD302", growable=False) == raw
    # A stale block of another volume, far behind: it is nobody's.
    junk = put(raw, len(base()) + 512 + 4096 * 3 + 3584, b"\x80" + bytes(511) + b"left over")
    assert codes(planned(junk, growable=False)) == []


def test_more_entries_than_can_be_named():
    blocks = 100
    raw = sparse(blocks * BLOCK_SIZE, UUID, {}, timestamp=1000).to_bytes()
    for block in range(blocks):
        raw = with_entry(raw, block, block % 5)
    made = planned(raw, "VHD302")
    assert codes(made).count("VHD302") == 64
    assert made.diagnosis.findings[0].facts["others"] == 99
    assert made.plan.edits == ()


def test_a_crowd_over_the_headers_is_not_weighed_one_by_one(monkeypatch):
    monkeypatch.setattr(places_module, "CROWD", 2)
    raw = base()
    for block in range(4):
        raw = with_entry(raw, block, block + 1)
    assert misplaced(seen(raw)) == {0: SECTOR, 1: 2 * SECTOR}


def test_a_disk_of_which_most_is_gone_was_cut_and_no_entry_is_doubted(monkeypatch):
    monkeypatch.setattr(places_module, "CROWD", 2)
    raw = sparse(8 * BLOCK_SIZE, UUID, {block: some(block, PARTIAL) for block in range(6)}, timestamp=1000).to_bytes()
    cut = with_entry(raw[: bat_entry(raw, 2) * SECTOR + 4096], 7, 1)
    assert misplaced(seen(cut)) == {7: SECTOR}
    made = planned(cut, "VHD301", "VHD302")
    assert [f.facts["block"] for f in made.diagnosis.findings if f.code == "VHD301"] == [2, 3, 4, 5]
    assert [f.disposition for f in made.diagnosis.findings if f.code == "VHD302"] == [Disposition.REPORT]
    assert made.plan.edits == ()


# --------------------------------------------------------------------------- VHD306


@pytest.mark.parametrize("by", [-8, -7, -3, -1, 1, 2, 7, 8])
@pytest.mark.parametrize("block", [0, 2])
def test_an_entry_beside_its_block_is_put_right(block, by):
    entry = bat_entry(base(), block) + by
    if entry * SECTOR < seen(base()).end_of_headers:
        return
    raw = with_entry(base(), block, entry)
    made = planned(raw)
    if abs(by) == 8:
        # On a page boundary, it fits the rule: what stands there is told by its shape.
        assert made.diagnosis.findings
        return
    assert "VHD306" in codes(made)
    assert f"{by} sectors off" in next(f.message for f in made.diagnosis.findings if f.code == "VHD306")
    assert repaired(raw, "VHD306", *made.plan.needs) == base()


@pytest.mark.parametrize("by", [1, 2, 7])
def test_in_a_foreign_image_blocks_lie_back_to_back(by):
    raw = with_entry(qemu(), 0, bat_entry(qemu(), 0) + by)
    made = planned(raw)
    assert "VHD306" in codes(made)
    assert repaired(raw, "VHD306", *made.plan.needs) == qemu()


def gapped(sectors: int, of: bytes = b"") -> tuple[bytes, int]:
    """Blocks 0 and 1, between them NUL for `sectors` sectors, `of` at its end; and where block 1 begins."""
    raw = small()
    at = bat_entry(raw, 1) * SECTOR
    gap = bytes(sectors * SECTOR - len(of)) + of
    return with_entry(raw[:at] + gap + raw[at:], 1, at // SECTOR + sectors), at + len(gap)


@pytest.mark.parametrize("by", [16, 2048, 4000])
def test_an_entry_inside_its_own_block_behind_a_gap(by):
    """On a page boundary, and it overlaps nothing: `vhd-util check` calls it valid."""
    raw, at = gapped(0)
    content = raw[at : at + BLOCK_SIZE + SECTOR]
    written = b"\xff" * SECTOR + b"guest" * (BLOCK_SIZE // 5) + bytes(BLOCK_SIZE % 5)
    full = put(raw[:-SECTOR] + bytes(4096 * SECTOR) + raw[-SECTOR:], at, written)
    assert len(content) == len(written)
    made = planned(with_entry(full, 1, at // SECTOR + by))
    assert codes(made) == ["VHD306"]
    assert repaired(with_entry(full, 1, at // SECTOR + by), "VHD306") == full


def test_an_entry_inside_its_own_block_in_a_foreign_image():
    block = max((0, 2), key=lambda number: bat_entry(qemu(), number))
    raw = qemu()
    at = bat_entry(raw, block) * SECTOR
    written = b"\xff" * SECTOR + b"guest" * 400_000
    tail = put(raw[:-SECTOR] + bytes(BLOCK_SIZE) + raw[-SECTOR:], at, written)
    moved = with_entry(tail, block, at // SECTOR + 2048)
    assert shifted(seen(moved)) == {block: (at + 2048 * SECTOR, at)}


@pytest.mark.parametrize("sectors", [8, 16, 2048])
def test_a_gap_before_a_block_that_has_the_shape_is_nothing(sectors):
    raw, _ = gapped(sectors)
    assert shifted(seen(raw)) == {}
    assert codes(planned(raw)) == []


def test_a_gap_without_a_block_in_it_tells_nothing_of_the_entry_behind():
    raw, at = gapped(2048)
    assert shifted(seen(put(raw, at, b"\xf0" + bytes(500)))) == {}
    assert shifted(seen(put(raw, at, bytes(SECTOR)))) == {}


def test_an_image_that_follows_no_rule_is_left_alone():
    blocks = {n: some(n, (0, 1)) for n in range(20)}
    made = sparse(20 * BLOCK_SIZE, UUID, blocks, timestamp=1000)
    raw = bytearray(made.to_bytes())
    shift = bytes(raw[:8192]) + bytes(512) + bytes(raw[8192:])
    assert made.header is not None
    moved = shift
    for block, at in made.places.items():
        assert at < 8192 or block
    first = min(made.places.values())
    moved = bytes(raw[:first]) + bytes(512) + bytes(raw[first:])
    for block, at in made.places.items():
        moved = with_entry(moved, block, (at + 512) // SECTOR)
    assert shifted(seen(moved)) == {}
    assert codes(planned(moved)) == []


def test_a_single_block_off_the_rule_that_has_the_shape_stays():
    """Someone wrote it there."""
    raw = small()
    at = bat_entry(raw, 1) * SECTOR
    moved = with_entry(raw[:at] + bytes(512) + raw[at:], 1, at // SECTOR + 1)
    assert codes(planned(moved)) == []


def test_without_footer_or_with_tiny_blocks_nothing_is_doubted():
    assert shifted(seen(put(lost_footer(base()), 0, bytes(512)))) == {}
    assert shifted(seen(reheaded(base(), block_size=2048))) == {}
    assert shifted(seen(put(base(), 600, b"\1"))) == {}


def test_an_entry_beside_a_place_that_cannot_be_its_blocks_is_not_beside_it():
    """Block 0 is full by the batmap: it does not lie where the bitmap has clear bits."""
    at = bat_entry(base(), 2)
    raw = with_entry(with_entry(base(), 2, UNUSED), 0, at + 1)
    assert shifted(seen(raw)) == {}
    behind = with_entry(with_entry(base(), 2, UNUSED), 0, at + 16)
    assert shifted(seen(behind)) == {}


def test_an_entry_beside_a_place_is_only_reported_while_another_place_has_no_entry():
    """Either may be the block: it is not said that the nearer one is."""
    raw = three()
    left = with_entry(with_entry(raw, 1, UNUSED), 2, bat_entry(raw, 2) + 1)
    finding = next(f for f in planned(left).diagnosis.findings if f.code == "VHD306")
    assert finding.disposition is Disposition.REPORT
    alone = with_entry(raw, 2, bat_entry(raw, 2) + 1)
    finding = next(f for f in planned(alone).diagnosis.findings if f.code == "VHD306")
    assert finding.disposition is Disposition.CONFIRM


def test_a_shifted_entry_of_a_running_disk_is_only_reported():
    raw = with_entry(base(), 2, bat_entry(base(), 2) + 1)
    made = planned(raw, "VHD306", context=BUSY)
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT


# --------------------------------------------------------------------------- VHD303


def test_two_blocks_at_one_place_one_of_which_lies_elsewhere():
    """Block 0 is full by the batmap, so the partial block cannot be its."""
    raw = with_entry(base(), 0, bat_entry(base(), 2))
    made = planned(raw)
    assert codes(made) == ["VHD303"]
    assert made.plan.needs == ("VHD303",)
    assert repaired(raw, "VHD303") == base()
    # The other way round: the free place is not full, and so not block 0's.
    other = with_entry(base(), 2, bat_entry(base(), 0))
    assert planned(other).diagnosis.findings[0].facts["block"] == 2
    assert repaired(other, "VHD303") == base()


def test_overlapping_blocks_without_a_shape_are_not_assigned():
    raw = with_entry(base(), 0, bat_entry(base(), 2))
    at = bat_entry(base(), 2) * SECTOR
    for junk in (put(raw, at + 512 + 3 * 512, b"\1"), put(raw, at, bytes(512))):
        made = planned(junk, "VHD303", "VHD302")
        assert made.plan.edits == ()


def test_two_blocks_of_one_shape_at_one_place_are_not_guessed():
    made = planned(with_entry(three(), 0, bat_entry(three(), 1)), "VHD303")
    assert codes(made) == ["VHD303"]
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_three_blocks_at_one_place_are_reported():
    raw = with_entry(with_entry(three(), 0, bat_entry(three(), 1)), 2, bat_entry(three(), 1))
    made = planned(raw, "VHD303")
    finding = made.diagnosis.findings[0]
    assert (finding.code, finding.facts["count"]) == ("VHD303", 3)
    assert finding.facts["vhd_util"] == "block 0 (offset 0x100f) clobbers block 1 (offset 0x100f)" or (
        finding.facts["vhd_util"].startswith("block 0 (offset 0x")
    )
    assert made.plan.edits == ()


def test_overlaps_on_a_running_disk():
    made = planned(with_entry(base(), 0, bat_entry(base(), 2)), context=BUSY)
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT


# --------------------------------------------------------------------------- VHD304


def test_a_lost_entry_that_the_batmap_names():
    raw = with_entry(base(), 0, UNUSED)
    made = planned(raw)
    assert "VHD304" in codes(made)
    assert made.plan.needs == ("VHD304",)
    assert repaired(raw, "VHD304") == base()


def test_the_only_free_block_can_only_be_that_one():
    both = sparse(2 * BLOCK_SIZE, UUID, {0: some(0, PARTIAL), 1: some(1, range(9))}, timestamp=1000).to_bytes()
    raw = with_entry(both, 0, UNUSED)
    made = planned(raw)
    assert made.diagnosis.findings[0].message.endswith("it can only be block 0.")
    assert repaired(raw, "VHD304") == both


def test_the_last_block_of_all_may_never_have_been_promised_to_the_guest():
    both = sparse(2 * BLOCK_SIZE, UUID, {0: some(0, PARTIAL), 1: some(1, range(9))}, timestamp=1000).to_bytes()
    raw = with_entry(both, 1, UNUSED)
    made = planned(raw)
    assert [(f.code, f.severity) for f in made.diagnosis.findings] == [("VHD304", Severity.WARNING)]
    assert repaired(lost_footer(raw)) == raw


def test_an_orphan_that_nothing_names_is_a_warning():
    raw = with_entry(base(), 2, UNUSED)
    made = planned(raw, "VHD304")
    assert codes(made) == ["VHD304"]
    assert made.plan.edits == ()
    assert made.diagnosis.findings[0].facts["block"] is None


def test_an_orphan_behind_the_last_block_survives_the_footers_repair():
    raw = lost_footer(with_entry(base(), 0, UNUSED))
    made = planned(raw, "VHD304")
    assert set(codes(made)) >= {"VHD101", "VHD304"}
    assert guest_data(repaired(raw, "VHD304")) == guest_data(base())


def test_without_a_batmap_only_the_last_free_block_is_told():
    raw = qemu()
    made = planned(with_entry(raw, 0, UNUSED), "VHD304")
    assert codes(made) == ["VHD304"]
    assert made.plan.edits == ()


@pytest.mark.parametrize(("footer", "behind"), [(True, 0), (True, 1024), (False, 0)])
@pytest.mark.parametrize("left", [1, 5, 4000])
def test_a_block_that_lost_its_entry_and_its_end_is_a_warning(left, footer, behind):
    """Its beginning stands behind the last block, and the next writer would overwrite it."""
    raw = three()
    block = max((0, 1, 2), key=lambda number: bat_entry(raw, number))
    at = bat_entry(raw, block) * SECTOR
    marked = put(raw, at + SECTOR, b"guest")
    cut = put(with_entry(marked, block, UNUSED), at, b"\x80".ljust(SECTOR, b"\0"))[: at + SECTOR + left * SECTOR]
    for index in range(1, left):
        cut = put(cut, at + SECTOR + index * SECTOR, bytes(SECTOR))
    cut += raw[-SECTOR:] + bytes(behind) if footer else b""
    made = planned(cut)
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD304")
    assert (finding.severity, finding.facts["offset"]) == (Severity.WARNING, at)
    assert "the file ends inside it" in finding.message
    assert "VHD304" not in codes(planned(put(cut, at + SECTOR, bytes(SECTOR))))
    assert "VHD304" not in codes(planned(put(cut, at, bytes(SECTOR))))


@pytest.mark.parametrize("padding", [b"", b"0" * 100, MARK])
def test_a_block_of_which_only_the_bitmap_is_left_is_a_warning_too(padding):
    raw = three()
    block = max((0, 1, 2), key=lambda number: bat_entry(raw, number))
    at = bat_entry(raw, block) * SECTOR
    bits = b"\0" * 500 + b"\xff" * 12
    left = bytes(SECTOR * 20 - len(padding)) + padding
    cut = put(with_entry(raw, block, UNUSED), at, bits)[: at + SECTOR] + left + raw[-SECTOR:]
    assert "VHD304" in codes(planned(cut))
    # Marked, there, and NUL: what stands there is no bitmap.
    assert "VHD304" not in codes(planned(put(cut, at, b"\xf0" + bits[1:])))


def test_data_without_an_entry_and_without_a_shape_is_a_warning():
    """A lost entry, and the bitmap overwritten: nothing tells a block, but the data is there."""
    raw = three()
    block = max((0, 1, 2), key=lambda number: bat_entry(raw, number))
    lost = put(with_entry(raw, block, UNUSED), bat_entry(raw, block) * SECTOR, b"\xa5" * SECTOR)
    (finding,) = planned(lost).diagnosis.findings
    assert (finding.code, finding.severity) == ("VHD310", Severity.WARNING)
    assert planned(lost, context=BUSY).diagnosis.findings == ()
    gone = put(lost, bat_entry(raw, block) * SECTOR, bytes(SPACE))
    assert planned(gone).diagnosis.findings == ()


def test_what_was_cut_off_may_be_the_block_that_a_bit_names():
    """One place is whole, one is cut: either may be the full block's."""
    blocks = {0: some(0, range(SECTORS)), 1: some(1, PARTIAL), 2: some(2, range(SECTORS))}
    raw = sparse(DISK_SIZE, UUID, blocks, timestamp=1000).to_bytes()
    entries = {number: bat_entry(raw, number) for number in blocks}
    last = max(entries, key=lambda number: entries[number])
    lost = raw
    for number in (0, 2):
        lost = with_entry(lost, number, UNUSED)
    assert {f.severity for f in planned(lost).diagnosis.findings if f.code == "VHD304"} == {Severity.WARNING}
    if last != 1:
        cut = lost[: entries[last] * SECTOR + MIB]
        assert planned(cut + raw[-SECTOR:], "VHD304").plan.edits == ()


def test_a_wrong_entry_is_not_put_to_a_place_while_a_cut_block_may_be_its():
    raw = three()
    order = sorted((0, 1, 2), key=lambda number: bat_entry(raw, number))
    at = bat_entry(raw, order[2]) * SECTOR
    wild = with_entry(with_entry(raw, order[2], UNUSED), order[1], 0x20000000)
    cut = wild[: at + MIB] + raw[-SECTOR:]
    finding = next(f for f in planned(cut).diagnosis.findings if f.code == "VHD302")
    assert finding.disposition is Disposition.REPORT


def test_orphans_of_a_running_disk_are_its_own_business():
    raw = with_entry(base(), 2, UNUSED)
    assert codes(planned(raw, context=BUSY)) == []


@pytest.mark.parametrize("code", ["VHD302", "VHD303", "VHD304", "VHD306"])
def test_a_fix_refuses_where_nothing_is_decided(code):
    raw = {
        "VHD302": with_entry(with_entry(three(), 0, 0), 1, 1),
        "VHD303": with_entry(three(), 0, bat_entry(three(), 1)),
        "VHD304": with_entry(base(), 2, UNUSED),
        "VHD306": with_entry(base(), 2, bat_entry(base(), 2) + 1),
    }[code]
    finding = next(f for f in planned(raw).diagnosis.findings if f.code == code)
    problem = row(code)
    assert problem is not None
    assert problem.fix is not None
    image = seen(put(base(), 600, b"\1")) if code == "VHD306" else seen(raw)
    assert isinstance(problem.fix(image, finding, CONTEXT), Refusal)


# --------------------------------------------------------------------------- shapes


def test_room_ends_where_the_footer_begins():
    assert block_limit(seen(base())) == len(base()) - 512
    assert block_limit(seen(base()[:-1])) == len(base()) - 512
    assert block_limit(seen(lost_footer(base()))) == len(base()) - 512
    assert block_limit(seen(base() + b"x")) == len(base()) + 1
    assert block_limit(seen(device(base()), growable=False)) == len(device(base())) - 512
    assert block_limit(seen(lost_footer(base()), growable=False)) == len(base()) - 1024


def test_a_blocks_shape():
    image = seen(base())
    header = image.geometry
    assert header is not None
    places = base_made().places
    assert block_shaped(image, header, places[0])
    assert block_shaped(image, header, places[2])
    assert not block_shaped(image, header, places[2] + 512)
    assert not block_shaped(image, header, 0)
    assert not block_shaped(image, header, len(base()) - 100)
    assert not block_shaped(image, header, len(base()) - 512)
    dirty = seen(put(base(), places[2] + 512 + 3 * 512, b"\1"))
    assert not block_shaped(dirty, header, places[2])
    assert not clear_is_nul(dirty, header, places[2])


def test_a_bitmap_smaller_than_its_sector_leaves_a_rest_that_is_nul():
    raw = reheaded(refooted(qemu(), current_size=DISK_SIZE), block_size=1 << 20, max_bat_size=8)
    image = seen(raw)
    header = image.geometry
    assert header is not None
    at = bat_entry(raw, 2) * SECTOR
    assert block_shaped(image, header, at)
    assert not block_shaped(seen(put(raw, at + 300, b"\1")), header, at)


def test_orphans_are_blocks_without_an_entry():
    assert orphans(seen(base())) == []
    places = base_made().places
    assert orphans(seen(with_entry(base(), 0, UNUSED))) == [Orphan(places[0], full=True)]
    assert orphans(seen(with_entry(base(), 2, UNUSED))) == [Orphan(places[2], full=False)]
    assert orphans(seen(base()), frozenset({2})) == [Orphan(places[2], full=False)]
    assert orphans(seen(put(base(), 600, b"\1"))) == []
    assert orphans(seen(reheaded(base(), max_bat_size=3))) == []
    assert orphans(seen(reheaded(qemu(), block_size=2048))) == []


def test_an_orphan_may_lie_off_the_page_where_the_gap_begins():
    raw = with_entry(qemu(), 0, UNUSED)
    assert orphans(seen(raw)) == [Orphan(bat_entry(qemu(), 0) * SECTOR, full=False)]


def test_a_preallocated_tail_is_no_block():
    assert orphans(seen(lost_footer(base()) + bytes(3 * SPACE))) == []
    assert orphans(seen(empty() + bytes(3 * SPACE))) == []


def test_several_orphans_in_one_gap():
    raw = three()
    for block in range(3):
        raw = with_entry(raw, block, UNUSED)
    assert len(orphans(seen(raw))) == 3


def test_forced_answers_are_whole_or_none():
    image = seen(with_entry(base(), 0, UNUSED))
    full, part = Orphan(8192, full=True), Orphan(16384, full=False)
    assert forced(image, [0], [full]) == {0: 8192}
    assert forced(image, [0, 1], [full, part]) == {0: 8192, 1: 16384}
    assert forced(image, [1, 3], [full, part]) == {}
    assert forced(image, [0], [full, part]) == {}
    assert forced(image, [0], [part]) == {}
    assert forced(image, [], []) == {}


def test_a_block_may_begin_in_the_sector_that_a_locator_reaches_into():
    image = seen(base())
    first, _ = next(image.blocks())
    assert misplaced(replace(image, end_of_headers=first + SECTOR - 1)) == {}
    assert list(misplaced(replace(image, end_of_headers=first + SECTOR)).values()) == [first]


def test_nothing_is_unclear_without_header_or_bat():
    assert not unclear(seen(put(base(), 512, bytes(1024))), [])


def test_nothing_is_misplaced_without_header_or_bat():
    assert misplaced(seen(put(base(), 600, b"\1"))) == {}
    assert misplaced(seen(base())) == {}


def test_a_batmap_bit_without_any_place_is_not_a_lost_entry():
    raw = rebatted(base(), bits=b"\x90")
    assert codes(planned(raw)) == ["VHD404"]
    assert footer_of(repaired(raw)) == footer_of(base())
