"""Read from the names at and around an image whether the storage manager (SM) is not done with it.

Theory. SM leaves its journals beside the image: a file of a file SR, a volume of an LVM SR. A journal that
concerns this disk, a temporary name, a downloaded copy: in each case SM means to go on here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

from smfix.sm.paths import UUID, Life, read_path
from smfix.sm.sr_types.registry import sr_type_of
from smfix.values import NextStep, Reason, Refusal, StepKind, Target

# fjournaler.py names a file, journaler.py an LV: <type>_<vdi>[_<value>]. `coalesce`, `relink`,
# `leaf`, `clone`, `zero`: cleanup.py; `inflate`, `jvhd`: lvhdutil.py.
_JOURNAL = re.compile(rf"(?P<type>coalesce|relink|leaf|clone|zero|inflate|jvhd)_(?P<vdi>{UUID})(?:_(?P<value>.*))?")
_RESIZE_JOURNAL = ".journal-"  # FileSR.py, vdi_resize_online


def name_refusal(target: Target, children: Collection[str] = (), beside: Iterable[str] | None = None) -> Refusal | None:
    """Return why the names around an image forbid to write it, or None.

    image-copy: a downloaded or uploaded copy. sm-pending: a temporary name, or a journal of SM's
    beside the image that concerns this VDI, or the coalesce of one of its `children` (UUIDs) into
    it. `beside`: its :func:`names_beside`, None to list them here. Raises Unreadable if ``lvs`` fails.
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
    """Return the journal of a coalesce at work in an image's SR, among its :func:`names_beside`."""
    journals = map(_JOURNAL.fullmatch, beside)
    return next((match[0] for match in journals if match and match["type"] == "coalesce"), None)


def pending(why: str, sr: str | None) -> Refusal:
    """A Refusal (sm-pending): why, and the scan that lets SM finish."""
    return Refusal(
        Reason.SM_PENDING,
        f"{why}: the storage manager is not done with it; let its GC finish first",
        (NextStep(StepKind.SCAN_SR, (sr,)),) if sr else (),
    )


def names_beside(target: Target, folder: str) -> list[str]:
    """Return the names beside an image in `folder`, its SR's journals among them. Raises Unreadable if LVM fails."""
    return sr_type_of(target).names_beside(target, folder)


def _journal_of(target: Target, vdi: str, children: Collection[str], beside: Iterable[str]) -> str | None:
    """Return the name of a journal beside the image that concerns `vdi`, if there is one."""
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
        # A leaf-coalesce concerns the parent as well: SM un-hides it, then renames it. A volume's name is too short
        # to name the parent, so SM writes it into the volume, which cannot be read while it is inactive.
        if kind == "leaf":
            parent = match["value"] or sr_type_of(target).journal_value(os.path.join(folder, name))
            if parent in (None, vdi) or owner in children:
                return name
    return None
