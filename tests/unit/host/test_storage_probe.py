"""Which storage answers; what hangs for real is in test_hanging_storage.py."""

from __future__ import annotations

import os

import pytest

from smfix.errors import UsageError
from smfix.host import statx, storage_probe
from smfix.host.statx import file_id


def test_everything_that_is_there_or_not_answers(tmp_path):
    (tmp_path / "b.vhd").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo.vhd")
    os.mkfifo(tmp_path / "empty" / "a.vhd")
    places = [tmp_path, tmp_path / "b.vhd", tmp_path / "empty", tmp_path / "fifo.vhd", tmp_path / "none", "/dev/null"]
    assert storage_probe.silent(map(str, places * 30)) == frozenset()


def test_a_child_that_does_not_come_back_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv(storage_probe.PATIENCE, "0.2")
    read, write = os.pipe()
    monkeypatch.setattr(storage_probe, "_touch", lambda path: os.read(read, 1) if path == "dead" else None)
    monkeypatch.setattr(storage_probe, "_MOST_OPEN", 1)  # the pipe stays open in the child
    assert storage_probe.silent(["alive", "dead", "alive"]) == {"dead"}
    os.close(read)
    os.close(write)
    (left,) = storage_probe._LEFT
    os.waitid(os.P_PID, left, os.WEXITED | os.WNOWAIT)  # it is over, and nobody has taken note
    assert storage_probe.silent([]) == frozenset()
    assert not storage_probe._LEFT
    with pytest.raises(ChildProcessError):
        os.waitpid(left, os.WNOHANG)


def test_a_volume_that_has_just_answered_is_not_asked_again(tmp_path, monkeypatch):
    """Each question is a process. What had no node has not been asked anything yet: it may be activated meanwhile."""
    monkeypatch.setattr(storage_probe, "_HEARD", {})
    asked, sent = [], storage_probe._start_child
    monkeypatch.setattr(storage_probe, "_start_child", lambda ask: asked.append(ask.args[0]) or sent(ask))
    there, asleep = str(tmp_path / "there"), str(tmp_path / "asleep")
    (tmp_path / "there").write_bytes(b"x")
    for _ in range(3):
        assert storage_probe.silent_devices((there, asleep)) == frozenset()
        assert not any(map(storage_probe.is_silent, (there, asleep)))
    assert asked == [there, *[asleep] * 6]
    assert storage_probe.silent([there]) == frozenset()
    assert asked.count(there) == 2, "asked for by itself"
    monkeypatch.setattr(storage_probe, "_MEMORY", 0.0)
    assert not storage_probe.is_silent(there)
    assert asked.count(there) == 3, "an answer of long ago"


@pytest.mark.parametrize("given", ["x", "0", "-1", "nan", "1e9"])
def test_a_patience_that_is_none(monkeypatch, given):
    monkeypatch.setenv(storage_probe.PATIENCE, given)
    with pytest.raises(UsageError, match="SMFIX_PATIENCE=.*not a number of seconds"):
        storage_probe.patience()


@pytest.mark.parametrize("has_statx", [True, False])
def test_a_file_is_known_as_stat_knows_it(tmp_path, monkeypatch, has_statx):
    if not has_statx:
        monkeypatch.setattr(statx, "_statx", lambda: None)
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path, tmp_path / "link", "/proc/self/fd/0", "/dev"):
        about = os.stat(path)
        assert file_id(str(path)) == (about.st_mode, about.st_dev, about.st_ino, about.st_rdev)
    with pytest.raises(FileNotFoundError):
        file_id(str(tmp_path / "none"))


def test_if_no_process_can_be_made_this_one_asks(tmp_path, monkeypatch):
    def no_process():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(storage_probe.os, "fork", no_process)
    assert storage_probe.silent([str(tmp_path), str(tmp_path / "missing")]) == frozenset()
