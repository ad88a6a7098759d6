"""The BAT: read whole or not at all, and every question about the layout answered as the slow way would."""

from __future__ import annotations

import struct
import sys
from array import array
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import LARGEST_READ, Buffer, Holes
from smfix.formats.vhd import bat as bat_module
from smfix.formats.vhd.bat import BAT_LIMIT, GAPS, NAMED, Bat, Overlap, read_bat
from smfix.formats.vhd.structs import UNUSED
from smfix.values import SECTOR, Damaged, Extent, Sound

FREE = UNUSED
SPACE = 9 * SECTOR
"""A small block, so that places are easy to count."""


def table(*entries: int) -> bytes:
    return struct.pack(f">{len(entries)}I", *entries)


def bat_of(*entries: int, blocks: int | None = None) -> Bat:
    raw = table(*entries)
    got = read_bat(Buffer(bytes(SECTOR) + raw), SECTOR, len(entries) if blocks is None else blocks, len(entries))
    assert isinstance(got, Sound)
    assert got.where == Extent(SECTOR, len(raw))
    return got.value


# --------------------------------------------------------------------------- reading


def test_entries_are_sectors_and_leave_as_bytes():
    bat = bat_of(100, FREE, 10)
    assert len(bat) == 3
    assert bat.allocated == 2
    assert [bat.offset(n) for n in range(4)] == [51200, None, 5120, None]
    assert list(bat.placements()) == [(5120, 2), (51200, 0)]


def test_a_bat_without_blocks():
    bat = bat_of(FREE, FREE)
    assert bat.allocated == 0
    assert list(bat.placements()) == []
    assert bat.highest_end(SPACE) == 0
    assert bat.overlaps(SPACE) == ([], 0)
    assert bat.unplaced_among(range(2))


def test_no_entries_at_all():
    got = read_bat(Buffer(b""), 0, 0, 0)
    assert isinstance(got, Sound)
    assert len(got.value) == 0
    assert got.value.offset(0) is None


def test_entries_behind_the_disks_last_block_are_kept_apart():
    bat = bat_of(10, FREE, 30, FREE, 50, blocks=2)
    assert len(bat) == 2
    assert bat.allocated == 1
    assert bat.beyond == (2, 4)
    assert len(bat_of(*range(10, 60), blocks=1).beyond) == NAMED


@pytest.mark.parametrize(
    ("offset", "blocks", "entries", "why"),
    [
        (SECTOR, 5, 4, "the disk has 5 blocks, the BAT only 4 entries"),
        (SECTOR, 4, 4, "the BAT reaches past the end of the file"),
        (1 << 63, 2, 2, "the BAT reaches past the end of the file"),
        (SECTOR, (1 << 32) - 1, (1 << 32) - 1, f"4294967295 BAT entries are more than smfix reads ({BAT_LIMIT})"),
    ],
)
def test_a_bat_that_cannot_be_read_is_damaged(offset, blocks, entries, why):
    got = read_bat(Buffer(bytes(SECTOR) + table(1, 2, 3)), offset, blocks, entries)
    assert isinstance(got, Damaged)
    assert got.reasons[-1] == why
    assert got.where == Extent(offset, entries * 4)


def test_a_view_that_ends_early_is_damaged():
    class Short(Buffer):
        def read(self, extent: Extent) -> bytes:
            return super().read(extent)[:6]

    got = read_bat(Short(table(1, 2, 3, 4)), 0, 4, 4)
    assert isinstance(got, Sound)  # read on, six bytes at a time
    assert [got.value.offset(n) for n in range(4)] == [512, 1024, 1536, 2048]

    class Silent(Buffer):
        def read(self, extent: Extent) -> bytes:
            return b""

    got = read_bat(Silent(table(1, 2, 3, 4)), 0, 4, 4)
    assert isinstance(got, Damaged)
    assert got.reasons[-1] == "the BAT could not be read to its end"


def test_entries_that_end_with_the_file_behind_the_last_block_are_no_harm():
    bat = read_bat(Buffer(table(7, FREE)), 0, 2, 1000)
    assert isinstance(bat, Sound)
    assert bat.value.beyond == ()


