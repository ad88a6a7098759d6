"""Activate logical volumes of an LVM SR, make them writable for the time of a repair, and put them back as they were.

Theory. Most hidden volumes are inactive and read-only. A repair changes their state under SM's own locks and puts each
back after, unless another process uses it by then: SM counts its activations in files, and LVM
reports whether a volume is open. SM's counts are not touched: a smfix that is killed leaves a volume active
or writable, which the storage manager's next deactivation or coalesce of it ends.

``lvchange`` is the host's. A device is never grown or shrunk here.

Source: sm drivers/lvmcache.py (``activate``, ``deactivate``, ``setReadonly``), refcounter.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from smfix.errors import LeftBehind, Unreadable
from smfix.host import subprocesses
from smfix.sm import locks
from smfix.sm.locks import Clock
from smfix.sm.paths import GROUP
from smfix.sm.sr_types import lvm_volumes
from smfix.sm.sr_types.lvm_volumes import Volume, as_target, volume_of
from smfix.values import Refusal, Target

REFCOUNTS = "/run/sm/refcount"
NODE_WAIT = 5.0
"""Seconds for udev to make the node of an activated volume."""
OPEN_WAIT = 5.0
"""Seconds that a volume may still be open before it stays active; SM's locks are free meanwhile."""
_OPEN_STEP = 0.25


@dataclass(slots=True)
class Volumes:
    """Changes volumes for the time of a repair. `sm_locks`: the folder of SM's locks, None on no host of its.

    `left`: one sentence for each volume that could not be put back.
    """

    sm_locks: str | None
    clock: Clock = field(default_factory=Clock)
    left: list[str] = field(default_factory=list)

    @contextmanager
    def active(self, target: Target) -> Iterator[Refusal | None]:
        """Keep the target's volume active while the block runs; give a Refusal (locked) if that must wait.

        Does nothing for a target that is no volume, or is active already. Raises Unreadable.
        """
        volume = volume_of(target)
        if volume is None or volume.is_active:
            yield None
            return
        with self._locked(volume, str(volume.vdi)) as busy:
            if busy is None:
                self._begin(volume, "is not active and may become so", "-ay")
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
        """Keep the target's volume writable while the block runs; as :meth:`active`."""
        volume = volume_of(target)
        if volume is None or volume.is_writable:
            yield None
            return
        with self._locked(volume, "lvchange-p") as busy:
            if busy is None:
                self._begin(volume, "is read-only and may become writable", "-p", "rw")
        if busy is not None:
            yield busy
            return
        try:
            yield None
        finally:
            self._protect(volume)

    def _begin(self, volume: Volume, later: str, *words: str) -> None:
        """Change a volume; note an lvchange that waits in the kernel, because it may still do it. Raises Unreadable."""
        try:
            _change(volume, *words)
        except LeftBehind:
            self.left.append(f"{volume.path} {later} when the storage answers again")
            raise

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
        """Deactivate a volume unless SM uses it by now; wait for a process that only looks at it (udev)."""
        deadline = self.clock.now() + OPEN_WAIT
        try:
            while True:
                with self._locked(volume, str(volume.vdi)) as busy:
                    if busy is not None:
                        why = busy.message
                        break
                    now = volume_of(as_target(volume))
                    is_over = now is None or _is_counted(volume)
                    if now is not None and not is_over and not now.is_open:
                        _change(volume, "-an")
                        is_over = True
                if is_over or self.clock.now() >= deadline:
                    return
                self.clock.sleep(_OPEN_STEP)
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
    found = subprocesses.program("lvchange")
    if found is None:
        raise Unreadable("lvchange is not installed, lvs is")
    lvm_volumes.run([found, *words, f"{GROUP}{volume.sr}/{volume.name}"])


def _is_counted(volume: Volume) -> bool:
    """True if SM counts an activation of its own: the file is there while a count is not zero."""
    return os.path.exists(os.path.join(REFCOUNTS, f"lvm-{volume.sr}", str(volume.vdi)))
