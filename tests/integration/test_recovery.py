"""A repair that was killed, and what the next run makes of it: the image decides, and nothing newer is lost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from images import bat_entry, batmap_at, lost_footer, put, refooted, some, with_entry
from smfix.formats.vhd.build import sparse
from smfix.repair import journal_store
from smfix.repair.journal import JournalState, encode
from world import BASE, OTHER, failed, make_world

BLOCK = 2 << 20


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@cache
def disk() -> bytes:
    """All four blocks are placed; block 3 lies between others, so that its lost entry can be restored."""
    blocks = {0: some(0, range(40)), 3: some(3, range(100)), 1: some(1, range(9)), 2: some(2, range(9))}
    return sparse(4 * BLOCK, bytes(range(16)), blocks).to_bytes()


def place() -> int:
    """Where guest data of block 3 lies in the file, bytes."""
    return bat_entry(disk(), 3) * 512 + 512


def lost_entry() -> bytes:
    return with_entry(disk(), 3, 0xFFFFFFFF)


def lost_entry_and_footer() -> bytes:
    return lost_footer(lost_entry())


def cut_off() -> bytes:
    """The file ends inside its last block, behind the written sectors."""
    return disk()[: bat_entry(disk(), 2) * 512 + 512 + 8192 + 100]


def batmap_and_footer() -> bytes:
    at = batmap_at(disk())
    return lost_footer(put(disk(), at + 24, bytes([disk()[at + 24] ^ 1])))


CONSENT = ("--confirm", "VHD304")


def killed(world, damaged: bytes, *consent: str, holds: bytes | None = None, vdi: str = BASE) -> tuple[Path, str]:
    """The image after a repair of `damaged` that was killed before it could say so, and its journal's id.

    `holds` is what the image holds then; None: all that the repair writes. Its inode stays the same.
    """
    path = world.put(damaged, vdi)
    run = world.run("repair", path, "--yes", "--json", *consent)
    outcome = run.json["images"][0]["outcome"]
    assert outcome["status"] in ("repaired", "partly-repaired"), outcome
    unfinish(world, outcome["journal"])
    if holds is not None:
        rewrite(path, holds)
    return path, outcome["journal"]


def unfinish(world, name: str) -> None:
    journal_store.mark(journal_store.load(str(world.journals), name), JournalState.UNFINISHED)


def rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def guest_writes(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xab" * 4096)


def states(world) -> dict[str, str]:
    return {entry["id"]: entry["state"] for entry in world.run("journal", "--json").json["journals"]}


def repair(world, path: Path, *words: str):
    """(exit code, outcome)"""
    run = world.run("repair", path, "--json", *(words or ("--yes",)))
    return run.code, run.json["images"][0]["outcome"]


def decided(outcome) -> list[tuple[str, str, bool]]:
    return [(one["journal"], one["state"], one["wrote"]) for one in outcome["recovered"]]


# ------------------------------------------------------------------ the image is sound: nothing is written


def test_a_disk_that_has_been_in_use_since_is_left_as_it_is(world):
    path, name = killed(world, lost_entry(), *CONSENT)
    guest_writes(path, place())
    before, times = path.read_bytes(), path.stat().st_mtime_ns
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (0, "valid", [(name, "verified", False)])
    assert outcome["journal"] == name
    assert outcome["undo"].startswith(f"smfix undo {name} ")
    assert name in outcome["message"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, times)
    assert states(world) == {name: "verified"}
    # The way back asks: the guest has written to the block that the repair gave it.
    run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["outcome"]["reason"]) == (4, "stale")
    assert path.read_bytes() == before
    run = world.run("undo", name, "--yes", "--json", "--confirm", "undo-newer")
    assert (run.code, run.json["outcome"]["status"]) == (0, "rolled-back")
    assert "took along what was written since to guest bytes 6,291,456 to 8,388,607" in run.json["outcome"]["message"]
    assert bat_entry(path.read_bytes(), 3) == 0xFFFFFFFF


def test_a_file_that_was_made_longer_is_not_shortened(world):
    path, name = killed(world, cut_off())
    size = path.stat().st_size
    assert size > len(cut_off())
    code, outcome = repair(world, path)
    assert (code, outcome["status"], path.stat().st_size) == (0, "valid", size)
    assert states(world) == {name: "verified"}
    assert world.run("undo", name, "--yes").code == 0
    assert path.read_bytes() == cut_off()


@pytest.mark.parametrize("longer", [False, True])
def test_a_disk_that_went_on_without_the_repair(world, longer):
    """Sound, and neither old nor new: the image was written over, or the guest let it grow."""
    path, name = killed(world, batmap_and_footer())
    grown = disk()[:-512] + bytes(4096) + disk()[-512:]
    rewrite(path, grown if longer else refooted(disk(), timestamp=7))
    before = path.read_bytes()
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (0, "valid", [(name, "superseded", False)])
    assert path.read_bytes() == before
    run = world.run("undo", name, "--yes", "--json")
    assert run.json["outcome"]["reason"] == "stale"
    (entry,) = world.run("journal", name, "--json").json["journals"]
    assert entry["undo"] is None
    assert world.run("journal", "prune", "--older-than", "0s", "--yes").code == 0
    assert states(world) == {}


@pytest.mark.parametrize("sound", [False, True])
def test_another_file_that_was_given_the_inode_number(world, sound):
    """The disk was removed, and a backup copied to its name: the file system gives the number out again."""
    path, name = killed(world, lost_entry(), *CONSENT)
    entry = journal_store.load(str(world.journals), name)
    path.unlink()
    path.write_bytes(disk() if sound else lost_footer(disk()))
    # As if the number had been given out again, on a file system that keeps a birth or a generation.
    kept = replace(entry.journal, inode=path.stat().st_ino, birth=entry.journal.birth or 1, generation=1)
    Path(entry.path).write_bytes(encode(kept))
    code, outcome = repair(world, path)
    assert (code, outcome["status"]) == ((0, "valid") if sound else (1, "repaired"))
    assert decided(outcome) == [(name, "superseded", False)]
    assert path.read_bytes() == disk()


def test_a_sound_disk_that_is_in_use_closes_the_journal_too(world):
    path, name = killed(world, lost_entry(), *CONSENT)
    before = path.read_bytes()
    with world.holding(path):
        code, outcome = repair(world, path)
    assert (code, outcome["status"], states(world)) == (0, "valid", {name: "verified"})
    assert path.read_bytes() == before


# ------------------------------------------------------------------ the image is not sound


def test_all_old_bytes_are_no_reason_to_write(world):
    path, name = killed(world, lost_footer(disk()), holds=lost_footer(disk()))
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (1, "repaired", [(name, "rolled-back", False)])
    assert path.read_bytes() == disk()


def between() -> bytes:
    """The batmap of :func:`batmap_and_footer` is mended, its footer still lost."""
    fixed = bytearray(batmap_and_footer())
    at = batmap_at(disk())
    fixed[at : at + 1024] = repaired_batmap()
    return bytes(fixed)


@cache
def repaired_batmap() -> bytes:
    from images import repaired

    at = batmap_at(disk())
    return repaired(batmap_and_footer())[at : at + 1024]


def test_between_old_and_new_it_is_put_back_and_that_is_said(world):
    path, name = killed(world, batmap_and_footer(), holds=between())
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (1, "repaired", [(name, "rolled-back", True)])
    assert f"an interrupted repair (journal {name}) was put back first" in outcome["message"]
    assert world.run("undo", outcome["journal"], "--yes").code == 0
    assert path.read_bytes() == batmap_and_footer()


def test_what_recovery_wrote_is_in_the_exit_code(world):
    """It was put back, and what is left now waits for consent."""
    half = put(batmap_and_footer(), 1536 + 12, b"\xff" * 4)  # the entry of block 3
    fixed = put(between(), 1536 + 12, b"\xff" * 4)
    path, name = killed(world, half, *CONSENT, holds=fixed)
    code, outcome = repair(world, path)
    assert (code, outcome["status"], outcome["reason"]) == (5, "refused", "needs-confirm")
    assert decided(outcome) == [(name, "rolled-back", True)]
    assert path.read_bytes() == half
    assert states(world) == {name: "rolled-back"}


def test_nothing_is_shortened_by_what_is_put_back(world):
    """The file is as long as the repair made it, and its footer is not there yet."""
    path, name = killed(world, cut_off())
    whole = path.read_bytes()
    rewrite(path, whole[:-512])
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (1, "repaired", [(name, "rolled-back", False)])
    assert path.read_bytes() == whole
    assert world.run("undo", outcome["journal"], "--yes").code == 0
    assert path.stat().st_size == len(whole) - 512


def test_what_a_guest_wrote_to_a_block_that_came_back_is_not_taken_along(world):
    """The BAT entry is restored and the footer lost (again): the block's data is newer than the repair."""
    path, name = killed(world, lost_entry_and_footer(), *CONSENT, holds=lost_footer(disk()))
    guest_writes(path, place())
    before = path.read_bytes()
    code, outcome = repair(world, path)
    assert (code, outcome["status"]) == (1, "repaired")
    assert decided(outcome) == [(name, "superseded", False)]
    assert path.read_bytes()[: len(before)] == before
    assert states(world) == {name: "superseded", outcome["journal"]: "verified"}


