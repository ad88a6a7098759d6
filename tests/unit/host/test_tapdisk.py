"""host.tapdisks and what usage makes of them: a paused disk is open nowhere, and in use all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smfix.errors import Unreadable
from smfix.host import tapdisk
from smfix.host.image_file import Identity
from smfix.host.open_files import open_state
from smfix.host.tapdisk import Tapdisk, parse
from smfix.values import InUse


def test_lines_as_tap_ctl_prints_them():
    text = (
        "pid=1234 minor=0 state=0 args=vhd:/run/sr-mount/sr/a.vhd\n"
        "pid=5 minor=1 state=0x2a args=aio:/dev/VG_XenStorage-x/LV y\n"
        "minor=2 state=0\n"
        "args=vhd:/b.vhd\n"
        "\n"
    )
    assert parse(text) == (
        Tapdisk(1234, False, "/run/sr-mount/sr/a.vhd"),
        Tapdisk(5, True, "/dev/VG_XenStorage-x/LV y"),
        Tapdisk(None, False, "/b.vhd"),
    )


@pytest.mark.parametrize("text", ["pid=x", "error: no tapdisks", "pid=1 args=vhd:relative", "pid=1 minor=0 state=zz"])
def test_what_is_not_its_own(text):
    with pytest.raises(Unreadable, match="tap-ctl list printed what cannot be understood"):
        parse(text)


@pytest.fixture
def tap_ctl(tmp_path, monkeypatch):
    """A stub that prints what it is told to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answer = tmp_path / "answer"
    stub = folder / "tap-ctl"
    stub.write_text(f'#!/bin/sh\n[ "$1" = list ] || exit 2\n. {answer}\n')
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answer.write_text("")
    return answer


@pytest.fixture
def disk(tmp_path) -> Path:
    path = tmp_path / "a disk.vhd"
    path.write_bytes(b"vhd")
    return path


def used(path: Path, tmp_path: Path):
    about = path.stat()
    (tmp_path / "proc" / "1").mkdir(parents=True, exist_ok=True)
    identity = Identity(about.st_dev, about.st_ino, None, about.st_size, str(path))
    return open_state(identity, proc=str(tmp_path / "proc"), sys=str(tmp_path))


def test_a_paused_tapdisk_holds_its_disk(tap_ctl, disk, tmp_path):
    assert used(disk, tmp_path).state is InUse.NONE
    link = tmp_path / "run"
    link.symlink_to(tmp_path)
    tap_ctl.write_text(f"echo 'pid=77 minor=3 state=0x20 args=vhd:{link}/{disk.name}'\n")
    seen = used(disk, tmp_path)
    assert (seen.state, seen.holders) == (InUse.READ_WRITE, ("paused tapdisk (pid 77) read-write",))
    tap_ctl.write_text(f"echo 'state=0 args=vhd:{disk}'; echo 'args=vhd:/gone.vhd'\n")
    assert used(disk, tmp_path).holders == ("tapdisk read-write",)


def test_one_that_is_seen_with_a_descriptor_is_what_it_is_seen_as(tap_ctl, disk, tmp_path):
    base = tmp_path / "proc" / "77"
    (base / "fd").mkdir(parents=True)
    (base / "fdinfo").mkdir()
    (base / "fd" / "4").symlink_to(disk)
    (base / "fdinfo" / "4").write_text("flags:\t0100000\n")
    (base / "comm").write_text("tapdisk\n")
    tap_ctl.write_text(f"echo 'pid=77 minor=3 state=0 args=vhd:{disk}'\n")
    seen = used(disk, tmp_path)
    assert (seen.state, seen.holders) == (InUse.READ_ONLY, ("tapdisk (pid 77) read-only",))


@pytest.mark.parametrize("answer", ["exit 3", "echo rubbish", "sleep 5"])
def test_tapdisks_that_do_not_answer_are_not_seen(tap_ctl, disk, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(tapdisk, "TIME_LIMIT", 0.3)
    tap_ctl.write_text(answer + "\n")
    seen = used(disk, tmp_path)
    assert seen.state is InUse.UNKNOWN
    assert "the tapdisks (tap-ctl" in seen.blind


def test_its_sockets_are_roots(tap_ctl, monkeypatch):
    tap_ctl.write_text("exit 3\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert tapdisk.listed() == ()
