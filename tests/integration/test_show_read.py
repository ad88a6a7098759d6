"""``smfix show`` against the real ``vhd-util read -p``: what it printed is recorded (fixtures/images).

So this runs without the tool; where it is installed, it is asked again about a part of the images.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import UTC

import pytest

from matrix import dumps
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.libvhd import opened
from smfix.formats.vhd.metadata import metadata, notes

MAY_DIFFER = {dumps.NO_BAT: 90, dumps.NO_HEADER: 60, dumps.ABORTED: 6}
"""Images at most that each rule of decision 14 may excuse."""


@pytest.fixture(scope="module")
def recorded():
    return dumps.load()


def test_enough_is_recorded(recorded):
    named = [dump for dump in recorded if not dump.name.startswith("mutant")]
    assert len(named) >= 200
    assert len(recorded) >= 700
    assert {dump.image.size >= 1 << 20 for dump in named} == {True, False}
    assert len({dump.said for dump in recorded}) > 400


def test_show_prints_what_the_tool_printed(recorded):
    rules, differing = Counter(), {}
    for dump in recorded:
        ours = metadata(opened(dump.image), "IMAGE", UTC)
        rule = dumps.rule_of(dump.said, dump.code, ours)
        rules[rule] += 1
        if rule is None:
            differing[dump.name] = (dump.said, ours)
    assert not differing
    assert rules[dumps.EXACT] >= 500
    assert {rule: rules[rule] for rule in MAY_DIFFER if not 0 < rules[rule] <= MAY_DIFFER[rule]} == {}


def test_of_a_header_that_stands_nowhere_a_note_tells(recorded):
    blank = "Cookie              : \nData offset (unusd) : 0\nTable offset        : 0\n"
    told = {}
    for dump in recorded:
        if blank in dump.said and "Checksum            : 0x0|0xffffffff" in dump.said.split("VHD Header")[1]:
            told[dump.name] = any("shown as 0" in note for note in notes(inspect(dump.image), opened(dump.image)))
    assert len(told) > 20
    assert [name for name, is_told in told.items() if not is_told] == []


@pytest.mark.vhdutil
def test_the_tool_still_prints_what_was_recorded(recorded, tmp_path):
    path = tmp_path / "image.vhd"
    asked = 0
    for dump in recorded[::5]:
        if "invalid; dumping" in dump.said and "SMFIX_MATRIX_PRELOAD" not in os.environ:
            continue  # a header that it does not like costs the tool ten seconds
        path.unlink(missing_ok=True)
        dump.image.write(path)
        assert dumps.said_of(path) == (dump.said, dump.code), dump.name
        asked += 1
    assert asked >= 100


@pytest.mark.vhdutil
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_times_are_those_of_the_zone(recorded, zone, tmp_path, monkeypatch):
    path = tmp_path / "image.vhd"
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for dump in [dump for dump in recorded if dump.name.startswith(("footers: of the year", "smfix "))]:
            path.unlink(missing_ok=True)
            dump.image.write(path)
            said, code = dumps.said_of(path, zone)
            assert dumps.rule_of(said, code, metadata(opened(dump.image), "IMAGE")), dump.name
    finally:
        monkeypatch.undo()
        time.tzset()