def test_new_bytes_and_another_damage_are_two_repairs_one_upon_the_other(world):
    path, name = killed(world, lost_entry(), *CONSENT)
    broken = put(path.read_bytes(), 0, bytes(512))  # the backup footer
    rewrite(path, broken)
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (1, "repaired", [(name, "applied", False)])
    assert path.read_bytes() == disk()
    assert states(world) == {name: "applied", outcome["journal"]: "verified"}
    assert world.run("undo", outcome["journal"], "--yes").code == 0
    assert path.read_bytes() == broken
    assert world.run("undo", name, "--yes").code == 0
    assert path.read_bytes() == put(lost_entry(), 0, bytes(512))


@pytest.mark.parametrize("held", ["first", "both"])
def test_several_unfinished_repairs_of_one_disk(world, held):
    """The newer one was made upon the older one, and both were killed."""
    path, first = killed(world, batmap_and_footer())
    broken = put(path.read_bytes(), 0, bytes(512))
    rewrite(path, broken)
    second = repair(world, path, "--yes")[1]["journal"]
    assert states(world) == {first: "applied", second: "verified"}
    unfinish(world, first)
    unfinish(world, second)
    if held == "first":
        rewrite(path, broken)
    code, outcome = repair(world, path)
    if held == "both":
        assert (code, outcome["status"]) == (0, "valid")
        assert decided(outcome) == [(second, "verified", False), (first, "verified", False)]
    else:
        assert (code, outcome["status"]) == (1, "repaired")
        assert decided(outcome) == [(second, "rolled-back", False), (first, "applied", False)]
        second = outcome["journal"]
    for name in (second, first):
        assert world.run("undo", name, "--yes").code == 0
    assert path.read_bytes() == put(batmap_and_footer(), 0, bytes(512))


