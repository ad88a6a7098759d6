"""``-v`` and ``--debug``: every command says on stderr why it decided as it did, and stdout stays as it is."""

from __future__ import annotations

import os

import pytest

from smfix.values import Log
from world import BASE, failed, make_world

NO_SR = "00000000-1111-2222-3333-444444444444"


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def test_why_this_image_and_these_rows(world):
    path = world.damaged()
    world.smlog(failed())
    plain = world.run("from-log", world.log, "--json")
    told = world.run("from-log", world.log, "--json", "--debug")
    assert (plain.err.count("smfix: usecases."), told.json, told.code) == (0, plain.json, plain.code)
    assert f"located by its path in the log: ['{path}']" in told.err or f"['{path}']" in told.err
    for words in (f"disk {BASE}", "asked ", "hit ['VHD101'", "plan: ", "looked at", "held by"):
        assert words in told.err, words
    assert Log.write is None


def test_a_target_and_a_refusal(world):
    path = world.damaged()
    run = world.run("check", path, "-v")
    assert f"smfix: usecases.resolve: TARGET {path}: ['{path}']" in run.err
    assert "looked at" not in run.err
    run = world.run("check", f"{NO_SR}/00000000", "-v")
    assert f"TARGET {NO_SR}/00000000: not found; looked at " in run.err


def test_locks_that_were_waited_for(world):
    world.damaged()
    world.smlog(failed())
    locks = world.folder / "locks"
    locks.mkdir()
    run = world.run("from-log", world.log, "--yes", "--debug", "--sm-lock-dir", locks)
    assert run.code == 1
    taken = [line for line in run.err.splitlines() if line.startswith("smfix: sm.locks: lock ")]
    assert [line.split()[3].rpartition("/")[2].rstrip(",") for line in taken[:3]] == ["running", "sr", "vdi"]
    assert all(line.endswith(": taken") for line in taken)


def test_a_service_of_systemd_logs_by_itself(world, monkeypatch):
    about = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
    world.damaged()
    world.smlog(failed())
    seen = []
    monkeypatch.setattr("smfix.follow.commands.follow", lambda *_: seen.append(Log.write) or 0)
    assert world.run("from-log", "--follow", world.log).code == 0
    assert seen[0] is not None
    assert world.run("from-log", world.log).err.count("<6>") == 0
