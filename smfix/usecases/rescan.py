"""Have the storage manager scan each SR after repairs, once, however many of its disks were repaired.

Theory. A GC that meets smfix's lock exits, and nothing starts it again; and a repaired disk is coalesced only by the
next GC. ``SR.scan`` starts one. The evidence that it helped is the number of base copies with exactly one child, which
GC should have coalesced; it falls after GC has done its work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smfix.errors import Unreadable
from smfix.usecases.run_options import RunOptions
from smfix.values import NextStep, Outcome, Rescan, Status, StepKind

if TYPE_CHECKING:
    from smfix.xapi.client import Pool
    from smfix.xapi.records import PoolSr

_TOOK_LOCKS = (Status.REPAIRED, Status.PARTLY_REPAIRED, Status.ROLLED_BACK)


def rescan(outcomes: Iterable[tuple[str | None, Outcome | None]], run_options: RunOptions) -> tuple[Rescan, ...]:
    """Scan every SR of which a disk was written, once. `outcomes`: pairs of SR UUID and outcome of a disk.

    Does nothing without XAPI, or with --no-rescan. Never raises: errors are in the values. An interrupt ends the
    waiting, not the run, because the repairs must still be reported.
    """
    if run_options.pool is None or not run_options.rescan:
        return ()
    written = [sr for sr, outcome in outcomes if sr and outcome is not None and outcome.status in _TOOK_LOCKS]
    scanned: list[Rescan] = []
    waiting = list(dict.fromkeys(written))
    try:
        while waiting:
            scanned.append(_scan(run_options.pool, waiting[0]))
            del waiting[0]
    except KeyboardInterrupt:
        scanned += [
            Rescan(sr, None, done=False, message="not rescanned: interrupted", next=_by_hand(sr)) for sr in waiting
        ]
    return tuple(scanned)


def _scan(pool: Pool, sr: str) -> Rescan:
    try:
        before = pool.sr(sr, age=0)
    except Unreadable as error:
        return Rescan(sr, None, done=False, message=f"not rescanned: {error}", next=_by_hand(sr))
    try:
        pool.scan(sr)
    except Unreadable as error:
        message = f"not rescanned: {error}"
        return _result(before, None, message, done=False)
    try:
        after = pool.sr(sr, age=0).unhealthy
    except Unreadable:
        after = None
    switches = [name for name, is_on in (("gc", before.gc), ("coalesce", before.coalesce)) if not is_on]
    if switches:
        message = f"rescanned, but its other-config says {' and '.join(f'{name}=false' for name in switches)}: "
        message += "nothing is coalesced until that is taken away"
    else:
        message = "rescanned; the GC goes on in the background, and may wait some minutes first"
    return _result(before, after, message, done=True)


def _result(sr: PoolSr, after: int | None, message: str, *, done: bool) -> Rescan:
    steps = () if done else _by_hand(sr.uuid)
    return Rescan(sr.uuid, sr.name, done, message, sr.unhealthy, after, sr.gc, sr.coalesce, steps)


def _by_hand(sr: str) -> tuple[NextStep, ...]:
    return (NextStep(StepKind.SCAN_SR, (sr,)),)
