"""Which run a line belongs to, and which SR the run works on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smfix.smlog.correlate.process_runs import (
    apart,
    run_before,
    same_run,
    sr_of,
    srs_named,
    started_between,
    starts_run,
)
from smfix.smlog.parse.timestamps import Stamp
from smlog_text import LV, PATH, SR, SR2, VDI, gc, line_at, said, window_of

NOON = Stamp(None, 8, 9, 12, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [
        (NOON, Stamp(None, 8, 9, 12, 0, 5), timedelta(seconds=5)),
        (NOON, Stamp(None, 8, 8, 12, 0, 0), timedelta(days=1)),
        (Stamp(None, 12, 31, 23, 59, 59), Stamp(None, 1, 1, 0, 0, 1), timedelta(seconds=2)),
        (Stamp(2012, 1, 1, 0, 0, 0), Stamp(2013, 1, 1, 0, 0, 0), timedelta(days=366)),
        (Stamp(2012, 1, 1, 0, 0, 0), Stamp(None, 1, 2, 0, 0, 0), timedelta(days=1)),
        (Stamp(None, 2, 28, 0, 0, 0), Stamp(None, 3, 1, 0, 0, 0), timedelta(days=1)),
        (Stamp(None, 2, 29, 0, 0, 0), Stamp(None, 3, 1, 0, 0, 0), timedelta(days=1)),
        (None, NOON, None),
        (Stamp(2013, 1, 1, 0, 0, 0), Stamp(None, 2, 29, 0, 0, 0), None),
    ],
)
def test_apart(first, second, gap):
    assert apart(first, second) == apart(second, first) == gap


def test_a_day_of_silence_ends_a_run():
    assert same_run(NOON, Stamp(None, 8, 10, 11, 59, 59))
    assert not same_run(NOON, Stamp(None, 8, 10, 12, 0, 0))
    assert same_run(None, NOON)


@pytest.mark.parametrize(
    "text",
    [
        f"=== SR {SR}: gc ===",
        f"=== SR {SR.upper()}: abort ===",
        f"['/usr/bin/vhd-util', 'check', '-n', '{PATH}']",
        f"['/usr/bin/vhd-util', 'scan', '-f', '-m', '/var/run/sr-mount/{SR}/*.vhd']",
        f"['/usr/bin/vhd-util', 'scan', '-f', '-m', 'VHD-*', '-l', 'VG_XenStorage-{SR}']",
        f"lock: opening lock file /var/lock/sm/{SR}/sr",
        f"lock: tried lock /run/lock/sm/{SR}/running, acquired: True",
        f"lock: acquired /var/lock/sm/lvm-{SR}/{VDI}",
        f"LVMCache created for VG_XenStorage-{SR}",
        f"Starting asynch srUpdate for SR {SR}",
        f"* * * * * SR {SR}: ERROR",
        f"Kicking SMGC@{SR}...",
        f"IPCFlag: clear {SR}:success",
        f"sr_scan {{'sr_uuid': '{SR}', 'command': 'sr_scan'}}",
        f"Coalesce failed on SR {SR}: Invalid argument ()",
    ],
)
def test_lines_that_name_an_sr(text):
    assert srs_named(text) == {SR}


@pytest.mark.parametrize(
    "text", [f"lock: opening lock file /var/lock/sm/{VDI}/vdi", "SR 7a14 ('Local storage')", f"x {SR}"]
)
def test_lines_that_name_none(text):
    assert srs_named(text) == set()


def test_lines_that_begin_a_run():
    window = window_of([gc(f"=== SR {SR}: gc ==="), said("vdi_attach {'sr_uuid': 'x'}"), said("In cleanup")])
    assert [starts_run(line_at(window, number)) for number in (1, 2, 3)] == [True, True, False]


def sr_at_end(*lines: str) -> str | None:
    window = window_of(list(lines))
    return sr_of(window, line_at(window, len(lines)))


END = gc("coalesce: EXCEPTION", at="Aug  9 12:20:00")


def test_the_sr_of_the_same_run():
    assert sr_at_end(gc(f"=== SR {SR}: gc ==="), END) == SR
    assert sr_at_end(said(f"LVMCache created for VG_XenStorage-{SR}", at="Aug  9 12:12:00"), END) == SR
    assert sr_at_end(END) is None
    assert sr_at_end("no prefix") is None


def test_the_last_one_named_counts():
    assert sr_at_end(gc(f"Kicking SMGC@{SR2}"), gc(f"IPCFlag: set {SR}:success"), END) == SR
    assert sr_at_end(gc(f"'sr_uuid': '{SR2}', 'sr_uuid': '{SR}'"), END) is None


def test_an_sm_command_lends_its_sr_for_ten_minutes():
    lent = said(f"vdi_attach {{'sr_uuid': '{SR}'}}", at="Aug  9 12:10:00")
    assert sr_at_end(lent, END) == SR
    assert sr_at_end(lent.replace("12:10:00", "12:09:59"), END) is None


def test_another_host_or_pid_lends_nothing():
    assert sr_at_end(gc(f"=== SR {SR}: gc ===", host="xen2"), END) is None
    assert sr_at_end(gc(f"=== SR {SR}: gc ===", 26918), END) is None


def test_an_older_run_lends_nothing():
    old = gc(f"=== SR {SR}: gc ===", at="Aug  8 12:00:00")
    assert sr_at_end(old, END) is None
    assert sr_at_end(old, gc("x", at="Aug  9 11:59:59"), END) == SR
    assert sr_at_end(gc(f"IPCFlag: set {SR}:success"), said("vdi_attach {'x': 1}"), END) is None


def test_a_daemon_inherits_from_where_it_came():
    lines = (gc(f"=== SR {SR}: gc ===", 1), gc("New PID [2]", 1), gc("Will finish as PID [26919]", 2), END)
    assert sr_at_end(*lines) == SR
    assert sr_at_end(lines[0], lines[2], lines[1], END) == SR
    assert sr_at_end(gc(f"=== SR {SR2}: gc ==="), *lines) == SR
    assert sr_at_end(*(line.replace("xen1", "xen2") for line in lines[:3]), END) is None


def test_a_daemon_that_is_told_of_late():
    window = window_of([END, gc(f"=== SR {SR}: gc ===", 1), gc("New PID [26919]", 1)])
    assert sr_of(window, line_at(window, 1)) == SR


@pytest.mark.parametrize(("back", "found"), [(1000, SR), (899, None), (500, None)])
def test_no_handover_reaches_further_than_a_search(monkeypatch, back, found):
    """What a part of a log has in front of it is as much as one search reaches: so many searches reach no further."""
    monkeypatch.setattr("smfix.smlog.parse.window.REACH_BACK", back)
    started, passed = gc(f"=== SR {SR}: gc ===", 1), gc("New PID [26919]", 1)
    rest = 900 - len(started) - len(passed) - 2
    assert sr_at_end(started, "x" * (rest // 2 - 1), passed, "x" * (rest - rest // 2 - 1), END) == found


def test_no_handover_that_is_told_of_late_reaches_further_than_a_search(monkeypatch):
    lines = [gc(f"=== SR {SR}: gc ===", 1), END, "x" * 400, gc("New PID [26919]", 2), "x" * 400, gc("New PID [2]", 1)]
    window = window_of(lines)
    assert sr_of(window, line_at(window, 2)) == SR
    monkeypatch.setattr("smfix.smlog.parse.window.REACH_AHEAD", 600)
    assert sr_of(window, line_at(window, 2)) is None


def test_a_daemon_of_another_day_is_another():
    lines = [gc(f"=== SR {SR}: gc ===", 1, at="Aug  1 12:00:00"), gc("New PID [26919]", 1, at="Aug  1 12:00:00"), END]
    assert sr_at_end(*lines) is None


def test_daemons_in_a_ring_end():
    lines = [gc(f"New PID [{pid + 1}]", pid) for pid in range(1, 9)] + [gc("New PID [1]", 9), gc("x", 5)]
    assert sr_at_end(*lines) is None


def test_the_lines_of_a_run():
    window = window_of(
        [
            gc("old"),
            gc("Will finish as PID [26919]", 4),
            gc("one"),
            gc("kill [26919]", 7),
            gc("two"),
            gc("here"),
            "plain",
        ]
    )
    assert [line.text for line in run_before(window, line_at(window, 6))] == ["two", "one"]
    assert list(run_before(window, line_at(window, 7))) == []


def test_whether_a_pid_was_used_again():
    lines = [gc("one"), gc(f"=== SR {SR}: gc ==="), gc("two"), gc("New PID [26919]", 3), gc("three"), "plain"]
    window = window_of(lines)
    first, second, third = (line_at(window, number) for number in (1, 3, 5))
    assert started_between(window, second, window.place(first.at))
    assert started_between(window, third, window.place(second.at))
    assert not started_between(window, second, window.place(second.at) - 1)
    assert not started_between(window, first, 0)
    assert not started_between(window, line_at(window, 6), 0)


def test_paths_of_volumes_name_the_sr():
    assert srs_named(f"x {LV}") == {SR}
