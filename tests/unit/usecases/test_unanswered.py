"""Whose storage is asked before anything waits for it: each place once, however many names lead there."""

from __future__ import annotations

import uuid

import pytest

from smfix.host import storage_probe
from smfix.usecases import resolve

SRS = [str(uuid.UUID(int=number << 96)) for number in (1, 2, 3)]


@pytest.fixture
def mount(tmp_path):
    for sr in SRS:
        (tmp_path / sr).mkdir()
    return tmp_path


@pytest.fixture
def listed(monkeypatch):
    """Where folders below the mounts are listed: how often."""
    calls = []
    real = resolve.sr_folders

    def counting(sr, mounts):
        calls.append(sr)
        return real(sr, mounts)

    monkeypatch.setattr(resolve, "sr_folders", counting)
    return calls


def test_the_srs_are_listed_once_for_all_names(mount, listed):
    assert resolve.unanswered([str(uuid.UUID(int=n)) for n in range(50)], [str(mount)]) == {}
    assert listed == [None]


def test_the_srs_are_listed_once_for_all_incidents_without_one(mount, listed):
    assert resolve.unanswered_srs([None, None, SRS[0], None, SRS[0]], [str(mount)]) == {}
    assert listed == [None, SRS[0]]


def test_a_folder_is_no_name(mount, listed):
    assert resolve.unanswered([f"{mount}/{SRS[0]}/"], [str(mount)]) == {}
    assert listed == []


def test_a_name_is_silent_where_any_sr_is_and_an_sr_where_it_is_itself(mount, monkeypatch):
    dead = str(mount / SRS[1])
    monkeypatch.setattr(storage_probe, "silent", lambda places, _say: frozenset({dead}) & set(places))
    names = ["0123456789", SRS[0], SRS[1]]
    assert resolve.unanswered(names, [str(mount)]) == {name: storage_probe.words(dead) for name in (names[0], SRS[1])}


def test_no_process_goes_first_to_an_sr_that_is_not_there(mount, monkeypatch):
    asked = []
    monkeypatch.setattr(storage_probe, "silent", lambda places, _say: frozenset(asked.extend(places) or ()))
    away = str(uuid.UUID(int=9 << 96))
    assert resolve.unanswered_srs([away, SRS[0]], [str(mount)]) == {}
    assert asked == [str(mount / SRS[0])]
    # A folder that may be entered and not listed may hold any.
    monkeypatch.setattr("os.listdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert resolve.unanswered_srs([away], [str(mount)]) == {}
    assert asked[1:] == [str(mount / away)]
