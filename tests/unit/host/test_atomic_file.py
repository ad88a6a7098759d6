"""A file that smfix makes takes the place of an earlier one of its kind or of nothing, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat

import pytest

from smfix.errors import UsageError, WriteFailed
from smfix.host import atomic_file
from smfix.host.atomic_file import FileKind

MARK = b"# ours"
PAGE = MARK + b", and more"
KIND = FileKind("a page of smfix", lambda head: head.startswith(MARK), option="--html", example="report.html")


def check(path) -> None:
    atomic_file.check(str(path), KIND)


def replace(path, data=PAGE) -> None:
    atomic_file.replace(str(path), data, KIND)


def test_a_new_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "report.html"
    check(path)
    replace(path)
    assert path.read_bytes() == PAGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_mode_of_its_own_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        atomic_file.replace(str(tmp_path / "x"), PAGE, KIND._replace(mode=0o644))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_a_relative_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check("report.html")
    replace("report.html")
    assert (tmp_path / "report.html").read_bytes() == PAGE


def test_a_name_of_any_length(tmp_path):
    replace(tmp_path / ("\u00e9" * 127))
    assert os.listdir(tmp_path) == ["\u00e9" * 127]


def test_a_raw_disk_whose_guest_wrote_our_mark_stays_what_it_is(tmp_path):
    path = tmp_path / "disk"
    disk = PAGE.ljust(8 * atomic_file.SECTOR, b"x")
    path.write_bytes(disk)
    with pytest.raises(UsageError, match="whole sectors long, as a disk is"):
        check(path)
    with pytest.raises(WriteFailed, match="whole sectors long, as a disk is"):
        replace(path)
    assert path.read_bytes() == disk


def test_a_file_of_ours_is_never_whole_sectors_long(tmp_path):
    path = tmp_path / "report.html"
    for _ in range(2):
        check(path)
        replace(path, PAGE.ljust(2 * atomic_file.SECTOR))
    assert path.read_bytes() == PAGE.ljust(2 * atomic_file.SECTOR) + b"\n"


def test_an_earlier_file_is_replaced(tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)
    check(path)
    replace(path, b"new")
    assert path.read_bytes() == b"new"


def _link(path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.write_bytes(PAGE)
    path.symlink_to(elsewhere)


def _hard_link(path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.write_bytes(PAGE)
    path.hardlink_to(elsewhere)


OBSTACLES = [
    (lambda path: path.write_bytes(b"conectix"), "is not a page of smfix"),
    (lambda path: path.write_bytes(b""), "remove it first"),
    (lambda path: path.mkdir(), "not a regular file"),
    (os.mkfifo, "not a regular file"),
    (_link, "symbolic link"),
    (lambda path: path.symlink_to("nowhere"), "symbolic link"),
    (_hard_link, "hard links"),
]


def _state(folder) -> dict[str, tuple[int, int, bytes | None]]:
    """Each name's inode, type and bytes."""
    found = {}
    for name in os.listdir(folder):
        about = os.lstat(folder / name)
        data = (folder / name).read_bytes() if stat.S_ISREG(about.st_mode) else None
        found[name] = (about.st_ino, stat.S_IFMT(about.st_mode), data)
    return found


@pytest.mark.parametrize(("make", "says"), OBSTACLES)
def test_anything_else_stays_what_it_is(tmp_path, make, says):
    path = tmp_path / "report.html"
    make(path)
    before = _state(tmp_path)
    with pytest.raises(UsageError, match=says):
        check(path)
    with pytest.raises(WriteFailed, match=says):
        replace(path)
    assert _state(tmp_path) == before


@pytest.mark.parametrize(("make", "says"), OBSTACLES)
def test_what_is_put_there_while_the_draft_is_written_stays_what_it_is(tmp_path, monkeypatch, make, says):
    """The folder may belong to somebody who waits for the moment."""
    path = tmp_path / "report.html"
    check(path)
    fsync = os.fsync
    before = []

    def swap(descriptor):
        if not before:
            make(path)
            before.append({name: what for name, what in _state(tmp_path).items() if not atomic_file.is_draft(name)})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", swap)
    with pytest.raises(WriteFailed, match=says):
        replace(path)
    assert [_state(tmp_path)] == before


def test_a_folder_that_is_swapped_for_a_link_is_not_left(tmp_path, monkeypatch):
    """What is renamed is in the folder that was opened, wherever that is by now."""
    folder, precious = tmp_path / "folder", tmp_path / "precious"
    folder.mkdir()
    precious.mkdir()
    (precious / "report.html").write_bytes(PAGE + b", and precious")
    fsync = os.fsync

    def swap(descriptor):
        if folder.is_dir() and not folder.is_symlink():
            folder.rename(tmp_path / "moved")
            folder.symlink_to(precious)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", swap)
    replace(folder / "report.html")
    assert (precious / "report.html").read_bytes() == PAGE + b", and precious"
    assert (tmp_path / "moved" / "report.html").read_bytes() == PAGE


@pytest.mark.parametrize("make", [os.mkfifo, _link, _hard_link, lambda path: path.mkdir()])
def test_what_waits_beside_it_under_a_drafts_name_is_not_touched(tmp_path, monkeypatch, make):
    monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda _bytes: "guessed")
    make(tmp_path / ".smfix-guessed.part")
    before = _state(tmp_path)
    with pytest.raises(WriteFailed, match="File exists"):
        replace(tmp_path / "report.html")
    assert _state(tmp_path) == before


def test_a_file_swapped_between_two_looks_is_not_taken(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)
    real_open = os.open

    def swap(name, *args, **options):
        if name == "report.html":
            path.rename(tmp_path / "old")
            path.write_bytes(PAGE)
        return real_open(name, *args, **options)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(UsageError, match="replaced while it was looked at"):
        check(path)


@pytest.mark.parametrize("name", ["disk.vhd", "DISK.VHD", "disk.qcow2", "d.raw", "d.img", "sub/", ".", "..", "a\0b"])
def test_names_that_cannot_be_meant(tmp_path, name):
    with pytest.raises(UsageError, match="--html"):
        check(f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    for attempt in (check, replace):
        with pytest.raises(WriteFailed, match=r"missing.*No such file"):
            attempt(tmp_path / "missing" / "report.html")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="is not a folder"):
        check(tmp_path / "file" / "report.html")


def test_a_folder_that_takes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(WriteFailed, match="no permission"):
        check(tmp_path / "report.html")


def test_an_earlier_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)
    real_open = os.open

    def refuse(name, *args, **options):
        if name == "report.html":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(name, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WriteFailed, match="Permission denied"):
        check(path)


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteFailed, match="No space left"):
        replace(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == PAGE
    assert os.listdir(tmp_path) == ["report.html"]


def test_an_interrupt_leaves_no_draft(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(tmp_path / "report.html")
    assert os.listdir(tmp_path) == []


def test_it_is_durable_before_and_after_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for call in ("fsync", "rename"):
        real = getattr(os, call)
        monkeypatch.setattr(
            os, call, lambda *args, call=call, real=real, **more: (done.append(call), real(*args, **more))
        )
    replace(tmp_path / "report.html")
    assert done == ["fsync", "rename", "fsync"]


def test_every_refusal_is_one_line(tmp_path):
    path = tmp_path / "a\nb"
    path.write_bytes(b"conectix")
    with pytest.raises(UsageError) as refused:
        check(path)
    assert re.sub(re.escape(str(path)), "", str(refused.value)).count("\n") == 0
