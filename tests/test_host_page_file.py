"""A page takes the place of an earlier page or of nothing, whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from smfix.errors import UsageError, WriteFailed
from smfix.host import page_file

PAGE = b"<!DOCTYPE html> ours"


def ready(path) -> None:
    page_file.ready(str(path), lambda head: head.startswith(PAGE[:10]), 10)


def test_a_new_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "report.html"
    ready(path)
    page_file.save(str(path), PAGE)
    assert path.read_bytes() == PAGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_relative_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ready("report.html")
    page_file.save("report.html", PAGE)
    assert (tmp_path / "report.html").read_bytes() == PAGE


@pytest.mark.parametrize("before", [b"", PAGE])
def test_an_earlier_page_and_an_empty_file_are_replaced(tmp_path, before):
    path = tmp_path / "report.html"
    path.write_bytes(before)
    ready(path)
    page_file.save(str(path), b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"conectix"), "is not a page of smfix"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("elsewhere.html"), "symbolic link"),
    ],
)
def test_anything_else_stays_what_it_is(tmp_path, make, says):
    path = tmp_path / "report.html"
    make(path)
    with pytest.raises(UsageError, match=says):
        ready(path)


@pytest.mark.parametrize("name", ["disk.vhd", "DISK.VHD", "disk.qcow2", "sub/", ".", "..", "a\0b"])
def test_names_that_cannot_be_meant(tmp_path, name):
    with pytest.raises(UsageError, match="--html"):
        page_file.ready(f"{tmp_path}/{name}", bool, 1)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WriteFailed, match="is not a folder"):
        ready(tmp_path / "missing" / "report.html")
    with pytest.raises(WriteFailed, match="missing"):
        page_file.save(str(tmp_path / "missing" / "report.html"), PAGE)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="Not a directory"):
        ready(tmp_path / "file" / "report.html")


def test_a_folder_that_takes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WriteFailed, match="no permission"):
        ready(tmp_path / "report.html")


def test_an_earlier_page_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WriteFailed, match="Permission denied"):
        ready(path)


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "report.html"
    path.write_bytes(PAGE)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteFailed, match="No space left"):
        page_file.save(str(path), b"new")
    monkeypatch.undo()
    assert path.read_bytes() == PAGE
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_link_that_was_put_there_meanwhile_is_not_followed(tmp_path):
    precious = tmp_path / "disk"
    precious.write_bytes(b"conectix")
    path = tmp_path / "report.html"
    ready(path)
    path.symlink_to(precious)
    page_file.save(str(path), PAGE)
    assert precious.read_bytes() == b"conectix"
    assert not path.is_symlink()
    assert path.read_bytes() == PAGE
