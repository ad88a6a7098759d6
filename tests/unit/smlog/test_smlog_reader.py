"""From names to a reading: files, folders, pipes, several cores, times."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.errors import Unreadable, UsageError
from smfix.smlog import reader as reader_module
from smfix.smlog import scanner as scanner_module
from smfix.smlog.inputs import read_ahead as read_ahead_module
from smfix.smlog.parse import log_times
from smfix.smlog.parse import window as window_module
from smfix.smlog.parse.window import Block, Position, parse_line
from smfix.smlog.reader import read_logs
from smlog_corpus import TRUTHS, as_truth, log_of
from smlog_text import PATH, SR, SR2, VDI, VDI2, X, check, corrupted, failed, gc, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
RUN = [check(), *failed(DUMP), corrupted()]
OK = said("  pread SUCCESS")


def text_of(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def read(*names: object, tz: str | None = "UTC", year: int | None = 2021, **more: str | None):
    options = {"since": None, "until": None, **more}
    return read_logs([str(name) for name in names], tz=tz, year=year, **options)


def brief(reading) -> list[tuple[str, str | None, int, str]]:
    return [(one.vdi.text, one.sr, one.count, one.state.value) for one in reading.incidents]


ONE = [(VDI, SR, 1, "open")]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(RUN))
    os.utime(path, (1_628_600_000, 1_628_600_000))
    return path


# --------------------------------------------------------------------------- names


def test_a_file(log):
    reading = read(log)
    assert brief(reading) == ONE
    assert reading.files == (str(log),)
    assert reading.bytes == log.stat().st_size
    assert reading.first == reading.last == datetime(2021, 8, 9, 12, tzinfo=UTC)
    assert (reading.year_assumed, reading.zone_assumed, reading.notes, reading.unread) == (False, False, (), ())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_packed_is_told_by_its_content(tmp_path, pack):
    path = tmp_path / "anything.txt"
    path.write_bytes(pack(text_of(RUN)))
    assert brief(read(path)) == ONE


@pytest.mark.parametrize("form", ["utf-16", "utf-16-be"])
def test_what_an_editor_of_windows_saved(tmp_path, form):
    text = text_of(RUN).decode().replace("\n", "\r\n")
    data = ("\ufeff" + text if form == "utf-16-be" else text).encode(form)
    for name, content in (("plain", data), ("cut", data + b"x")):
        (tmp_path / name).write_bytes(content)
    assert brief(read(tmp_path / "plain")) == ONE
    assert brief(read(tmp_path / "cut")) == ONE
    assert read(tmp_path / "plain").incidents[0].path == PATH


def test_what_a_folder_holds_besides_is_a_note(tmp_path, log):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "SMlog.2").symlink_to("SMlog.2")
    os.mkfifo(folder / "SMlog.3")
    (folder / "SMlog.4.gz").mkdir()
    with pytest.raises(Unreadable, match=r"SMlog\.4\.gz: not a file; not read$"):
        read(folder)
    (folder / "SMlog").write_bytes(log.read_bytes())
    reading = read(folder)
    assert brief(reading) == ONE
    assert [note.rpartition("/")[2] for note in reading.notes] == [
        "SMlog.2: Too many levels of symbolic links; not read",
        "SMlog.3: not a file; not read",
        "SMlog.4.gz: not a file; not read",
    ]


def test_a_rotated_set_in_a_folder_is_one_log(tmp_path):
    half = len(RUN) // 2
    noise = [said(f"noise {number}", 3) for number in range(200)]
    (tmp_path / "SMlog").write_bytes(text_of([*RUN[half:], *noise]))
    (tmp_path / "SMlog.1").write_bytes(text_of([*noise, *RUN[:half]]))
    (tmp_path / "SMlog.2.gz").write_bytes(gzip.compress(text_of(noise)))
    (tmp_path / "SMlog.10.gz").write_bytes(gzip.compress(text_of([gc("oldest", at="Aug  1 00:00:00")])))
    (tmp_path / "messages").write_bytes(b"not read")
    reading = read(tmp_path)
    assert brief(reading) == ONE
    assert [name.rpartition("/")[2] for name in reading.files] == ["SMlog.10.gz", "SMlog.2.gz", "SMlog.1", "SMlog"]
    assert reading.first.day == 1
    (incident,) = reading.incidents
    assert {quote.file.rpartition("/")[2] for quote in incident.evidence} == {"SMlog.1", "SMlog"}
    assert brief(read(*sorted(tmp_path.glob("SMlog*")))) == ONE


def test_a_bug_report_that_was_unpacked(tmp_path, log):
    from test_smlog_xapi_db import DATABASE

    place = tmp_path / "reports" / "bug-report-1" / "var" / "log"
    place.mkdir(parents=True)
    (place / "SMlog").write_bytes(log.read_bytes())
    (place.parent.parent / "xapi-db.xml").write_text(DATABASE)
    for folder in (tmp_path / "reports", tmp_path / "reports" / "bug-report-1"):
        (incident,) = read(folder).incidents
        assert incident.names.vms == ("web",)


def test_the_same_log_twice_is_read_once(tmp_path, log):
    link = tmp_path / "link"
    link.symlink_to(log)
    assert brief(read(log, log, link)) == ONE
    assert len(read(log, link).files) == 1


def test_logs_of_several_hosts_keep_apart(tmp_path):
    for host in ("xen1", "xen2"):
        (tmp_path / host).mkdir()
    (tmp_path / "xen1" / "SMlog").write_bytes(text_of([gc(f"=== SR {SR}: gc ===")]))
    (tmp_path / "xen2" / "SMlog").write_bytes(text_of([corrupted(host="xen2")]))
    assert brief(read(tmp_path / "xen1", tmp_path / "xen2")) == [(VDI[:8], None, 1, "open")]


@pytest.mark.parametrize("what", ["missing", "empty folder", "fifo", "null\0byte", "device"])
def test_what_cannot_be_read(tmp_path, what):
    path = tmp_path / "x"
    if what == "empty folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    name = {"null\0byte": "a\0b", "device": "/dev/null"}.get(what, str(path))
    with pytest.raises(Unreadable) as error:
        read(name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_log_without_permission(log):
    log.chmod(0)
    with pytest.raises(Unreadable, match="Permission denied"):
        read(log)


def test_storage_that_fails(log, monkeypatch):
    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(log)
    monkeypatch.setattr(os, "listdir", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(log.parent)


def test_storage_that_fails_later(tmp_path, monkeypatch):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of([said("x" * 100)] * 20_000))
    real = os.preadv

    def failing(descriptor, buffers, offset):
        if offset > 1 << 20:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(path)


def test_a_packed_log_that_is_damaged(tmp_path, log):
    whole = gzip.compress(text_of([*RUN, *[said(f"{number}" * 40, 3) for number in range(500)]]))
    cut = tmp_path / "SMlog.1.gz"
    cut.write_bytes(whole[:-500])
    reading = read(cut)
    assert brief(reading) == ONE
    assert reading.unread == reading.notes == (f"{cut}: it ends before its time; what came before was read",)
    cut.write_bytes(b"\x1f\x8b\x08\0" + b"\0" * 6 + b"\xff" * 20)
    assert brief(read(log, cut)) == ONE
    with pytest.raises(Unreadable, match="damaged"):
        read(cut)


# --------------------------------------------------------------------------- standard input


@pytest.fixture
def stdin(monkeypatch):
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))

    return give


def test_standard_input(stdin):
    from test_smlog_archive import tar_of, zip_of

    for data in (
        text_of(RUN),
        gzip.compress(text_of(RUN)),
        zip_of({"SMlog": text_of(RUN)}),
        tar_of({"SMlog": text_of(RUN)}, "w:gz"),
        text_of(RUN).replace(b"\n", b" "),
        text_of(RUN).decode().encode("utf-16"),
        text_of([*[said("x" * 200, 3)] * 10_000, *RUN]),
    ):
        stdin(data)
        reading = read("-")
        assert brief(reading) == ONE
        assert reading.files[0].startswith("-")
    stdin(b"")
    assert read("-").incidents == ()


def test_the_time_of_standard_input_is_now(stdin):
    now = datetime.now(UTC)
    stdin(text_of([gc("x", at=f"{now:%b} {now.day:2d} 00:00:00")]))
    assert abs(read("-", year=None).last - now) < timedelta(days=2)


# --------------------------------------------------------------------------- times


def test_a_year_and_a_zone_that_are_assumed(log):
    reading = read(log, year=None, tz=None)
    assert (reading.year_assumed, reading.zone_assumed) == (True, True)
    assert reading.first.year == 2021
    assert reading.first.tzinfo is not None


@pytest.mark.parametrize(
    ("tz", "hours"), [("UTC", 0), ("z", 0), ("+02:00", 2), ("-0330", -3.5), ("Europe/Berlin", 2), ("Asia/Kolkata", 5.5)]
)
def test_zones(log, tz, hours):
    assert read(log, tz=tz).first.utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize("tz", ["Mars/Olympus", "+25:00", "../../etc/passwd", "", "+2"])
def test_zones_nobody_knows(log, tz):
    with pytest.raises(UsageError, match="--tz"):
        read(log, tz=tz)


@pytest.mark.parametrize("year", [0, 1969, 10_000])
def test_years_that_are_none(log, year):
    with pytest.raises(UsageError, match="--year"):
        read(log, year=year)


WITHOUT_A_TIME = {
    "prose": "lock: released /var/lock/sm/1/sr",
    "a dump": "Timestamp           : Fri Nov 27 20:29:30 2026",
    "clocks": "12:00:00 [T 12:00:00",
    "nothing": "",
    "far behind": "x" * 3000,
}


@pytest.mark.parametrize("line", WITHOUT_A_TIME.values(), ids=list(WITHOUT_A_TIME))
def test_the_first_and_the_last_time_behind_and_before_any_text_without_one(tmp_path, monkeypatch, line):
    monkeypatch.setattr("smfix.smlog.parse.block_reader.BLOCK", 40_000)
    day = [gc("x", at=f"Aug {day} 12:00:00") for day in (10, 11, 12)]
    path = tmp_path / "SMlog"
    path.write_bytes(text_of([*[line] * 450, *day, *[line] * 450]))
    reading = read(path)
    assert (reading.first.day, reading.last.day) == (10, 12)
    path.write_bytes(text_of(["VHD Footer Summary:", *[line] * 450]))
    assert read(path).first is None


def test_the_first_and_the_last_time_of_a_journal(tmp_path):
    entry = '{"__REALTIME_TIMESTAMP":"%d","MESSAGE":"[1] In cleanup"}'
    path = tmp_path / "SMlog"
    path.write_bytes(text_of([*["-- x --"] * 300, *[entry % (day * 86_400_000_000) for day in (1, 2)], *["--"] * 3000]))
    reading = read(path)
    assert (reading.first.day, reading.last.day) == (2, 3)


def test_a_line_is_asked_for_its_time_once_and_so_many_are(monkeypatch):
    asked = []
    parse = log_times.parse_line
    monkeypatch.setattr(log_times, "parse_line", lambda raw, at: asked.append(len(raw)) or parse(raw, at))
    for wanted, text in ((1, b"x 12:00:00" * 1000), (501, b"x 12:00:00\n" * 10_000), (0, b"12:00:00\n" * 1000)):
        block = Block(text, len(text), 0, 1, text.count(b"\n"))
        for which in (log_times.first_time, log_times.last_time):
            assert which(block) is None
            assert len(asked) == wanted
            asked.clear()


LINES = [
    gc("x", at="Aug 10 12:00:00"), gc("Timestamp : Nov 27 20:29:30", at="Aug 11 12:00:00"), "\0" * 300, "x" * 5000, "",
    '{"__REALTIME_TIMESTAMP":"86400000000","MESSAGE":"[1] In cleanup"}', '{"__REALTIME_TIMESTAMP":"12:00:00"}', "> ",
    "> " + gc("x", at="Aug 12 12:00:00"), "Timestamp : Fri Nov 27 20:29:30 2026", " 12:00:00",
    "[1] 2012-05-15 00:18:35\tx", "[20121031T18:06:12.123Z|error|xen1|x|VDI.copy] failed",
    "<150>1 2026-05-01T10:00:00.123456+02:00 xen1 SM - - - [1] x",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=30), st.booleans())
def test_the_first_and_the_last_time_are_those_of_every_line(lines, is_whole):
    text = text_of(lines) if is_whole else text_of(lines)[:-1]
    block = Block(text, len(text), 0, 1, text.count(b"\n"))
    stamps = [stamp for line in lines if (stamp := parse_line(line.encode(), Position(0, 0)).stamp)]
    assert log_times.first_time(block) == (stamps[0] if stamps else None)
    assert log_times.last_time(block) == (stamps[-1] if stamps else None)


def test_since_and_until(tmp_path):
    path = tmp_path / "SMlog"
    later = [line.replace("Aug  9", "Aug 10").replace("[26919]", "[7]") for line in RUN]
    path.write_bytes(text_of([*RUN, *later, check(), OK]))
    assert brief(read(path)) == [(VDI, SR, 2, "resolved")]
    assert brief(read(path, since="2021-08-10")) == [(VDI, SR, 1, "resolved")]
    assert brief(read(path, until="2021-08-09 23:00")) == [(VDI, SR, 1, "resolved")]
    assert brief(read(path, since="2021-08-10T00:00:00+02:00", until="2021-08-11")) == [(VDI, SR, 1, "resolved")]
    assert read(path, until="Aug 1 2021").incidents == ()
    reading = read(path, since="2h")
    assert reading.incidents == ()
    assert reading.notes[0] == "The log ends at 2021-08-09 12:00:00+00:00, before --since 2h."


def test_reports_without_a_time_are_in_every_span(tmp_path):
    path = tmp_path / "check.txt"
    path.write_bytes(f"primary footer invalid: x\n{PATH} appears invalid; dumping metadata\n".encode())
    assert brief(read(path, since="2h")) == ONE
    assert read(path).first is None


def test_the_events_that_are_kept_for_their_times_are_bounded(log, monkeypatch):
    monkeypatch.setattr(reader_module, "_MOST_KEPT", 1)
    assert read(log, since="2021-01-01").incidents[0].kinds == ("footer-invalid",)


@pytest.mark.parametrize("text", ["yesterday's", "99999999d", "2012-13-45", "", "999999w"])
def test_times_that_are_none(log, text):
    with pytest.raises(UsageError, match="--since"):
        read(log, since=text)


def test_a_log_from_another_zone_is_a_note(log):
    os.utime(log, (1_628_500_000, 1_628_500_000))  # Aug 9 09:06, before the last line
    reading = read(log, year=None)
    assert reading.first.year == 2020
    assert "if it comes from another time zone, say --tz or --year" in reading.notes[0]
    assert not read(log).notes


# --------------------------------------------------------------------------- progress and bounds


def test_progress(tmp_path, log):
    told: list[tuple[int, int]] = []
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(text_of(RUN)))
    big = tmp_path / "SMlog.7"
    big.write_bytes(text_of([said("x" * 100)] * 30_000))
    for names, total in (([log, big], log.stat().st_size + big.stat().st_size), ([packed], 0)):
        told.clear()
        read_logs(
            [str(name) for name in names],
            tz="UTC",
            year=None,
            since=None,
            until=None,
            progress=lambda *at: told.append(at),
        )
        assert told == sorted(told)
        assert told[-1][0] == (total or len(text_of(RUN)))
        assert {one[1] for one in told} == {total}


def test_a_sparse_log_is_read_where_it_has_data(tmp_path):
    path = tmp_path / "SMlog"
    with path.open("wb") as file:
        file.write(text_of([gc("first", at="Aug  1 00:00:00")]))
        file.seek(1 << 40)
        file.write(text_of(RUN))
        file.truncate((1 << 40) + (1 << 39))
    reading = read(path)
    assert brief(reading) == ONE
    assert reading.bytes < 64 << 20
    assert reading.first.day == 1


def test_more_disks_than_there_can_be(tmp_path, monkeypatch):
    from smfix.smlog.correlate import incidents

    monkeypatch.setattr(incidents, "_MOST", 1)
    path = tmp_path / "SMlog"
    path.write_bytes(text_of([corrupted(), corrupted(f"{VDI2[:8]}(1G)")]))
    reading = read(path)
    assert len(reading.incidents) == 1
    assert "left out" in reading.notes[0]


def test_noise_is_told(log):
    log.write_bytes(text_of([said("['/usr/sbin/tap-ctl', 'list']"), *failed("x")] * 3))
    assert read(log).noise[0][1] == 3


# --------------------------------------------------------------------------- blocks, rotation, several cores

LONG = []
for number in range(300):
    LONG += [said(f"lock: released /var/lock/sm/{number}/sr", 900 + number % 7) for _ in range(8)]
    if number % 40 == 7:
        LONG += [line.replace("[26919]", f"[{number}]") for line in RUN]
    if number % 90 == 89:
        LONG += [check(pid=3), said("  pread SUCCESS", 3)]


SIZES = [500, 1000, 7000, 1 << 20]


@pytest.fixture
def small(monkeypatch):
    """Short searches, blocks of any size."""
    monkeypatch.setattr(window_module, "REACH_BACK", 6000)
    monkeypatch.setattr("smfix.smlog.correlate.failures.REACH_BACK", 6000)
    for module in (window_module, scanner_module):
        monkeypatch.setattr(module, "REACH_AHEAD", 3000)
    cut_into(monkeypatch, 1000)


def cut_into(monkeypatch, size: int) -> None:
    monkeypatch.setattr("smfix.smlog.parse.block_reader.BLOCK", size)


def ways(monkeypatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


def everything(reading):
    return [as_truth(incident) for incident in reading.incidents], dict(reading.noise), reading.bytes


def test_blocks_of_any_size_tell_the_same(tmp_path, small, monkeypatch):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(LONG))
    found = []
    for size in SIZES:
        cut_into(monkeypatch, size)
        found.append(everything(read(path)))
    assert found[0][0]
    assert all(one == found[0] for one in found)


def quiet(count, start=0):
    return [said(f"lock: released /var/lock/sm/{start + number}/sr", 900 + number % 7) for number in range(count)]


def reported(path=PATH, pid=1, at="Aug  9 12:00:00", complaint="primary footer invalid: invalid cookie"):
    name = f"*{path.rsplit('/', 1)[1][:8]}(40.000G/14.27G)"
    dump = f"{complaint}\n{path} appears invalid; dumping metadata\n"
    return [check(path, pid=pid, at=at), *failed(dump, pid, at=at), corrupted(name, pid=pid, at=at)]


SOUND = [check(pid=8), said("  pread SUCCESS", 8)]
LATER = "Aug 11 12:00:00"
OTHER_SR = PATH.replace(SR, SR2)
FAST = [check(PATH, "-B", pid=6), said("  pread SUCCESS", 6)]
MERGED = [
    gc(f"=== SR {SR}: gc ===", 7),
    gc(f"Running VHD coalesce on *{VDI[:8]}(2.000G?)", 7),
    gc("Child process completed successfully", 7),
    gc(f"  Relinking 78e51061(2.000G?) from *{VDI[:8]}(2.000G?) to *{VDI2[:8]}(2.000G?)", 7),
]
OVERLAP = reported(pid=5, complaint="block 3 (offset 0x12) clobbers headers")
LOGS = {
    "a span drops the later report": (
        [*reported(), *quiet(200), *SOUND, *quiet(150), *reported(pid=9, at=LATER), *quiet(30)],
        {"until": "2021-08-10"},
    ),
    "one UUID on two SRs": (
        [*reported(), *quiet(200), *SOUND, *quiet(150), *reported(OTHER_SR, 9), *quiet(30)],
        {},
    ),
    "two UUIDs with the same digits on one SR": (
        [*reported(), *quiet(200), *SOUND, *quiet(150), *reported(PATH.replace("058e", "ffff"), 9), *quiet(30)],
        {},
    ),
    "a copy is reported behind what proves the disk": (
        [*reported(), *quiet(200), *SOUND, *quiet(9), *reported(PATH.replace(SR, f"{SR}/tmpFco2q9"), 9), *quiet(30)],
        {},
    ),
    "a weaker proof comes first": ([*OVERLAP, *FAST, *quiet(300), *MERGED, *quiet(100)], {}),
    "a weaker proof comes first, in one part": ([*OVERLAP, *FAST, *MERGED, *quiet(100)], {}),
    "noise at the cut": ([gc(f"gc: EXCEPTION {X}, Timed out", number % 50 + 1) for number in range(400)], {}),
}


@pytest.mark.parametrize("what", LOGS)
def test_what_later_blocks_hold_changes_nothing(tmp_path, small, monkeypatch, what):
    log, options = LOGS[what]
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(log))
    os.utime(path, (1628600000, 1628600000))  # behind what the span holds, in 2021
    found = []
    for size in SIZES:
        cut_into(monkeypatch, size)
        found.append(everything(read(path, **options)))
    assert all(one == found[0] for one in found)
    states = [one.state.value for one in read(path, **options).incidents]
    assert states == (
        []
        if "noise" in what
        else ["resolved", "open"]
        if what.endswith("SR") or "two SRs" in what or "a copy" in what
        else ["resolved"]
    )


@pytest.mark.parametrize("what", ["a line of any length", "a hole"])
def test_what_lies_far_in_front_of_a_report(tmp_path, small, monkeypatch, what):
    """Behind a line of any length, or before a hole: as much as a search reaches."""
    path = tmp_path / "SMlog"
    with path.open("wb") as file:
        if what == "a hole":
            file.write(text_of([*quiet(200), check(), "one line"]))
            file.seek(1 << 20)
        else:
            file.write(text_of([*quiet(200), "z" * 9000, check()]))
        file.write(text_of([*quiet(5), corrupted(pid=5), *quiet(20)]))
        file.truncate(2 << 20)
    for size in SIZES:
        cut_into(monkeypatch, size)
        assert [one.vdi.text for one in read(path).incidents] == [VDI]


def test_storage_that_fails_while_text_is_read_again(tmp_path, small, monkeypatch):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(LONG))
    real, ends = os.preadv, {}

    def failing(descriptor, buffers, offset):
        if 0 < offset < ends.get(os.getpid(), 0):
            raise OSError(5, "Input/output error")
        ends[os.getpid()] = offset + len(buffers[0])
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    monkeypatch.setattr("smfix.smlog.inputs.discover.LARGEST_PASTE", 0)
    with pytest.raises(Unreadable, match=r"SMlog: Input/output error"):
        read(path)


def test_storage_that_fails_while_a_paste_is_read(tmp_path, monkeypatch):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(RUN))
    real, calls = os.preadv, []

    def failing(*given):
        calls.append(given)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return real(*given)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(Unreadable, match=r"SMlog: Input/output error"):
        read(path)


def test_holes_do_not_move_what_is_read_again(tmp_path, small, monkeypatch):
    """A log with a hole (a crash, a copy): every block is let go of, and read again where it lies."""
    half = len(LONG) // 2
    text, more = text_of(LONG[:half]), text_of(LONG[half:])
    plain, holed = tmp_path / "plain", tmp_path / "SMlog"
    plain.write_bytes(text + more)
    with holed.open("wb") as file:
        file.write(text)
        file.seek(file.tell() + (1 << 20))
        file.write(more)
    for size in SIZES:
        cut_into(monkeypatch, size)
        expected = [(one.vdi.text, one.count, one.kinds, one.state) for one in read(plain).incidents]
        found = [(one.vdi.text, one.count, one.kinds, one.state) for one in read(holed).incidents]
        assert found == expected


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("pieces", [2, 3, 9])
def test_any_rotation_tells_the_same(tmp_path, small, monkeypatch, count, pieces):
    ways(monkeypatch, count)
    size = len(LONG) // pieces + 1
    whole = tmp_path / "whole"
    whole.write_bytes(text_of(LONG))
    expected = [(one.vdi.text, one.count, one.kinds, one.state, len(one.evidence)) for one in read(whole).incidents]
    for packed in (False, True, None):
        folder = tmp_path / f"{packed}"
        folder.mkdir()
        for number in range(pieces):
            data = text_of(LONG[number * size : (number + 1) * size])
            suffix = f".{pieces - 1 - number}" if number < pieces - 1 else ""
            if packed or (packed is None and number % 2):
                (folder / f"SMlog{suffix}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / f"SMlog{suffix}").write_bytes(data)
        reading = read(folder)
        found = [(one.vdi.text, one.count, one.kinds, one.state, len(one.evidence)) for one in reading.incidents]
        assert found == expected
        for incident in reading.incidents:
            for quote in incident.evidence:
                data = Path(quote.file).read_bytes()
                lines = (gzip.decompress(data) if quote.file.endswith(".gz") else data).decode().split("\n")
                assert lines[quote.line - 1] == quote.text


def test_damage_in_a_part(tmp_path, small, monkeypatch):
    ways(monkeypatch, 2)
    (tmp_path / "SMlog.2.gz").write_bytes(gzip.compress(text_of(LONG))[:-40])
    (tmp_path / "SMlog.1.gz").write_bytes(gzip.compress(text_of(LONG))[:-40])
    (tmp_path / "SMlog").write_bytes(text_of(LONG))
    reading = read(tmp_path)
    assert len(reading.unread) == 2
    assert len(reading.incidents) == 1


def test_threads_end_with_the_reading(tmp_path, small, monkeypatch):
    """Also where the reading fails between two packed logs."""
    ways(monkeypatch, 2)
    for number in range(4):
        (tmp_path / f"SMlog.{number + 1}.gz").write_bytes(gzip.compress(text_of([*LONG, *LONG])))
    before = threading.active_count()
    assert read(tmp_path).incidents
    assert threading.active_count() == before

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_logs([str(tmp_path)], tz="UTC", year=None, since=None, until=None, progress=interrupted)
    assert threading.active_count() == before


def test_storage_that_fails_below_a_packed_log(tmp_path, small, monkeypatch):
    ways(monkeypatch, 2)
    packed = tmp_path / "SMlog.1.gz"
    packed.write_bytes(gzip.compress(os.urandom(1 << 20)))
    real = os.preadv

    def failing(descriptor, buffers, offset):
        if offset > 1000:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(packed)


def test_a_thread_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(read_ahead_module, "_PATIENCE", 0.01)
    ways(monkeypatch, 2)
    hang = threading.Event()

    def hanging():
        hang.wait()
        yield from ()

    streams = read_ahead_module.read_ahead([(lambda: iter(()), True), (hanging, True)])
    assert list(next(streams)) == []
    streams.close()
    hang.set()


def test_a_later_part_proves_what_an_earlier_one_reported(tmp_path, small, monkeypatch):
    (tmp_path / "SMlog.1.gz").write_bytes(gzip.compress(text_of([*RUN, *LONG])))
    other = PATH.replace(VDI, VDI2)
    lines = [*LONG, *RUN, check(other, pid=5), said("  pread SUCCESS", 5), check(pid=5), said("  pread SUCCESS", 5)]
    (tmp_path / "SMlog").write_bytes(text_of([*lines, *LONG[:20]]))
    for count in (1, 2):
        ways(monkeypatch, count)
        assert brief(read(tmp_path))[0][3] == "resolved"
    (tmp_path / "later").write_bytes(text_of([check(pid=5, at="Aug 11 12:00:00"), said("  pread SUCCESS", 5)]))
    (tmp_path / "first").write_bytes(text_of(RUN))
    for count in (1, 2):
        ways(monkeypatch, count)
        assert brief(read(tmp_path / "first", tmp_path / "later")) == [(VDI, SR, 1, "resolved")]


def test_a_log_without_line_ends(tmp_path, small):
    path = tmp_path / "SMlog"
    path.write_bytes(b"VDI " + b"x" * 100_000)
    assert read(path).incidents == ()


@pytest.mark.parametrize(
    "text", [b"total 12\n-rwxr-xr-x 1 root root 142312 ls\n", b"\x7fELF\x02\x01" * 999, b"hello\n"]
)
def test_what_is_no_log_at_all_is_refused(tmp_path, text):
    path = tmp_path / "ls"
    path.write_bytes(text)
    with pytest.raises(Unreadable, match="no storage log: no line of it has the form of one"):
        read(path)
    path.write_bytes(b" \n\n")
    assert read(path).notes == ()


def test_what_speaks_of_storage_is_told_what_it_is(tmp_path):
    path = tmp_path / "paste"
    path.write_bytes(b'{"code": "SR_BACKEND_FAILURE_82", "params": []}\n')
    (note,) = read(path).notes
    assert note.startswith(f"{path}: this is an error of XAPI")
    assert "smfix from-log /var/log/SMlog" in note


# --------------------------------------------------------------------------- properties


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_interleaving_with_other_processes_changes_nothing(data):
    """Lines of other pids between those of a run, in any order."""
    truth = data.draw(st.sampled_from([one for one in TRUTHS if one.name.startswith("syslog-")]))
    lines = log_of(truth).read_text(encoding="utf-8").splitlines()
    host = lines[0].split()[3]
    stamp = lines[0][:15]
    generator = random.Random(data.draw(st.integers(0, 1000)))
    mixed: list[str] = []
    for line in lines:
        for _ in range(generator.choice((0, 0, 1, 3))):
            text = generator.choice(("  pread SUCCESS", "lock: released", "', stderr: ''", "Cookie : x", "In cleanup"))
            mixed.append(
                f"{stamp} {host} {generator.choice(('SM', 'SMGC'))}: [{generator.randrange(40000, 50000)}] {text}"
            )
        mixed.append(line)
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        for text in (lines, mixed):
            file.seek(0)
            file.truncate()
            file.write(text_of(text))
            file.flush()
            found = [as_truth(one) for one in read(file.name, year=2022).incidents]
            for one in found:
                for key in ("lines", "proof", "first_seen", "last_seen"):
                    one.pop(key)
            if text is lines:
                expected = found
    assert found == expected


@given(st.binary(max_size=400), st.integers(0, 10_000), st.sampled_from(["insert", "replace", "cut"]), st.data())
@settings(max_examples=120, deadline=None)
def test_any_bytes_in_a_log_end_without_an_invented_uuid(junk, at, how, data):
    import re
    import tempfile

    truth = data.draw(st.sampled_from(TRUTHS))
    text = log_of(truth).read_bytes()
    at %= len(text) + 1
    text = {
        "insert": text[:at] + junk + text[at:],
        "replace": text[:at] + junk + text[at + len(junk) :],
        "cut": text[:at],
    }[how]
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        try:
            reading = read(file.name)
        except Unreadable:
            return
    plain = re.sub(rb"[\s\\>]", b"", text).lower()
    for incident in reading.incidents:
        for name in (incident.vdi.text, incident.sr or ""):
            assert name.encode() in plain


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_of_windows(tmp_path, ending):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(LONG).replace(b"\n", ending.encode()))
    assert [one[:3] for one in brief(read(path))] == [(VDI, SR, 8)]


def test_ten_megabytes_in_one_line(tmp_path):
    path = tmp_path / "SMlog"
    path.write_bytes(text_of(RUN) + b"x" * (10 << 20) + b"EXCEPTION FAILED appears invalid\n" + text_of([check(), OK]))
    reading = read(path)
    assert brief(reading) == [(VDI, SR, 1, "resolved")]
