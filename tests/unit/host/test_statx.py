"""What tells a file from a later one that was given its inode number."""

from __future__ import annotations

import os

import pytest

from smfix.host import statx
from smfix.host.statx import Lineage, lineage


def test_it_stays_while_the_file_lives(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        first = lineage(file.fileno())
    path.write_bytes(b"another content")
    path.rename(tmp_path / "renamed")
    with (tmp_path / "renamed").open("rb") as file:
        assert lineage(file.fileno()) == first
    assert not first.is_other(first)


def test_a_later_file_has_another(tmp_path):
    seen = set()
    for _ in range(3):
        path = tmp_path / "disk"
        path.write_bytes(b"x")
        with path.open("rb") as file:
            seen.add(lineage(file.fileno()))
        path.unlink()
    if any(one.generation is None for one in seen):
        pytest.skip("this file system keeps no generation, and its clock may stand still for milliseconds")
    assert len(seen) == 3


def test_without_the_calls_nothing_is_known(monkeypatch):
    monkeypatch.setattr(statx, "_statx", lambda: None)
    read, write = os.pipe()
    assert lineage(read) == Lineage()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("mine", "theirs", "same", "other"),
    [
        ((5, 6), (5, 6), True, False),
        ((5, None), (5, 6), True, False),
        ((5, 7), (5, 6), False, True),
        ((4, None), (5, 6), False, True),
        ((None, None), (5, 6), False, False),
        ((5, None), (None, 6), False, False),
    ],
)
def test_what_only_one_knows_says_nothing(mine, theirs, same, other):
    assert Lineage(*mine).is_same(Lineage(*theirs)) is same
    assert Lineage(*mine).is_other(Lineage(*theirs)) is other
