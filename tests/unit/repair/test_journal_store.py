"""The folder of journals: durable before anything else, private, and never trusted further than it proves."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from test_journal import PLAIN

from smfix.errors import JournalDamaged, Unreadable, UsageError, WriteFailed
from smfix.repair import journal_store as folder
from smfix.repair.journal import MAX_BYTES, JournalState, encode
from smfix.repair.journal_store import DamagedEntry, JournalEntry

OTHER = replace(PLAIN, id="20251122-221904-aaaaaa")


@pytest.fixture
def place(tmp_path) -> str:
    return str(tmp_path / "state" / "journal")


def failing(name: str, at: int, code: int = errno.EIO):
    """`os.<name>` that fails at its call number `at`."""
    real = getattr(os, name)
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls - 1 == at:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return call


def test_a_journal_lies_private_in_a_private_folder(place):
    entry = folder.create(place, PLAIN)
    assert entry == JournalEntry(PLAIN.id, JournalState.UNFINISHED, f"{place}/{PLAIN.id}.unfinished", PLAIN)
    assert os.listdir(place) == [f"{PLAIN.id}.unfinished"]
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.dirname(place)).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(entry.path).st_mode) == 0o600
    assert Path(entry.path).read_bytes() == encode(PLAIN)


def test_it_is_durable_before_create_returns(place, monkeypatch):
    """Order: content, file, name, folder - and no fsync of a folder before its file's."""
    said: list[str] = []
    for name in ("write", "fsync", "rename"):
        real = getattr(os, name)

        def call(*args, _real=real, _name=name, **kwargs):
            is_folder = _name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            said.append(f"{_name} folder" if is_folder else _name)
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)
    folder.create(place, PLAIN)
    assert said == ["fsync folder", "fsync folder", "write", "fsync", "rename", "fsync folder"]
    said.clear()
    folder.mark(folder.load(place, PLAIN.id), JournalState.VERIFIED)
    assert said == ["rename", "fsync folder"]


def test_list_and_load(place):
    assert folder.list_journals(place) == ()
    assert folder.open_journals(place) == ()
    second, first = folder.create(place, OTHER), folder.create(place, PLAIN)
    assert folder.list_journals(place) == (first, second)
    verified = folder.mark(first, JournalState.VERIFIED)
    assert verified.journal is PLAIN
    assert folder.open_journals(place) == (second,)
    undoing = folder.mark(verified, JournalState.UNDOING)
    assert folder.open_journals(place) == (undoing, second)
    assert folder.load(place, "20251122-221903") == undoing
    assert folder.load(place, OTHER.id) == second


@pytest.mark.parametrize(("prefix", "why"), [("20251122", "ambiguous"), ("2024", "no journal"), ("", "no journal")])
def test_a_prefix_is_resolved_never_guessed(place, prefix, why):
    folder.create(place, OTHER)
    folder.create(place, PLAIN)
    with pytest.raises(UsageError, match=why):
        folder.load(place, prefix)


def test_no_folder_is_no_journal(place):
    with pytest.raises(UsageError, match="no journal"):
        folder.load(place, PLAIN.id)


def test_a_damaged_file_is_listed_as_such_and_never_loaded(place):
    path = folder.create(place, PLAIN).path
    data = bytearray(Path(path).read_bytes())
    data[-9] ^= 1
    Path(path).write_bytes(data)
    (entry,) = folder.list_journals(place)
    assert isinstance(entry, DamagedEntry)
    assert "checksum" in entry.damage
    with pytest.raises(JournalDamaged, match=r"checksum.*nothing was written"):
        folder.load(place, PLAIN.id)


def test_a_journal_under_another_name_is_damaged(place):
    path = folder.create(place, PLAIN).path
    os.rename(path, f"{place}/{OTHER.id}.verified")
    with pytest.raises(JournalDamaged, match="not the one it was given"):
        folder.load(place, OTHER.id)


def test_a_file_too_large_is_not_read(place):
    path = folder.create(place, PLAIN).path
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(JournalDamaged, match="more than any journal"):
        folder.load(place, PLAIN.id)


def test_a_fifo_does_not_stop_us(place):
    folder.create(place, OTHER)
    os.mkfifo(f"{place}/{PLAIN.id}.unfinished")
    with pytest.raises(JournalDamaged, match="not a file"):
        folder.load(place, PLAIN.id)


def test_a_symbolic_link_is_not_followed(place, tmp_path):
    path = folder.create(place, PLAIN).path
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(Unreadable, match="symbolic links"):
        folder.load(place, PLAIN.id)


def test_what_is_not_a_journal_is_passed_over(place):
    folder.create(place, PLAIN)
    for name in ("README", f"{OTHER.id}.unfinished.set-aside", f"{OTHER.id}.txt", f"{OTHER.id}.new", "x.verified"):
        open(f"{place}/{name}", "w").close()
    assert [entry.id for entry in folder.list_journals(place)] == [PLAIN.id]


def test_a_folder_others_write_to_proves_nothing(place):
    folder.create(place, PLAIN)
    os.chmod(place, 0o770)
    for ask in (folder.list_journals, folder.open_journals):
        with pytest.raises(Unreadable, match="others may write there"):
            ask(place)
    with pytest.raises(WriteFailed, match="others may write there"):
        folder.create(place, OTHER)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_others_write_to_proves_nothing(place, mode):
    """Its checksum is no secret: whoever may write it can make it name any disk and any bytes."""
    os.chmod(folder.create(place, PLAIN).path, mode)
    (entry,) = folder.list_journals(place)
    assert isinstance(entry, DamagedEntry)
    assert entry.damage == "others may write to it, so it proves nothing"
    with pytest.raises(JournalDamaged, match="others may write"):
        folder.load(place, PLAIN.id)


