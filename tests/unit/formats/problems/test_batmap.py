"""The batmap is a cache: cleared where it is damaged, never touched where it is what the guest reads by."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from guest import guest_data, guest_map
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    PARTIAL,
    UUID,
    Holes,
    base,
    base_made,
    bat_entry,
    batmap_at,
    child,
    codes,
    device,
    empty,
    footer_of,
    lost_footer,
    planned,
    put,
    rebatted,
    refooted,
    reheaded,
    repaired,
    seen,
    some,
    with_entry,
)
from smfix.formats.problem import Context
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.image import MARK
from smfix.formats.vhd.problems.batmap import COMPARED
from smfix.formats.vhd.problems.registry import row
from smfix.formats.vhd.structs import BLOCK_SIZE, UNUSED, parse_batmap_header
from smfix.repair.plan import plan
from smfix.values import SECTOR, Disposition, InUse, Reason, Refusal, Write

KEY = bytes(range(65))
BUSY = Context(NOW, InUse.READ_WRITE)


# --------------------------------------------------------------------------- VHD401


@pytest.mark.parametrize("damage", [{"cookie": b"tdbatmaq"}, {"version": 0x00010005}])
@pytest.mark.parametrize(("bits", "knows"), [(b"\x80", False), (b"\xa0", True), (b"\x90", False)])
def test_a_map_that_sums_right_and_knows_better_than_a_bitmap_is_not_cleared_unasked(damage, bits, knows):
    """The bitmap may be what was overwritten: then the map is the last that knows that the block was written."""
    raw = rebatted(rebatted(base(), bits=bits), reseal=False, **damage)
    made = planned(raw)
    assert codes(made) == ["VHD401"]
    assert made.diagnosis.findings[0].disposition is (Disposition.CONFIRM if knows else Disposition.SAFE)
    assert made.plan.needs == (("VHD401",) if knows else ())
    unsummed = planned(rebatted(raw, reseal=False, checksum=5))
    assert unsummed.diagnosis.findings[0].disposition is Disposition.SAFE


def unmarked(bits: bytes = b"") -> bytes:
    """The base without the bitmap of block 0, which its batmap called full; `bits` are what is left of it."""
    return put(rebatted(base(), reseal=False, checksum=5), bat_entry(base(), 0) * SECTOR, bits.ljust(SECTOR, b"\0"))


@pytest.mark.parametrize("bits", [b"", b"\0" * 100 + b"\xff", b"\xa5" * SECTOR, b"\xff" * 511])
def test_data_that_no_bitmap_marks_may_have_been_known_to_the_damaged_batmap(bits):
    """The batmap is what is lost, and the bitmap as well: only the data still tells."""
    made = planned(unmarked(bits))
    finding = made.diagnosis.findings[0]
    assert (finding.code, finding.disposition, finding.lossy) == ("VHD401", Disposition.CONFIRM, True)
    assert (made.plan.needs, finding.facts["unmarked"]) == (("VHD401",), [0])
    clear = sum(8 - byte.bit_count() for byte in bits.ljust(SECTOR, b"\0"))
    # 0xA5 leaves runs without number: they are named as one.
    assert planned(unmarked(bits), "VHD401").plan.lost_sectors == (4094 if bits[:1] == b"\xa5" else clear)


@pytest.mark.parametrize("damage", [{"cookie": b"tdbatmaq"}, {"sectors": 1 << 21}])
def test_a_map_that_sums_right_is_not_cleared_where_only_it_knows_of_the_data(damage):
    """Some reader may still go by it; and nobody else could say what was written."""
    raw = put(rebatted(base(), reseal=False, **damage), bat_entry(base(), 0) * SECTOR, bytes(SECTOR))
    made = planned(raw, "VHD401")
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert (made.plan.refusal.reason, made.plan.edits) == (Reason.NO_FIX, ())


@pytest.mark.parametrize("left", [MARK, footer_of(base()).encode(), b"0" * SECTOR, bytes(SECTOR)])
def test_what_no_guest_wrote_does_not_count(left):
    """tapdisk's mark, a footer and padding stand where a file ended once."""
    at = bat_entry(base(), 2) * SECTOR + SECTOR
    raw = put(rebatted(base(), reseal=False, checksum=5), at + 4000 * SECTOR, left)
    assert planned(raw).diagnosis.findings[0].disposition is Disposition.SAFE


def test_on_a_device_data_under_clear_bits_is_left_from_other_volumes():
    assert planned(device(unmarked()), growable=False).diagnosis.findings[0].disposition is Disposition.SAFE


