"""What a repair makes readable: places of blocks and sectors that the guest did not read before, and no others."""

from __future__ import annotations

import pytest

from images import (
    BLOCK_SIZE,
    Buffer,
    base,
    base_made,
    bat_entry,
    child,
    device,
    fixed_disk,
    lost_footer,
    planned,
    put,
    rebatted,
    refooted,
    reheaded,
    with_entry,
)
from smfix.formats.vhd import reachable as module
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.reachable import reachable
from smfix.formats.vhd.structs import UNUSED
from smfix.values import Extent, Placed, Resize, Write

SPACE = BLOCK_SIZE + 512


def between(before: bytes, after: bytes, *edits, growable: bool = True) -> tuple[Placed, ...]:
    spots = [at for at in range(0, len(after), 512) if before[at : at + 512] != after[at : at + 512]]
    changed = tuple(edits) or tuple(Write(at, after[at : at + 512]) for at in spots)
    return reachable(inspect(Buffer(before, growable)), inspect(Buffer(after, growable)), changed)


def at(block: int) -> int:
    return bat_entry(base(), block) * 512


def whole(block: int, place: int) -> Placed:
    return Placed(Extent(place, SPACE), Extent(block * BLOCK_SIZE, BLOCK_SIZE))


@pytest.mark.parametrize("raw", [base(), child(), fixed_disk()])
def test_footers_give_the_guest_nothing(raw):
    assert between(lost_footer(raw), raw) == () or raw == fixed_disk()
    assert between(refooted(raw, timestamp=9), raw, Write(0, b"")) == ()
    assert between(raw, raw) == ()


def test_a_block_that_gets_its_place_back():
    assert between(with_entry(base(), 2, UNUSED), base()) == (whole(2, at(2)),)


def test_a_block_that_is_moved():
    assert between(with_entry(base(), 2, at(0) // 512), base()) == (whole(2, at(2)),)


def test_a_block_that_loses_its_place_gives_nothing():
    assert between(base(), with_entry(base(), 2, UNUSED)) == ()


def test_a_header_gives_the_guest_everything():
    assert between(put(base(), 512, bytes(1024)), base()) == (whole(2, at(2)), whole(0, at(0)))
    assert between(base(), put(base(), 512, bytes(1024))) == ()


def test_sectors_of_a_bitmap():
    """Bits 0 to 2 and 4095 of block 2 come back; what is readable before and after stays out."""
    bitmap = at(2)
    before = put(put(base(), bitmap, bytes([base()[bitmap] & 0x1F])), bitmap + 511, b"\0")
    data = bitmap + 512
    guest = 2 * BLOCK_SIZE
    last = 4094 * 512
    assert between(before, base()) == (
        Placed(Extent(data, 3 * 512), Extent(guest, 3 * 512)),
        Placed(Extent(data + last, 1024), Extent(guest + last, 1024)),
    )
    assert between(base(), before) == ()


def test_a_block_that_is_placed_and_whose_bitmap_is_edited_counts_once():
    before = put(with_entry(base(), 2, UNUSED), at(2), b"\0")
    assert between(before, base()) == (whole(2, at(2)),)


def test_a_batmap_that_calls_a_block_full():
    """Block 2 has unwritten sectors, which the batmap makes readable; block 0 is full by its bitmap too."""
    after = rebatted(base(), bits=b"\xa0")
    found = between(base(), after)
    assert sum(one.place.length for one in found) == (4096 - 9) * 512
    assert {one.guest.offset // BLOCK_SIZE for one in found} == {2}
    assert between(rebatted(base(), reseal=False, checksum=1), base()) == ()
    both = put(after, at(2), b"\xff")
    assert sum(one.place.length for one in between(base(), both)) == (4096 - 9) * 512


def test_what_lies_beyond_the_end_is_left_out():
    raw = base()[: at(0) + 1000]
    full = with_entry(raw, 0, at(0) // 512)
    before, after = with_entry(full, 0, UNUSED), full
    assert [one.place for one in between(before, after)] in ([], [Extent(at(0), 1000)])
    assert between(base(), base(), Resize(len(base()) + 512)) == ()


def test_a_fixed_disk():
    raw = fixed_disk()
    size = len(raw) - 512
    (one,) = between(raw[:-512] + bytes(512), raw)
    assert one == Placed(Extent(0, size), Extent(0, size))
    smaller = refooted(raw, where="end", current_size=size - 512)
    assert between(smaller, raw) == (Placed(Extent(size - 512, 512), Extent(size - 512, 512)),)
    assert between(base(), raw)[0].place.offset == 0


def test_on_a_device_the_bat_tells_who_has_moved_into_the_room_for_blocks():
    raw = device(base())
    before = put(raw, len(raw) - 4096, b"stray".ljust(512, b"\0"))
    bat = base_made().header.bat_extent
    (one,) = between(before, raw, growable=False)
    assert (one.place.offset, one.guest) == (bat.offset, Extent(0, 0))
    assert between(put(raw, len(raw) - 512, bytes(512)), raw, growable=False) == ()
    assert between(put(raw, at(2) + 512 + 3 * 512, b"x"), raw, growable=False) == (), "inside a block"
    grown = inspect(Buffer(raw, growable=False))
    assert reachable(grown, grown, (Resize(1),)) == ()
    assert between(raw, put(raw, 512, bytes(1024)), growable=False) == ()


def test_another_block_size_is_another_map():
    other = reheaded(base(), block_size=BLOCK_SIZE // 2)
    assert len(between(other, base())) == 2


def test_no_more_are_told_than_somebody_can_read(monkeypatch):
    monkeypatch.setattr(module, "MOST_PLACES", 0)
    assert len(between(put(base(), 512, bytes(1024)), base())) == 1


def test_a_plan_says_it():
    made = planned(lost_footer(base())).plan
    assert (made.reachable, made.uuids) == ((), inspect(Buffer(base())).uuids)
    assert len(made.uuids) == 1
