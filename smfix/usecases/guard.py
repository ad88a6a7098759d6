"""Whether this host lets an image be written **now**: in use, not SM's to give, or out of sight.

Theory. Four questions, asked under the locks and again after every wait. Does the path still lead
to the inode that was examined? Does anybody hold it read-write (:mod:`smfix.host.open_files`)? Is the
storage manager in the middle of something with it: a temporary name, or a journal beside it? And
can this host see all of its users: on a shared file system another host may run a VM on it, so
there only hidden disks (which no VM writes) are touched, unless XAPI, which knows all hosts, says
otherwise (:mod:`smfix.xapi.attach_policy`). A leaf on shared storage is then kept from being attached by
any host while it is written: SM's locks are local to one. Each "no" is a :class:`smfix.values.Refusal`.
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
    """Why an image on storage that other hosts share must not be written from here, or None.

    `resolved`: the image's real path. `hidden`: the footer's mark, None where nobody knows. `beside`: the
    names beside the image, None: they are listed. The rule holds on every machine, not only on one with an
    inventory: an NFS server's admin sees even less of the VMs than a host of the pool does. A hidden disk is
    written only where no coalesce has left its journal in the SR (locks of SM are local to one host), and on
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
    """How an image is held when other hosts of its pool, as XAPI names them, are counted too."""
    others = [one for one in attached if not one.is_here]
    if not others or uses.state is InUse.READ_WRITE:
        return uses
    reading = InUse.READ_ONLY if uses.state is InUse.NONE else uses.state
    state = InUse.READ_WRITE if any(one.writes for one in others) else reading
    return OpenState(state, (*uses.holders, *(one.words for one in others)), uses.blind)


class Pool(Protocol):
    """What the guard asks of XAPI (:class:`smfix.xapi.client.Pool`). All raise Unreadable."""

    def warm(self, sr: str) -> None:
        """Ask beforehand what takes long."""

    def disk_state(self, vdi: str, sr: str) -> PoolDiskState:
        """What XAPI says of a disk now."""

    def paused(self, vdi: str) -> AbstractContextManager[None]:
        """Keep every host from attaching a disk while the block runs."""


@dataclass(frozen=True, slots=True)
class HostGuard:
    """The host's say on images (what ``smfix.repair.apply`` calls its guard).

    `hidden(view)` reads the footer's mark of an image: True, False, or None where no footer is
    sound. `children`: UUIDs of the image's children. `sm_locks`: the folder of SM's locks, None on
    a machine without a storage manager (:func:`smfix.sm.locks.sm_lock_folder`). `state`: the
    folder of smfix's own locks (:func:`smfix.sm.locks.state_folder`). `pool`: XAPI, None where there is
    none. `only_appends`: what is to be written lies behind the data: nothing that a reader of the image reads.
    `gc`: how long the end of GC is waited for, None as a run of its own does.
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
        """SM's locks for `image`, where there is a storage manager and the image is in an SR; first GC's end.

        On a shared SR a leaf is paused as well, so that no other host attaches it meanwhile.
        """
        name = _name_of(image)
        if self.sm_locks is None or name.sr is None:
            yield None
            return
        if self.pool is not None:
            with suppress(Unreadable):  # then it is said by who asks behind the locks
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
                return None  # nobody but this host has it
            return Refusal(Reason.SHARED_SR_UNKNOWN, f"{image.target.path} is on a shared SR: {error}")
        return None

    def objection(self, image: OpenImage) -> Refusal | None:
        """Why `image` must not be written now, or None. Ask under the locks, or for a forecast.

        stale, in-use, unsafe-path, image-copy, sm-pending, shared-sr-unknown. Raises Unreadable.
        """
        if not image.is_in_place():
            return Refusal(Reason.STALE, f"{image.target.path} now leads to another file")
        hidden = self.hidden(image)
        standing = self._standing(image)
        children = self.children
        if isinstance(standing, PoolDiskState):
            children += standing.children
        refusal = self._in_use(image, hidden=hidden) or alias_refusal(image, self.proc)
        if refusal is not None:
            return refusal
        # Once for both: of a volume, it takes an ``lvs``, and SM may wait for the locks that are held meanwhile.
        beside = names_beside(image.target, os.path.dirname(image.target.path))
        return name_refusal(image.target, children, beside) or self._elsewhere(image, standing, beside, hidden=hidden)

    def _standing(self, image: OpenImage) -> PoolDiskState | Unreadable | None:
        """What XAPI says of the image; why it says nothing; None where there is no XAPI, or no SR."""
        name = _name_of(image)
        if self.pool is None or name.vdi is None or name.sr is None:
            return None
        try:
            return self.pool.disk_state(name.vdi, name.sr)
        except Unreadable as error:
            return error

    def _elsewhere(
        self,
        image: OpenImage,
        standing: PoolDiskState | Unreadable | None,
        beside: Iterable[str],
        *,
        hidden: bool | None,
    ) -> Refusal | None:
        """What other hosts forbid: as XAPI knows it, else by what cannot be seen."""
        if isinstance(standing, PoolDiskState):
            refusal = pool_refusal(image.target, standing, hidden=hidden, only_appends=self.only_appends)
            # Away from the hosts nobody's locks can be had: there what XAPI allows is not enough.
            if self.sm_locks is not None or (refusal is not None and refusal.reason is not Reason.SHARED_SR_UNKNOWN):
                return refusal
        refusal = shared_refusal(
            image.target, image.identity.path, hidden=hidden, beside=beside, proc=self.proc, pool_conf=self.pool_conf
        )
        if refusal is not None and isinstance(standing, Unreadable):
            return Refusal(refusal.reason, f"{refusal.message} ({standing})", refusal.next)
        return refusal

    def _shared_by_itself(self, image: OpenImage) -> str | None:
        return sr_type_of(image.target).shared_storage(image.target, image.identity.path, self.proc)

    def _in_use(self, image: OpenImage, *, hidden: bool | None) -> Refusal | None:
        """A reader is none, as long as nothing is written where it reads, or the image is a base copy.

        A read-only tapdisk reads footer, header and BAT once, and writes nothing.
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
            # Elsewhere it is only said: a guess would refuse every repair that is not root's.
            return Refusal(
                Reason.IN_USE,
                f"{path} may be in use: {seen.blind} cannot be seen; run smfix as root",
            )
        if seen.holders and not hidden and not self.only_appends and self.sm_locks is not None:
            return Refusal(
                Reason.IN_USE,
                f"{path} is read by {', '.join(seen.holders)}, and what is to be written lies where a reader "
                "looks; run smfix again when it is detached",
            )
        return None


def _name_of(image: OpenImage) -> ImageName:
    """SR and VDI of an open image, each a UUID: as it was found, else as its real path says."""
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
