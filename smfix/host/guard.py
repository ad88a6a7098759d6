"""Whether this host lets an image be written **now**: in use, not SM's to give, or out of sight.

Theory. Four questions, asked under the locks and again after every wait. Does the path still lead
to the inode that was examined? Does anybody hold it read-write (:mod:`smfix.host.usage`)? Is the
storage manager in the middle of something with it: a temporary name, or a journal beside it? And
can this host see all of its users: on a shared file system another host may run a VM on it, so
there only hidden disks (which no VM writes) are touched, unless somebody who can see all hosts says
otherwise. Each "no" is a :class:`smfix.model.Refusal`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from smfix.host import locks
from smfix.host.locks import Clock
from smfix.host.naming import UUID, ImageName, Life, is_uuid, read_path
from smfix.host.storage import OpenImage
from smfix.host.usage import usage
from smfix.model import Backing, ByteView, InUse, Reason, Refusal, Target

POOL_CONF = "/etc/xensource/pool.conf"
"""``master``, or ``slave:<address>``: whether this host coordinates its pool."""

# What the storage manager mounts SRs with on several hosts, and its neighbours of the same nature.
SHARED_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ocfs2", "gfs", "gfs2", "ceph", "lustre", "beegfs"),
    *("glusterfs", "moosefs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.mfs"),
    *("fuse.moosefs", "fuse.sshfs"),
}

# fjournaler.py names a file, journaler.py an LV: <type>_<vdi>[_<value>]. `coalesce`, `relink`,
# `leaf`, `clone`, `zero`: cleanup.py; `inflate`, `jvhd`: lvhdutil.py.
_JOURNAL = re.compile(rf"(?P<type>coalesce|relink|leaf|clone|zero|inflate|jvhd)_(?P<vdi>{UUID})(?:_(?P<value>.*))?")
_RESIZE_JOURNAL = ".journal-"  # FileSR.py, vdi_resize_online

_SCAN = "xe sr-scan uuid="


def name_refusal(target: Target, children: Collection[str] = ()) -> Refusal | None:
    """Why the names around an image forbid to write it, or None.

    image-copy: a downloaded or uploaded copy. sm-pending: a temporary name, or a journal of SM's
    beside the image that concerns this VDI, or the coalesce of one of its `children` (UUIDs) into
    it. A folder that cannot be listed has no journals.
    """
    name = read_path(os.path.abspath(target.path))
    sr = target.sr or name.sr
    if name.life is Life.COPY:
        return Refusal(
            Reason.IMAGE_COPY,
            f"{target.path} is a downloaded or uploaded copy: repair the disk it was made from, "
            "then make the copy anew",
        )
    if name.life in (Life.OLD, Life.NEW, Life.DELETED):
        return _pending(f"{target.path} has a temporary name", sr)
    vdi = target.vdi or name.vdi
    if vdi is None:
        return None
    journal = _journal_of(os.path.dirname(target.path), vdi, children)
    return _pending(f"SM's journal {journal} concerns {target.path}", sr) if journal else None


def shared_refusal(
    target: Target,
    resolved: str,
    *,
    hidden: bool | None,
    proc: str = "/proc",
    pool_conf: str = POOL_CONF,
) -> Refusal | None:
    """Why an image on storage that other hosts share must not be written from here, or None.

    `resolved`: the image's real path. `hidden`: the footer's mark, None where nobody knows. The
    rule holds on every machine, not only on one with an inventory: an NFS server's admin sees even
    less of the VMs than a host of the pool does. A hidden disk is written only where no coalesce
    has left its journal in the SR (locks of SM are local to one host), and on a host of a pool only
    by its coordinator, whose GC is the one that coalesces.
    """
    what = _shared(target, resolved, proc)
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
    folder = os.path.dirname(resolved)
    for name in sorted(_names(folder)):
        journal = _JOURNAL.fullmatch(name)
        if journal and journal["type"] == "coalesce":
            return _pending(f"{what}: {name} says that a coalesce is at work in {folder}", target.sr)
    return None


@dataclass(frozen=True, slots=True)
class HostGuard:
    """The host's say on images (what ``smfix.repair.apply`` calls its guard).

    `hidden(view)` reads the footer's mark of an image: True, False, or None where no footer is
    sound. `children`: UUIDs of the image's children. `sm_locks`: the folder of SM's locks, None on
    a machine without a storage manager (:func:`smfix.host.locks.sm_lock_folder`). `state`: the
    folder of smfix's own locks (:func:`smfix.host.locks.state_folder`).
    """

    hidden: Callable[[ByteView], bool | None]
    sm_locks: str | None
    state: str
    children: tuple[str, ...] = ()
    proc: str = "/proc"
    sys: str = "/sys"
    pool_conf: str = POOL_CONF
    clock: Clock = field(default_factory=Clock)

    def own_lock(self, image: OpenImage) -> AbstractContextManager[Refusal | None]:
        """Exclude every other smfix from `image`; see :func:`smfix.host.locks.own_lock`."""
        return locks.own_lock(image.identity, self.state)

    def host_locks(self, image: OpenImage) -> AbstractContextManager[Refusal | None]:
        """SM's locks for `image`, where there is a storage manager and the image is in an SR."""
        name = _name_of(image)
        if self.sm_locks is None or name.sr is None:
            return nullcontext(None)
        return locks.sm_locks(self.sm_locks, name.sr, name.vdi, clock=self.clock)

    def objection(self, image: OpenImage) -> Refusal | None:
        """Why `image` must not be written now, or None. Ask under the locks, or for a forecast.

        stale, in-use, image-copy, sm-pending, shared-sr-unknown. Raises Unreadable.
        """
        if not image.is_in_place():
            return Refusal(Reason.STALE, f"{image.target.path} leads to another file by now")
        return (
            self._in_use(image)
            or name_refusal(image.target, self.children)
            or shared_refusal(
                image.target,
                image.identity.path,
                hidden=self.hidden(image),
                proc=self.proc,
                pool_conf=self.pool_conf,
            )
        )

    def _in_use(self, image: OpenImage) -> Refusal | None:
        """A reader is none: a read-only tapdisk reads headers once and writes nothing."""
        seen = usage(image.identity, proc=self.proc, sys=self.sys)
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
        return None


