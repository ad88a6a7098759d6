"""`--html`: the page shows what was there before and what is there now, and costs no image and no report."""

from __future__ import annotations

import os
import stat

import pytest

from html_reader import Reader, complaints
from smfix.errors import Unreadable
from smfix.formats.vhd import build
from smfix.report import page_model
from smfix.usecases import html_report
from smfix.usecases.run_options import RunOptions
from smfix.values import Backing, CheckedImage, Target, Verdict
from world import BASE, LEAF, OTHER, SIZE, SR, exception, failed, make_world, uuid_of


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


@pytest.fixture
def file(world):
    return world.folder / "report.html"


def text(file) -> str:
    made = file.read_text("ascii")
    assert complaints(made) == []
    return Reader(made).text


def test_a_repair_is_shown_before_and_after(world, file):
    path = world.damaged()
    world.put(world.image(LEAF, parent=BASE), LEAF)
    run = world.run("from-log", world.smlog(failed()), "--yes", "--html", file)
    assert run.code == 1
    assert f"the page is {file}" in run.err
    told = text(file)
    assert f"before: {path.stat().st_size - 512:,} bytes" in told
    assert f"after: {path.stat().st_size:,} bytes" in told
    assert "damaged: invalid cookie" in told
    assert "sound" in told
    assert "A footer belongs at byte" in told
    assert "78 78 78" not in told
    assert "smfix undo " in told
    assert f"{BASE}.vhd valid" in told.replace("\n", " ")
    assert f"{LEAF}.vhd valid" in told
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_guests_data_only_if_asked_for(world, file):
    world.damaged()
    run = world.run("repair", BASE, "--yes", "--html", file, "--include-data")
    assert run.code == 1
    assert "78 78 78" in text(file)


def test_a_dry_run_shows_what_would_be(world, file):
    path = world.damaged()
    before = path.read_bytes()
    assert world.run("repair", BASE, "--html", file).code == 4
    assert "as the plan would leave it" in text(file)
    assert path.read_bytes() == before


def test_a_consent_that_is_missing(world, file):
    raw = world.image()
    world.put(bytes(512) + raw[512:-512])
    world.run("repair", BASE, "--yes", "--html", file, "--size", SIZE, "--uuid", OTHER)
    assert "as the repair would leave it, with consent" in text(file)


def test_check_and_scan(world, file):
    world.damaged()
    world.put(world.image(OTHER), OTHER)
    world.put(world.image(LEAF, parent=BASE), LEAF)
    assert world.run("check", world.sr, "--html", file).code == 4
    told = text(file)
    assert "as it is now" in told
    assert "3 images: 2 valid, 1 invalid." in told
    assert world.run("scan", "--html", file).code == 4
    told = text(file)
    assert "Chains" in told
    assert "INVALID" in told
    assert told.count("How it stands") == 0
    assert "(this disk)" in told


def test_what_cannot_be_opened_has_no_picture(world, file):
    (world.sr / f"{BASE}.vhd").mkdir()
    os.mkfifo(world.path(OTHER))
    assert world.run("check", world.path(OTHER), world.path(BASE), world.folder / "missing.vhd", "--html", file).code
    assert "The file" not in text(file)


def test_a_path_that_only_the_log_knows_is_not_opened(world, file, monkeypatch):
    """A log can name any file; only what smfix resolved and looked into is drawn."""
    opened = []
    monkeypatch.setattr(html_report, "open_image", lambda target, **_: opened.append(target))
    world.run("from-log", world.smlog(failed(folder="tmpFco2q9/")), "--html", file)
    assert "refused (image-copy)" in text(file)
    assert opened == []


def test_an_image_that_went_away_meanwhile(world):
    lens = html_report._Lens(RunOptions())
    assert "There is no picture of it" in lens.seen(str(world.path()), Verdict.VALID).note
    world.path().symlink_to("/dev/null")
    assert "There is no picture of it" in lens.seen(str(world.path()), Verdict.VALID).note


def test_a_journal_that_went_away_costs_the_picture_and_not_the_page(world, file, monkeypatch):
    world.damaged()

    def gone(*_):
        raise Unreadable("cannot read the journal")

    monkeypatch.setattr(html_report.journal_store, "load", gone)
    assert world.run("repair", BASE, "--yes", "--html", file).code == 1
    assert "There is no picture of it: cannot read the journal." in text(file)


def test_bytes_that_were_overwritten_are_shown_as_they_were(world, file):
    world.put(b"y" * 512 + world.image()[512:])
    assert world.run("repair", BASE, "--yes", "--html", file, "--include-data").code == 1
    told = text(file)
    assert "Backup footer at byte 0 (damaged" in told
    assert "Backup footer at byte 0 (sound)" in told
    assert "79 79 79" in told


def test_a_folder_that_cannot_be_listed_and_a_device_tell_no_chain(world, monkeypatch):
    assert html_report._scanned(str(world.folder / "missing")) == ()
    monkeypatch.setattr(html_report, "target_at", lambda path: Target(path, Backing.BLOCK))
    assert html_report._Lens(RunOptions())._chain(str(world.put(world.image()))) == ()


