"""The sorted store: sorted whatever its size, read as often as wanted, no file name left behind, memory bounded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix.errors import WriteFailed
from smfix.fleet.sorted_store import SortedStore

# Lone surrogates too: the name of a file may hold any byte.
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff\0"), max_size=3)
ROWS = st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), TEXTS), max_size=100)


@given(ROWS)
def test_it_is_what_sorting_gives(rows):
    store = SortedStore(keys=2)
    for number, text in rows:
        store.add(number, text, value=(text, number) if number % 2 else None)
    expected = [(number, text, (text, number) if number % 2 else None) for number, text in sorted(rows)]
    assert list(store) == expected
    assert list(zip(store, store, strict=True)) == list(zip(expected, expected, strict=True))
    assert len(store) == len(rows)


@given(st.lists(st.integers(0, 20)))
def test_different_keys_are_counted(numbers):
    store = SortedStore()
    for number in numbers:
        store.add(number)
    assert store.count_distinct() == len(set(numbers))


PROGRAM = """
import os, resource, sys
from smfix.fleet.sorted_store import SortedStore
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = SortedStore(2)
for number in range(40_000):
    store.add(f"{number * 7919 % 40_000:08}", number, value="x" * 1000)
assert [row[0] for row in store] == [f"{number:08}" for number in range(40_000)]
print(os.listdir(sys.argv[1]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_one_leaves_no_name_and_takes_little_memory(tmp_path):
    """40 MB of values in less than 12 MiB."""
    environment = os.environ | {"SQLITE_TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    names, megabytes = subprocess.check_output(words, env=environment, text=True, timeout=60).rsplit(maxsplit=1)
    assert names == "[]"
    assert int(megabytes) < 12


def test_a_folder_that_is_full_is_one_line(monkeypatch):
    store = SortedStore()
    store.add(1)

    class Full:
        def execute(self, *anything):
            raise sqlite3.OperationalError("database or disk is full")

        fetchone = execute

    monkeypatch.setattr(store, "_database", Full())
    with pytest.raises(WriteFailed, match=r"cannot be written to \(database or disk is full\); .*TMPDIR names another"):
        store.add(2)
    with pytest.raises(WriteFailed):
        store._next(Full())
    monkeypatch.undo()
