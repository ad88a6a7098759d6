"""Decide whether an image may be written **now**: not in use, no work of SM on it, all users seen.

Theory. Four questions, asked under the locks and again after every wait. Does the path still lead
to the inode that was examined? Does a process hold it read-write (:mod:`smfix.host.open_files`)? Is the
storage manager (SM) at work on it, as a temporary name or a journal beside it shows? Can
this host see all of its users? On a shared file system another host may run a VM on it, so
there smfix writes only hidden disks (which no VM writes), unless XAPI, which knows all hosts, allows
more (:mod:`smfix.xapi.attach_policy`). A leaf on shared storage is then kept from being attached by
any host while it is written: SM's locks are local to one. Each "no" is a :class:`smfix.values.Refusal`.

Here the packages host, sm and xapi meet, so the guard is in none of them but among the use cases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from smfix.errors import Unreadable
from smfix.host.aliases import alias_refusal
from smfix.host.image_file import OpenImage
from smfix.host.open_files import OpenState, open_state
from smfix.sm import locks
from smfix.sm.gc_lock import GcWait
from smfix.sm.journals import coalescing, name_refusal, names_beside, pending
from smfix.sm.locks import Clock
from smfix.sm.paths import ImageName, is_uuid, read_path
from smfix.sm.sr_types.registry import sr_type_of
from smfix.values import ByteView, InUse, Reason, Refusal, Target
from smfix.xapi.attach_policy import pool_refusal
from smfix.xapi.records import Attachment, PoolDiskState

POOL_CONF = "/etc/xensource/pool.conf"
"""``master``, or ``slave:<address>``: whether this host coordinates its pool."""


def shared_refusal(
    target: Target,
    resolved: str,
    *,
    hidden: bool | None,
    beside: Iterable[str] | None = None,
    proc: str = "/proc",
    pool_conf: str = POOL_CONF,
) -> Refusal | None:
    """Return why an image on storage that other hosts share must not be written from here, or None.

    `resolved`: the image's real path. `hidden`: the footer's mark, None if it is unknown. `beside`: the
    names beside the image, None to list them here. The rule holds on every machine, not only on one with an
    inventory: an NFS server's admin sees even less of the VMs than a host of the pool does. A hidden disk is
    written only if no coalesce has left its journal in the SR (locks of SM are local to one host), and on
    a host of a pool only by its coordinator, whose GC is the one that coalesces.
    """
    what = sr_type_of(target).shared_storage(target, resolved, proc)
    if what is None:
        return None
    if not hidden:
        return Refusal(
            Reason.SHARED_SR_UNKNOWN,
            f"{target.path} is on {what}: another host may have it open, which cannot be seen here; "
            "copy the image to a local disk and repair the copy",
        )
    if _is_pool_member(pool_conf):
        return Refusal(
            Reason.SHARED_SR_UNKNOWN,
            f"{target.path} is on {what}: run smfix on the pool's coordinator, where its GC runs",
        )
    name = coalescing(names_beside(target, os.path.dirname(resolved)) if beside is None else beside)
    if name is not None:
        return pending(f"{what}: {name} says that a coalesce is at work in its SR", target.sr)
    return None


def with_attachments(uses: OpenState, attached: Sequence[Attachment]) -> OpenState:
    """Return how an image is held, with the other hosts of its pool as XAPI names them."""
    others = [one for one in attached if not one.is_here]
    if not others or uses.state is InUse.READ_WRITE:
        return uses
    reading = InUse.READ_ONLY if uses.state is InUse.NONE else uses.state
    state = InUse.READ_WRITE if any(one.writes for one in others) else reading
    return OpenState(state, (*uses.holders, *(one.words for one in others)), uses.blind)


class Pool(Protocol):
    """The questions that the guard asks XAPI (:class:`smfix.xapi.client.Pool`). All raise Unreadable."""

    def warm(self, sr: str) -> None:
        """Fetch the records that take long, before any lock is taken."""

    def disk_state(self, vdi: str, sr: str) -> PoolDiskState:
        """Return the state of a disk in XAPI now."""

    def paused(self, vdi: str) -> AbstractContextManager[None]:
        """Keep every host from attaching a disk while the block runs."""


@dataclass(frozen=True, slots=True)
class HostGuard:
    """The checks of this host before a write (``smfix.repair.apply`` calls it the guard).

    `hidden(view)` reads the footer's mark of an image: True, False, or None if no footer is
    sound. `children`: UUIDs of the image's children. `sm_locks`: the folder of SM's locks, None on
    a machine without a storage manager (:func:`smfix.sm.locks.sm_lock_folder`). `state`: the
    folder of smfix's own locks (:func:`smfix.sm.locks.state_folder`). `pool`: XAPI, None without
    one. `only_appends`: all edits are after the data, so no reader of the image reads them.
    `gc`: how long to wait for the end of GC; None as a one-shot run does.
    """

    hidden: Callable[[ByteView], bool | None]
    sm_locks: str | None
    state: str
    children: tuple[str, ...] = ()
    proc: str = "/proc"
    sys: str = "/sys"
    pool_conf: str = POOL_CONF
    clock: Clock = field(default_factory=Clock)
    pool: Pool | None = None
    only_appends: bool = False
    gc: GcWait | None = None

    def own_lock(self, image: OpenImage) -> AbstractContextManager[Refusal | None]:
        """Exclude every other smfix from `image`; see :func:`smfix.sm.locks.own_lock`."""
        return locks.own_lock(image.identity, self.state)

    @contextmanager
    def host_locks(self, image: OpenImage) -> Iterator[Refusal | None]:
        """Wait for the end of GC, then hold SM's locks for `image`, if the host has SM and the image is in an SR.

        Pauses a leaf on a shared SR as well, so that no other host attaches it meanwhile.
        """
        name = _name_of(image)
        if self.sm_locks is None or name.sr is None:
            yield None
            return
        if self.pool is not None:
            with suppress(Unreadable):  # the question under the locks reports it
                self.pool.warm(name.sr)
        # SM's locks are released before the pause ends: a VM that starts here waits for them.
        theirs = locks.sm_locks(self.sm_locks, name.sr, name.vdi, clock=self.clock, gc=self.gc)
        with ExitStack() as pause, theirs as refusal:
            yield refusal or self._pause(image, name, pause)

    def _pause(self, image: OpenImage, name: ImageName, held: ExitStack) -> Refusal | None:
        if self.pool is None or name.sr is None or name.vdi is None or self.hidden(image):
            return None
        try:
            standing = self.pool.disk_state(name.vdi, name.sr)
            if standing.shared and standing.is_master_here:
                held.enter_context(self.pool.paused(name.vdi))
        except Unreadable as error:
            if self._shared_by_itself(image) is None:
                return None  # only this host can use it
            return Refusal(Reason.SHARED_SR_UNKNOWN, f"{image.target.path} is on a shared SR: {error}")
        return None

    def objection(self, image: OpenImage) -> Refusal | None:
        """Return why `image` must not be written now, or None. Ask under the locks, or for a dry run.

        stale, in-use, unsafe-path, image-copy, sm-pending, shared-sr-unknown. Raises Unreadable.
        """
        if not image.is_in_place():
            return Refusal(Reason.STALE, f"{image.target.path} now leads to another file")
        hidden = self.hidden(image)
        pool_state = self._pool_state(image)
        children = self.children
        if isinstance(pool_state, PoolDiskState):
            children += pool_state.children
        refusal = self._in_use(image, hidden=hidden) or alias_refusal(image, self.proc)
        if refusal is not None:
            return refusal
        # List the names once for both: for a volume that takes an ``lvs``, and SM may wait for the locks meanwhile.
        beside = names_beside(image.target, os.path.dirname(image.target.path))
        return name_refusal(image.target, children, beside) or self._other_hosts_refusal(
            image, pool_state, beside, hidden=hidden
        )

    def _pool_state(self, image: OpenImage) -> PoolDiskState | Unreadable | None:
        """Return the image's state in XAPI; the error if XAPI does not answer; None without XAPI or an SR."""
        name = _name_of(image)
        if self.pool is None or name.vdi is None or name.sr is None:
            return None
        try:
            return self.pool.disk_state(name.vdi, name.sr)
        except Unreadable as error:
            return error

    def _other_hosts_refusal(
        self,
        image: OpenImage,
        pool_state: PoolDiskState | Unreadable | None,
        beside: Iterable[str],
        *,
        hidden: bool | None,
    ) -> Refusal | None:
        """Return the refusal because of other hosts: by XAPI's records, else because they cannot be seen."""
        if isinstance(pool_state, PoolDiskState):
            refusal = pool_refusal(image.target, pool_state, hidden=hidden, only_appends=self.only_appends)
            # On a machine outside of the pool no locks of SM can be taken: there XAPI's consent is not enough.
            if self.sm_locks is not None or (refusal is not None and refusal.reason is not Reason.SHARED_SR_UNKNOWN):
                return refusal
        refusal = shared_refusal(
            image.target, image.identity.path, hidden=hidden, beside=beside, proc=self.proc, pool_conf=self.pool_conf
        )
        if refusal is not None and isinstance(pool_state, Unreadable):
            return Refusal(refusal.reason, f"{refusal.message} ({pool_state})", refusal.next)
        return refusal

    def _shared_by_itself(self, image: OpenImage) -> str | None:
        return sr_type_of(image.target).shared_storage(image.target, image.identity.path, self.proc)

    def _in_use(self, image: OpenImage, *, hidden: bool | None) -> Refusal | None:
        """Return the refusal because of a process that has the image open.

        A read-only holder is no obstacle if the edits are after the data, or the image is a base copy: a read-only
        tapdisk reads footer, header and BAT once, and writes nothing.
        """
        seen = open_state(image.identity, proc=self.proc, sys=self.sys)
        path = image.target.path
        if seen.state is InUse.READ_WRITE:
            return Refusal(
                Reason.IN_USE,
                f"{path} is held by {', '.join(seen.holders)}; shut down the VM or detach the disk, "
                "then run smfix again",
            )
        if seen.state is InUse.UNKNOWN and self.sm_locks is not None:
            # Without SM it is only reported: a refusal would stop every repair that is not root's.
            return Refusal(
                Reason.IN_USE,
                f"{path} may be in use: {seen.blind} cannot be seen; run smfix as root",
            )
        if seen.holders and not hidden and not self.only_appends and self.sm_locks is not None:
            return Refusal(
                Reason.IN_USE,
                f"{path} is read by {', '.join(seen.holders)}, and this repair changes metadata that a reader "
                "uses; detach it, then run smfix again",
            )
        return None


def _name_of(image: OpenImage) -> ImageName:
    """Return SR and VDI of an open image, each a UUID: as it was found, else by its real path."""
    real = read_path(image.identity.path)
    target = image.target
    sr = target.sr if target.sr and is_uuid(target.sr) else real.sr
    vdi = target.vdi if target.vdi and is_uuid(target.vdi) else real.vdi
    return ImageName(real.life, sr, vdi)


def _is_pool_member(pool_conf: str) -> bool:
    try:
        with open(pool_conf, encoding="utf-8", errors="replace") as conf:
            return conf.read(64).startswith("slave")
    except OSError:
        return False
