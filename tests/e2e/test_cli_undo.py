"""`journal`, `undo` and what an interrupted repair leaves."""

from __future__ import annotations

import os

import pytest

from smfix.repair import journal_store
from smfix.repair.journal import JournalState
from world import BASE, OTHER, SR, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def repaired(world, vdi=BASE):
    """(path, the damaged bytes, the journal's id)"""
    path = world.damaged(vdi)
    before = path.read_bytes()
    run = world.run("repair", path, "--yes", "--json")
    return path, before, run.json["images"][0]["outcome"]["journal"]


def test_no_journal(world):
    assert world.run("journal").out == f"No journal in {world.journals} (--journal-dir names another).\n"
    assert world.run("journal", "--json").json["journals"] == []


def test_journals_are_listed_and_shown(world):
    path, before, first = repaired(world)
    _, _, second = repaired(world, OTHER)
    run = world.run("journal", "--json")
    assert run.code == 0
    assert {entry["id"] for entry in run.json["journals"]} == {first, second}
    listed = world.run("journal").out
    assert f"{first}  verified" in listed
    assert "2 journals, " in listed
    (entry,) = world.run("journal", first, "--json").json["journals"]
    assert (entry["path"], entry["vdi"], entry["sr"]) == (str(path), BASE, SR)
    assert (entry["old_size"], entry["new_size"]) == (len(before), path.stat().st_size)
    assert [edit["op"] for edit in entry["edits"]] == ["write"]
    assert entry["fixes"][0]["code"] == "VHD101"
    assert entry["undo"] == f"smfix undo {first} --journal-dir {world.journals}"
    assert f"   path     {path}\n" in world.run("journal", first).out


def test_a_journal_that_is_not_there(world):
    for command in ("journal", "undo"):
        run = world.run(command, "20990101", *(["--yes"] if command == "undo" else []))
        assert (run.code, run.out) == (16, "")
        assert "no journal '20990101'" in run.err


def test_a_damaged_journal_is_said_and_not_replayed(world):
    path, _, name = repaired(world)
    after = path.read_bytes()
    file = world.journals / f"{name}.verified"
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 1
    file.chmod(0o600)
    file.write_bytes(raw)
    (entry,) = world.run("journal", "--json").json["journals"]
    assert "checksum" in entry["damage"]
    assert "damaged" in world.run("journal").out
    run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["schema"]) == (8, "smfix.error/1")
    assert path.read_bytes() == after


# --------------------------------------------------------------------------- undo


def test_undo_gives_every_byte_back(world):
    path, before, name = repaired(world)
    run = world.run("undo", name[:10], "--yes", "--json")
    assert run.code == 0
    document = run.json
    assert (document["id"], document["path"], document["outcome"]["status"]) == (name, str(path), "rolled-back")
    assert path.read_bytes() == before
    (entry,) = world.run("journal", "--json").json["journals"]
    assert (entry["state"], entry["undo"]) == ("undone", None)


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_a_dry_run_of_undo_changes_nothing(world, how):
    path, _, name = repaired(world)
    after = path.read_bytes()
    run = world.run("undo", name, "--json", *how)
    assert run.code == 4
    outcome = run.json["outcome"]
    assert outcome["status"] == "would-repair"
    assert outcome["next"] == [f"smfix undo {name} --yes --journal-dir {world.journals}"]
    assert path.read_bytes() == after


def test_undo_twice_is_stale(world):
    path, before, name = repaired(world)
    assert world.run("undo", name, "--yes").code == 0
    run = world.run("undo", name, "--yes")
    assert run.code == 4
    assert "refused (stale)" in run.out
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["edited bytes", "longer", "shorter", "another file", "gone"])
@pytest.mark.parametrize("how", ["--yes", "--dry-run"])
def test_a_disk_that_has_moved_on_is_not_put_back(world, change, how):
    path, _, name = repaired(world)
    raw = path.read_bytes()
    if change == "edited bytes":
        with open(path, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"new")
    elif change == "longer":
        with open(path, "ab") as file:
            file.write(bytes(512))
    elif change == "shorter":
        os.truncate(path, len(raw) - 1)
    elif change == "another file":
        path.rename(world.folder / "aside.vhd")
        path.write_bytes(raw)
    else:
        path.unlink()
    before = path.read_bytes() if path.exists() else None
    run = world.run("undo", name, how, "--json")
    if change == "gone":
        assert (run.code, run.json["schema"]) == (8, "smfix.error/1")
        return
    assert run.code == 4
    assert run.json["outcome"]["reason"] == "stale"
    assert path.read_bytes() == before


def test_a_disk_in_use_is_not_put_back(world):
    path, _, name = repaired(world)
    after = path.read_bytes()
    with world.holding(path):
        run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["outcome"]["reason"]) == (4, "in-use")
    assert path.read_bytes() == after


# --------------------------------------------------------------------------- interrupted repairs


def interrupted(world):
    """A repair that was killed before it was called verified: (path, the damaged bytes, the journal's id)."""
    path, before, name = repaired(world)
    entry = journal_store.load(str(world.journals), name)
    journal_store.mark(entry, JournalState.UNFINISHED)
    return path, before, name


def test_a_dry_run_leaves_an_interrupted_repair_and_says_so(world):
    path, _, name = interrupted(world)
    os.truncate(path, path.stat().st_size - 100)
    half = path.read_bytes()
    run = world.run("repair", path, "--json")
    assert run.code == 4
    outcome = run.json["images"][0]["outcome"]
    assert outcome["status"] == "would-repair"
    assert name in outcome["message"]
    (one,) = outcome["recovered"]
    assert (one["journal"], one["state"], one["wrote"]) == (name, "unfinished", False)
    assert path.read_bytes() == half
    assert state(world, name) == "unfinished"


def state(world, name: str) -> str:
    (entry,) = world.run("journal", name, "--json").json["journals"]
    return entry["state"]


def test_the_next_repair_closes_the_journal_of_one_that_wrote_nothing(world):
    path, before, name = interrupted(world)
    path.write_bytes(before)
    run = world.run("repair", path, "--yes", "--json")
    assert run.code == 1
    assert run.json["images"][0]["outcome"]["journal"] != name
    outcome = run.json["images"][0]["outcome"]
    assert [(one["state"], one["wrote"]) for one in outcome["recovered"]] == [("rolled-back", False)]
    states = {entry["id"]: entry["state"] for entry in world.run("journal", "--json").json["journals"]}
    assert states[name] == "rolled-back"
    assert sorted(states.values()) == ["rolled-back", "verified"]


def test_undo_puts_an_interrupted_repair_back(world):
    path, before, name = interrupted(world)
    run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["outcome"]["status"]) == (0, "rolled-back")
    assert path.read_bytes() == before


def test_what_was_written_since_an_interruption_is_kept(world):
    path, _, _ = interrupted(world)
    with open(path, "r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"somebody else's" * 20)
    half = path.read_bytes()
    run = world.run("repair", path, "--yes", "--json")
    assert run.code == 4
    outcome = run.json["images"][0]["outcome"]
    assert (outcome["status"], outcome["reason"]) == ("refused", "stale")
    assert path.read_bytes() == half


def test_another_users_journals_do_not_stop_a_dry_run(world):
    path = world.damaged()
    world.journals.write_text("no folder")
    assert world.run("check", path).code == 4
    run = world.run("repair", path, "--dry-run", "--json")
    assert run.json["images"][0]["outcome"]["status"] in ("would-repair", "failed")
