from __future__ import annotations

import os

import pytest

from smfix.errors import WriteFailed
from smfix.host.image_file import OpenImage
from smfix.repair import journal_store
from smfix.repair.journal import JournalState
from smfix.report.next_steps import command_line
from smfix.sm.resolve import Found
from smfix.usecases import repair_image as repair
from smfix.usecases.repair_context import is_hidden
from smfix.usecases.repair_image import repair_image
from smfix.usecases.run_options import RunOptions, absolute
from smfix.values import Backing, Reason, Refusal, Status, StepKind, Target
from world import BASE, SR, make_world


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def run_options(world):
    return RunOptions((str(world.mount),), str(world.journals), decide=lambda *_: True)


def found(path):
    return Found(Target(str(path), Backing.FILE, vdi=BASE), os.path.dirname(path))


# --------------------------------------------------------------------------- commands


def test_default_options_are_left_out(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert command_line(RunOptions().undo_step("x")) == "smfix undo x"
    assert command_line(RunOptions().repair_step("/a b")) == "smfix repair '/a b' --yes"
    assert command_line(RunOptions(journal_dir="/var/lib/smfix/journal").undo_step("x")) == "smfix undo x"


def test_other_options_are_named_with_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run_options = RunOptions(("m", "/n n"), "j", "l", consent=frozenset(["VHD301", "VHD108"]))
    assert (
        command_line(run_options.step(StepKind.CHECK, "x"))
        == f"smfix check x --sr-mount {tmp_path}/m --sr-mount '/n n'"
    )
    assert (
        command_line(run_options.undo_step("x"))
        == f"smfix undo x --journal-dir {tmp_path}/j --sm-lock-dir {tmp_path}/l"
    )
    assert command_line(run_options.repair_step("y", ("VHD302",))) == (
        f"smfix repair {tmp_path}/y --yes --confirm VHD108 --confirm VHD301 --confirm VHD302 "
        f"--sr-mount {tmp_path}/m --sr-mount '/n n' --journal-dir {tmp_path}/j --sm-lock-dir {tmp_path}/l"
    )


@pytest.mark.parametrize(
    ("uid", "state", "folder"),
    [(0, "/s", "/var/lib/smfix/journal"), (7, "/s", "/s/smfix/journal"), (7, "", "/h/.local/state/smfix/journal")],
)
def test_where_journals_lie(monkeypatch, uid, state, folder):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/h")
    assert RunOptions().journals == folder


def test_a_name_is_made_absolute_without_a_look_at_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for uuid in (BASE, BASE[:8], f"{SR}/{BASE}", "OLD_1d99"):
        assert absolute(uuid) == uuid
    (tmp_path / BASE).touch()
    assert absolute(BASE) == str(tmp_path / BASE)
    monkeypatch.setattr(os.path, "lexists", lambda _: pytest.fail("looked at"))
    assert absolute("/dead/x.vhd") == "/dead/x.vhd"
    assert absolute("a/x.vhd") == str(tmp_path / "a" / "x.vhd")
    assert absolute("-") == "-"


# --------------------------------------------------------------------------- the way of one image


def test_a_no_writes_nothing_and_keeps_the_plan(world, run_options):
    path = world.damaged()
    before = path.read_bytes()
    asked = []

    def no(where, outcome):
        asked.append((where, outcome.status, [finding.code for finding in outcome.findings]))
        return False

    outcome = repair_image(found(path), run_options._replace(decide=no))
    assert asked == [(str(path), Status.WOULD_REPAIR, ["VHD101"])]
    assert (outcome.status, outcome.message) == (
        Status.WOULD_REPAIR,
        "nothing was written: the answer was not yes",
    )
    assert path.read_bytes() == before


def test_a_disk_replaced_while_somebody_thinks_is_stale(world, run_options):
    path = world.damaged()

    def replaced(*_):
        path.rename(world.folder / "aside.vhd")
        world.damaged()
        return True

    outcome = repair_image(found(path), run_options._replace(decide=replaced))
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert outcome.findings == outcome.remaining != ()


def test_a_disk_changed_while_somebody_thinks_is_stale(world, run_options):
    path = world.damaged()
    seen = []

    def changed(*_):
        with open(path, "ab") as file:
            file.write(b"more")
        seen.append(path.read_bytes())
        return True

    outcome = repair_image(found(path), run_options._replace(decide=changed))
    assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.STALE)
    assert path.read_bytes() == seen[0]


def test_a_disk_that_another_smfix_repairs_while_it_is_looked_at_is_sound(world, run_options, monkeypatch):
    path = world.damaged()
    look = repair.open_state

    def repaired_meanwhile(identity):
        path.write_bytes(world.image())
        return look(identity)

    monkeypatch.setattr(repair, "open_state", repaired_meanwhile)
    outcome = repair_image(found(path), run_options)
    assert (outcome.status, outcome.plan, outcome.findings) == (Status.VALID, None, ())
    assert outcome.message == "the image is sound: it was repaired in the meantime"
    assert path.read_bytes() == world.image()


def test_a_disk_that_cannot_be_written_fails(world, run_options, monkeypatch):
    path = world.damaged()

    def reopen(self, *, write=False):
        raise WriteFailed("cannot open it for writing: Read-only file system")

    monkeypatch.setattr("smfix.host.image_file.OpenImage.reopen", reopen)
    monkeypatch.setattr("smfix.host.image_file.OpenImage.is_in_place", lambda _: True)
    outcome = repair_image(found(path), run_options)
    assert (outcome.status, outcome.message) == (
        Status.FAILED,
        "cannot open it for writing: Read-only file system",
    )


def test_no_space_is_foreseen(world, run_options, monkeypatch):
    path = world.damaged()
    monkeypatch.setattr("smfix.host.image_file.OpenImage.free_space", lambda _: 0)
    for decide in (None, run_options.decide):
        outcome = repair_image(found(path), run_options._replace(decide=decide))
        assert outcome.status is Status.FAILED
        assert "no space" in outcome.message


def test_a_refusal_of_the_second_opening_stops_a_recovery(world, run_options, monkeypatch):
    path = world.damaged()
    name = repair_image(found(path), run_options).journal
    journal_store.mark(journal_store.load(run_options.journals, name), JournalState.UNFINISHED)
    os.truncate(path, path.stat().st_size - 100)  # between the old bytes and the new ones
    refusal = Refusal(Reason.STALE, "another file by now")
    reopen = OpenImage.reopen
    monkeypatch.setattr(OpenImage, "reopen", lambda image, *, write=False: refusal if write else reopen(image))
    outcome = repair_image(found(path), run_options)
    assert (outcome.status, outcome.message) == (Status.REFUSED, "another file by now")


def test_journals_that_cannot_be_read_stop_a_repair_but_no_dry_run(world, run_options):
    path = world.damaged()
    world.journals.write_text("no folder")
    assert repair_image(found(path), run_options).status is Status.FAILED
    assert "journal" in repair_image(found(path), run_options).message
    dry = repair_image(found(path), run_options._replace(decide=None))
    assert dry.findings or dry.status is Status.FAILED


def test_hidden_is_read_by_the_sound_footer(world):
    from memory_image import MemoryImage

    assert is_hidden(MemoryImage(world.image(hidden=1)[:-512])) is True
    assert is_hidden(MemoryImage(world.image())) is False
    assert is_hidden(MemoryImage(b"x" * 2048)) is None
