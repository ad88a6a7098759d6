"""Logical volumes of an LVM SR: found, activated, made writable, and put back as they were.

Theory. ``VG_XenStorage-<sr>/VHD-<vdi>`` is a disk of SM's. Most hidden ones are inactive (they have no node
below ``/dev``) and read-only. What is needed for a repair is changed under SM's own locks and remembered;
afterwards each is put back, unless somebody uses it by then: SM counts its activations in files, and LVM
says whether a volume is open. SM's counts are not touched: a smfix that is killed leaves a volume active
or writable, which the storage manager's next deactivation or coalesce of it ends.

``lvs`` and ``lvchange`` are the host's. A device is never grown or shrunk here.

Source: sm drivers/lvmcache.py (``activate``, ``deactivate``, ``setReadonly``), refcounter.py; lvs(8) on
``lv_attr``: the 2nd character is the permission, the 5th the state, the 6th whether it is open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from smfix.errors import Unreadable
from smfix.host import locks, programs
from smfix.host.locks import Clock
from smfix.host.naming import is_uuid, read_path
from smfix.host.storage import DEVICES
from smfix.model import Backing, Reason, Refusal, Target

GROUP = "VG_XenStorage-"
DISK = "VHD-"
REFCOUNTS = "/run/sm/refcount"

LIST_LIMIT, CHANGE_LIMIT = 30.0, 30.0
"""Seconds for one ``lvs``, one ``lvchange``."""
NODE_WAIT = 5.0
"""Seconds for udev to make the node of an activated volume."""

_FIELDS = "vg_name,lv_name,lv_attr,lv_size"


class Volume(NamedTuple):
    """One logical volume of an SR. `size` in bytes. `is_writable`: as LVM's metadata has it."""

    sr: str
    name: str
    size: int
    is_active: bool
    is_open: bool
    is_writable: bool

    @property
    def path(self) -> str:
        """Its node, which is there while it is active."""
        return f"{folder_of(self.sr)}/{self.name}"

    @property
    def vdi(self) -> str | None:
        """The disk it is; None for a journal of SM's, metadata, a raw disk."""
        return read_path(self.path).vdi


def attached(sr: str | None = None) -> tuple[str, ...]:
    """The UUIDs of the LVM SRs attached here (or of `sr`, where it is one of them).

    Each has the active volume ``MGT``, hence a folder below ``/dev``, whichever of its disks are active.
    """
    try:
        groups = [name.removeprefix(GROUP) for name in sorted(os.listdir(DEVICES)) if name.startswith(GROUP)]
    except OSError:
        return ()
    return tuple(group for group in groups if is_uuid(group) and sr in (None, group))


def folder_of(sr: str) -> str:
    """Where the nodes of an SR's active volumes are."""
    return f"{DEVICES}/{GROUP}{sr}"


def is_without_node(target: Target) -> bool:
    """True for an SR's volume that is not active, as far as can be told without asking LVM."""
    return target.backing is Backing.BLOCK and target.vdi is not None and not os.path.exists(target.path)


def volumes(sr: str) -> tuple[Volume, ...]:
    """All volumes of an SR, active or not; none where there is no LVM, or the SR is not attached here.

    Raises Unreadable where ``lvs`` fails, hangs, or says what cannot be read.
    """
    found = programs.program("lvs")
    if found is None or not attached(sr):
        return ()
    form = ["--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", _FIELDS]
    return parse(programs.run([found, *form, GROUP + sr], LIST_LIMIT))


def parse(text: str) -> tuple[Volume, ...]:
    """The volumes in the output of ``lvs`` as it is called here. Raises Unreadable."""
    rows = [line.strip().split("|") for line in text.splitlines() if line.strip()]
    try:
        return tuple(
            Volume(group.removeprefix(GROUP), name, int(size), attr[4] == "a", attr[5] == "o", attr[1] != "r")
            for group, name, attr, size in rows
            if group.startswith(GROUP)
        )
    except (ValueError, IndexError) as error:
        raise Unreadable(f"lvs says what cannot be read: {text.strip()[:80]!r}") from error


def volume_of(target: Target) -> Volume | None:
    """The volume a target names; None for a file, a device of another kind, a host without LVM.

    Raises Unreadable.
    """
    if target.backing is not Backing.BLOCK or target.sr is None or target.vdi is None:
        return None
    return next((one for one in volumes(target.sr) if one.vdi == target.vdi and one.name.startswith(DISK)), None)