def test_of_a_block_that_is_not_wholly_there_another_finding_tells():
    raw = with_entry(unmarked(), 0, len(base()) // SECTOR - 8)
    finding = next(f for f in planned(raw).diagnosis.findings if f.code == "VHD401")
    assert finding.facts["unmarked"] == []


@pytest.mark.parametrize("offset", [0, 1 << 40, -SECTOR])
def test_a_map_that_is_not_where_one_can_be_knows_nothing(offset):
    raw = rebatted(base(), reseal=False, cookie=b"tdbatmaq", offset=offset if offset >= 0 else len(base()) + offset)
    assert planned(raw).diagnosis.findings[0].disposition is Disposition.SAFE


@pytest.mark.parametrize(
    "change",
    [
        {"checksum": 1},
        {"cookie": b"tdbatmaX"},
        {"version": 0x00010009},
        {"version": 0},
        {"sectors": 0},
        {"offset": 1 << 63},
        {"offset": 5},
        {"offset": 4096},
        {"bits": b"\xff"},
        {"bits": b"\x00"},
    ],
)
@pytest.mark.parametrize("raw", [base, child, lambda: device(base())])
def test_a_damaged_batmap_is_cleared_and_its_key_kept(raw, change):
    growable = raw() == base() or raw() == child()
    whole = rebatted(raw(), marker=1, key_hash=KEY)
    broken = rebatted(whole, **{**change, "checksum": change.get("checksum", 77)})
    made = planned(broken, growable=growable)
    assert codes(made) == ["VHD401"]
    assert made.diagnosis.findings[0].disposition is Disposition.SAFE
    after = repaired(broken, growable=growable)
    at = batmap_at(after)
    head = parse_batmap_header(after[at : at + 512])
    assert (head.marker, head.key_hash, head.checksum) == (1, KEY, 0xFFFFFFFF)
    assert (head.map_offset, head.map_size) == (at + 512, 512)
    assert not any(after[head.map_offset : head.map_extent.end])
    assert guest_map(after) == guest_map(whole)
    assert guest_data(after) == guest_data(whole)
    assert after[:at] == whole[:at]
    assert after[at + 1024 :] == whole[at + 1024 :]


def test_a_map_of_several_sectors_is_cleared_whole():
    raw = sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=9000, timestamp=1000).to_bytes()
    broken = rebatted(raw, checksum=4, bits=b"\x20" + bytes(1000) + b"\xff")
    made = planned(broken)
    assert next(edit.extent.length for edit in made.plan.edits if isinstance(edit, Write)) == 1536
    assert repaired(broken) == rebatted(raw)


def test_a_claimed_place_behind_the_bat_is_kept():
    """A map that is not right behind its header, in the space before the first block."""
    raw = sparse(DISK_SIZE, UUID, {}, timestamp=1000).to_bytes()
    roomy = raw[:-512] + bytes(4096) + raw[-512:]
    moved = rebatted(roomy, offset=batmap_at(raw) + 1024, checksum=3)
    after = repaired(moved)
    at = batmap_at(after)
    assert parse_batmap_header(after[at : at + 512]).map_offset == at + 1024


def test_a_claimed_place_of_absurd_length_is_not_believed():
    made = base_made()
    pieces = {write.offset: write.data for write in sparse(DISK_SIZE, UUID, {}, timestamp=1000).writes}
    size = 1 << 43
    raw = rebatted(empty(), reseal=False, sectors=0xFFFFFFFF, checksum=1)
    pieces = {0: raw[:-512], size - 512: raw[-512:]}
    view = Holes(size, pieces)
    answer = plan(view, CONTEXT)
    assert made
    assert [edit.extent.length for edit in answer.plan.edits if isinstance(edit, Write)] == [512, 512]