def test_anything_else_is_stale(world):
    path, name = killed(world, batmap_and_footer())
    moved = put(lost_footer(path.read_bytes()), batmap_at(disk()) + 24, b"zzzz")
    rewrite(path, moved)
    for how in ("--dry-run", "--yes"):
        code, outcome = repair(world, path, how)
        assert (code, outcome["reason"], outcome["journal"]) == (4, "stale", name)
        assert outcome["next"][0].startswith("mv ")
        assert (path.read_bytes(), states(world)) == (moved, {name: "unfinished"})


@pytest.mark.parametrize("sound", [False, True])
def test_another_disk_that_was_copied_over_it(world, sound):
    """The same inode holds a disk with another UUID, and edited bytes that are equal: the journal is not of it."""
    path, name = killed(world, lost_entry(), *CONSENT)
    other = refooted(disk(), uuid=bytes(range(16, 32)))
    rewrite(path, other if sound else other[:-512] + b"x" * 512)
    before = path.read_bytes()
    code, outcome = repair(world, path)
    assert path.read_bytes() == before
    if sound:
        assert (code, outcome["status"], decided(outcome)) == (0, "valid", [(name, "superseded", False)])
    else:
        assert (code, outcome["reason"], states(world)) == (4, "stale", {name: "unfinished"})


def test_a_disk_in_use_is_not_put_back(world):
    path, name = killed(world, batmap_and_footer(), holds=between())
    with world.holding(path):
        for how in ("--dry-run", "--yes"):
            code, outcome = repair(world, path, how)
            assert (code, outcome["reason"]) == (4, "in-use")
    assert (path.read_bytes(), states(world)) == (between(), {name: "unfinished"})


def test_a_changed_device_number_alone_makes_no_journal_stale(world):
    """A network file system has another number after a reboot."""
    path, name = killed(world, batmap_and_footer(), holds=between())
    entry = journal_store.load(str(world.journals), name)
    Path(entry.path).write_bytes(encode(replace(entry.journal, device=entry.journal.device + 1)))
    renamed = world.path(OTHER)
    path.rename(renamed)
    code, outcome = repair(world, renamed)
    if entry.journal.birth is None:
        pytest.skip("this file system keeps no time of birth")
    assert (code, decided(outcome)) == (1, [(name, "rolled-back", True)])


# ------------------------------------------------------------------ who recovers, and who only says so