def test_a_fixed_disks_first_bytes_are_the_guests(world, file):
    raw = build.fixed(1 << 20, uuid_of(BASE)).to_bytes()
    world.put(b"secret" * 85 + b"se" + raw[512:-512] + b"x" * 512)
    assert world.run("check", BASE, "--html", file, "--include-data").code == 4
    assert "Backup footer" not in text(file)


def test_a_large_folder_is_not_scanned(world, monkeypatch):
    world.put(world.image())
    world.put(world.image(LEAF, parent=BASE), LEAF)
    path = str(world.path())
    lens = html_report._Lens(RunOptions())
    assert [one.name for one in lens.seen(path, Verdict.VALID).chain] == [f"{BASE}.vhd", f"{LEAF}.vhd"]
    monkeypatch.setattr(html_report, "MOST_IN_FOLDER", 1)
    assert html_report._Lens(RunOptions()).seen(path, Verdict.VALID).chain == ()


def test_a_disk_without_relatives_has_no_chain(world):
    assert html_report._Lens(RunOptions()).seen(str(world.put(world.image())), Verdict.VALID).chain == ()


def test_a_chain_begins_at_its_top(world):
    world.put(world.image())
    world.put(world.image(LEAF, parent=BASE), LEAF)
    world.put(world.image(OTHER, parent=LEAF), OTHER)
    chain = html_report._Lens(RunOptions()).seen(str(world.path(OTHER)), Verdict.VALID).chain
    assert [(one.name[:8], one.depth, one.is_self) for one in chain] == [
        (BASE[:8], 0, False),
        (LEAF[:8], 1, False),
        (OTHER[:8], 2, True),
    ]


def test_what_is_left_comes_first(world, file):
    world.damaged()
    world.damaged(OTHER)
    with world.holding(world.path(OTHER)):
        world.run("from-log", world.smlog(failed(), failed(OTHER, pid=27000, at="00:20:00")), "--yes", "--html", file)
    told = text(file)
    assert told.index(OTHER) < told.index(BASE)


# --------------------------------------------------------------------------- the file, and the exit code


def test_the_name_is_judged_before_anything_is_done(world, file):
    path = world.damaged()
    before = path.read_bytes()
    for wrong in (path, world.sr / "new.vhd", world.sr):
        run = world.run("repair", BASE, "--yes", "--html", wrong)
        assert run.code == 16
        assert run.err.startswith("smfix: --html ")
    assert world.run("repair", BASE, "--yes", "--html", world.folder / "no" / "x.html").code == 8
    assert world.run("check", BASE, "--include-data").code == 16
    assert path.read_bytes() == before
    assert not world.journals.exists()


def test_a_page_that_cannot_be_saved_is_one_bit_and_the_report_stands(world, file, monkeypatch):
    world.damaged()

    def full(*_):
        raise html_report.atomic_file.WriteFailed("cannot save the page: No space left on device")

    monkeypatch.setattr(html_report.atomic_file, "replace", full)
    run = world.run("repair", BASE, "--yes", "--json", "--html", file)
    assert run.code == 9
    assert run.json["exit"] == 9
    assert run.json["images"][0]["outcome"]["status"] == "repaired"
    assert "No space left" in run.err


def test_a_bug_in_the_page_does_not_cost_the_report(world, file, monkeypatch):
    world.damaged()
    monkeypatch.setattr(html_report, "repair", lambda *_: 1 / 0)
    run = world.run("repair", BASE, "--yes", "--html", file)
    assert run.code == 9
    assert "repaired and verified" in run.out
    assert "this is a bug" in run.err
    assert not file.exists()


def test_an_earlier_page_is_replaced(world, file):
    world.put(world.image())
    for _ in range(2):
        assert world.run("check", BASE, "--html", file).code == 0
    assert [name for name in os.listdir(world.folder) if "html" in name] == ["report.html"]


def test_json_and_page_in_one_run(world, file):
    world.smlog(exception())
    run = world.run("from-log", world.log, "--json", "--html", file)
    assert run.json["summary"]["incidents"] == 1
    assert "not-found" in text(file)


def test_a_user_without_a_name(monkeypatch):
    monkeypatch.setattr(html_report.getpass, "getuser", lambda: {}["no"])
    assert html_report._user() == str(os.geteuid())


def test_more_images_than_cards(world, monkeypatch):
    monkeypatch.setattr(page_model, "CARDS", 1)
    images = [CheckedImage(f"/sr/{number}.vhd", Verdict.UNREADABLE) for number in range(3)]
    made = html_report.check(html_report.Wanted("x"), images, RunOptions(words=("smfix", "check", "x y")))
    assert "the first 1 have a card below" in Reader(made).text
    assert "smfix check 'x y'" in Reader(made).text
    assert SR not in made
