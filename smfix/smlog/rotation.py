"""The order of rotated logs: which file continues which.

Pure. logrotate renames ``SMlog`` to ``SMlog.1``, and compresses older ones (``SMlog.2.gz`` ...
``SMlog.31.gz``); with dateext they are ``SMlog-20240131`` or ``SMlog-20240131-1706659201.gz``. The
oldest comes first, the live file last: an incident that spans two files is one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smfix.smlog.patterns import pattern

_COMPRESSED = r"(?:\.(?:gz|bz2|xz|zst|Z))?"
_ROTATED = pattern(
    rf"(?P<stem>.+?)(?:\.(?P<number>[0-9]{{1,4}})|-(?P<date>[0-9]{{8}})(?:-(?P<second>[0-9]{{1,11}}))?)?{_COMPRESSED}\Z",
    re.DOTALL,
)
_SMLOG = pattern(rf"SMlog(?:\.[0-9]{{1,4}}|-[0-9]{{8}}(?:-[0-9]{{1,11}})?)?{_COMPRESSED}\Z")


class Age(NamedTuple):
    """Sorts the files of one set: the oldest is the smallest."""

    live: int
    date: int
    minus_number: int


def is_smlog(name: str) -> bool:
    """True for the name (without its folder) of an SMlog, live or rotated."""
    return _SMLOG.match(name) is not None


def age(path: str) -> tuple[str, Age]:
    """The set that `path` belongs to (its path without the rotation), and its place in there."""
    folder, slash, name = path.rpartition("/")
    found = _ROTATED.match(name)
    if found is None:
        return path, Age(1, 0, 0)
    stem = folder + slash + found["stem"]
    if found["number"]:
        return stem, Age(0, 0, -int(found["number"]))
    if found["date"]:
        return stem, Age(0, int(found["date"]) * 10**11 + int(found["second"] or 0), 0)
    return stem, Age(1, 0, 0)


def in_order(paths: list[str]) -> list[list[str]]:
    """`paths` as sets, each oldest first. Sets keep the order in which their first file came."""
    sets: dict[str, list[tuple[Age, str]]] = {}
    for path in dict.fromkeys(paths):
        stem, place = age(path)
        sets.setdefault(stem, []).append((place, path))
    return [[path for _, path in sorted(members)] for members in sets.values()]
