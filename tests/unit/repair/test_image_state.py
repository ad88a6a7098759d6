"""How an image stands to its journal; above all: what an interrupted repair leaves, is recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_journal import carried_out, journal_of, repairs

from memory_image import Killed, MemoryImage
from smfix.repair.image_state import ImageState, PutBack, image_state
from smfix.repair.journal import record
from smfix.values import Extent, Resize, Write

OLD = bytes(range(1, 201)) * 5  # 1000 bytes, none of them NUL
EDITS = (Write(100, b"N" * 1000), Resize(2048), Write(2048, b"F" * 512))
NEW = carried_out(OLD, EDITS)
JOURNAL = journal_of(OLD, EDITS)


def stands(data: bytes) -> ImageState:
    return image_state(MemoryImage(data), JOURNAL)


def test_before_and_after():
    assert stands(OLD) is ImageState.OLD
    assert stands(NEW) is ImageState.NEW


@pytest.mark.parametrize(
    "data",
    [
        NEW[:2048],
        NEW[:2100],
        NEW[:2048] + bytes(512),
        NEW[:1100],
        NEW[:1024],
        NEW[:1024] + bytes(1000),
        OLD + bytes(1560),
        OLD[:512] + NEW[512:],
        NEW[:512] + OLD[512:],
        NEW[:1000],
        OLD + NEW[1000:1100],
        NEW[:1000] + bytes(24),
    ],
)
def test_what_an_interruption_can_leave(data):
    assert stands(data) is ImageState.BETWEEN


@pytest.mark.parametrize(
    "data",
    [
        OLD[:999],
        NEW + b"\0",
        OLD[:100] + b"x" + OLD[101:],
        NEW[:600] + b"x" + NEW[601:],
        # Half a sector old, half of it new, or half new and half NUL: no storage writes that.
        NEW[:1050] + bytes(1000),
        OLD[:300] + NEW[300:],
        # Somebody has written into what the repair only added.
        NEW[:1500] + b"x" + NEW[1501:],
        NEW[:2048] + b"G" * 512,
        NEW[:2048] + b"G",
    ],
)
def test_what_somebody_else_has_written(data):
    assert stands(data) is ImageState.ELSEWHERE


def test_bytes_outside_the_edits_are_not_looked_at():
    assert stands(b"x" * 100 + NEW[100:]) is ImageState.NEW


def test_a_long_gap_is_looked_at_to_its_end():
    size = (3 << 20) + 5
    journal = journal_of(b"a", (Resize(size),))
    grown = bytearray(b"a" + bytes(size - 1))
    assert image_state(MemoryImage(bytes(grown)), journal) is ImageState.NEW
    grown[-1] = 1
    assert image_state(MemoryImage(bytes(grown)), journal) is ImageState.ELSEWHERE


@given(repairs(), st.integers(0, 20))
def test_killed_at_any_sector_it_is_recognised(repair, lives):
    data, edits = repair
    journal = journal_of(data, edits)
    image = MemoryImage(data)
    image.lives = lives
    try:
        for step in journal.steps:
            if isinstance(step, Resize):
                image.resize(step.size)
            else:
                image.write(step.offset, step.after)
    except Killed:
        assert image_state(image, journal) is not ImageState.ELSEWHERE
    else:
        assert image_state(image, journal) is ImageState.NEW


@given(repairs(), st.data())
def test_sectors_may_reach_the_disk_in_any_order(repair, data):
    """After a power cut any of the sectors is there, and any size the file had."""
    before, edits = repair
    journal = journal_of(before, edits)
    after = carried_out(before, edits)
    size = data.draw(st.integers(len(before), len(after)))
    image = bytearray(before.ljust(size, b"\0"))
    for at in range(0, size, 512):
        if data.draw(st.booleans()):
            image[at : at + 512] = after[at : min(size, at + 512)]
    assert image_state(MemoryImage(bytes(image)), journal) is not ImageState.ELSEWHERE


@given(repairs(), st.data())
def test_a_changed_edited_byte_is_never_taken_for_ours(repair, data):
    before, edits = repair
    journal = journal_of(before, edits)
    touched = sorted({at for change in journal.changes for at in range(change.offset, change.extent.end)})
    if not touched:
        return
    after = bytearray(carried_out(before, edits))
    at = data.draw(st.sampled_from(touched))
    after[at] ^= data.draw(st.integers(1, 255))
    assert image_state(MemoryImage(bytes(after)), journal) is not ImageState.NEW


def test_the_record_is_of_the_view_it_was_made_from():
    steps, size = record(EDITS, MemoryImage(OLD))
    assert (steps, size) == (JOURNAL.steps, JOURNAL.new_size)


@given(repairs(), st.integers(0, 3000), st.integers(0, 1500))
def test_what_an_undo_would_bring_is_seen_without_it(repair, offset, length):
    before, edits = repair
    after = MemoryImage(carried_out(before, edits))
    back = PutBack(after, journal_of(before, edits))
    assert (back.size, back.growable) == (len(before), True)
    assert back.read(Extent(0, len(before) + 100)) == before
    assert back.read(Extent(offset, length)) == before[offset : offset + length]
    assert image_state(back, back.journal) is ImageState.OLD


def test_a_shorter_image_is_filled_up():
    assert PutBack(MemoryImage(b""), journal_of(OLD, EDITS)).read(Extent(0, 200)) == bytes(100) + OLD[100:200]
