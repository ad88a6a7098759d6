"""The digest of what a repair makes readable: has the guest written there since? Pure.

Only bytes that the repair itself leaves as they are go into the digest, so it is the same before, during and after
the repair; the bytes that it writes are compared with the journal (:mod:`smfix.repair.image_state`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from smfix.formats.base import MOST_PLACES
from smfix.repair.journal import Change, Reach, Step
from smfix.values import ByteView, Extent, Placed

LIMIT = 64 << 20
"""Bytes that are read for a digest at most."""
_PIECE = 1 << 20
_NAMED = 64
"""Runs of the guest's disk that are kept by name at most."""


def reach_of(view: ByteView, placed: Sequence[Placed], steps: Sequence[Step]) -> Reach:
    """Digest `placed` for a journal, before `steps` are carried out on `view`.

    Raises :class:`smfix.errors.Unreadable` when the storage fails.
    """
    written = sorted(step.extent for step in steps if isinstance(step, Change))
    extents = tuple(untouched((one.place for one in placed), written, view.size))
    guest = joined(one.guest for one in placed)[:_NAMED]
    total = sum(extent.length for extent in extents)
    if total > LIMIT or len(placed) > MOST_PLACES:
        return Reach(total, guest, (), None)
    return Reach(total, guest, extents, digest_of(view, extents))


def is_unchanged(view: ByteView, reach: Reach | None) -> bool | None:
    """Whether what a repair made readable is what it was then; None: there is no digest to tell.

    Raises :class:`smfix.errors.Unreadable` when the storage fails.
    """
    if reach is None or reach.digest is None:
        return None
    return digest_of(view, reach.extents) == reach.digest


def digest_of(view: ByteView, extents: Iterable[Extent]) -> bytes:
    """32 bytes of SHA-256 over the bytes of `extents`, in their order; what the view lacks of them counts."""
    summed = hashlib.sha256()
    for extent in extents:
        for offset in range(extent.offset, extent.end, _PIECE):
            raw = view.read(Extent(offset, min(_PIECE, extent.end - offset)))
            summed.update(len(raw).to_bytes(4, "big") + raw)
    return summed.digest()


def joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same bytes in as few runs as there can be, in order; empty ones left out."""
    runs: list[Extent] = []
    for extent in sorted(extents):
        if runs and extent.offset <= runs[-1].end:
            runs[-1] = Extent(runs[-1].offset, max(runs[-1].end, extent.end) - runs[-1].offset)
        elif extent.length:
            runs.append(extent)
    return tuple(runs)


def untouched(extents: Iterable[Extent], written: Sequence[Extent], size: int) -> list[Extent]:
    """The parts of `extents` before byte `size` outside of `written`, which is in order."""
    parts: list[Extent] = []
    ends = [taken.end for taken in written]
    for run in joined(extents):
        at, end = run.offset, min(run.end, size)
        for index in range(bisect_right(ends, at), len(written)):
            taken = written[index]
            if taken.offset >= end:
                break
            if taken.offset > at:
                parts.append(Extent(at, taken.offset - at))
            at = taken.end
        if at < end:
            parts.append(Extent(at, end - at))
    return parts
