"""The journal: what it refuses to be, what of it survives the file, which files it refuses to be read from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memory_image import MemoryImage
from smfix.errors import JournalDamaged
from smfix.repair import journal as codec
from smfix.repair.journal import Change, Journal, JournalState, Reach, decode, encode, new_id, record, settle
from smfix.values import Backing, Disposition, Extent, Finding, Resize, Severity, Target, Write

NOW = datetime(2025, 11, 22, 22, 19, 3, tzinfo=UTC)
PLAIN = Journal(
    id="20251122-221903-3f9a1c",
    created=NOW,
    version="0.1.0",
    target=Target("/sr/disk.vhd", Backing.FILE, vdi="v", sr="s"),
    sr_root="/sr",
    device=1,
    inode=2,
    rdev=None,
    old_size=1000,
    new_size=1536,
    steps=(Change(0, b"old", b"new"), Resize(1024), Change(1024, b"", b"f" * 512)),
    fixes=(("VHD101", "footer lost"),),
    lost=(Extent(512, 512),),
    command=("smfix", "repair", "/sr/disk.vhd"),
)
REACHING = replace(
    PLAIN,
    birth=5,
    generation=6,
    uuids=frozenset({"u", "v"}),
    reach=Reach(3, (Extent(0, 512),), (Extent(7, 1), Extent(9, 2)), bytes(32)),
)
BLOCK = replace(
    PLAIN,
    target=Target("/dev/dm-1", Backing.BLOCK),
    rdev=7,
    new_size=1000,
    steps=(Change(990, b"o" * 10, b"n" * 10),),
)


@st.composite
def edits_on(draw, size: int):
    """Edits that a plan may hold on a file of `size` bytes: any overlap, never a shrink or a hole."""
    edits = []
    for _ in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            offset = draw(st.integers(0, size))
            data = draw(st.binary(max_size=1300))
            edits.append(Write(offset, data))
            size = max(size, offset + len(data))
        else:
            size += draw(st.integers(0, 1300))
            edits.append(Resize(size))
    return tuple(edits)


@st.composite
def repairs(draw):
    """The bytes of a file, and edits that change it."""
    data = draw(st.binary(max_size=2200))
    edits = draw(edits_on(len(data)))
    assume(carried_out(data, edits) != data)
    return data, edits


def carried_out(data: bytes, edits) -> bytes:
    """What `edits` make of `data`, in the plainest way."""
    image = bytearray(data)
    for edit in edits:
        if isinstance(edit, Resize):
            image.extend(bytes(edit.size - len(image)))
        else:
            image[edit.offset : edit.offset + len(edit.data)] = edit.data
    return bytes(image)


def journal_of(data: bytes, edits) -> Journal:
    steps, new_size = record(edits, MemoryImage(data))
    return replace(PLAIN, old_size=len(data), new_size=new_size, steps=steps)


def signed(body: object) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    data = json.dumps(body).encode()
    return codec.MAGIC + hashlib.sha256(codec.MAGIC + data).hexdigest().encode() + b"\n" + data


# ------------------------------------------------------------------ edits


@given(repairs())
def test_settled_edits_do_the_same_and_touch_each_byte_once(repair):
    data, edits = repair
    settled = settle(edits)
    assert carried_out(data, settled) == carried_out(data, edits)
    touched = [at for edit in settled if isinstance(edit, Write) for at in range(edit.offset, edit.extent.end)]
    assert len(touched) == len(set(touched))
    assert settle(settled) == settled


def test_a_write_inside_another_becomes_part_of_it():
    assert settle((Write(0, b"aaaaaa"), Write(2, b"bb"))) == (Write(0, b"aabbaa"),)


def test_a_write_around_another_keeps_only_its_ends():
    assert settle((Write(2, b"aa"), Write(0, b"bbbbbb"))) == (Write(2, b"bb"), Write(0, b"bb"), Write(4, b"bb"))


def test_a_write_around_several_keeps_what_lies_between_them():
    edits = (Write(0, b"aa"), Write(4, b"bb"), Write(8, b"cc"), Write(0, b"0123456789AB"))
    assert settle(edits) == (
        *(Write(0, b"01"), Write(4, b"45"), Write(8, b"89")),
        *(Write(2, b"23"), Write(6, b"67"), Write(10, b"AB")),
    )


def test_an_empty_write_is_no_edit():
    assert settle((Write(5, b""),)) == ()


def test_a_resize_to_the_size_it_has_is_no_step():
    assert record((Resize(4),), MemoryImage(b"1234")) == ((), 4)


def test_what_lay_beyond_the_end_is_absent():
    steps, size = record((Write(2, b"xxxx"), Write(6, b"yy")), MemoryImage(b"1234"))
    assert steps == (Change(2, b"34", b"xxxx"), Change(6, b"", b"yy"))
    assert size == 8


def test_what_is_there_already_is_no_step():
    assert record((Write(0, b"12"), Write(2, b"xx")), MemoryImage(b"1234")) == ((Change(2, b"34", b"xx"),), 4)


@given(repairs())
def test_every_plan_has_a_journal_that_knows_old_and_new(repair):
    data, edits = repair
    journal = journal_of(data, edits)
    after = carried_out(data, edits)
    assert journal.new_size == len(after)
    for change in journal.changes:
        assert data[change.offset : change.extent.end] == change.before
        assert after[change.offset : change.extent.end] == change.after
    for gap in journal.gaps:
        assert not any(after[gap.offset : gap.end])
    added = {at for extent in journal.gaps for at in range(extent.offset, extent.end)}
    added |= {at for change in journal.changes for at in range(change.offset, change.extent.end)}
    assert added >= set(range(len(data), len(after)))


# ------------------------------------------------------------------ what a journal may not be


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "20251122-221903-3F9A1C"},
        {"id": "../../etc/passwd"},
        {"id": "20251122-221903-3f9a1c\n"},
        {"created": NOW.replace(tzinfo=None)},
        {"target": Target("disk.vhd", Backing.FILE)},
        {"target": Target("/sr/\0", Backing.FILE)},
        {"device": -1},
        {"inode": -1},
        {"rdev": -1},
        {"rdev": 7},
        {"target": Target("/dev/dm-1", Backing.BLOCK)},
        {"target": Target("/dev/dm-1", Backing.BLOCK), "rdev": 7},
        {"old_size": -1},
        {"old_size": 1537},
        {"new_size": 1 << 62},
        {"new_size": 2000},
        {"new_size": 1000, "steps": (Resize(999),)},
        {"new_size": 1000, "steps": (Change(-1, b"o", b"n"),)},
        {"new_size": 1002, "steps": (Change(1001, b"", b"n"),)},
        {"new_size": 1000, "steps": (Change(0, b"", b""),)},
        {"new_size": 1000, "steps": (Change(0, b"old!", b"new"),)},
        {"new_size": 1000, "steps": (Change(0, b"ol", b"new"),)},
        {"new_size": 1000, "steps": (Change(0, b"old", b"old"),)},
        {"new_size": 1000, "steps": (Resize(1000),)},
        {"new_size": 1000, "steps": ()},
        {"new_size": 1000, "steps": (Change(0, b"old", b"new"), Change(2, b"o", b"n"))},
    ],
)
def test_a_journal_that_cannot_be_replayed_is_none(wrong):
    with pytest.raises(ValueError, match="."):
        replace(PLAIN, **wrong)


def test_gaps_are_what_grew_and_was_not_written():
    journal = replace(PLAIN, new_size=3000, steps=(Resize(2000), Change(1500, b"", b"x" * 100), Resize(3000)))
    assert journal.gaps == (Extent(1000, 500), Extent(1600, 1400))
    assert PLAIN.gaps == (Extent(1000, 24),)


def test_marks_that_leave_the_image_open():
    assert [mark for mark in JournalState if mark.is_open] == [JournalState.UNFINISHED, JournalState.UNDOING]


def test_cleared_keeps_code_and_message():
    finding = Finding("VHD101", "t", "m", Severity.ERROR, Disposition.SAFE)
    assert codec.cleared([finding]) == (("VHD101", "m"),)


# ------------------------------------------------------------------ ids


def test_ids_sort_by_time_in_any_zone():
    west = NOW.astimezone(timezone(timedelta(hours=-8)))
    assert new_id(NOW, b"\x3f\x9a\x1c\xff") == new_id(west, b"\x3f\x9a\x1c") == PLAIN.id
    later = [new_id(NOW + timedelta(seconds=step), bytes([255 - step]) * 3) for step in range(200)]
    assert sorted(later) == later


@pytest.mark.parametrize("text", ["", "20251122", PLAIN.id + "0", PLAIN.id.upper() + "x", PLAIN.id + "\n"])
def test_what_is_no_id(text):
    assert not codec.is_id(text)


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    "journal", [PLAIN, BLOCK, replace(PLAIN, sr_root=None, target=Target("/a\udcff", Backing.FILE))]
)
def test_what_is_written_is_read(journal):
    assert decode(encode(journal)) == journal


@given(repairs())
def test_any_journal_survives_its_file(repair):
    journal = journal_of(*repair)
    assert decode(encode(journal)) == journal


@given(repairs(), st.data())
def test_any_corrupted_byte_is_refused(repair, data):
    file = bytearray(encode(journal_of(*repair)))
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(JournalDamaged):
        decode(bytes(file))


def test_each_single_byte_flipped_removed_or_doubled_is_refused():
    file = encode(replace(PLAIN, steps=(Resize(1001),), new_size=1001))
    for at in range(len(file)):
        changed = bytes([file[at] ^ 0x20])
        for broken in (
            file[:at] + changed + file[at + 1 :],
            file[:at] + file[at + 1 :],
            file[:at] + file[at : at + 1] * 2 + file[at + 1 :],
        ):
            if broken == file:  # pragma: no cover - would be a byte whose removal changes nothing
                pytest.fail("the same file")
            with pytest.raises(JournalDamaged):
                decode(broken)


@given(st.integers(0, 5000), st.binary(max_size=20))
def test_missing_and_added_bytes_are_refused(cut, more):
    file = encode(PLAIN)
    if cut < len(file):
        with pytest.raises(JournalDamaged):
            decode(file[:cut])
    if more:
        with pytest.raises(JournalDamaged):
            decode(file + more)
        with pytest.raises(JournalDamaged):
            decode(more + file)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_and_nothing_else_is_raised(data):
    for file in (data, codec.MAGIC + data):
        with pytest.raises(JournalDamaged):
            decode(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_a_right_checksum_over_nonsense_is_refused_or_a_whole_journal(data):
    body = json.loads(encode(PLAIN)[len(codec.MAGIC) + 65 :])
    key = data.draw(st.sampled_from(sorted(body)))
    if data.draw(st.booleans()):
        body[key] = data.draw(JSON)
    else:
        step = data.draw(st.sampled_from(body["steps"]))
        step[data.draw(st.sampled_from(sorted(step)))] = data.draw(JSON)
    try:
        journal = decode(signed(body))
    except JournalDamaged:
        return
    assert decode(encode(journal)) == journal


@pytest.mark.parametrize("body", [None, 1, "x", [], {}, [[]], {"id": PLAIN.id}])
def test_a_right_checksum_over_something_else_is_refused(body):
    with pytest.raises(JournalDamaged, match="makes no sense"):
        decode(signed(body))


def test_a_step_of_another_kind_is_refused():
    body = json.loads(encode(PLAIN)[len(codec.MAGIC) + 65 :])
    body["steps"][0]["op"] = "punch"
    with pytest.raises(JournalDamaged, match="unknown kind"):
        decode(signed(body))


def test_endless_nesting_is_refused():
    data = b"[" * 100_000
    file = codec.MAGIC + hashlib.sha256(codec.MAGIC + data).hexdigest().encode() + b"\n" + data
    with pytest.raises(JournalDamaged):
        decode(file)


def test_another_version_is_refused():
    with pytest.raises(JournalDamaged, match="its format is 3"):
        decode(encode(PLAIN).replace(b"smfix-journal 2", b"smfix-journal 3"))


def test_the_version_is_under_the_checksum():
    with pytest.raises(JournalDamaged, match="checksum"):
        decode(encode(PLAIN).replace(b"smfix-journal 2", b"smfix-journal 1"))


def test_the_checksum_is_written_in_one_way_only():
    file = encode(PLAIN)
    digest = file[len(codec.MAGIC) : len(codec.MAGIC) + 64]
    with pytest.raises(JournalDamaged):
        decode(file.replace(digest, digest.upper()))


@pytest.mark.parametrize("journal", [REACHING, replace(REACHING, reach=Reach(1 << 40)), PLAIN])
def test_what_tells_the_file_and_what_became_readable_survive(journal):
    assert decode(encode(journal)) == journal


@pytest.mark.parametrize(
    "wrong",
    [
        {"birth": -1},
        {"uuids": [1]},
        {"reach": {}},
        {"reach": {"bytes": 3, "guest": [], "extents": [[7, 1]], "digest": "00" * 32}},
        {"reach": {"bytes": 3, "guest": [], "extents": [[7, 3]], "digest": None}},
        {"reach": {"bytes": 3, "guest": [], "extents": [[7, 3]], "digest": "zz" * 32}},
    ],
)
def test_a_reach_that_makes_no_sense_is_refused(wrong):
    body = json.loads(encode(REACHING).split(b"\n", 2)[2])
    with pytest.raises(JournalDamaged, match="makes no sense"):
        decode(signed(body | wrong))


@given(st.integers(0, len(encode(REACHING)) - 1), st.integers(1, 255))
def test_any_corrupted_byte_of_it_is_a_refusal(at, flip):
    raw = bytearray(encode(REACHING))
    raw[at] ^= flip
    with pytest.raises(JournalDamaged):
        decode(bytes(raw))
