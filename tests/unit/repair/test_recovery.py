"""Recovery under its locks: who may stop it, what is looked at again, what is left when it fails."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from test_apply import BUSY, IN_USE, marks, repair_context
from test_journal import carried_out, journal_of

from memory_image import MemoryImage
from open_guard import OpenGuard
from recovering import BROKEN, SOUND, recover, states
from smfix.errors import Unreadable, WriteFailed
from smfix.host.statx import Lineage
from smfix.repair import journal_store
from smfix.repair.journal import JournalState, Reach
from smfix.repair.reach_digest import digest_of
from smfix.repair.recovery import Fate, Seen, fate_of, foresee, interrupted
from smfix.values import Extent, Reason, Resize, Status, Write

OLD = bytes(range(1, 201)) * 8  # 1600 bytes
EDITS = (Write(0, b"N" * 512), Resize(2048), Write(2048, b"F" * 512))
NEW = carried_out(OLD, EDITS)
HALF = NEW[:512] + OLD[512:]
REACH = (Extent(1024, 100),)


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "journal")


def journal(reach: Reach | None = None, data: bytes = OLD, edits=EDITS, **other):
    reach = reach or Reach(100, (), REACH, digest_of(MemoryImage(OLD), REACH))
    return replace(journal_of(data, edits), reach=reach, **other)


def left(folder: str, **other):
    return journal_store.create(folder, journal(**other))


@pytest.mark.parametrize(
    ("data", "seen", "fate"),
    [
        (OLD, BROKEN, Fate.OLD),
        (OLD, SOUND, Fate.OLD),
        (NEW, SOUND, Fate.VERIFIED),
        (NEW, BROKEN, Fate.APPLIED),
        (NEW, Seen(is_sound=False, uuids=frozenset({"another"})), Fate.STALE),
        (NEW, Seen(is_sound=True, uuids=frozenset({"another"})), Fate.SUPERSEDED),
        (NEW, Seen(is_sound=True, uuids=frozenset({"another", "mine"})), Fate.VERIFIED),
        (HALF, SOUND, Fate.SUPERSEDED),
        (HALF, BROKEN, Fate.PUT_BACK),
        (OLD + bytes(200), BROKEN, Fate.PUT_BACK),
        (NEW[:2048], BROKEN, Fate.PUT_BACK),
        (NEW[:2300], BROKEN, Fate.PUT_BACK),
        (HALF, Seen(is_sound=False, uuids=frozenset({"another"})), Fate.STALE),
        (HALF[:1030] + b"x" + HALF[1031:], BROKEN, Fate.AFRESH),
        (NEW + b"x", BROKEN, Fate.STALE),
        (NEW + b"x", SOUND, Fate.SUPERSEDED),
        (OLD[:1599], BROKEN, Fate.STALE),
        (b"x" + HALF[1:], BROKEN, Fate.STALE),
        (b"x" + HALF[1:], SOUND, Fate.SUPERSEDED),
    ],
)
@pytest.mark.parametrize("mark", [JournalState.UNFINISHED, JournalState.UNDOING])
def test_the_image_decides(folder, data, seen, fate, mark):
    entry = journal_store.mark(left(folder, uuids=frozenset({"mine"})), mark)
    image = MemoryImage(data)
    assert fate_of(entry, image, image, seen) is fate
    settled = recover(image, repair_context(folder), seen)
    wrote = fate is Fate.PUT_BACK and data[:512] != OLD[:512]
    assert len(image.data) == len(data), "never shortened"
    assert bytes(image.data) == (OLD[:512] + data[512:] if wrote else data)
    closed = JournalState.ROLLED_BACK if mark is JournalState.UNFINISHED else JournalState.UNDONE
    become = {
        Fate.OLD: closed,
        Fate.PUT_BACK: closed,
        Fate.STALE: mark,
        Fate.AFRESH: mark,
        Fate.VERIFIED: JournalState.VERIFIED,
        Fate.SUPERSEDED: JournalState.SUPERSEDED,
        Fate.APPLIED: JournalState.APPLIED,
    }[fate]
    assert marks(folder) == [become]
    if fate is Fate.STALE:
        assert (settled.outcome.reason, settled.done) == (Reason.STALE, ())
    else:
        assert (settled.outcome, states(settled)) == (None, [(become.value, wrote)])
    assert [one.id for one in settled.below] == ([entry.id] if fate is Fate.AFRESH else [])


def test_a_journal_of_which_too_much_became_readable_is_not_put_back(folder):
    entry = left(folder, reach=Reach(1 << 30))
    image = MemoryImage(HALF)
    assert fate_of(entry, image, image, BROKEN) is Fate.AFRESH


def test_another_file_with_its_inode_number(folder):
    left(folder, birth=5)
    image = MemoryImage(HALF)
    image.lineage = Lineage(birth=6)
    assert states(recover(image, repair_context(folder))) == [("superseded", False)]
    assert bytes(image.data) == HALF


# ------------------------------------------------------------------ the locks


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (OpenGuard(own=BUSY), Reason.LOCKED),
        (OpenGuard(host=BUSY), Reason.LOCKED),
        (OpenGuard(objections=[IN_USE]), Reason.IN_USE),
    ],
)
def test_the_guards_of_a_repair_are_those_of_recovery(folder, guard, reason):
    left(folder)
    image = MemoryImage(HALF)
    settled = recover(image, repair_context(folder, guard))
    assert (settled.outcome.status, settled.outcome.reason, settled.done) == (Status.REFUSED, reason, ())
    assert (bytes(image.data), marks(folder)) == (HALF, [JournalState.UNFINISHED])


def test_without_a_write_no_lock_of_the_host_is_taken(folder):
    left(folder)
    guard = OpenGuard()
    recover(MemoryImage(NEW), repair_context(folder, guard), SOUND)
    assert guard.said == ["own", "own released"]


def test_what_changed_while_the_locks_were_waited_for_is_not_put_back(folder):
    left(folder)
    image, guard = MemoryImage(HALF), OpenGuard()

    def write() -> None:
        image.data[1590] ^= 1
        image.mtime += 1

    guard.on_host_lock = write
    assert recover(image, repair_context(folder, guard)).outcome.reason is Reason.STALE
    assert (bytes(image.data[:512]), marks(folder)) == (NEW[:512], [JournalState.UNFINISHED])


@pytest.mark.parametrize("at", [100, 1050])
def test_of_a_device_the_bytes_tell_it(folder, at):
    """What is edited, and what became readable."""
    device = MemoryImage(HALF + bytes(448), path="/dev/dm-1", growable=False)
    kept = journal(data=OLD + bytes(448), edits=(Write(0, b"N" * 512), Write(1536, b"F" * 512)))
    journal_store.create(folder, replace(kept, target=device.target, rdev=7))
    guard = OpenGuard()
    guard.on_host_lock = lambda: device.data.__setitem__(at, 0)
    assert recover(device, repair_context(folder, guard)).outcome.reason is Reason.STALE
    assert (bytes(device.data[:100]), marks(folder)) == (b"N" * 100, [JournalState.UNFINISHED])
    guard.on_host_lock = lambda: None
    device.data[at] = HALF[at]
    assert states(recover(device, repair_context(folder, guard))) == [("rolled-back", True)]
    assert bytes(device.data) == OLD + bytes(448)


def test_nothing_is_put_back_that_nobody_agreed_to(folder):
    left(folder)
    image = MemoryImage(HALF)
    assert recover(image, repair_context(folder), may_write=False).outcome.reason is Reason.STALE
    assert bytes(image.data) == HALF


@pytest.mark.parametrize("data", [HALF, NEW, OLD])
def test_a_journal_that_cannot_be_renamed_is_a_failure(folder, monkeypatch, data):
    left(folder)

    def fail(*args):
        raise WriteFailed("no space")

    monkeypatch.setattr(journal_store, "mark", fail)
    settled = recover(MemoryImage(data), repair_context(folder))
    assert settled.outcome.status is Status.FAILED
    assert settled.outcome.message == "no space; the recovery is not complete"
    assert marks(folder) == [JournalState.UNFINISHED]


def test_a_folder_that_proves_nothing_is_a_failure(folder):
    left(folder)
    os.chmod(folder, 0o777)
    image = MemoryImage(OLD)
    settled = recover(image, repair_context(folder))
    assert "others may write there" in settled.outcome.message
    with pytest.raises(Unreadable, match="others may write there"):
        foresee(image, folder, lambda view: BROKEN)


# ------------------------------------------------------------------ several


def test_the_newest_is_settled_first_whatever_its_id(folder):
    first = left(folder, id="20251122-221903-bbbbbb")
    later = first.journal.created.replace(microsecond=5)
    second = left(folder, id="20251122-221903-aaaaaa", data=NEW, edits=(Write(600, b"second"),), created=later)
    image = MemoryImage(carried_out(NEW, (Write(600, b"second"),)))
    assert [entry.id for entry in interrupted(folder, image)] == [second.id, first.id]
    assert [fate for _, fate in foresee(image, folder, lambda view: SOUND)] == [Fate.VERIFIED, Fate.VERIFIED]
    assert states(recover(image, repair_context(folder))) == [("applied", False), ("applied", False)]


def test_what_lies_below_one_that_is_put_back_is_settled_too(folder):
    first = left(folder)
    second = left(
        folder,
        id="20251122-221904-aaaaaa",
        data=NEW,
        edits=(Write(600, b"s" * 2), Write(1100, b"second")),
        created=first.journal.created.replace(second=59),
        reach=Reach(0, digest=digest_of(MemoryImage(b""), ())),
    )
    image = MemoryImage(carried_out(NEW, (Write(600, b"s" * 2),)))
    settled = recover(image, repair_context(folder))
    assert [(one.journal, one.state, one.wrote) for one in settled.done] == [
        (second.id, "rolled-back", True),
        (first.id, "applied", False),
    ]
    assert bytes(image.data) == NEW


def test_it_stops_at_the_first_that_is_stale(folder):
    first = left(folder)
    left(
        folder,
        id="20251122-221904-aaaaaa",
        data=NEW,
        edits=(Write(600, b"second"),),
        created=first.journal.created.replace(second=59),
    )
    image = MemoryImage(carried_out(NEW, (Write(600, b"xxxxxx"),)))
    settled = recover(image, repair_context(folder))
    assert (settled.outcome.reason, settled.done) == (Reason.STALE, ())
    assert [fate for _, fate in foresee(image, folder, lambda view: BROKEN)] == [Fate.STALE]
    assert marks(folder) == [JournalState.UNFINISHED, JournalState.UNFINISHED]