def _name_of(image: OpenImage) -> ImageName:
    """SR and VDI of an open image, each a UUID: as it was found, else as its real path says."""
    real = read_path(image.identity.path)
    target = image.target
    sr = target.sr if target.sr and is_uuid(target.sr) else real.sr
    vdi = target.vdi if target.vdi and is_uuid(target.vdi) else real.vdi
    return ImageName(real.life, target.backing, sr, vdi)


def _pending(why: str, sr: str | None) -> Refusal:
    return Refusal(
        Reason.SM_PENDING,
        f"{why}: the storage manager is not done with it; let its GC finish first",
        (f"{_SCAN}{sr}",) if sr else (),
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or os.curdir)
    except OSError:
        return []


def _journal_of(folder: str, vdi: str, children: Collection[str]) -> str | None:
    """The name of a journal in `folder` that concerns `vdi`, if there is one."""
    for name in sorted(_names(folder)):
        if name == _RESIZE_JOURNAL + vdi:
            return name
        match = _JOURNAL.fullmatch(name)
        if match is None:
            continue
        kind, owner = match["type"], match["vdi"]
        if owner == vdi or (kind == "coalesce" and owner in children):
            return name
        # A leaf-coalesce concerns the parent as well: it is un-hidden, then renamed.
        if kind == "leaf" and vdi == (match["value"] or _first_line(os.path.join(folder, name))):
            return name
    return None


def _first_line(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 128).decode("ascii", "replace").split("\n")[0].strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def _shared(target: Target, resolved: str, proc: str) -> str | None:
    """What the image shares with other hosts, in words; None for what is this host's alone."""
    if target.backing is Backing.BLOCK:
        # An LV of an SR may lie on iSCSI or Fibre Channel, a DRBD device on another host.
        name = read_path(os.path.abspath(target.path))
        return "an SR's volume" if name.life is not Life.FOREIGN else None
    mounted = _file_system(resolved, proc)
    return f"a shared file system ({mounted})" if mounted in SHARED_FILE_SYSTEMS else None


def _file_system(resolved: str, proc: str) -> str | None:
    """The type of the file system that holds `resolved`, None where nobody can tell.

    The longest mount point wins, then the last of them: a mount hides what was there before.
    """
    best, kind = "", None
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                left, _, right = line.partition(" - ")
                point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
                inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, right.split()[0]
    except (OSError, IndexError):
        return kind
    return kind


def _is_pool_member(pool_conf: str) -> bool:
    try:
        with open(pool_conf, encoding="utf-8", errors="replace") as conf:
            return conf.read(64).startswith("slave")
    except OSError:
        return False
