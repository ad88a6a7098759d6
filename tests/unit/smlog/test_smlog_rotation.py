"""Rotated logs in their true order."""

from __future__ import annotations

import random

import pytest

from smfix.smlog.inputs.rotation import in_order, is_smlog

NUMBERED = [*(f"/var/log/SMlog.{number}.gz" for number in range(31, 1, -1)), "/var/log/SMlog.1", "/var/log/SMlog"]
DATED = [
    "/l/SMlog-20231230.gz",
    "/l/SMlog-20240101-1704067300.xz",
    "/l/SMlog-20240101-1704067900.zst",
    "/l/SMlog-20240102",
    "/l/SMlog",
]


@pytest.mark.parametrize("paths", [NUMBERED, DATED])
def test_the_oldest_first(paths):
    shuffled = list(paths)
    random.Random(5).shuffle(shuffled)
    assert in_order(shuffled) == [paths]


def test_sets_stay_apart_and_in_order():
    assert in_order(["b/SMlog", "a/SMlog", "a/SMlog.1", "other.txt", "b/SMlog.1", "b/SMlog"]) == [
        ["b/SMlog.1", "b/SMlog"],
        ["a/SMlog.1", "a/SMlog"],
        ["other.txt"],
    ]
    assert in_order([""]) == [[""]]


@pytest.mark.parametrize(
    "name", ["SMlog", "SMlog.1", "SMlog.31.gz", "SMlog-20240101", "SMlog-20240101-1.bz2", "SMlog.gz"]
)
def test_names_of_logs(name):
    assert is_smlog(name)


@pytest.mark.parametrize("name", ["SMlog.old", "xSMlog", "SMlog~", "SMlog.1.gz.tmp", "smlog", "SMlog.1\n"])
def test_other_names(name):
    assert not is_smlog(name)
