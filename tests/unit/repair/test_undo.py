"""The way back: byte for byte, and only while the disk is what the repair left."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_apply import BUSY, GOOD, IN_USE, LOST, NEW, OLD, carried_out, marks, plan_for, repair_context
from test_journal import PLAIN, journal_of

from memory_image import MemoryImage
from open_guard import OpenGuard
from recovering import SOUND, undo
from smfix.host.image_file import open_image
from smfix.host.statx import Lineage
from smfix.repair import journal_store
from smfix.repair.apply import Verification, apply
from smfix.repair.journal import Change, JournalState, Reach, encode
from smfix.repair.reach_digest import digest_of
from smfix.repair.undo import open_target
from smfix.values import Backing, Extent, Placed, Reason, Refusal, Resize, Status, Target, Write
from steps import lines

GROWN = (Resize(2048), Write(2048, b"F" * 512))  # bytes 1000..2047 are NUL and written by nobody


@pytest.fixture
def disk(tmp_path) -> Path:
    path = tmp_path / "sr" / "disk.vhd"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "journal")


def repaired(disk: Path, folder: str, edits=None) -> str:
    """The id of the journal of a verified repair."""
    target = Target(str(disk), Backing.FILE)
    plan = plan_for(disk.read_bytes(), edits) if edits else plan_for(disk.read_bytes())
    with open_image(target, sr_root=str(disk.parent), write=True) as image:
        outcome = apply(plan, image, repair_context(folder), GOOD, sr_root=str(disk.parent))
    assert outcome.status is Status.REPAIRED
    return outcome.journal


def left_unfinished(disk: Path, folder: str, data: bytes, edits, id_: str = PLAIN.id, year: int = 2025) -> None:
    """A journal of a repair of `data` that was killed; the disk holds what it holds."""
    status = disk.stat()
    journal = replace(
        journal_of(data, edits),
        id=id_,
        created=PLAIN.created.replace(year=year),
        target=Target(str(disk), Backing.FILE),
        sr_root=str(disk.parent),
        device=status.st_dev,
        inode=status.st_ino,
        reach=Reach(0, digest=digest_of(MemoryImage(b""), ())),
    )
    journal_store.create(folder, journal)


def undone(folder: str, id_: str, guard: OpenGuard | None = None, *, newer: bool = False):
    entry = journal_store.load(folder, id_)
    with open_target(entry.journal) as image:
        return undo(entry, image, repair_context(folder, guard), newer=newer)


# ------------------------------------------------------------------ undo


def test_undo_gives_back_every_byte_and_the_size(disk, folder):
    id_ = repaired(disk, folder)
    assert disk.read_bytes() == NEW
    guard = OpenGuard()
    outcome = undone(folder, id_, guard)
    assert (outcome.status, outcome.journal) == (Status.ROLLED_BACK, id_)
    assert outcome.message == "the repair was undone: the image is as it was before"
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.UNDONE]
    assert guard.said == ["own", "host", "look", "host released", "own released"]


def test_two_repairs_are_undone_in_reverse(disk, folder):
    first = repaired(disk, folder)
    second = repaired(disk, folder, (Write(0, b"second"), Write(len(NEW), b"more")))
    assert undone(folder, first).reason is Reason.STALE
    assert undone(folder, second).status is Status.ROLLED_BACK
    assert disk.read_bytes() == NEW
    assert undone(folder, first).status is Status.ROLLED_BACK
    assert disk.read_bytes() == OLD


def test_a_second_undo_writes_nothing(disk, folder):
    id_ = repaired(disk, folder)
    undone(folder, id_)
    before = disk.stat().st_mtime_ns
    outcome = undone(folder, id_)
    assert (outcome.reason, outcome.message) == (Reason.STALE, f"journal {id_} is undone already")
    assert disk.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "moved_on",
    [
        lambda data: data + b"x",
        lambda data: data[:-1],
        lambda data: data[:2100] + b"x" + data[2101:],
        lambda data: data[:1500] + b"x" + data[1501:],
        lambda data: OLD,
    ],
)
def test_a_disk_that_moved_on_is_not_put_back(disk, folder, moved_on):
    id_ = repaired(disk, folder, GROWN)
    data = moved_on(disk.read_bytes())
    disk.write_bytes(data)
    outcome = undone(folder, id_)
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert "moved on since the repair" in outcome.message
    assert disk.read_bytes() == data
    assert marks(folder) == [JournalState.VERIFIED]


def test_what_the_repair_did_not_touch_may_change(disk, folder):
    id_ = repaired(disk, folder)
    disk.write_bytes(b"guest" + NEW[5:])
    assert undone(folder, id_).status is Status.ROLLED_BACK
    assert disk.read_bytes() == b"guest" + OLD[5:]


def test_another_file_under_the_same_name_is_not_put_back(disk, folder):
    id_ = repaired(disk, folder)
    copy = disk.with_name("copy")
    copy.write_bytes(NEW)
    copy.rename(disk)
    outcome = undone(folder, id_)
    assert outcome.reason is Reason.STALE
    assert "is not the file that journal" in outcome.message
    assert disk.read_bytes() == NEW


def test_another_file_with_the_same_inode_number_is_not_put_back(folder):
    journal = replace(journal_of(OLD, (Write(0, b"x"),)), birth=5)
    entry = journal_store.mark(journal_store.create(folder, journal), JournalState.VERIFIED)
    image = MemoryImage(carried_out(OLD, (Write(0, b"x"),)))
    image.lineage = Lineage(birth=6)
    assert undo(entry, image, repair_context(folder)).reason is Reason.STALE


def test_a_device_is_put_back_without_truncating(folder):
    data = OLD + bytes(24)
    device = MemoryImage(data, path="/dev/dm-1", growable=False)
    done = apply(plan_for(data, (Write(512, b"F" * 512),)), device, repair_context(folder), GOOD)
    assert done.status is Status.REPAIRED
    outcome = undo(journal_store.load(folder, done.journal), device, repair_context(folder))
    assert outcome.status is Status.ROLLED_BACK
    assert bytes(device.data) == data


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (OpenGuard(own=BUSY), Reason.LOCKED),
        (OpenGuard(host=BUSY), Reason.LOCKED),
        (OpenGuard(objections=[IN_USE]), Reason.IN_USE),
    ],
)
def test_the_guards_of_a_repair_are_those_of_an_undo(disk, folder, guard, reason):
    id_ = repaired(disk, folder)
    outcome = undone(folder, id_, guard)
    assert (outcome.status, outcome.reason) == (Status.REFUSED, reason)
    assert (disk.read_bytes(), marks(folder)) == (NEW, [JournalState.VERIFIED])


def test_the_state_is_read_again_under_the_lock(disk, folder):
    id_ = repaired(disk, folder)
    entry = journal_store.load(folder, id_)
    undone(folder, id_)
    with open_target(entry.journal) as image:
        outcome = undo(entry, image, repair_context(folder))
    assert outcome.message == f"journal {id_} is undone already"


def test_a_journal_that_is_gone_is_a_failure(disk, folder):
    entry = journal_store.load(folder, repaired(disk, folder))
    os.unlink(entry.path)
    with open_target(entry.journal) as image:
        outcome = undo(entry, image, repair_context(folder))
    assert outcome.status is Status.FAILED
    assert "no journal" in outcome.message
    assert disk.read_bytes() == NEW


@pytest.mark.parametrize("name", ["pwrite", "ftruncate", "fsync", "rename"])
def test_an_undo_that_fails_can_be_run_again(disk, folder, monkeypatch, name):
    id_ = repaired(disk, folder)

    def fail(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, name, fail)
    outcome = undone(folder, id_)
    monkeypatch.undo()
    assert outcome.status is Status.FAILED
    assert outcome.message.endswith("the undo is not complete")
    assert lines(outcome.next) == (f"smfix undo {id_}",)
    assert undone(folder, id_).status is Status.ROLLED_BACK
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.UNDONE]


def test_the_target_is_opened_as_the_repair_opened_it(disk, folder):
    entry = journal_store.load(folder, repaired(disk, folder))
    os.rename(disk, disk.with_name("real"))
    disk.symlink_to("real")
    refusal = open_target(entry.journal)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNSAFE_PATH


# ------------------------------------------------------------------ undo of what is unfinished


@pytest.mark.parametrize("data", [OLD, NEW, NEW[:1000], NEW[:1024], NEW[:1100], OLD[:512] + NEW[512:]])
def test_undo_takes_an_interrupted_repair_too(disk, folder, data):
    disk.write_bytes(data)
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    assert undone(folder, PLAIN.id).status is Status.ROLLED_BACK
    assert (disk.read_bytes(), marks(folder)) == (OLD, [JournalState.ROLLED_BACK])
    assert undone(folder, PLAIN.id).message == f"journal {PLAIN.id} is rolled-back already"


def test_undo_closes_the_journal_of_a_disk_that_is_sound_again(disk, folder):
    """The image went on without the repair: there is no way back through it."""
    disk.write_bytes(b"x" * 1200)
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    entry = journal_store.load(folder, PLAIN.id)
    with open_target(entry.journal) as image:
        assert undo(entry, image, repair_context(folder), SOUND).reason is Reason.STALE
    assert (disk.read_bytes(), marks(folder)) == (b"x" * 1200, [JournalState.SUPERSEDED])
    assert undone(folder, PLAIN.id).reason is Reason.STALE


def test_undo_of_a_repair_that_is_complete_and_sound(disk, folder):
    disk.write_bytes(NEW)
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    entry = journal_store.load(folder, PLAIN.id)
    with open_target(entry.journal) as image:
        assert undo(entry, image, repair_context(folder, OpenGuard(objections=[IN_USE])), SOUND).reason is Reason.IN_USE
        assert marks(folder) == [JournalState.VERIFIED]
        assert undo(entry, image, repair_context(folder), SOUND).status is Status.ROLLED_BACK
    assert (disk.read_bytes(), marks(folder)) == (OLD, [JournalState.UNDONE])


def test_an_earlier_repair_is_not_undone_below_an_unfinished_one(disk, folder):
    first = repaired(disk, folder, (Write(0, b"first"),))
    left_unfinished(disk, folder, disk.read_bytes(), (Write(500, b"second"),), "29991122-221909-aaaaaa", year=2999)
    before = disk.read_bytes()
    outcome = undone(folder, first)
    assert (outcome.reason, lines(outcome.next)) == (Reason.STALE, ("smfix undo 29991122-221909-aaaaaa",))
    assert disk.read_bytes() == before


def test_an_interrupted_repair_of_a_disk_that_moved_on_is_stale(disk, folder):
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    data = b"x" * 1200
    disk.write_bytes(data)
    outcome = undone(folder, PLAIN.id)
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert disk.read_bytes() == data
    # The way on that it names works: the journal is out of the way, and a repair may be made.
    (command,) = lines(outcome.next)
    assert shlex.split(command)[0] == "mv"
    subprocess.run(shlex.split(command), check=True)
    assert journal_store.list_journals(folder) == ()
    repaired(disk, folder)


def test_an_unfinished_undo_ends_as_an_undo(folder):
    journal = replace(
        PLAIN, steps=(Change(0, b"old", b"new"), Resize(1536)), reach=Reach(0, digest=digest_of(MemoryImage(b""), ()))
    )
    entry = journal_store.mark(journal_store.create(folder, journal), JournalState.UNDOING)
    image = MemoryImage(b"new" + bytes(1200))
    assert undo(entry, image, repair_context(folder)).message.startswith("the repair was undone")
    assert bytes(image.data) == b"old" + bytes(997)
    assert marks(folder) == [JournalState.UNDONE]


# ------------------------------------------------------------------ what was written since

PLACED = (Placed(Extent(512, 400), Extent(0, 400)),)  # bytes that the repair does not write itself


def mapped_repair(disk: Path, folder: str, placed=PLACED) -> str:
    plan = plan_for(disk.read_bytes(), (Write(0, b"map"),))._replace(reachable=placed)
    with open_image(Target(str(disk), Backing.FILE), write=True) as image:
        return apply(plan, image, repair_context(folder), GOOD).journal


def test_what_the_repair_made_readable_must_be_what_it_was(disk, folder):
    id_ = mapped_repair(disk, folder)
    with disk.open("r+b") as file:
        file.seek(600)
        file.write(b"guest")
    before = disk.read_bytes()
    outcome = undone(folder, id_)
    assert (outcome.reason, disk.read_bytes()) == (Reason.STALE, before)
    assert "take along what was written since to guest bytes 0 to 399" in outcome.message
    assert lines(outcome.next) == (f"smfix undo {id_} --confirm UNDO-NEWER --yes",)
    agreed = undone(folder, id_, newer=True)
    assert agreed.status is Status.ROLLED_BACK
    assert "this took along what was written since to guest bytes 0 to 399" in agreed.message
    assert disk.read_bytes() == OLD[:600] + b"guest" + OLD[605:]


def test_what_was_readable_before_may_change(disk, folder):
    id_ = mapped_repair(disk, folder)
    with disk.open("r+b") as file:
        file.seek(950)
        file.write(b"guest")
    assert undone(folder, id_).status is Status.ROLLED_BACK


@pytest.fixture
def no_digest(monkeypatch):
    monkeypatch.setattr("smfix.repair.reach_digest.LIMIT", 100)


@pytest.mark.usefixtures("no_digest")
def test_of_what_is_too_large_to_read_the_files_time_tells(disk, folder):
    id_ = mapped_repair(disk, folder)
    kept = disk.stat().st_mtime_ns
    os.utime(disk, ns=(kept, kept + 1))
    outcome = undone(folder, id_)
    assert outcome.reason is Reason.STALE
    assert "guest bytes 0 to 399" in outcome.message
    os.utime(disk, ns=(kept, kept))
    assert undone(folder, id_).status is Status.ROLLED_BACK


@pytest.mark.usefixtures("no_digest")
@pytest.mark.parametrize("how", [os.unlink, lambda path: os.truncate(path, 50), lambda path: os.chmod(path, 0o666)])
def test_without_the_time_that_was_kept_it_is_stale(disk, folder, how):
    id_ = mapped_repair(disk, folder)
    how(f"{folder}/{id_}.mtime")
    assert undone(folder, id_).reason is Reason.STALE
    assert undone(folder, id_, newer=True).status is Status.ROLLED_BACK


@pytest.mark.usefixtures("no_digest")
def test_of_a_device_nothing_tells(folder):
    data = OLD + bytes(24)
    device = MemoryImage(data, path="/dev/dm-1", growable=False)
    done = apply(plan_for(data, (Write(0, b"map"),))._replace(reachable=PLACED), device, repair_context(folder), GOOD)
    entry = journal_store.load(folder, done.journal)
    assert undo(entry, device, repair_context(folder)).reason is Reason.STALE
    assert undo(entry, device, repair_context(folder), newer=True).status is Status.ROLLED_BACK
    assert bytes(device.data) == data


def test_of_a_device_the_digest_is_asked_again_under_the_locks(folder):
    data = OLD + bytes(24)
    device = MemoryImage(data, path="/dev/dm-1", growable=False)
    done = apply(plan_for(data, (Write(0, b"map"),))._replace(reachable=PLACED), device, repair_context(folder), GOOD)
    guard = OpenGuard()
    guard.on_host_lock = lambda: device.data.__setitem__(slice(600, 605), b"guest")
    assert undo(journal_store.load(folder, done.journal), device, repair_context(folder, guard)).reason is Reason.STALE
    assert bytes(device.data[:3]) == b"map"


def test_a_journal_that_does_not_keep_it_is_stale(disk, folder):
    disk.write_bytes(carried_out(OLD, (Write(0, b"map"),)))
    left_unfinished(disk, folder, OLD, (Write(0, b"map"),))
    entry = journal_store.load(folder, PLAIN.id)
    file = Path(entry.path)
    file.write_bytes(encode(replace(entry.journal, reach=None)))
    journal_store.mark(entry, JournalState.VERIFIED)
    outcome = undone(folder, PLAIN.id)
    assert outcome.reason is Reason.STALE
    assert "what was written to the disk since" in outcome.message
    assert undone(folder, PLAIN.id, newer=True).status is Status.ROLLED_BACK


def test_a_repair_that_does_not_verify_takes_nothing_newer_along(disk, folder):
    """Somebody wrote to the place that the repair gave the guest, between the writing and the judging."""

    def diagnose(view):
        with disk.open("r+b") as file:
            file.seek(600)
            file.write(b"guest")
        return (LOST,)

    plan = plan_for(OLD, (Write(0, b"map"),))._replace(reachable=PLACED)
    with open_image(Target(str(disk), Backing.FILE), write=True) as image:
        outcome = apply(plan, image, repair_context(folder), Verification(diagnose))
    assert outcome.status is Status.FAILED
    assert "something else has written to it since" in outcome.message
    assert disk.read_bytes()[:3] == b"map"