def test_a_bat_of_many_chunks(monkeypatch):
    monkeypatch.setattr(bat_module, "_CHUNK", 16)
    entries = [FREE] * 4 + [40, FREE, 20, 30] + [FREE] * 5 + [10, 50, 60, 70, 80, 90, 100]
    bat = bat_of(*entries, blocks=14)
    assert list(bat.placements()) == [(10 * 512, 13), (20 * 512, 6), (30 * 512, 7), (40 * 512, 4)]
    assert bat.beyond == (14, 15, 16, 17, 18, 19)


def test_on_a_machine_of_the_other_byte_order(monkeypatch):
    # There the bytes of the file are the machine's own: nothing is swapped.
    other = "big" if sys.byteorder == "little" else "little"
    monkeypatch.setattr(bat_module, "sys", SimpleNamespace(byteorder=other))
    native = array("I", [100, FREE, 10])
    if other == "little":
        native.byteswap()
    got = read_bat(Buffer(native.tobytes()), 0, 3, 3)
    assert isinstance(got, Sound)
    assert list(got.value.placements()) == [(5120, 2), (51200, 0)]


def test_more_blocks_than_any_file_of_that_size_can_hold(monkeypatch):
    monkeypatch.setattr(bat_module, "CROWD", 100)
    held = read_bat(Buffer(table(*range(100))), 0, 100, 100)
    assert isinstance(held, Sound)
    roomy = read_bat(Buffer(table(*range(101)) + bytes(26 * 1024)), 0, 101, 101)
    assert isinstance(roomy, Sound)
    crowd = read_bat(Buffer(table(*range(101))), 0, 101, 101)
    assert isinstance(crowd, Damaged)
    assert isinstance(read_bat(Buffer(table(*range(101)) + bytes(26 * 1024)), 0, 101, 101, 4096), Damaged)
    assert crowd.reasons[0] == "error reading bat"
    assert "101 blocks" in crowd.reasons[1]


def test_a_hostile_bat_of_the_largest_size_is_bounded():
    # A sparse file: every entry says "block at sector 0".
    view = Holes(1 << 40, {})
    got = read_bat(view, 0, BAT_LIMIT, 0xFFFFFFFF)
    assert isinstance(got, Sound | Damaged)
    assert view.asked <= LARGEST_READ


# --------------------------------------------------------------------------- questions


def slow_overlaps(entries: list[int], space: int) -> list[Overlap]:
    """As vhd_util_check_bat asks: each block against every other one."""
    found = []
    for block, entry in enumerate(entries):
        if entry == FREE:
            continue
        partners = [
            (other, at)
            for other, at in enumerate(entries)
            if other != block and at != FREE and abs(at - entry) * SECTOR < space
        ]
        if partners:
            other, at = partners[0]
            found.append(Overlap(block, entry * SECTOR, other, at * SECTOR))
    return found


ENTRIES = st.lists(st.one_of(st.just(FREE), st.integers(0, 120), st.sampled_from([10, 19, 28])), max_size=40)


@given(ENTRIES)
def test_overlaps_are_those_of_the_slow_way(entries):
    slow = slow_overlaps(entries, SPACE)
    assert bat_of(*entries).overlaps(SPACE) == (slow[:NAMED], len(slow))


@given(ENTRIES, st.integers(0, 130 * SECTOR), st.integers(0, 4))
def test_blocks_that_reach_past_a_place(entries, end, most):
    bat = bat_of(*entries)
    reaching = [(e * SECTOR, b) for b, e in enumerate(entries) if e != FREE and e * SECTOR + SPACE > end]
    assert bat.behind(end, SPACE, most) == (reaching[:most], len(reaching))


@given(ENTRIES, st.integers(0, 130 * SECTOR), st.integers(0, 20 * SECTOR))
def test_placements_highest_end_and_covering(entries, start, length):
    bat = bat_of(*entries)
    places = sorted((entry * SECTOR, block) for block, entry in enumerate(entries) if entry != FREE)
    assert list(bat.placements()) == places
    inside = [spot for spot in places if start <= spot[0] < start + length]
    assert list(bat.placements(start, start + length)) == inside
    assert bat.highest_end(SPACE) == max((at + SPACE for at, _ in places), default=0)
    assert bat.highest_end(SPACE, below=start) == max((at + SPACE for at, _ in places if at < start), default=0)
    extent = Extent(start, length)
    touching = [spot for spot in places if length and Extent(spot[0], SPACE).overlaps(extent)]
    if length:
        assert bat.covering(extent, SPACE) == touching