@pytest.mark.parametrize(
    ("damaged", "holds", "status", "words"),
    [
        (batmap_and_footer, between, "would-repair", "would be put back first"),
        (batmap_and_footer, None, "valid", "would become verified"),
        (lambda: lost_footer(disk()), lambda: lost_footer(disk()), "would-repair", "its journal would be closed"),
        (batmap_and_footer, lambda: refooted(disk(), timestamp=7), "valid", "become superseded"),
    ],
)
@pytest.mark.parametrize("command", ["repair", "from-log"])
def test_a_dry_run_says_what_recovery_would_do(world, damaged, holds, status, words, command):
    path, name = killed(world, damaged(), holds=None if holds is None else holds())
    before = path.read_bytes()
    if command == "repair":
        _, outcome = repair(world, path, "--dry-run")
    else:
        (incident,) = world.run("from-log", world.smlog(failed()), "--json").json["incidents"]
        outcome = incident["outcome"]
    assert (outcome["status"], decided(outcome)) == (status, [(name, "unfinished", False)])
    assert words in outcome["message"] + outcome["recovered"][0]["message"]
    assert (path.read_bytes(), states(world)) == (before, {name: "unfinished"})


def test_a_log_leads_to_recovery_too(world):
    path, name = killed(world, batmap_and_footer(), holds=between())
    run = world.run("from-log", world.smlog(failed()), "--yes", "--json")
    (incident,) = run.json["incidents"]
    assert (run.code, decided(incident["outcome"])) == (1, [(name, "rolled-back", True)])
    assert states(world)[name] == "rolled-back"
    assert path.read_bytes() == disk()


def test_the_report_says_it(world):
    path, name = killed(world, batmap_and_footer(), holds=between())
    told = " ".join(world.run("repair", path, "--yes").out.split())
    assert f"an interrupted repair (journal {name}) was put back first" in told


def test_undo_closes_what_went_on(world):
    path, name = killed(world, batmap_and_footer(), holds=refooted(disk(), timestamp=7))
    before = path.read_bytes()
    dry = world.run("undo", name, "--dry-run", "--json")
    assert (dry.json["outcome"]["reason"], states(world)) == ("stale", {name: "unfinished"})
    run = world.run("undo", name, "--yes", "--json")
    assert (run.code, run.json["outcome"]["reason"], states(world)) == (4, "stale", {name: "superseded"})
    assert decided(run.json["outcome"]) == [(name, "superseded", False)]
    assert path.read_bytes() == before


def test_a_journal_that_keeps_no_digest_is_not_put_back_blindly(world):
    """As one of an earlier release: nothing tells whether a guest wrote to what it made readable."""
    path, name = killed(world, batmap_and_footer(), holds=between())
    entry = journal_store.load(str(world.journals), name)
    Path(entry.path).write_bytes(encode(replace(entry.journal, reach=None)))
    code, outcome = repair(world, path)
    assert (code, outcome["status"], decided(outcome)) == (1, "repaired", [(name, "superseded", False)])
    assert states(world)[name] == "superseded"


# ------------------------------------------------------------------ undo: consent


def test_another_consent_is_refused(world):
    _, name = killed(world, lost_entry(), *CONSENT)
    run = world.run("undo", name, "--yes", "--confirm", "VHD304")
    assert run.code == 16
    assert "an undo asks for consent to UNDO-NEWER alone" in run.err


def test_a_dry_run_names_what_would_go_along(world):
    path = world.put(lost_entry())
    name = repair(world, path, "--yes", *CONSENT)[1]["journal"]
    guest_writes(path, place())
    run = world.run("undo", name, "--dry-run", "--json", "--confirm", "UNDO-NEWER")
    outcome = run.json["outcome"]
    assert (run.code, outcome["status"]) == (4, "would-repair")
    assert "would take along what was written since to guest bytes 6,291,456 to 8,388,607" in outcome["message"]
    assert outcome["next"] == [f"smfix undo {name} --confirm UNDO-NEWER --yes --journal-dir {world.journals}"]
    refused = world.run("undo", name, "--dry-run", "--json").json["outcome"]
    assert refused["next"] == [f"smfix undo {name} --journal-dir {world.journals} --confirm UNDO-NEWER --yes"]


def test_what_an_undo_does_not_take_away_may_be_written(world):
    path = world.put(lost_entry())
    name = repair(world, path, "--yes", *CONSENT)[1]["journal"]
    guest_writes(path, bat_entry(disk(), 1) * 512 + 512)
    assert world.run("undo", name, "--yes").code == 0
