"""Attacks on the promises: more than one thing is wrong, and the obvious repair would be the wrong one."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from guest import guest_data
from images import (
    PARTIAL,
    SECTORS,
    UUID,
    Holes,
    applied,
    base,
    batmap_at,
    codes,
    device,
    fixed_disk,
    footer_of,
    lost_footer,
    planned,
    put,
    qemu,
    repaired,
    seen,
    small,
    some,
    with_end,
    with_entry,
)
from smfix.formats.vhd.build import Made, sparse
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.problems.orphan_blocks import WEIGHED, orphans, unclear
from smfix.formats.vhd.structs import BLOCK_SIZE, NO_OFFSET, UNUSED, DiskType, geometry_for
from smfix.values import SECTOR, Disposition, Reason
from world import BASE, failed, make_world

EVERYTHING = ("VHD101", "VHD301", "VHD302", "VHD303", "VHD304", "VHD401", "VHD404")
SPACE = BLOCK_SIZE + SECTOR


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def made(*order: int) -> Made:
    """Eight blocks, of which `order` have a place: 0 and 4 are full, the rest is not."""
    data = {n: some(n, range(SECTORS) if n in (0, 4) else (*PARTIAL, 200 + n)) for n in order}
    return sparse(8 * BLOCK_SIZE, UUID, data, timestamp=1000)


def disposition(raw: bytes, code: str) -> Disposition:
    return next(f.disposition for f in planned(raw).diagnosis.findings if f.code == code)


# --------------------------------------------------------------------------- whose block is it?


@pytest.mark.parametrize("into", [0, 300, 511])
@pytest.mark.parametrize("footer", [b"", None])
def test_a_block_that_was_cut_away_does_not_get_the_place_of_another(into, footer):
    """Block 1 lost its entry, block 2 behind it was cut off with its bitmap: block 2 is not at block 1's place."""
    image = made(0, 1, 2)
    whole = image.to_bytes()
    raw = with_entry(whole, 1, UNUSED)[: image.places[2] + into]
    raw += footer if footer is not None else whole[-SECTOR:]
    plan = planned(raw, *EVERYTHING)
    assert {"VHD301", "VHD304"} <= set(codes(plan))
    assert "VHD302" not in codes(plan)
    for extent in plan.plan.lost:
        assert 2 * BLOCK_SIZE <= extent.offset < extent.end <= 3 * BLOCK_SIZE
    lost = {n for e in plan.plan.lost for n in range(e.offset // SECTOR, e.end // SECTOR)}
    before, after = guest_data(whole), guest_data(repaired(raw, *EVERYTHING))
    assert all(data in (before[n], bytes(SECTOR)) for n, data in after.items() if n not in lost)


def test_two_blocks_that_were_cut_away():
    image = made(0, 1, 2, 3)
    raw = with_entry(image.to_bytes(), 1, UNUSED)[: image.places[2]]
    assert "VHD302" not in codes(planned(raw))


@pytest.mark.parametrize("foreign", [0x20000000, None])
def test_a_place_whose_bitmap_was_overwritten_competes(foreign):
    """Block 3's entry is wrong and its bitmap gone, block 1's entry is lost: the one shape left is not block 3's."""
    image = made(0, 1, 3, 2)
    raw = put(with_entry(image.to_bytes(), 1, UNUSED), image.places[3], bytes(SECTOR))
    raw = with_entry(raw, 3, image.places[0] // SECTOR if foreign is None else foreign)
    plan = planned(raw, *EVERYTHING)
    assert plan.plan.refusal.reason is Reason.NO_FIX
    assert plan.plan.edits == ()
    assert disposition(raw, "VHD303" if foreign is None else "VHD302") is Disposition.REPORT


def test_an_entry_is_not_cleared_while_unnamed_bytes_are_left():
    image = made(0, 1)
    raw = put(with_entry(image.to_bytes(), 1, 0x20000000), image.places[1], bytes(SECTOR))
    (finding,) = planned(raw, *EVERYTHING).diagnosis.findings
    assert finding.disposition is Disposition.REPORT
    assert finding.message.endswith("the evidence does not tell whose they are.")
    assert planned(put(raw, image.places[1], bytes(SPACE)), *EVERYTHING).plan.lost_sectors == SECTORS


def test_the_batmaps_word_does_not_decide_between_two_places():
    image = made(0, 2, 4, 1)
    raw = with_entry(with_entry(image.to_bytes(), 2, UNUSED), 4, UNUSED)
    assert guest_data(repaired(raw, *EVERYTHING)).keys() == guest_data(with_entry(image.to_bytes(), 2, UNUSED)).keys()
    raw = put(raw, image.places[2], bytes(SECTOR))
    assert disposition(raw, "VHD304") is Disposition.REPORT


@pytest.mark.parametrize("entry", [0, 0x20000000, UNUSED])
@pytest.mark.parametrize("order", [(4, 0, 1), (1, 0, 4)])
def test_a_block_whose_last_byte_was_cut_off_is_not_made_whole_by_padding(entry, order):
    """Padded to whole sectors, the file holds the block's shape again, and nobody would name the sector."""
    image = made(*order)
    raw = with_entry(image.to_bytes()[: -SECTOR - 1], order[-1], entry)
    plan = planned(raw, *EVERYTHING)
    names = {n for lost in plan.plan.lost for n in range(lost.offset // SECTOR, lost.end // SECTOR)}
    placed = {f.code for f in plan.plan.fixes} & {"VHD302", "VHD303", "VHD304", "VHD404"}
    assert not placed or (order[-1] + 1) * SECTORS - 1 in names


# --------------------------------------------------------------------------- what is unclear


def test_what_is_unclear():
    image = made(0, 2, 1)
    whole = image.to_bytes()
    gap = put(with_entry(whole, 2, UNUSED), image.places[2], bytes(SECTOR))
    assert not unclear(seen(whole), [])
    assert not unclear(seen(qemu()), [])
    assert not unclear(seen(fixed_disk()), [])
    assert unclear(seen(gap), orphans(seen(gap)))
    assert unclear(seen(whole), [], frozenset({2}))
    assert not unclear(seen(put(gap, image.places[2], bytes(SPACE))), [])


def test_a_footer_in_the_tail_is_nobodys_block():
    raw = small() + bytes(3 * BLOCK_SIZE)
    assert not unclear(seen(raw), [])
    assert unclear(seen(raw + b"x" + bytes(511)), [])


def test_what_lies_behind_the_last_block_of_a_device_is_other_peoples():
    raw = device(base(), 3 * BLOCK_SIZE)
    dirty = put(raw, len(base()) + 8192, b"y" * BLOCK_SIZE)
    assert not unclear(seen(dirty, growable=False), [])


def test_more_than_can_be_looked_at_is_unclear():
    raw = small()[:-SECTOR]
    image = Holes(len(raw) + 2 * WEIGHED, {0: raw})
    assert unclear(inspect(image), [])
    assert image.asked < 2 * WEIGHED


# --------------------------------------------------------------------------- the batmap


@pytest.mark.parametrize("field", ["offset", "sectors"])
def test_a_cleared_batmap_spares_a_block_without_entry(field):
    """The damaged header claims the map to lie where block 1 is, whose entry is lost."""
    image = made(1, 0, 2)
    raw = with_entry(image.to_bytes(), 1, UNUSED)
    at = batmap_at(raw)
    if field == "offset":
        raw = put(raw, at + 8, struct.pack(">Q", image.places[1] + SECTOR))
    else:
        raw = put(raw, at + 16, struct.pack(">I", 3000))
    raw = put(raw, at + 24, bytes(4))
    after = repaired(raw)
    assert "VHD401" in codes(planned(raw))
    assert after[image.places[1] : image.places[1] + SPACE] == raw[image.places[1] : image.places[1] + SPACE]
    assert guest_data(after) == guest_data(raw)


@pytest.mark.parametrize("cut", [0, 100])
def test_a_full_block_that_went_with_the_end_of_the_file_is_named(cut):
    image = made(0, 1, 4)
    raw = with_entry(image.to_bytes(), 4, UNUSED)[: image.places[4] + cut]
    plan = planned(raw).plan
    assert (plan.refusal.reason, plan.needs, plan.lost_sectors) == (Reason.NEEDS_CONFIRM, ("VHD404",), SECTORS)
    agreed = planned(raw, "VHD404").plan
    assert agreed.refusal is None
    assert [(lost.offset, lost.length) for lost in agreed.lost] == [(4 * BLOCK_SIZE, BLOCK_SIZE)]
    finding = next(f for f in agreed.fixes if f.code == "VHD404")
    assert finding.lossy
    assert finding.message.endswith("The file was cut, and they may be lost with what is missing.")


def test_a_stale_bit_on_a_whole_file_is_still_cleared():
    image = made(0, 1)
    raw = with_entry(made(0, 1, 4).to_bytes(), 4, UNUSED)[: len(image.to_bytes()) - SECTOR] + image.to_bytes()[-SECTOR:]
    assert disposition(raw, "VHD404") is Disposition.SAFE
    assert planned(raw).plan.lost == ()


def test_a_full_block_without_entry_and_bitmap_is_not_forgotten():
    image = made(0, 1, 4, 2)
    raw = put(with_entry(image.to_bytes(), 4, UNUSED), image.places[4], bytes(SECTOR))
    assert disposition(raw, "VHD404") is Disposition.REPORT
    assert planned(raw, *EVERYTHING).plan.edits == ()


def test_what_needed_consent_needs_it_after_another_repair():
    """With its footer back the file looks whole, and the bit of the block that was cut off merely stale."""
    image = made(0, 1, 4)
    raw = with_entry(image.to_bytes(), 4, UNUSED)[: image.places[4]]
    assert planned(raw, "VHD101", "VHD304").plan.needs == ("VHD404",)


# --------------------------------------------------------------------------- a guest that writes footers


def planted(**fields: object) -> bytes:
    """A disk that was open when its host died; the guest's last sector looks like a footer."""
    image = made(0, 4)
    raw = lost_footer(image.to_bytes())
    return with_end(raw, replace(image.footer, **{"uuid": b"g" * 16, **fields}).sealed())


def test_a_fixed_disks_footer_in_the_guests_last_sector_is_not_believed():
    size = 2 * BLOCK_SIZE
    raw = planted(type=DiskType.FIXED, data_offset=NO_OFFSET, current_size=size, geometry=geometry_for(size))
    plan = planned(raw, *EVERYTHING, "VHD105")
    assert codes(plan) == ["VHD105"]
    assert "type" in plan.diagnosis.findings[0].facts["fields"]
    assert plan.plan.refusal.reason is Reason.NO_FIX
    assert planned(fixed_disk()).diagnosis.findings == ()


@pytest.mark.parametrize("fields", [{}, {"hidden": 1}, {"current_size": BLOCK_SIZE}, {"creator_version": 1}])
def test_no_sector_is_lost_to_a_footer_that_the_guest_made(fields):
    raw = planted(**fields)
    assert footer_of(raw).checksum
    plan = planned(raw, *EVERYTHING, "VHD105", "VHD106", "VHD103")
    after = applied(raw, plan.plan.edits)
    assert after.startswith(raw), "the guest's sector is written over"
    assert not plan.plan.edits or plan.plan.lost_sectors == 1, "nothing names the sector that may be lost"


# --------------------------------------------------------------------------- a log that names another file


@pytest.mark.parametrize(
    ("folder", "name", "status", "reason"),
    [
        ("", "{}.vhd.new", "not-found", None),
        ("", "OLD_{}.vhd", "not-found", None),
        ("tmpAb12Cd/", "{}.vhd", "refused", "image-copy"),
        ("../../", "{}.vhd", "not-found", None),
        ("./", "{}.vhd", "not-found", None),
        ("%2e%2e/", "{}.vhd", "not-found", None),
    ],
)
def test_only_the_file_that_the_log_names_is_written(world, folder, name, status, reason):
    path = world.damaged()
    before = path.read_bytes()
    log = world.smlog(failed().replace(f"/{BASE}.vhd", f"/{folder}{name.format(BASE)}"))
    (incident,) = world.run("from-log", log, "--yes", "--json").json["incidents"]
    assert (incident["outcome"]["status"], incident["outcome"]["reason"]) == (status, reason)
    assert path.read_bytes() == before
