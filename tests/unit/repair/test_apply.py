"""One repair, from the locks to the verdict, and every way it can go wrong in between."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_journal import PLAIN, carried_out, repairs

from memory_image import Killed, MemoryImage
from open_guard import OpenGuard
from recovering import recover, states, undo
from smfix.errors import Unreadable
from smfix.host.image_file import open_image
from smfix.host.statx import Lineage
from smfix.repair import apply as applying
from smfix.repair import journal_store
from smfix.repair.apply import RepairContext, Verification, apply, is_replaced, is_same_image, no_room
from smfix.repair.fingerprint import digest
from smfix.repair.journal import Change, JournalState, encode
from smfix.values import (
    Backing,
    Disposition,
    Extent,
    Finding,
    Fingerprint,
    NextStep,
    Reason,
    Refusal,
    RepairPlan,
    Resize,
    Severity,
    Status,
    StepKind,
    Target,
    Write,
)

OLD = bytes(range(1, 201)) * 5
EDITS = (Write(100, b"N" * 412), Write(1000, bytes(24)), Write(1024, b"F" * 512))
NEW = carried_out(OLD, EDITS)
LOST = Finding("VHD101", "footer lost", "The footer is lost.", Severity.ERROR, Disposition.SAFE)
PARENT = Finding("VHD501", "parent missing", "No parent.", Severity.ERROR, Disposition.REPORT, may_remain=True)
BUSY = Refusal(Reason.LOCKED, "another smfix is at it", ("again",))
IN_USE = Refusal(Reason.IN_USE, "a tapdisk holds it")
GOOD = Verification(lambda view: ())


def plan_for(data: bytes, edits=EDITS, **other) -> RepairPlan:
    pinned = Fingerprint(len(data), ((Extent(0, len(data)), digest(data)),))
    made = RepairPlan(tuple(edits), (LOST,), (), (Extent(0, 512),), None, pinned)
    return made._replace(**other)


@pytest.fixture
def disk(tmp_path) -> Path:
    path = tmp_path / "sr" / "disk.vhd"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


@pytest.fixture
def image(disk):
    with open_image(Target(str(disk), Backing.FILE), sr_root=str(disk.parent), write=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "journal")


def repair_context(folder: str, guard: OpenGuard | None = None) -> RepairContext:
    return RepairContext(folder, guard or OpenGuard(), lambda id_: NextStep(StepKind.UNDO, (id_,)))


def marks(folder: str) -> list[JournalState]:
    return [entry.mark for entry in journal_store.list_journals(folder)]


# ------------------------------------------------------------------ the good way


def test_a_repair_is_written_verified_and_recorded(disk, image, folder):
    guard = OpenGuard()
    outcome = apply(
        plan_for(OLD), image, repair_context(folder, guard), GOOD, sr_root="/sr", command=("smfix", "repair")
    )
    assert outcome.status is Status.REPAIRED
    assert outcome.message == "repaired and verified"
    assert outcome.lost_sectors == 1
    assert outcome.remaining == ()
    assert disk.read_bytes() == NEW
    (entry,) = journal_store.list_journals(folder)
    assert (entry.id, entry.mark) == (outcome.journal, JournalState.VERIFIED)
    assert outcome.undo == NextStep(StepKind.UNDO, (entry.id,))
    journal = entry.journal
    assert (journal.old_size, journal.new_size) == (len(OLD), len(NEW))
    assert (journal.device, journal.inode) == (disk.stat().st_dev, disk.stat().st_ino)
    assert (journal.sr_root, journal.command) == ("/sr", ("smfix", "repair"))
    assert journal.fixes == (("VHD101", "The footer is lost."),)
    assert journal.lost == (Extent(0, 512),)
    assert guard.said == ["own", "host", "look", "host released", "own released"]


def test_the_journal_is_durable_before_the_first_byte(image, folder, monkeypatch):
    seen = []
    write = type(image).write

    def spy(self, offset, data):
        seen.append((marks(folder), self.read(Extent(0, 2000)) == OLD))
        write(self, offset, data)

    monkeypatch.setattr(type(image), "write", spy)
    apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert seen[0] == ([JournalState.UNFINISHED], True)
    assert len(seen) == 3


def test_verification_sees_a_fresh_open_after_the_host_locks(image, folder):
    guard = OpenGuard()
    seen = []

    def diagnose(view):
        seen.append((view is image, view.read(Extent(0, 2000)), list(guard.said)))
        return ()

    apply(plan_for(OLD), image, repair_context(folder, guard), Verification(diagnose))
    assert seen == [(False, NEW, ["own", "host", "look", "host released"])]


def test_what_was_foreseen_may_remain_and_is_said(image, folder):
    asked = []
    judge = Verification(lambda view: (PARENT,), lambda: asked.append(1) or "parent not found")
    outcome = apply(plan_for(OLD, remaining=(PARENT,)), image, repair_context(folder), judge)
    assert outcome.status is Status.PARTLY_REPAIRED
    assert outcome.remaining == (PARENT,)
    assert not asked, "what is left explains any complaint of vhd-util"


@pytest.mark.parametrize(("code", "status"), [("VHD402", Status.REPAIRED), ("VHD304", Status.PARTLY_REPAIRED)])
def test_of_the_warnings_that_are_left_only_a_known_orphan_makes_it_partly(image, folder, code, status):
    warning = PARENT._replace(code=code, severity=Severity.WARNING)
    outcome = apply(plan_for(OLD), image, repair_context(folder), Verification(lambda view: (warning,)))
    assert (outcome.status, outcome.remaining) == (status, (warning,))
    assert ("data without a BAT entry is left" in outcome.message) == (code == "VHD304")


def test_a_relative_path_is_kept_absolute(disk, folder, monkeypatch):
    monkeypatch.chdir(disk.parent)
    with open_image(Target("disk.vhd", Backing.FILE), write=True) as opened:
        apply(plan_for(OLD), opened, repair_context(folder), GOOD)
    (entry,) = journal_store.list_journals(folder)
    assert entry.journal.target.path == str(disk)


@pytest.mark.parametrize("wrong", [{"edits": ()}, {"refusal": BUSY}])
def test_a_plan_that_writes_nothing_is_not_applied(image, folder, wrong):
    with pytest.raises(ValueError, match="writes nothing"):
        apply(plan_for(OLD, **wrong), image, repair_context(folder), GOOD)


# ------------------------------------------------------------------ refused: nothing is written


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (OpenGuard(own=BUSY), ["own", "own released"]),
        (OpenGuard(host=BUSY), ["own", "host", "host released", "own released"]),
        (OpenGuard(objections=[BUSY]), ["own", "host", "look", "host released", "own released"]),
    ],
)
def test_a_refusal_of_the_guard(disk, image, folder, guard, said):
    outcome = apply(plan_for(OLD), image, repair_context(folder, guard), GOOD)
    assert (outcome.status, outcome.reason, outcome.next) == (Status.REFUSED, Reason.LOCKED, ("again",))
    assert outcome.remaining == (LOST,)
    assert guard.said == said
    assert disk.read_bytes() == OLD
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    "guard", [OpenGuard(own=Unreadable("no such lock")), OpenGuard(objections=[Unreadable("no such lock")])]
)
def test_a_lock_or_a_look_that_fails_is_a_failure(disk, image, folder, guard):
    outcome = apply(plan_for(OLD), image, repair_context(folder, guard), GOOD)
    assert outcome.status is Status.FAILED
    assert outcome.message == "no such lock; nothing was written to the image"
    assert disk.read_bytes() == OLD


def test_a_disk_that_changed_meanwhile_is_stale(disk, image, folder):
    guard = OpenGuard()
    guard.on_host_lock = lambda: disk.write_bytes(b"x" + OLD[1:])
    outcome = apply(plan_for(OLD), image, repair_context(folder, guard), GOOD)
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert disk.read_bytes() == b"x" + OLD[1:]
    assert not os.path.exists(folder)


def test_an_interrupted_repair_of_this_image_comes_first(disk, image, folder):
    journal = replace(PLAIN, target=image.target, device=image.identity.device, inode=image.identity.inode)
    journal_store.create(folder, journal)
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert (outcome.reason, outcome.next) == (Reason.STALE, (NextStep(StepKind.UNDO, (PLAIN.id,)),))
    assert disk.read_bytes() == OLD


def test_a_damaged_journal_and_one_of_another_image_stop_nobody(image, folder):
    journal_store.create(folder, replace(PLAIN, inode=image.identity.inode + 1))
    other = journal_store.create(folder, replace(PLAIN, id="20251122-221904-aaaaaa"))
    Path(other.path).write_bytes(encode(PLAIN)[:-1])
    assert apply(plan_for(OLD), image, repair_context(folder), GOOD).status is Status.REPAIRED


# ------------------------------------------------------------------ failed before the first byte


@pytest.mark.parametrize("kind", ["others may write there", "Not a directory"])
def test_a_folder_that_cannot_take_the_journal(disk, image, folder, kind):
    if kind == "Not a directory":
        Path(folder).write_bytes(b"")
    else:
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert kind in outcome.message
    assert outcome.message.endswith("nothing was written to the image")
    assert disk.read_bytes() == OLD


def test_no_space_for_the_growth(disk, image, folder, monkeypatch):
    monkeypatch.setattr(type(image), "free_space", lambda self: 535)
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith("no space: the image grows by 536 bytes, its file system has 535 free")
    assert disk.read_bytes() == OLD
    monkeypatch.setattr(type(image), "free_space", lambda self: 536)
    assert no_room(image, plan_for(OLD), folder) is None


def test_no_space_for_the_journal(image, folder, monkeypatch):
    monkeypatch.setattr(journal_store, "room_for", lambda where, need: f"{need} bytes are needed")
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith("no space for the undo journal: 68064 bytes are needed")


def test_a_device_needs_room_for_the_journal_only(folder):
    assert no_room(MemoryImage(bytes(1024), growable=False), plan_for(OLD, (Write(512, b"x"),)), folder) is None


def test_a_plan_that_changes_nothing_is_not_applied(image, folder):
    with pytest.raises(ValueError, match="change nothing"):
        apply(plan_for(OLD, (Write(0, OLD[:9]),)), image, repair_context(folder), GOOD)
    assert not os.path.exists(folder)


def test_a_shrinking_edit_never_gets_a_journal(disk, image, folder):
    with pytest.raises(ValueError, match="impossible"):
        apply(plan_for(OLD, (Resize(10),)), image, repair_context(folder), GOOD)
    assert disk.read_bytes() == OLD
    assert not os.path.exists(folder)


# ------------------------------------------------------------------ failed in the middle


def failing_call(monkeypatch, name: str, at: int) -> None:
    """The call number `at` (from 0) of `os.<name>` fails with EIO, the others do not."""
    real = getattr(os, name)
    calls = iter(range(1 << 30))

    def call(*args, **kwargs):
        if next(calls) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


# fsync: 0 journal folder's parent, 1 journal, 2 journal folder, 3 image.
@pytest.mark.parametrize(("name", "at"), [("pwrite", 0), ("pwrite", 1), ("pwrite", 2), ("ftruncate", 0), ("fsync", 3)])
def test_an_error_in_the_middle_rolls_back(disk, image, folder, monkeypatch, name, at):
    failing_call(monkeypatch, name, at)
    edits = (EDITS[0], Resize(1024), EDITS[2], Write(1000, b"P" * 24))
    outcome = apply(plan_for(OLD, edits), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert "Input/output error" in outcome.message
    assert outcome.message.endswith("; the image was put back as it was")
    assert outcome.undo is None
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.ROLLED_BACK]


def test_bytes_that_read_back_differently_are_an_error(image, folder, monkeypatch):
    write = type(image).write
    monkeypatch.setattr(type(image), "write", lambda self, at, data: write(self, at, data.replace(b"N", b"M")))
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert "does not read back what was written" in outcome.message
    # These bytes are nobody's that the journal knows, so nothing is put over them.
    assert "something else has written to it since" in outcome.message
    assert marks(folder) == [JournalState.UNFINISHED]


def test_a_roll_back_that_fails_says_how_to_recover(disk, image, folder, monkeypatch):
    real = os.pwrite
    calls = iter(range(9))

    def pwrite(fd, data, at):
        if next(calls) >= 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert "putting it back failed" in outcome.message
    assert outcome.next == (outcome.undo,) == (NextStep(StepKind.UNDO, (outcome.journal,)),)
    assert marks(folder) == [JournalState.UNFINISHED]
    monkeypatch.undo()
    assert states(recover(image, repair_context(folder))) == [("rolled-back", True)]
    assert disk.read_bytes().startswith(OLD)


def test_an_interrupt_in_the_middle_rolls_back_and_goes_on(disk, image, folder, monkeypatch):
    def sync(self):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(type(image), "sync", sync)
    with pytest.raises(KeyboardInterrupt):
        apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.ROLLED_BACK]


def test_what_reads_back_differently_after_a_restore_is_an_error(image, folder, monkeypatch):
    entry = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    journal = journal_store.load(folder, entry.journal).journal
    monkeypatch.setattr(type(image), "resize", lambda self, size: None)
    with pytest.raises(applying.WriteFailed, match="does not read back what was put back"):
        applying.restore(image, journal)


# ------------------------------------------------------------------ it does not verify


def raising(error: BaseException):
    def diagnose(view):
        raise error

    return diagnose


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (Verification(lambda view: (LOST,)), "the repaired image shows VHD101: The footer is lost."),
        (Verification(lambda view: (PARENT, PARENT)), "the repaired image shows VHD501: No parent."),
        (Verification(raising(Unreadable("cannot read it"))), "cannot read it"),
        (Verification(lambda view: (), lambda: "vhd-util check: primary footer invalid"), "vhd-util check: primary"),
    ],
)
def test_what_does_not_verify_is_rolled_back(disk, image, folder, judge, why):
    guard = OpenGuard()
    outcome = apply(plan_for(OLD, remaining=(PARENT,)), image, repair_context(folder, guard), judge)
    assert outcome.status is Status.ROLLED_BACK
    assert outcome.message.startswith(why)
    assert outcome.remaining == (LOST, PARENT)
    assert outcome.undo is None
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.ROLLED_BACK]
    assert guard.said == ["own", *["host", "look", "host released"] * 2, "own released"]


def test_a_fresh_open_that_is_refused_does_not_verify(disk, image, folder, monkeypatch):
    monkeypatch.setattr(type(image), "reopen", lambda self: Refusal(Reason.STALE, "another file is there"))
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert (outcome.status, disk.read_bytes()) == (Status.ROLLED_BACK, OLD)
    assert outcome.message.startswith("another file is there")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), IndexError("a bug")])
def test_whatever_ends_the_verification_the_image_is_put_back(disk, image, folder, error):
    with pytest.raises(type(error)):
        apply(plan_for(OLD), image, repair_context(folder), Verification(raising(error)))
    assert disk.read_bytes() == OLD
    assert marks(folder) == [JournalState.ROLLED_BACK]


@pytest.mark.parametrize("second", [IN_USE, Unreadable("a tapdisk holds it")])
def test_a_disk_taken_into_use_is_not_rolled_back(disk, image, folder, second):
    guard = OpenGuard(objections=[None, second])
    outcome = apply(plan_for(OLD), image, repair_context(folder, guard), Verification(lambda view: (LOST,)))
    assert outcome.status is Status.FAILED
    assert "it could not be put back: a tapdisk holds it" in outcome.message
    assert outcome.next == (NextStep(StepKind.UNDO, (outcome.journal,)),)
    assert disk.read_bytes() == NEW
    assert marks(folder) == [JournalState.UNFINISHED]


def test_a_disk_written_to_meanwhile_is_not_rolled_back(disk, image, folder):
    def diagnose(view):
        disk.write_bytes(NEW[:-1] + b"x")
        return (LOST,)

    outcome = apply(plan_for(OLD), image, repair_context(folder), Verification(diagnose))
    assert outcome.status is Status.FAILED
    assert "something else has written to it since" in outcome.message
    assert disk.read_bytes() == NEW[:-1] + b"x"


def test_a_repair_that_cannot_be_recorded_says_so(disk, image, folder, monkeypatch):
    failing_call(monkeypatch, "rename", 1)
    outcome = apply(plan_for(OLD), image, repair_context(folder), GOOD)
    assert outcome.status is Status.FAILED
    assert outcome.message.startswith("repaired and verified, but that could not be recorded: ")
    assert (disk.read_bytes(), marks(folder)) == (NEW, [JournalState.UNFINISHED])


# ------------------------------------------------------------------ which image a journal is of


def test_which_image_a_journal_is_of():
    image = MemoryImage(OLD, path="/sr/disk.vhd")  # device 1, inode 2
    assert is_same_image(PLAIN, image)
    assert is_same_image(replace(PLAIN, device=9), image), "a network file system has another number after a reboot"
    assert not is_same_image(replace(PLAIN, device=9, target=Target("/sr/other.vhd", Backing.FILE)), image)
    assert not is_same_image(replace(PLAIN, inode=3), image)
    device = MemoryImage(bytes(1000), path="/dev/b", growable=False)  # rdev 7
    block = replace(
        PLAIN, new_size=1000, steps=(Change(0, b"o", b"n"),), target=Target("/dev/a", Backing.BLOCK), rdev=7, inode=99
    )
    assert is_same_image(block, device), "the node of a device is made anew at each activation"
    assert not is_same_image(replace(block, rdev=8), device)
    assert not is_same_image(block, image)
    assert not is_same_image(PLAIN, device)


def test_a_file_is_known_by_its_birth_whatever_its_device_is_called():
    image = MemoryImage(OLD, path="/sr/renamed.vhd")
    image.lineage = Lineage(birth=5)
    moved = replace(PLAIN, device=9, birth=5)
    assert is_same_image(moved, image), "renamed, on a file system with another number after a reboot"
    assert not is_replaced(moved, image)
    assert not is_same_image(replace(moved, birth=6), image)
    assert not is_same_image(replace(moved, birth=None), image), "nothing tells that it is the same"
    assert is_replaced(replace(PLAIN, birth=6), image), "a later file that was given the same inode number"
    assert is_replaced(replace(PLAIN, birth=5, generation=3), replace_lineage(image, Lineage(5, 4)))
    assert not is_replaced(PLAIN, image)


def replace_lineage(image: MemoryImage, lineage: Lineage) -> MemoryImage:
    image.lineage = lineage
    return image


# ------------------------------------------------------------------ killed at any sector


@given(repairs(), st.integers(0, 16), st.integers(0, 16))
@settings(max_examples=150)
def test_killed_at_any_sector_the_next_run_brings_it_back(repair, lives, second):
    """Even when the next run is killed too."""
    data, edits = repair
    with tempfile.TemporaryDirectory() as folder:
        image = MemoryImage(data)
        image.lives = lives
        try:
            outcome = apply(plan_for(data, edits), image, repair_context(folder), GOOD)
        except Killed:
            image.lives = second
            try:
                settled = recover(image, repair_context(folder))
            except Killed:
                image.lives = None
                settled = recover(image, repair_context(folder))
            assert settled.outcome is None
            (one,) = settled.done
            assert one.state in ("applied", "rolled-back")
            old = carried_out(data, edits) if one.state == "applied" else data
            assert bytes(image.data[: len(old)]) == old, "old bytes or new ones, never shorter"
            assert not recover(image, repair_context(folder)).done
        else:
            assert outcome.status is Status.REPAIRED
            assert bytes(image.data) == carried_out(data, edits)


@given(repairs(), st.integers(0, 16))
@settings(max_examples=150)
def test_apply_then_undo_is_nothing_even_when_the_undo_is_killed(repair, lives):
    data, edits = repair
    with tempfile.TemporaryDirectory() as folder:
        image = MemoryImage(data)
        done = apply(plan_for(data, edits), image, repair_context(folder), GOOD)
        assert done.status is Status.REPAIRED
        image.lives = lives
        try:
            undo(journal_store.load(folder, done.journal), image, repair_context(folder))
        except Killed:
            image.lives = None
            again = undo(journal_store.load(folder, done.journal), image, repair_context(folder))
            assert again.status is Status.ROLLED_BACK
        assert bytes(image.data) == data
        assert marks(folder) == [JournalState.UNDONE]


@given(repairs(), st.integers(0, 12))
@settings(max_examples=100)
def test_an_error_at_any_call_leaves_the_image_as_it_was(repair, fail_at):
    data, edits = repair
    with tempfile.TemporaryDirectory() as folder:
        image = MemoryImage(data)
        image.fail_at = fail_at
        outcome = apply(plan_for(data, edits), image, repair_context(folder), GOOD)
        expected = carried_out(data, edits) if outcome.status is Status.REPAIRED else data
        assert bytes(image.data) == expected
        assert marks(folder)[0] in (JournalState.VERIFIED, JournalState.ROLLED_BACK)