def test_where_a_block_lies_in_the_batmaps_place_it_is_reported():
    at = batmap_at(base()) + 512
    raw = with_entry(rebatted(base(), checksum=1), 3, at // 512)
    made = planned(raw, "VHD401")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD401")
    assert finding.disposition is Disposition.REPORT
    # With consent the entry is cleared, and then there is room for the batmap.
    assert made.plan.needs == ("VHD302",)
    assert repaired(raw, "VHD302", "VHD401") == rebatted(base(), bits=b"\0")


def test_where_a_locator_lies_in_the_batmaps_place_it_is_reported():
    at = batmap_at(child()) + 512
    header = seen(child()).geometry
    assert header is not None
    first = replace(header.locators[0], data_offset=at)
    raw = reheaded(rebatted(child(), checksum=1), locators=(first, *header.locators[1:]))
    finding = next(f for f in planned(raw).diagnosis.findings if f.code == "VHD401")
    assert finding.disposition is Disposition.REPORT


@pytest.mark.parametrize("cut", [100, 600, 1000])
def test_where_the_file_ends_in_the_batmap_it_is_reported(cut):
    raw = empty()[: batmap_at(empty()) + cut]
    made = planned(raw, "VHD401", "VHD101")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD401")
    assert finding.disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_without_a_bat_it_is_reported():
    made = planned(reheaded(rebatted(base(), checksum=1), max_bat_size=3))
    assert made.plan.edits == ()


def test_batmap_and_footer_are_mended_in_one_plan():
    raw = lost_footer(rebatted(base(), checksum=1))
    made = planned(raw)
    assert sorted(codes(made)) == ["VHD101", "VHD401"]
    assert made.plan.refusal is None
    assert guest_data(repaired(raw)) == guest_data(base())


# --------------------------------------------------------------------------- VHD403, VHD905


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (lambda: rebatted(large(), sectors=2), "batmap-BAT size mismatch"),
        (lambda: rebatted(empty(), offset=0), "invalid batmap offset"),
        (lambda: rebatted(empty(), sectors=100000), "invalid batmap size"),
    ],
)
def test_a_batmap_that_is_sound_but_misplaced(raw, why):
    made = planned(raw(), "VHD403")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD403")
    assert finding.facts["why"] == why
    assert finding.facts["vhd_util"] == f"batmap is invalid: {why}"
    assert made.plan.edits == ()


@pytest.mark.parametrize("change", [{"sectors": 100000}, {"sectors": 40}])
def test_a_map_that_claims_the_blocks_place_is_damaged(change):
    """The batmap's own header is under no checksum; yet a map that sums right is read wherever it lies."""
    raw = rebatted(base(), **change)
    made = planned(raw)
    assert codes(made) == ["VHD401"]
    assert made.plan.needs == ("VHD401",)
    assert guest_data(repaired(raw, "VHD401")) == guest_data(base())


def large() -> bytes:
    return sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL)}, bat_blocks=9000, timestamp=1000).to_bytes()


def fresh(cut: int = 0) -> bytes:
    raw = sparse(8194 * MIB, UUID, {}, timestamp=1000).to_bytes()
    short = raw[: -2 * 512] + raw[-512:]
    return short[: len(short) - cut]


def test_a_fresh_image_as_create_leaves_it_is_no_damage():
    made = planned(fresh(), "VHD403")
    assert codes(made) == ["VHD905"]
    assert not made.diagnosis.findings[0].is_damage
    assert made.plan.edits == ()


def test_a_fresh_image_without_its_footer_is_given_one():
    """The footer goes behind the whole batmap then, and nothing is left to complain about."""
    made = planned(fresh(512))
    assert "VHD101" in codes(made)
    assert made.plan.refusal is None
    assert len(repaired(fresh(512))) == len(fresh()) + 512


def test_with_a_block_it_is_not_fresh():
    raw = with_entry(fresh(), 1, 100)
    assert "VHD905" not in codes(planned(raw))
    assert "VHD403" in codes(planned(raw))


def test_a_fresh_image_is_one_only_with_its_footer():
    assert "VHD905" not in codes(planned(rebatted(lost_footer(base()) + bytes(512), bits=b"\x80")))


# --------------------------------------------------------------------------- VHD404


@pytest.mark.parametrize("bits", [b"\x90", b"\xd0", b"\xc0"])
def test_bits_over_unallocated_blocks_are_cleared(bits):
    raw = rebatted(base(), bits=bits)
    made = planned(raw)
    assert codes(made) == ["VHD404"]
    assert repaired(raw) == base()


def test_bits_of_a_signed_batmap_are_summed_signed():
    raw = rebatted(base(), version=0x00010001, bits=b"\x90")
    assert repaired(raw) == rebatted(base(), version=0x00010001)


def test_other_bits_and_the_key_stay():
    raw = rebatted(base(), bits=b"\x90", marker=1, key_hash=KEY)
    assert repaired(raw) == rebatted(base(), marker=1, key_hash=KEY)


def test_a_bit_over_a_block_of_which_only_the_beginning_is_left_names_its_loss():
    """The footer was put at the new end: nothing but the remnant behind the last block tells that the file was cut."""
    raw = sparse(DISK_SIZE, UUID, {1: some(1, PARTIAL), 0: some(0, range(4096))}, timestamp=1000).to_bytes()
    at = bat_entry(raw, 0) * SECTOR
    cut = with_entry(raw, 0, UNUSED)[: at + MIB] + raw[-SECTOR:]
    made = planned(cut, "VHD404")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD404")
    assert (finding.disposition, finding.lossy) == (Disposition.CONFIRM, True)
    assert made.plan.lost_sectors == 4096


