"""Piles: sorted whatever their size, read as often as one likes, and no file where none is needed."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix.errors import WriteFailed
from smfix.fleet import external_sort
from smfix.fleet.external_sort import Pile

VALUES = st.lists(st.tuples(st.integers(0, 40), st.text(max_size=3)), max_size=200)


@given(VALUES, st.integers(1, 70), st.integers(2, 4), st.booleans())
def test_it_is_what_sorting_gives(values, most, wide, once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "WIDE", wide)
        patch.setattr(external_sort, "_AT_ONCE", 3)
        pile = Pile(most=most, once=once)
        for value in values:
            pile.add(value)
        expected = sorted(set(values) if once else values)
        assert list(pile) == expected
        assert list(zip(pile, pile, strict=True)) == list(zip(expected, expected, strict=True))
        assert len(pile) == len(values)


def test_a_small_one_makes_no_file(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    pile = Pile()
    for value in range(external_sort.MOST - 1, 0, -1):
        pile.add(value)
    assert list(pile) == list(range(1, external_sort.MOST))


def test_a_large_one_leaves_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pile = Pile(most=2)
    for value in "edcba":
        pile.add(value)
    assert list(pile) == list("abcde")
    assert os.listdir(tmp_path) == []


def test_runs_that_are_read_together_are_few():
    pile = Pile(most=1)
    for value in range(3 * external_sort.WIDE * external_sort.WIDE):
        pile.add(value)
    assert sum(map(len, pile._levels)) < 3 * external_sort.WIDE
    assert list(pile) == list(range(3 * external_sort.WIDE * external_sort.WIDE))


def test_a_folder_that_is_full_or_missing_is_one_line(monkeypatch):
    class Full:
        def tell(self):
            return 0

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            pass

    pile = Pile(most=1)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(WriteFailed, match=r"cannot be written to \(No space left on device\); TMPDIR names"):
        pile.add(1)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(WriteFailed, match="No such file or directory"):
        Pile(most=1).add(1)
