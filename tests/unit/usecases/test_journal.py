"""`smfix journal prune`: asked for, told, and never what is still needed."""

from __future__ import annotations

import errno
import io
import json
import os
import re

import pytest
from test_cli_undo import repaired

from smfix.repair import journal_store
from smfix.repair.journal import JournalState
from world import BASE, OTHER, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def actions(run):
    return {entry["id"]: (entry["action"], entry["reason"]) for entry in run.json["journals"]}


def files(world):
    return sorted(os.listdir(world.journals))


def test_the_disk_use_is_shown(world):
    _, _, name = repaired(world)
    size = (world.journals / f"{name}.verified").stat().st_size
    document = world.run("journal", "--json").json
    assert (document["bytes"], document["journals"][0]["bytes"]) == (size, size)
    assert f"1 journal, {size:,} bytes. More:" in world.run("journal").out
    assert f"   takes    {size:,} bytes\n" in world.run("journal", name).out


def test_a_dry_run_says_what_would_go(world):
    _, _, name = repaired(world)
    for words in ([], ["--dry-run"], ["--json"], ["-n", "--json"]):
        run = world.run("journal", "prune", "--older-than", "0s", *words)
        assert run.code == 0
        assert "would-prune" in run.out
        assert f"smfix journal prune --older-than 0s --yes --journal-dir {world.journals}" in run.out + run.err
    assert files(world) == [f"{name}.verified"]


def test_old_ones_go_and_young_ones_stay(world):
    _, _, name = repaired(world)
    run = world.run("journal", "prune", "--older-than", "1d", "--yes", "--json")
    assert (run.code, actions(run)) == (0, {name: ("kept", "young")})
    run = world.run("journal", "prune", "--older-than", "0s", "--yes", "--json")
    assert (run.code, actions(run)) == (0, {name: ("pruned", None)})
    assert run.json["bytes"]["pruned"] == run.json["journals"][0]["bytes"] > 0
    assert files(world) == []
    run = world.run("journal", "prune", "--older-than", "0s", "--yes")
    assert (run.code, run.out) == (0, f"No journal in {world.journals} (--journal-dir names another).\n")


def test_an_interrupted_repair_stays_and_is_told_why(world):
    _, _, first = repaired(world)
    _, _, second = repaired(world, OTHER)
    journal_store.mark(journal_store.load(str(world.journals), second), JournalState.UNFINISHED)
    run = world.run("journal", "prune", "--older-than", "0s", "--yes")
    assert run.code == 0
    told = " ".join(run.out.split())
    assert f"{first} verified pruned" in told
    assert f"{second} unfinished kept why its repair or undo was interrupted" in told
    assert re.search(r"1 journal deleted, [\d,]+ bytes; 1 journal kept, [\d,]+ bytes\.", told)
    assert files(world) == [f"{second}.unfinished"]


def test_the_way_back_over_two_repairs_stays_whole(world):
    path, _before, first = repaired(world)
    with path.open("r+b") as file:  # hit a second time
        file.seek(-512, os.SEEK_END)
        file.write(b"y" * 512)
    second = world.run("repair", path, "--yes", "--json").json["images"][0]["outcome"]["journal"]
    aged(world, first, days=100)
    run = world.run("journal", "prune", "--older-than", "90d", "--yes", "--json")
    assert actions(run) == {first: ("kept", "needed"), second: ("kept", "young")}


def aged(world, name: str, days: int) -> None:
    """Its repair was so many days ago."""
    from dataclasses import replace
    from datetime import timedelta
    from pathlib import Path

    from smfix.repair.journal import encode

    entry = journal_store.load(str(world.journals), name)
    journal = replace(entry.journal, created=entry.journal.created - timedelta(days=days))
    Path(entry.path).write_bytes(encode(journal))


def test_what_cannot_be_removed_is_said(world, monkeypatch):
    _, _, name = repaired(world)

    def refuse(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("os.unlink", refuse)
    run = world.run("journal", "prune", "--older-than", "0s", "--yes", "--json")
    assert (run.code, actions(run)) == (8, {name: ("failed", None)})
    assert "Read-only" in run.json["journals"][0]["message"]


def test_an_undo_that_began_meanwhile_keeps_its_journal(world, monkeypatch):
    _, _, name = repaired(world)
    real = journal_store.forget

    def late(entry):
        journal_store.mark(entry, JournalState.UNDOING)
        real(entry)

    monkeypatch.setattr("smfix.repair.journal_store.forget", late)
    run = world.run("journal", "prune", "--older-than", "0s", "--yes", "--json")
    assert (run.code, actions(run)) == (8, {name: ("failed", None)})
    assert files(world) == [f"{name}.undoing"]


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("said", "is_left"), [("y\n", False), ("yes\n", False), ("n\n", True), ("\n", True), ("", True)]
)
def test_a_person_is_asked(world, monkeypatch, said, is_left):
    _, _, name = repaired(world)
    monkeypatch.setattr("sys.stdin", Terminal(said))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run = world.run("journal", "prune", "--older-than", "0s")
    assert run.code == 0
    assert f"{name}  verified" in run.out
    assert "cannot be undone afterwards" in " ".join(run.out.split())
    assert "Delete them? [" in run.err
    assert bool(files(world)) is is_left


@pytest.mark.parametrize("text", ["", "soon", "-1d", "90", "1y", "1234567d", "9 9d"])
def test_what_is_no_age(world, text):
    run = world.run("journal", "prune", f"--older-than={text}", "--yes")
    assert (run.code, run.out) == (16, "")
    assert "not an age" in run.err


@pytest.mark.parametrize(
    "words", [["prune"], ["prune", "--older-than", "999999w", "-n"], ["--older-than", "1d"], ["-n"], [BASE, "--yes"]]
)
def test_words_that_cannot_be_meant_together(world, words):
    run = world.run("journal", *words)
    assert (run.code, run.out) == (16, "")
    assert len(run.err.splitlines()) == 1


def test_both_ways_in_json(world):
    run = world.run("journal", "prune", "--older-than", "0s", "--yes", "--dry-run", "--json")
    assert (run.code, json.loads(run.out)["schema"]) == (16, "smfix.error/1")
