"""Which targets can be examined: those whose storage answers (:mod:`smfix.host.storage_probe`).

Asked once for all folders that the names of a run lead to, before the first of them is touched. Storage that dies
later, in the middle of the work, holds up who waits for it; then the journal has the way back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from smfix.host import storage_probe
from smfix.host.wait_notice import Say
from smfix.sm.paths import is_uuid
from smfix.sm.sr_types.registry import sr_folders

Name = TypeVar("Name")


def unanswered(targets: Iterable[str], mounts: Sequence[str], say: Say | None = None) -> dict[str, str]:
    """Of the TARGETs of a command line those whose storage is silent, and what is said of it. Raises UsageError.

    `say` gets a line when storage is waited for.
    """
    every = cache(lambda: list(sr_folders(None, mounts)))  # listed once, and only where a name asks for it
    return _unanswered({text: _places(text, mounts, every) for text in targets}, say)


def unanswered_srs(srs: Iterable[str | None], mounts: Sequence[str], say: Say | None = None) -> dict[str | None, str]:
    """Of the SRs those that are silent; None, an SR that nobody knows, is silent where any is. Raises UsageError."""
    there = _listed(mounts)
    places = {sr: list(sr_folders(sr and sr.lower(), mounts)) for sr in dict.fromkeys(srs)}
    known = {sr: [one for one in some if there is None or one in there] for sr, some in places.items()}
    return _unanswered(known, say)


def _listed(mounts: Sequence[str]) -> frozenset[str] | None:
    """What lies in the folders in which SRs are mounted; None: they do not say. The storage of an SR is not asked.

    What is not there cannot be silent: for a log from elsewhere no process goes first.
    """
    try:
        return frozenset(os.path.join(mount, name) for mount in mounts for name in os.listdir(mount))
    except OSError:
        return None


def _unanswered(places: Mapping[Name, list[str]], say: Say | None) -> dict[Name, str]:
    silent = storage_probe.silent((place for some in places.values() for place in some), say)
    told = {name: next((place for place in some if place in silent), None) for name, some in places.items()}
    return {name: storage_probe.words(place) for name, place in told.items() if place is not None}


def _places(text: str, mounts: Sequence[str], every: Callable[[], list[str]]) -> list[str]:
    """What is touched to find a TARGET's images: a folder, a device, `every` SR for a name alone."""
    if not text or "\0" in text:
        return []
    sr, slash, _ = text.lower().rpartition("/")
    found = [os.path.dirname(text) or os.curdir if text.endswith(".vhd") else text]
    if slash:
        return found + (list(sr_folders(sr, mounts)) if is_uuid(sr) else [])
    return found + ([place for place in every() if os.path.basename(place) == text.lower()] or every())
