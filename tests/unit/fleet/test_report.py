"""`smfix fleet report` end to end: folders, archives, hostile files, every core, text, JSON and the page."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import tarfile
from pathlib import Path

import pytest

from fleet_values import BASE, LEAF, OTHER, SHARED, SR, check, error, from_log, incident, outcome, path_of
from html_reader import Reader
from smfix.fleet import load, render, sorted_store
from smfix.fleet.documents import read_document
from smfix.fleet.merge import FleetMerge, FleetPicture
from smfix.fleet.sorted_store import SortedStore
from smfix.smlog.correlate.incidents import KINDS
from world import World, failed, make_world


class Fleet:
    def __init__(self, world: World) -> None:
        self.world = world
        self.folder = world.folder / "results"
        self.folder.mkdir()

    def put(self, name: str, document: object) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path

    def report(self, *words: object):
        self.world.capture.readouterr()
        from smfix.cli import app
        from world import Run

        code = app.run(["fleet", "report", *map(str, words or (self.folder,))])
        return Run(code, *self.world.capture.readouterr())


@pytest.fixture
def fleet(tmp_path, capsys, monkeypatch):
    return Fleet(make_world(tmp_path, capsys, monkeypatch))


def whole(fleet: Fleet) -> Fleet:
    fleet.put("a.json", from_log(incident(sr=SHARED, how=outcome("refused", "shared-sr-unknown"))))
    fleet.put(
        "b.json", from_log(incident(sr=SHARED, how=outcome()), incident(vdi=OTHER, how=outcome("refused", "in-use")))
    )
    fleet.put("b.scan.json", check((path_of(BASE, SHARED), "valid"), (path_of(LEAF, SHARED), "valid")))
    fleet.put("c/from-log.json", from_log())
    fleet.put("d.json", error("ssh: connect to host d port 22: No route to host"))
    fleet.put("notes.txt", b"nothing of ours")
    return fleet


def test_one_picture(fleet):
    run = whole(fleet).report(fleet.folder, "--json")
    assert run.code == 13
    document = run.json
    assert {one["host"]: one["disks"] for one in document["hosts"]} == {"a": 1, "b": 2, "c": 0, "d": 0}
    assert [one["trouble"] for one in document["hosts"] if one["host"] == "d"] == [
        ["ssh: connect to host d port 22: No route to host"]
    ]
    summary = document["summary"]
    assert (summary["disks"], summary["repaired"], summary["left"], summary["images"]) == (2, 1, 1, 2)
    assert (summary["hosts"], summary["hosts_in_trouble"], summary["complete"]) == (4, 1, True)
    assert [(one["sr"], one["hosts"], one["left"]) for one in document["srs"]] == [
        (SR, ["b"], 1),
        (SHARED, ["a", "b"], 0),
    ]
    assert [(one["cause"], one["disks"], one["srs"]) for one in document["causes"]] == [("VHD101", 2, 2)]
    assert [(one["vdi"], one["status"], one["reason"]) for one in document["disks"]] == [
        (OTHER, "refused", "in-use"),
        (BASE, "repaired", None),
    ]
    assert document["sources"] == {"files": 5, "unreadable": 0, "passed_over": 1, "notes": []}


def test_as_text(fleet):
    run = whole(fleet).report()
    told = " ".join(run.out.split())
    assert told.startswith(
        "4 hosts, 5 files read. 1 host could not be reached or fully read. 2 images looked at. "
        "2 disks in trouble on 2 SRs: 1 repaired, "
    )
    assert (
        "VHD101 2 disks on 2 SRs, 2 hosts, since 2026-11-20 09:00:00+00:00: 1 repaired, 0 already sound, 1 left" in told
    )
    assert f"disk {OTHER} SR {SR} result refused (in-use): refused it is hosts b" in told
    assert "host d why ssh: connect to host d port 22: No route to host" in told
    assert run.err == ""


def test_as_a_page(fleet):
    page = fleet.folder.parent / "fleet.html"
    run = whole(fleet).report(fleet.folder, "--html", page)
    assert run.code == 13
    text = page.read_text("ascii")
    assert "default-src 'none'; style-src 'sha256-" in text
    read = Reader(text)
    words = read.text
    assert read.headings == [1, 2, 2, 2, 2, 2, 2, 2]
    assert "script" not in {name for name, _ in read.elements}
    for told in (OTHER, SHARED, "No route to host", "footer lost, backup footer sound", "VHD101"):
        assert told in words
    again = fleet.report(fleet.folder, "--html", page)  # an earlier page may be replaced
    assert again.code == 13


def test_nothing_in_trouble(fleet):
    fleet.put("a.json", check((path_of(BASE), "valid")))
    run = fleet.report()
    assert (run.code, run.out) == (0, "1 host, 1 file read. 1 image looked at. No disk is in trouble.\n")


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("cut.json", b'{"schema": "smfix.from-log/1", "incidents": [', "not whole"),
        ("deep.json", b"[" * 200_000, "nested too deeply"),
        ("huge.json", b'{"schema": "smfix.from-log/1", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        ("empty.json", b"", "the file is empty"),
        ("blank.json", b" " * 600 + b"{}", "begins with nothing but blanks"),
        ("text.json", b"ssh: no route to host", "neither an output of smfix nor an archive"),
        ("a.tar", b"PK\x03\x04 and no more", "damaged"),
        ("\x1b[31mred\n.json", b"x", "neither an output"),
    ],
)
def test_a_hostile_file_is_one_line_and_the_rest_goes_on(fleet, name, data, why):
    fleet.put("good.json", from_log(incident(how=outcome())))
    fleet.put(name, data)
    run = fleet.report()
    assert run.code == 9
    (line,) = run.err.splitlines()
    assert why in line
    assert "\x1b" not in run.err + run.out
    assert "2 hosts, 2 files read. 1 host could not be reached or fully read." in run.out
    document = fleet.report(fleet.folder, "--json").json
    assert document["sources"]["unreadable"] == 1
    assert document["summary"]["repaired"] == 1


def test_what_is_no_file(fleet):
    os.mkfifo(fleet.folder / "pipe.json")
    os.symlink("nowhere", fleet.folder / "gone.json")
    run = fleet.report()
    assert run.code == 8
    assert sorted(line.rpartition(": ")[2] for line in run.err.splitlines()) == [
        "No such file or directory",
        "it is not a file",
    ]


def test_a_gigabyte_is_not_read(fleet):
    path = fleet.put("big.json", b'{"schema"')
    os.truncate(path, 1 << 30)
    run = fleet.report()
    assert run.code == 8
    assert "it has 1,073,741,824 bytes, more than any output of smfix" in run.err


def test_a_file_that_grows_while_it_is_read(fleet, monkeypatch):
    fleet.put("a.json", b'{"schema": ' + b" " * 2000)
    monkeypatch.setattr(load, "MOST_BYTES", 1000)
    real = os.fstat
    monkeypatch.setattr("os.fstat", lambda at: os.stat_result([*real(at)[:6], 5, *real(at)[7:]]))
    assert "more than 1,000 bytes" in fleet.report().err


def test_names_that_are_not_there(fleet):
    run = fleet.report(fleet.folder / "gone", "--json")
    assert (run.code, run.json["schema"]) == (8, "smfix.error/1")
    assert fleet.report(fleet.folder, "--nonsense").code == 16


def test_a_folder_that_cannot_be_read(fleet, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", fail)
    run = fleet.report()
    assert (run.code, "Permission denied" in run.err) == (8, True)


def test_folders_in_folders(fleet):
    fleet.put("a/from-log.json", from_log())
    (fleet.folder / "a" / "back").symlink_to(fleet.folder)
    assert fleet.report(fleet.folder, "--json").json["sources"]["files"] == 1
    os.makedirs(fleet.folder.joinpath(*"x" * 70))
    run = fleet.report()
    assert (run.code, "more than 64 folders in each other" in run.err) == (8, True)


def test_no_room_for_what_is_sorted(fleet, monkeypatch):
    def fail(self, *keys, value=None):
        raise sorted_store._failed(sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(SortedStore, "add", fail)
    fleet.put("a.json", from_log(incident()))
    run = fleet.report()
    assert run.code == 8
    assert run.err == (
        "smfix: the temporary folder cannot be written to (database or disk is full); "
        "SQLITE_TMPDIR or TMPDIR names another\n"
    )


def test_more_files_than_one_report_takes(fleet, monkeypatch):
    monkeypatch.setattr(load, "MOST_FILES", 1)
    for name in "ab":
        fleet.put(f"{name}.json", from_log())
    run = fleet.report(fleet.folder, "--json")
    assert run.json["sources"]["notes"] == ["2 files; only the first 1 are read"]
    assert "only the first 1" in run.err


def test_a_bug_report(fleet):
    path = fleet.folder / "bug-report-20261122.tar.gz"
    text = failed(BASE).encode()
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("bug-report/var/log/SMlog")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    document = fleet.report(fleet.folder, "--json").json
    assert [(one["vdi"], one["sr"], one["status"]) for one in document["disks"]] == [(BASE, SR, "reported")]
    assert document["hosts"][0]["documents"] == {"bug-report": 1}


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("results/xcp1.json", "xcp1"),
        ("xcp1.pool.json", "xcp1.pool"),
        ("xcp1.from-log.json", "xcp1"),
        ("xcp1/scan.json", "xcp1"),
        ("scan.json", "scan"),
        ("report.tar.bz2", "report.tar.bz2"),
        (".json", ".json"),
    ],
)
def test_whose_output_a_file_is(path, host):
    assert load.host_of(path) == host


# --------------------------------------------------------------------------- side by side


def test_every_core_gives_the_same_in_the_same_order(fleet, monkeypatch):
    for number in range(150):
        vdi = f"{number:08x}{BASE[8:]}"
        fleet.put(f"h{number:03}.json", b"{" if number % 50 == 7 else from_log(incident(vdi=vdi, how=outcome())))
    documents = []
    for cores in ({0}, {0, 1}, {0, 1, 2}):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: cores)
        run = fleet.report(fleet.folder, "--json")
        assert run.code == 9
        assert len(run.err.splitlines()) == 3
        document = run.json
        assert (document["summary"]["disks"], document["sources"]["unreadable"]) == (147, 3)
        assert [one["host"] for one in document["hosts"]] == [f"h{number:03}" for number in range(150)]
        documents.append(document)
    assert documents[0] == documents[1] == documents[2]


def test_a_reader_that_dies_costs_its_file(fleet, monkeypatch):
    for number in range(80):
        fleet.put(f"h{number:02}.json", from_log(incident(vdi=f"{number:08x}{BASE[8:]}")))
    real = load.read_document

    def deadly(data):
        said = real(data)
        if any(sight.vdi.startswith("00000021") for sight in said.observations):
            os.kill(os.getpid(), signal.SIGKILL)
        return said

    monkeypatch.setattr(load, "read_document", deadly)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    run = fleet.report(fleet.folder, "--json")
    assert run.json["summary"]["disks"] == 79
    (line,) = run.err.splitlines()
    assert line.endswith("h33.json: its reader died (out of memory?)")


def test_where_no_process_can_be_made_one_reads_all(fleet, monkeypatch):
    for number in range(80):
        fleet.put(f"h{number:02}.json", from_log(incident(vdi=f"{number:08x}{BASE[8:]}")))

    def fail():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr("os.fork", fail)
    run = fleet.report(fleet.folder, "--json")
    assert (run.json["summary"]["disks"], run.err) == (80, "")


def test_no_memory_is_one_line(fleet, monkeypatch):
    fleet.put("a.json", from_log())

    def full(data):
        raise MemoryError

    monkeypatch.setattr(load, "read_document", full)
    assert "needs more memory than there is" in fleet.report().err


# --------------------------------------------------------------------------- rendering


def many(count: int, **options) -> FleetPicture:
    picture = FleetMerge(SortedStore)
    for number in range(count):
        sr = f"{number:08x}{SR[8:]}"
        document = from_log(incident(vdi=f"{number:08x}{BASE[8:]}", sr=sr, how=outcome("refused", **options)))
        picture.add(f"h{number}", read_document(json.dumps(document).encode()))
    return picture.picture()


def test_what_is_too_much_for_text_is_in_json():
    picture = many(230, codes=())
    text = render.text(picture)
    assert text.count("and 210 more in --json") == 2
    assert "footer-invalid 1" in text
    assert len(list(render.document(picture, 0, ())["disks"].each())) == 230
    tables = {table.id: table for table in render.tables(picture)}
    assert (len(tables["srs"].rows), tables["srs"].more) == (200, 30)
    assert "trouble" not in tables


def test_what_was_left_out_is_said():
    gathered = FleetMerge(SortedStore)
    gathered.add(
        "a", read_document(json.dumps(from_log(incident(sr=None, first_seen=None))).encode())._replace(left_out=3)
    )
    text = " ".join(render.text(gathered.picture()).split())
    assert "This is not all: 3 disks and images beyond" in text
    assert "since an unknown time" in text
    assert "SR not known" in text


def test_titles():
    assert render.title("VHD101") == "footer lost, backup footer sound"
    assert render.title("VHD998") == "a finding of a later smfix"
    assert render.title("footer-invalid") == "vhd-util found the footer invalid"
    assert render.title("news") == "a kind of report that a later smfix tells apart"
    assert set(render._KINDS) == set(KINDS)
    assert render.title("other") == "more causes than one report names"


def test_names_are_cut():
    assert render.named([str(n) for n in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_a_disk_without_any_name():
    gathered = FleetMerge(SortedStore)
    document = {"schema": "smfix.repair/1", "images": [{"path": "", "outcome": outcome("failed") | {"message": ""}}]}
    gathered.add("a", read_document(json.dumps(document).encode()))
    picture = gathered.picture()
    assert "a disk without a name" in render.text(picture)
    assert [table.rows[0][0] for table in render.tables(picture) if table.id == "left"] == ["a disk without a name"]