@given(ENTRIES, st.integers(0, 40), st.integers(0, 140), st.frozensets(st.integers(0, 40), max_size=4))
def test_gaps_are_the_runs_without_a_block(entries, start, end, without):
    bat = bat_of(*entries)
    begin, stop = start * SECTOR, end * SECTOR
    taken = set()
    for block, entry in enumerate(entries):
        if entry != FREE and entry >= start and block not in without:
            taken.update(range(entry, entry + SPACE // SECTOR))
    runs, run = [], []
    for at in [*range(start, end), None]:
        if at is not None and at not in taken:
            run.append(at)
        else:
            if len(run) * SECTOR >= SPACE:
                runs.append(Extent(run[0] * SECTOR, len(run) * SECTOR))
            run = []
    assert bat.gaps(SPACE, begin, stop, without=without) == runs


@given(ENTRIES, st.integers(0, 60), st.integers(1, 9))
def test_narrow_gaps_are_those_before_a_block_that_hold_none(entries, start, least):
    bat = bat_of(*entries)
    behind, runs = start * SECTOR, []
    for at, block in bat.placements(start * SECTOR):
        if least * SECTOR <= at - behind < SPACE:
            runs.append((Extent(behind, at - behind), block))
        behind = at + SPACE
    assert list(bat.narrow(SPACE, least * SECTOR, start * SECTOR)) == runs


def test_narrow_gaps_are_bounded_and_none_without_blocks():
    bat = bat_of(*range(0, 1000, 15))
    assert len(list(bat.narrow(SPACE, SECTOR, 0))) == GAPS - 1
    assert list(bat_of(UNUSED).narrow(SPACE, SECTOR, 0)) == []


def test_gaps_are_bounded():
    bat = bat_of(*range(0, 100 * 40, 40))
    assert len(bat.gaps(SPACE, 0, 10000 * SECTOR)) == GAPS


@given(ENTRIES, st.sampled_from([0, 512, 1024]), st.integers(0, 50), st.integers(0, 130))
def test_off_page(entries, lead, start, end):
    wanted = [
        (at, block) for at, block in bat_of(*entries).placements(start * SECTOR, end * SECTOR) if (at + lead) % 4096
    ]
    assert list(bat_of(*entries).off_page(lead, 4096, start * SECTOR, end * SECTOR)) == wanted


@given(ENTRIES, st.integers(0, 50), st.integers(0, 130))
def test_detached(entries, start, end):
    wanted, previous = [], start * SECTOR
    for at, block in bat_of(*entries).placements(start * SECTOR, end * SECTOR):
        if at != previous:
            wanted.append((at, block))
        previous = at + SPACE
    assert list(bat_of(*entries).detached(SPACE, start * SECTOR, end * SECTOR)) == wanted


def test_blocks_back_to_back_are_told_at_once():
    assert list(bat_of(10, 19, 28).detached(SPACE, 10 * SECTOR, 100 * SECTOR)) == []
    assert list(bat_of(10, 19, 28).detached(SPACE, 9 * SECTOR, 100 * SECTOR)) == [(5120, 0)]


def test_differing():
    one = bat_of(10, FREE, 30)
    assert one.differing(bat_of(10, FREE, 30)) == []
    assert one.differing(bat_of(10, 20, 31)) == [1, 2]
    assert one.differing(bat_of(10, FREE, 30, FREE, 50)) == [4]
    assert bat_of(10, FREE, 30, FREE, 50).differing(one) == [4]


def test_unplaced_among():
    bat = bat_of(10, 20, FREE)
    assert not bat.unplaced_among(range(2))
    assert bat.unplaced_among(range(1, 3))
    assert not bat.unplaced_among(range(8, 16))


def test_every_pair_is_looked_at_once():
    bat = bat_of(10, 10, 10, 100)
    first, second = bat.overlaps(SPACE), bat.overlaps(SPACE)
    assert first is second
    assert first[1] == 3
    assert [(o.block, o.other) for o in first[0]] == [(0, 1), (1, 0), (2, 0)]
