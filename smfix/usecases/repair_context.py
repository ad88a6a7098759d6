"""Build what the repairs of a run need: the pool's XAPI, the wait for GC, volumes, guard, locks and journals."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from smfix.errors import UsageError
from smfix.sm.paths import is_uuid, read_path
from smfix.usecases.run_options import RunOptions
from smfix.values import ByteView, Names, Target
from smfix.xapi import login as login_module

if TYPE_CHECKING:
    from smfix.repair.apply import RepairContext
    from smfix.sm.gc_lock import Collector, GcWait
    from smfix.sm.sr_types.lvm_activation import Volumes
    from smfix.usecases.image_relatives import Family
    from smfix.xapi import client


def pool_at(file: str | None) -> client.Pool | None:
    """Return the pool's XAPI: as `file` or the environment names it, else this host's own, else None.

    One that the operator named must answer, else Unreadable; this host's own is asked when it is needed. Raises
    UsageError as :func:`smfix.xapi.login.login` does.
    """
    login = login_module.login(file, os.environ, socket=login_module.SOCKET)
    if login is None:
        return None
    from smfix.xapi import client

    pool = client.Pool(login, here=client.this_host())
    if login.socket is None:
        pool.hosts()
    return pool


def gc_wait(text: str | None, draw: Callable[[str], None]) -> GcWait:
    """Return how long a run waits for the end of GC, by ``--gc-wait``. Raises UsageError for other text."""
    from smfix.sm.gc_lock import GC_WAIT, GcWait

    if text is None:
        return GcWait(GC_WAIT, draw=draw)
    from smfix.usecases.durations import seconds

    found = seconds(text)
    if found is None:
        raise UsageError(f"--gc-wait {text}: not a duration such as 0s, 90s, 15m, 2h or 1d")
    return GcWait(float(found), draw=draw)


def volumes_of(run_options: RunOptions) -> Volumes:
    """Return what activates a volume for the time of a repair, and deactivates it again."""
    from smfix.sm import locks
    from smfix.sm.sr_types.lvm_activation import Volumes

    return Volumes(locks.sm_lock_folder(run_options.lock_dir))


def collector_of(run_options: RunOptions, sr: str | None) -> Collector | None:
    """Return the GC that is at work on `sr` now, by this host's locks; None if there is none, or none can be seen."""
    from smfix.sm import gc_lock, locks

    folder = locks.sm_lock_folder(run_options.lock_dir)
    if folder is None or sr is None or not is_uuid(sr):
        return None
    with suppress(OSError):  # the repair reports why the lock cannot be read
        return gc_lock.collector(folder, sr)
    return None


def names_of(run_options: RunOptions, target: Target) -> Names:
    """Return the names that the pool has for the disk, its SR and its VMs."""
    return Names() if run_options.pool is None else run_options.pool.names(target.vdi, target.sr)


def repair_context(run_options: RunOptions, family: Family, *, only_appends: bool = False) -> RepairContext:
    """Return guard, locks and journals for the image whose children are `family`.

    `only_appends`: every edit is after the end of data.
    """
    from smfix.repair.apply import RepairContext
    from smfix.sm import locks
    from smfix.usecases.guard import HostGuard

    named = (read_path(path).vdi for path, _ in family)
    guard = HostGuard(
        hidden=is_hidden,
        sm_locks=locks.sm_lock_folder(run_options.lock_dir),
        state=run_options.state_dir or locks.state_folder(),
        children=tuple(vdi for vdi in named if vdi is not None),
        pool=run_options.pool,
        only_appends=only_appends,
        gc=run_options.gc,
    )
    return RepairContext(run_options.journals, guard, run_options.undo_step)


def is_hidden(view: ByteView) -> bool | None:
    """Return the mark of a base copy, by the structures that the image is read by; None if none of them is sound."""
    from smfix.formats.registry import inspect

    return inspect(view).is_hidden
