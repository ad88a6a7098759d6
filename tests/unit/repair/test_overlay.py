"""Edits over a view in memory are what the plainest code makes of them; every read is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import Buffer, applied
from smfix.repair.fingerprint import digest, fingerprint_matches
from smfix.repair.overlay import Overlay, Recorder, merged
from smfix.values import Edit, Extent, Fingerprint, Resize, Write

BASE = bytes(range(100, 160))


@st.composite
def edits(draw: st.DrawFn) -> list[Edit]:
    """Edits in order that leave no hole and never shrink."""
    size, made = len(BASE), []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            at = draw(st.integers(0, size))
            made.append(Write(at, draw(st.binary(max_size=20))))
            size = max(size, made[-1].extent.end)
        else:
            made.append(Resize(draw(st.integers(size, size + 20))))
            size = made[-1].size
    return made


@given(edits(), st.integers(0, 150), st.integers(0, 60))
def test_an_overlay_reads_as_the_edited_bytes(made, offset, length):
    whole = applied(BASE, made)
    view = Overlay(Buffer(BASE), tuple(made))
    assert view.size == len(whole)
    assert view.read(Extent(0, len(whole) + 10)) == whole
    assert view.read(Extent(offset, length)) == whole[offset : offset + length]


@given(edits(), edits())
def test_overlays_stack(first, second):
    lower = Overlay(Buffer(BASE), tuple(first))
    safe = tuple(edit for edit in second if not (isinstance(edit, Resize) and edit.size < lower.size))
    upper = Overlay(lower, safe)
    whole = applied(BASE, first)
    for edit in safe:
        whole = applied(whole, [edit])
    assert upper.read(Extent(0, 1000)) == whole


@given(edits())
def test_merging_changes_nothing_that_is_read(made):
    fewer = merged(len(BASE), made)
    assert applied(BASE, fewer) == applied(BASE, made)
    assert len(fewer) <= len(made)
    assert all(not isinstance(edit, Write) or edit.data for edit in fewer)


def test_writes_that_follow_on_each_other_become_one():
    assert merged(60, [Write(60, b"ab"), Write(62, b"cd")]) == (Write(60, b"abcd"),)
    assert merged(60, [Write(0, b"ab"), Write(4, b"cd")]) == (Write(0, b"ab"), Write(4, b"cd"))


def test_a_resize_that_does_not_grow_is_left_out():
    assert merged(60, [Resize(60), Resize(10), Resize(70), Resize(65)]) == (Resize(70),)
    assert merged(60, [Resize(70), Resize(80), Write(0, b"a"), Resize(90)]) == (
        Resize(80),
        Write(0, b"a"),
        Resize(90),
    )
    assert merged(60, [Write(60, b"abc"), Resize(62)]) == (Write(60, b"abc"),)


def test_the_same_write_twice_is_one_unless_another_came_between():
    assert merged(60, [Write(5, b"a"), Write(5, b"a")]) == (Write(5, b"a"),)
    made = [Write(5, b"a"), Write(5, b"b"), Write(5, b"a")]
    assert applied(BASE, merged(60, made)) == applied(BASE, made)


@pytest.mark.parametrize("growable", [True, False])
def test_overlay_and_recorder_are_as_their_base(growable):
    base = Buffer(BASE, growable)
    assert Overlay(base, ()).growable is growable
    assert Recorder(base).growable is growable
    assert Recorder(base).size == len(BASE)


def test_a_recorder_remembers_what_was_read_once():
    data = bytearray(BASE)
    recorder = Recorder(Buffer(data))
    assert recorder.read(Extent(10, 5)) == BASE[10:15]
    recorder.read(Extent(10, 5))
    recorder.read(Extent(55, 100))
    recorder.read(Extent(3, 0))
    made = recorder.fingerprint()
    assert made == Fingerprint(60, ((Extent(10, 5), digest(BASE[10:15])), (Extent(55, 100), digest(BASE[55:]))))
    assert fingerprint_matches(Buffer(data), made)
    data[12] ^= 1
    assert not fingerprint_matches(Buffer(data), made)
    data[12] ^= 1
    data.append(0)
    assert not fingerprint_matches(Buffer(data), made)


def test_the_first_reading_counts():
    data = bytearray(BASE)
    recorder = Recorder(Buffer(data))
    recorder.read(Extent(0, 4))
    data[0] ^= 1
    recorder.read(Extent(0, 4))
    assert not fingerprint_matches(Buffer(data), recorder.fingerprint())
