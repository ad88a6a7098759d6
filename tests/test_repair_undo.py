"""The way back: byte for byte, and only while the disk is what the repair left."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from memory_image import MemoryImage
from open_guard import OpenGuard
from smfix.errors import Unreadable
from smfix.model import Backing, Reason, Refusal, Resize, Status, Target, Write
from smfix.repair import journal_folder
from smfix.repair.apply import apply
from smfix.repair.journal import Change, Mark
from smfix.repair.undo import interrupted, open_target, recover, undo
from test_repair_apply import BUSY, GOOD, IN_USE, NEW, OLD, carried_out, marks, means, plan_for
from test_repair_journal import PLAIN, journal_of

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
    from smfix.host.storage import open_image

    plan = plan_for(disk.read_bytes(), edits) if edits else plan_for(disk.read_bytes())
    with open_image(target, sr_root=str(disk.parent), write=True) as image:
        outcome = apply(plan, image, means(folder), GOOD, sr_root=str(disk.parent))
    assert outcome.status is Status.REPAIRED
    return outcome.journal


def left_unfinished(disk: Path, folder: str, data: bytes, edits, id_: str = PLAIN.id) -> None:
    """A journal of a repair of `data` that was killed; the disk holds what it holds."""
    status = disk.stat()
    journal = replace(
        journal_of(data, edits),
        id=id_,
        target=Target(str(disk), Backing.FILE),
        sr_root=str(disk.parent),
        device=status.st_dev,
        inode=status.st_ino,
    )
    journal_folder.create(folder, journal)


def undone(folder: str, id_: str, guard: OpenGuard | None = None):
    entry = journal_folder.load(folder, id_)
    with open_target(entry.journal) as image:
        return undo(entry, image, means(folder, guard))


# ------------------------------------------------------------------ undo


def test_undo_gives_back_every_byte_and_the_size(disk, folder):
    id_ = repaired(disk, folder)
    assert disk.read_bytes() == NEW
    guard = OpenGuard()
    outcome = undone(folder, id_, guard)
    assert (outcome.status, outcome.journal) == (Status.ROLLED_BACK, id_)
    assert outcome.message == "the repair was undone: the image is as it was before"
    assert disk.read_bytes() == OLD
    assert marks(folder) == [Mark.UNDONE]
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
    assert marks(folder) == [Mark.VERIFIED]


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


def test_a_verified_repair_asks_for_the_very_device(folder):
    """The same inode number below another file system is another file."""
    journal = replace(journal_of(OLD, (Write(0, b"x"),)), device=9)
    entry = journal_folder.mark(journal_folder.create(folder, journal), Mark.VERIFIED)
    image = MemoryImage(carried_out(OLD, (Write(0, b"x"),)))
    assert undo(entry, image, means(folder)).reason is Reason.STALE


def test_a_device_is_put_back_without_truncating(folder):
    data = OLD + bytes(24)
    device = MemoryImage(data, path="/dev/dm-1", growable=False)
    done = apply(plan_for(data, (Write(512, b"F" * 512),)), device, means(folder), GOOD)
    assert done.status is Status.REPAIRED
    outcome = undo(journal_folder.load(folder, done.journal), device, means(folder))
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
    assert (disk.read_bytes(), marks(folder)) == (NEW, [Mark.VERIFIED])


def test_the_state_is_read_again_under_the_lock(disk, folder):
    id_ = repaired(disk, folder)
    entry = journal_folder.load(folder, id_)
    undone(folder, id_)
    with open_target(entry.journal) as image:
        outcome = undo(entry, image, means(folder))
    assert outcome.message == f"journal {id_} is undone already"


def test_a_journal_that_is_gone_is_a_failure(disk, folder):
    entry = journal_folder.load(folder, repaired(disk, folder))
    os.unlink(entry.path)
    with open_target(entry.journal) as image:
        outcome = undo(entry, image, means(folder))
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
    assert outcome.next == (f"smfix undo {id_}",)
    assert undone(folder, id_).status is Status.ROLLED_BACK
    assert disk.read_bytes() == OLD
    assert marks(folder) == [Mark.UNDONE]


def test_the_target_is_opened_as_the_repair_opened_it(disk, folder):
    entry = journal_folder.load(folder, repaired(disk, folder))
    os.rename(disk, disk.with_name("real"))
    disk.symlink_to("real")
    refusal = open_target(entry.journal)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNSAFE_PATH


# ------------------------------------------------------------------ recovery


@pytest.mark.parametrize("data", [OLD, NEW, NEW[:1000], NEW[:1024], NEW[:1100], OLD[:512] + NEW[512:]])
def test_an_interrupted_repair_is_put_back(disk, folder, data):
    disk.write_bytes(data)
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    before = disk.stat().st_mtime_ns
    with open_target(journal_folder.load(folder, PLAIN.id).journal) as image:
        assert [entry.id for entry in interrupted(folder, image)] == [PLAIN.id]
        (outcome,) = recover(image, means(folder))
        assert recover(image, means(folder)) == ()
    assert outcome.status is Status.ROLLED_BACK
    assert outcome.message.startswith("an interrupted repair was put back")
    assert disk.read_bytes() == OLD
    assert marks(folder) == [Mark.ROLLED_BACK]
    if data == OLD:
        assert disk.stat().st_mtime_ns == before, "what is as before is not written"


def test_undo_takes_an_interrupted_repair_too(disk, folder):
    disk.write_bytes(NEW[:1024])
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    assert undone(folder, PLAIN.id).status is Status.ROLLED_BACK
    assert (disk.read_bytes(), marks(folder)) == (OLD, [Mark.ROLLED_BACK])
    assert undone(folder, PLAIN.id).message == f"journal {PLAIN.id} is rolled-back already"


def test_an_interrupted_repair_of_a_disk_that_moved_on_is_stale(disk, folder):
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    data = b"x" * 1200
    disk.write_bytes(data)
    outcome = undone(folder, PLAIN.id)
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert disk.read_bytes() == data
    # The way on that it names works: the journal is out of the way, and a repair may be made.
    (command,) = outcome.next
    assert shlex.split(command)[0] == "mv"
    subprocess.run(shlex.split(command), check=True)
    assert journal_folder.list_journals(folder) == ()
    repaired(disk, folder)


def test_recovery_begins_with_the_newest_and_stops_where_it_fails(disk, folder):
    left_unfinished(disk, folder, OLD, (Write(0, b"first"),))
    left_unfinished(disk, folder, OLD, (Write(3, b"second"),), "20251122-221909-aaaaaa")
    left_unfinished(disk, folder, OLD, (Write(3, b"damaged"),), "20251122-221909-bbbbbb")
    os.truncate(f"{folder}/20251122-221909-bbbbbb.unfinished", 200)
    disk.write_bytes(b"fi?" + OLD[3:])
    with open_target(journal_folder.load(folder, PLAIN.id).journal) as image:
        assert [entry.id[-6:] for entry in interrupted(folder, image)] == ["aaaaaa", PLAIN.id[-6:]]
        outcomes = recover(image, means(folder))
        assert [outcome.status for outcome in outcomes] == [Status.ROLLED_BACK, Status.REFUSED]
        disk.write_bytes(OLD)
        (outcome,) = recover(image, means(folder, OpenGuard(objections=[IN_USE])))
        assert outcome.reason is Reason.IN_USE


def test_a_folder_that_proves_nothing_is_an_error(disk, folder):
    left_unfinished(disk, folder, OLD, plan_for(OLD).edits)
    journal = journal_folder.load(folder, PLAIN.id).journal
    os.chmod(folder, 0o777)
    with open_target(journal) as image, pytest.raises(Unreadable, match="others may write there"):
        recover(image, means(folder))


def test_an_unfinished_undo_ends_as_an_undo(folder):
    journal = replace(PLAIN, steps=(Change(0, b"old", b"new"), Resize(1536)))
    entry = journal_folder.mark(journal_folder.create(folder, journal), Mark.UNDOING)
    image = MemoryImage(b"new" + bytes(1200))
    assert undo(entry, image, means(folder)).message.startswith("the repair was undone")
    assert bytes(image.data) == b"old" + bytes(997)
    assert marks(folder) == [Mark.UNDONE]