@dataclass(slots=True)
class Volumes:
    """Changes volumes for the time of a repair. `sm_locks`: the folder of SM's locks, None on no host of its.

    `left` says, in sentences, which could not be put back.
    """

    sm_locks: str | None
    clock: Clock = field(default_factory=Clock)
    left: list[str] = field(default_factory=list)

    @contextmanager
    def active(self, target: Target) -> Iterator[Refusal | None]:
        """Have the target's volume active while the block runs; a Refusal (locked) where that must wait.

        Nothing happens for what is no volume, or active already. Raises Unreadable.
        """
        volume = volume_of(target)
        if volume is None or volume.is_active:
            yield None
            return
        with self._locked(volume, str(volume.vdi)) as busy:
            if busy is None:
                _change(volume, "-ay")
        if busy is not None:
            yield busy
            return
        try:
            self._wait_for_node(volume)
            yield None
        finally:
            self._deactivate(volume)

    @contextmanager
    def writable(self, target: Target) -> Iterator[Refusal | None]:
        """Have the target's volume writable while the block runs; as :meth:`active`."""
        volume = volume_of(target)
        if volume is None or volume.is_writable:
            yield None
            return
        with self._locked(volume, "lvchange-p") as busy:
            if busy is None:
                _change(volume, "-p", "rw")
        if busy is not None:
            yield busy
            return
        try:
            yield None
        finally:
            self._protect(volume)

    def _protect(self, volume: Volume) -> None:
        try:
            with self._locked(volume, "lvchange-p") as busy:
                if busy is None:
                    _change(volume, "-p", "r")
                    return
                why = busy.message
        except Unreadable as error:
            why = str(error)
        self.left.append(f"{volume.path} was read-only before and is writable now: {why}")

    def _deactivate(self, volume: Volume) -> None:
        """Unless SM, or anybody else, uses it by now."""
        try:
            with self._locked(volume, str(volume.vdi)) as busy:
                if busy is None:
                    now = volume_of(as_target(volume))
                    if now is not None and not now.is_open and not _is_counted(volume):
                        _change(volume, "-an")
                    return
                why = busy.message
        except Unreadable as error:
            why = str(error)
        self.left.append(f"{volume.path} was inactive before and is active now: {why}")

    @contextmanager
    def _locked(self, volume: Volume, name: str) -> Iterator[Refusal | None]:
        """Hold ``<sr>/sr``, then ``lvm-<sr>/<name>``: SM's order."""
        with ExitStack() as held:
            if self.sm_locks is None:
                yield None
                return
            wanted = ((volume.sr, "sr", locks.SR_WAIT), (f"lvm-{volume.sr}", name, locks.VDI_WAIT))
            yield held.enter_context(locks.record_locks(self.sm_locks, wanted, clock=self.clock))

    def _wait_for_node(self, volume: Volume) -> None:
        deadline = self.clock.now() + NODE_WAIT
        while not os.path.exists(volume.path):
            if self.clock.now() >= deadline:
                raise Unreadable(f"{volume.path} was activated, yet it is not there after {NODE_WAIT:g} seconds")
            self.clock.sleep(0.05)


def _change(volume: Volume, *words: str) -> None:
    found = programs.program("lvchange")
    if found is None:
        raise Unreadable("lvchange is not installed, lvs is")
    programs.run([found, *words, f"{GROUP}{volume.sr}/{volume.name}"], CHANGE_LIMIT)


def _is_counted(volume: Volume) -> bool:
    """Whether SM counts an activation of its own: the file is there while a count is not zero."""
    return os.path.exists(os.path.join(REFCOUNTS, f"lvm-{volume.sr}", str(volume.vdi)))


def inactive(target: Target) -> Refusal | None:
    """Why a look at the target's volume must wait for somebody who may change things; None: look.

    Raises Unreadable.
    """
    volume = volume_of(target)
    if volume is None or volume.is_active:
        return None
    return Refusal(
        Reason.POLICY,
        f"{target.path} is not active, and to look at it is to activate it, which is not done without a yes",
    )


def as_target(volume: Volume) -> Target:
    """The target that a volume is."""
    return Target(volume.path, Backing.BLOCK, volume.vdi, volume.sr)
