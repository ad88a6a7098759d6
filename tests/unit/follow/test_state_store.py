"""A follower's state: all or nothing on disk, held by one, read bounded."""

from __future__ import annotations

import os

import pytest

from smfix.errors import Unreadable, WriteFailed
from smfix.follow import state_store
from smfix.follow.state import FollowerState
from smfix.follow.state_format import StateDamaged
from smfix.follow.state_store import AlreadyFollowed, StateFile, read_state, state_files

ONE, TWO = (FollowerState("/var/log/SMlog", number=number) for number in (1, 2))


def test_it_is_saved_and_loaded(tmp_path):
    state = StateFile(str(tmp_path / "state"), "/var/log/SMlog")
    state.hold()
    assert state.load() is None
    state.save(ONE)
    state.save(TWO)
    assert state.load() == TWO
    assert state_files(state.folder) == [state.path]
    assert os.stat(state.path).st_mode & 0o777 == 0o600
    assert os.stat(state.folder).st_mode & 0o777 == 0o700
    state.release()
    state.release()


def test_one_follower_holds_a_log(tmp_path):
    first, second = (StateFile(str(tmp_path), "/log") for _ in range(2))
    assert not second.is_held()
    first.hold()
    assert second.is_held()
    with pytest.raises(AlreadyFollowed):
        second.hold()
    StateFile(str(tmp_path), "/other").hold()
    first.release()
    assert not second.is_held()
    second.hold()
    second.release()


def test_what_is_no_state_of_smfix_is_not_replaced(tmp_path):
    state = StateFile(str(tmp_path), "/log")
    with open(state.path, "wb") as file:
        file.write(b"conectix, and the rest of a disk")
    with pytest.raises(WriteFailed, match="not a follower's state"):
        state.save(ONE)
    with pytest.raises(StateDamaged):
        state.load()
    with open(state.path, "rb") as file:
        assert file.read() == b"conectix, and the rest of a disk"


def test_a_fifo_in_the_folder_holds_nobody_up(tmp_path):
    """Somebody else may own the folder; a reader or a writer of a FIFO waits for the other end."""
    state = StateFile(str(tmp_path), "/log")
    os.mkfifo(state.path)
    os.mkfifo(f"{state.path}.new")
    lock = state.path.replace(".json", ".lock")
    os.mkfifo(lock)
    assert not state.is_held()
    with pytest.raises(Unreadable, match="not a regular file"):
        state.load()
    with pytest.raises(WriteFailed, match="not a regular file"):
        state.save(ONE)
    with pytest.raises(WriteFailed, match="not a regular file|Invalid argument"):
        state.hold()


def test_what_must_not_be_read_is_said(tmp_path, monkeypatch):
    assert read_state(str(tmp_path / "none")) is None
    assert state_files(str(tmp_path / "none")) == []
    with pytest.raises(Unreadable):
        read_state(str(tmp_path))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(Unreadable):
        state_files(str(tmp_path / "file"))
    monkeypatch.setattr(state_store, "MOST_BYTES", 0)
    with pytest.raises(Unreadable, match="larger than any"):
        read_state(str(tmp_path / "file"))


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(WriteFailed, match="--state-dir"):
        StateFile(str(tmp_path / "file"), "/log").hold()
    with pytest.raises(WriteFailed):
        StateFile(str(tmp_path), "/log").set_aside()
