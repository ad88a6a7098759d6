"""Whether the names at and around an image say that the storage manager is not done with it.

Theory. SM leaves its journals beside the image: a file of a file SR, a volume of an LVM SR. A journal that
concerns this disk, a temporary name, a downloaded copy: in each case somebody else means to go on here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

from smfix.sm.paths import UUID, Life, read_path
from smfix.sm.sr_types import lvm_volumes
from smfix.values import Backing, NextStep, Reason, Refusal, StepKind, Target

# fjournaler.py names a file, journaler.py an LV: <type>_<vdi>[_<value>]. `coalesce`, `relink`,
# `leaf`, `clone`, `zero`: cleanup.py; `inflate`, `jvhd`: lvhdutil.py.
_JOURNAL = re.compile(rf"(?P<type>coalesce|relink|leaf|clone|zero|inflate|jvhd)_(?P<vdi>{UUID})(?:_(?P<value>.*))?")
_RESIZE_JOURNAL = ".journal-"  # FileSR.py, vdi_resize_online


def name_refusal(target: Target, children: Collection[str] = (), beside: Iterable[str] | None = None) -> Refusal | None:
    """Why the names around an image forbid to write it, or None.

    image-copy: a downloaded or uploaded copy. sm-pending: a temporary name, or a journal of SM's
    beside the image that concerns this VDI, or the coalesce of one of its `children` (UUIDs) into
    it. `beside`: the :func:`names_beside` it, None: they are listed. Raises Unreadable where ``lvs`` fails.
    """
    name = read_path(os.path.abspath(target.path))
    sr = target.sr or name.sr
    if name.life is Life.COPY:
        return Refusal(
            Reason.IMAGE_COPY,
            f"{target.path} is a downloaded or uploaded copy: repair the disk it was made from, then make a new copy",
        )
    if name.life in (Life.OLD, Life.NEW, Life.DELETED):
        return pending(f"{target.path} has a temporary name", sr)
    vdi = target.vdi or name.vdi
    if vdi is None:
        return None
    names = names_beside(target, os.path.dirname(target.path)) if beside is None else beside
    journal = _journal_of(target, vdi, children, names)
    return pending(f"SM's journal {journal} concerns {target.path}", sr) if journal else None


def coalescing(beside: Iterable[str]) -> str | None:
    """The journal among the :func:`names_beside` an image that says that a coalesce is at work in its SR."""
    journals = map(_JOURNAL.fullmatch, beside)
    return next((match[0] for match in journals if match and match["type"] == "coalesce"), None)


def pending(why: str, sr: str | None) -> Refusal:
    """A Refusal (sm-pending): why, and the scan that lets SM finish."""
    return Refusal(
        Reason.SM_PENDING,
        f"{why}: the storage manager is not done with it; let its GC finish first",
        (NextStep(StepKind.SCAN_SR, (sr,)),) if sr else (),
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or os.curdir)
    except OSError:
        return []


def names_beside(target: Target, folder: str) -> list[str]:
    """The names beside an image in `folder`: of a volume the SR's other volumes, for most have no node.

    A folder that cannot be listed has none. Raises Unreadable where ``lvs`` fails.
    """
    if target.backing is Backing.BLOCK and target.sr is not None:
        names = [volume.name for volume in lvm_volumes.volumes(target.sr)]
        if names:
            return sorted(names)
    return sorted(_names(folder))


def _journal_of(target: Target, vdi: str, children: Collection[str], beside: Iterable[str]) -> str | None:
    """The name of a journal beside the image that concerns `vdi`, if there is one."""
    folder = os.path.dirname(target.path)
    for name in beside:
        if name == _RESIZE_JOURNAL + vdi:
            return name
        match = _JOURNAL.fullmatch(name)
        if match is None:
            continue
        kind, owner = match["type"], match["vdi"]
        if owner == vdi or (kind == "coalesce" and owner in children):
            return name
        # A leaf-coalesce concerns the parent as well: it is un-hidden, then renamed. A volume's name is too
        # short for the parent's, which is inside, behind its length, where an inactive one cannot be read.
        if kind == "leaf":
            parent = match["value"] or _first_line(os.path.join(folder, name)).rpartition(" ")[2]
            if vdi == parent or owner in children or (not parent and target.backing is Backing.BLOCK):
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