@pytest.mark.root
def test_a_folder_of_somebody_else_proves_nothing(place):
    folder.create(place, PLAIN)
    os.chown(place, 65534, 65534)
    with pytest.raises(Unreadable, match="others may write there"):
        folder.load(place, PLAIN.id)


def test_the_folder_may_not_be_a_file(tmp_path):
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(WriteFailed, match="Not a directory"):
        folder.create(str(tmp_path / "journal"), PLAIN)
    with pytest.raises(Unreadable, match="Not a directory"):
        folder.list_journals(str(tmp_path / "journal"))


def test_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="Not a directory"):
        folder.create(str(tmp_path / "file" / "journal"), PLAIN)


def test_the_same_id_twice_is_refused(place):
    folder.mark(folder.create(place, PLAIN), JournalState.UNDONE)
    with pytest.raises(WriteFailed, match="already"):
        folder.create(place, PLAIN)


def test_a_journal_larger_than_we_read_is_not_written(place, monkeypatch):
    monkeypatch.setattr(folder, "MAX_BYTES", 100)
    with pytest.raises(WriteFailed, match="more than 100"):
        folder.create(place, PLAIN)
    assert not os.path.lexists(place)


@pytest.mark.parametrize(
    ("name", "at"), [("open", 0), ("write", 0), ("fsync", 0), ("fsync", 1), ("rename", 0), ("listdir", 0)]
)
def test_where_it_cannot_be_made_durable_nothing_stays(place, monkeypatch, name, at):
    os.makedirs(place, 0o700)
    monkeypatch.setattr(os, name, failing(name, at, errno.ENOSPC))
    with pytest.raises(WriteFailed, match="No space left on device"):
        folder.create(place, PLAIN)
    monkeypatch.undo()
    assert os.listdir(place) == []


@pytest.mark.parametrize(("name", "now"), [("rename", "unfinished"), ("fsync", "verified")])
def test_a_mark_that_fails_leaves_one_of_both_names(place, monkeypatch, name, now):
    entry = folder.create(place, PLAIN)
    monkeypatch.setattr(os, name, failing(name, 0))
    with pytest.raises(WriteFailed, match="Input/output error"):
        folder.mark(entry, JournalState.VERIFIED)
    assert os.listdir(place) == [f"{PLAIN.id}.{now}"]


def test_a_mark_in_a_folder_that_is_gone(place):
    entry = folder.create(place, PLAIN)
    os.rename(place, place + "2")
    with pytest.raises(WriteFailed, match="No such file"):
        folder.mark(entry, JournalState.VERIFIED)


def test_short_writes_are_completed(place, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda at, data: real(at, bytes(data)[:100]))
    folder.create(place, PLAIN)
    monkeypatch.undo()
    assert folder.load(place, PLAIN.id).journal == PLAIN


def test_what_a_killed_smfix_left_goes_after_a_day(place):
    folder.create(place, PLAIN)
    fresh, old, foreign = ".smfix-00.part", ".smfix-01.part", "notes.new"
    earlier = "20251121-000000-bbbbbb.new"  # as versions before named it
    for name in (fresh, old, foreign, earlier):
        open(f"{place}/{name}", "w").close()
    for name in (old, foreign, earlier):
        os.utime(f"{place}/{name}", (1, 1))
    folder.create(place, replace(PLAIN, id="20251122-221905-cccccc"))
    assert not {old, earlier} & set(os.listdir(place))
    assert {fresh, foreign} <= set(os.listdir(place))


def test_room(place, monkeypatch):
    assert folder.room_for(place, 1) is None
    assert "are needed below" in (folder.room_for(place, 1 << 62) or "")
    real = os.statvfs("/")

    class NoCount:
        f_blocks = f_bavail = 0
        f_frsize = real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda path: NoCount)
    assert folder.room_for(place, 1 << 62) is None
    monkeypatch.setattr(os, "statvfs", failing("statvfs", 0))
    with pytest.raises(Unreadable, match="Input/output error"):
        folder.room_for(place, 1)


# ------------------------------------------------------------------ the time kept beside a journal


def test_the_time_is_kept_beside_the_journal_and_goes_with_it(place):
    entry = folder.create(place, PLAIN)
    content = Path(entry.path).read_bytes()
    assert folder.kept_mtime(entry) is None
    folder.keep_mtime(entry, 123)
    folder.keep_mtime(entry, 1 << 60)
    entry = folder.mark(entry, JournalState.VERIFIED)
    assert folder.kept_mtime(entry) == 1 << 60
    assert Path(entry.path).read_bytes() == content
    assert [one.id for one in folder.list_journals(place)] == [PLAIN.id]
    folder.forget(entry)
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw.replace(b"123", b"124"), lambda raw: raw + b"x"]
)
def test_a_time_that_does_not_verify_is_none(place, damage):
    entry = folder.create(place, PLAIN)
    folder.keep_mtime(entry, 123)
    file = Path(place, f"{PLAIN.id}.mtime")
    raw = file.read_bytes()
    file.write_bytes(damage(raw))
    assert folder.kept_mtime(entry) is None
    another = Path(place, f"{entry.id[:-1]}0.mtime")
    another.write_bytes(raw)
    another.chmod(0o600)
    assert folder.kept_mtime(replace(entry, id=f"{entry.id[:-1]}0")) is None, "another journal's"