def test_a_bit_that_may_be_the_trace_of_a_lost_block_stays():
    raw = rebatted(with_entry(base(), 2, UNUSED), bits=b"\xc0")
    made = planned(raw, "VHD404", "VHD304")
    finding = next(f for f in made.diagnosis.findings if f.code == "VHD404")
    assert finding.disposition is Disposition.REPORT
    assert made.plan.edits == ()


def test_a_bit_that_names_the_lost_block_is_no_finding_of_its_own():
    assert codes(planned(with_entry(base(), 0, UNUSED))) == ["VHD304"]


def test_bits_behind_the_disk_are_not_looked_at():
    assert codes(planned(rebatted(base(), bits=b"\x88"))) == []


def test_a_running_disks_batmap_is_only_reported():
    made = planned(rebatted(base(), bits=b"\x90"), context=BUSY)
    assert made.diagnosis.findings[0].disposition is Disposition.REPORT
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.IN_USE


# --------------------------------------------------------------------------- VHD402


def test_a_set_bit_over_a_bitmap_that_is_not_full_is_never_touched():
    raw = rebatted(base(), bits=b"\xa0")
    made = planned(raw, "VHD402")
    assert codes(made) == ["VHD402"]
    assert made.diagnosis.findings[0].facts["block"] == 2
    assert made.plan.edits == ()
    assert made.plan.refusal is None


def test_it_may_remain_behind_another_repair():
    raw = lost_footer(rebatted(base(), bits=b"\xa0"))
    made = planned(raw)
    assert made.plan.refusal is None
    assert [f.code for f in made.plan.remaining] == ["VHD402"]
    assert guest_map(repaired(raw)) == guest_map(raw)


def test_of_many_blocks_the_first_are_compared():
    blocks = COMPARED + 10
    made = sparse(blocks * BLOCK_SIZE, UUID, {}, timestamp=1000)
    assert made.header is not None
    pieces = {write.offset: write.data for write in made.writes}
    first = made.size // 512
    space = made.header.block_space // 512
    end = (first + blocks * space) * 512
    table = struct.pack(f">{blocks}I", *(first + n * space for n in range(blocks)))
    pieces[made.header.table_offset] = table.ljust(made.header.bat_extent.length, b"\0")
    at = made.header.bat_extent.end
    bits = b"\xff" * (blocks // 8) + b"\xc0"
    raw = bytearray(pieces[at])
    raw[512 : 512 + len(bits)] = bits
    raw[24:28] = (~sum(bits) & 0xFFFFFFFF).to_bytes(4, "big")
    pieces[at] = bytes(raw)
    pieces[end] = pieces.pop(made.size - 512)
    view = Holes(end + 512, pieces)
    found = plan(view, CONTEXT).diagnosis.findings
    assert [f.code for f in found] == ["VHD402"]
    assert found[0].facts["count"] == COMPARED


def test_where_entries_overlap_or_are_wrong_bitmaps_are_not_compared():
    raw = with_entry(base(), 0, 1)
    assert "VHD402" not in codes(planned(raw))


def test_a_running_disk_is_not_compared():
    assert codes(planned(rebatted(base(), bits=b"\xa0"), context=BUSY)) == []


def test_a_bitmap_beyond_the_end_is_not_compared():
    raw = rebatted(base(), bits=b"\xa0")
    assert "VHD402" in codes(planned(raw[:-512]))
    cut = base()[: base_made().places[0]]
    assert "VHD402" not in codes(planned(cut))


# --------------------------------------------------------------------------- fixes alone


@pytest.mark.parametrize(("code", "bits"), [("VHD401", None), ("VHD404", b"\x90")])
def test_a_fix_refuses_an_image_it_is_not_for(code, bits):
    raw = rebatted(base(), checksum=1) if bits is None else rebatted(base(), bits=bits)
    finding = planned(raw).diagnosis.findings[0]
    problem = row(code)
    assert problem is not None
    assert problem.fix is not None
    other = seen(base()) if code == "VHD401" else seen(rebatted(base(), checksum=1))
    assert isinstance(problem.fix(other, finding, CONTEXT), Refusal)


def test_who_has_no_batmap_has_no_finding():
    raw = refooted(base(), creator_app=b"qem2")
    assert footer_of(raw).creator_app == b"qem2"
    assert codes(planned(put(raw, batmap_at(raw), bytes(1024)))) == []
