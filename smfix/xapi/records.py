"""A pool's hosts, SRs and disks as values, and the attachments that follow from them. Pure.

Theory. Only XAPI knows every host. A disk that is attached has ``host_<OpaqueRef>`` =
``RW`` or ``RO`` in the ``sm_config`` of its **leaf**; a hidden disk has none, so its users
are those of the leaves below it (``vhd-parent``). The keys are made before a disk is attached and outlive a host that
crashes: a key proves little, its absence much. While SM works on a disk it sets ``paused``, ``relinking`` or
``activating``.

Source: sm drivers/blktap2.py (``_add_tag``), cleanup.py (the switches ``gc`` and ``coalesce``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HOST_KEY = "host_"
PARENT_KEY = "vhd-parent"
BUSY_KEYS = ("paused", "relinking", "activating")
OURS = "smfix"
"""The value of ``paused`` that smfix sets: SM looks for the key only, and unpauses only ``true``."""

MAX_LEAVES = 64
"""Leaves whose VMs are named; a base copy can have hundreds."""


@dataclass(frozen=True, slots=True)
class PoolHost:
    """A host of the pool. `ref`: its OpaqueRef."""

    ref: str
    uuid: str
    name: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class PoolDisk:
    """A VDI. `parent`: the UUID of the VDI it depends on. `managed` False: a base copy. `vbds`: OpaqueRefs.

    `keys`: the hosts' keys in its ``sm_config``.
    """

    uuid: str
    name: str
    managed: bool
    parent: str | None = None
    vbds: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolSr:
    """An SR with all its disks, by UUID. `hosts`: OpaqueRefs of those that have it attached."""

    uuid: str
    name: str
    shared: bool
    gc: bool
    coalesce: bool
    hosts: tuple[str, ...] = ()
    disks: Mapping[str, PoolDisk] = field(default_factory=dict)

    @property
    def unhealthy(self) -> int:
        """Base copies with exactly one child, which GC should have coalesced: Xen Orchestra's count."""
        children = self._children()
        return sum(not disk.managed and len(children[disk.uuid]) == 1 for disk in self.disks.values())

    def children(self, vdi: str) -> tuple[str, ...]:
        """Return the UUIDs of the disks that depend on `vdi` directly."""
        return tuple(self._children()[vdi])

    def leaves(self, vdi: str) -> tuple[PoolDisk, ...]:
        """Return the leaves of every chain through `vdi`; `vdi` itself if no disk depends on it.

        At most :data:`MAX_LEAVES`. A ring of parents in the database is no endless loop.
        """
        children = self._children()
        seen: set[str] = set()
        found: list[PoolDisk] = []
        waiting = [vdi]
        while waiting and len(found) < MAX_LEAVES:
            at = waiting.pop()
            if at in seen or at not in self.disks:
                continue
            seen.add(at)
            waiting += children[at]
            if not children[at]:
                found.append(self.disks[at])
        return tuple(found)

    def _children(self) -> defaultdict[str, list[str]]:
        children: defaultdict[str, list[str]] = defaultdict(list)
        for disk in self.disks.values():
            if disk.parent is not None:
                children[disk.parent].append(disk.uuid)
        return children


@dataclass(frozen=True, slots=True)
class Attachment:
    """A host on which a disk is attached, as its key says. `host` None: no host of this pool."""

    ref: str
    host: PoolHost | None
    writes: bool
    is_here: bool

    @property
    def words(self) -> str:
        """The host as a person knows it, and how it has the disk."""
        name = f"host {self.host.name}" if self.host is not None else f"a host that has left the pool ({self.ref})"
        return f"{name} {'read-write' if self.writes else 'read-only'}"


@dataclass(frozen=True, slots=True)
class PoolDiskState:
    """The state of one disk **now**.

    `busy`: those of :data:`BUSY_KEYS` that are set. `left_over`: it is paused by a killed smfix.
    `shared`: its SR is shared. `is_master_here`: this host is the one where SM's locks for the SR count
    (the pool's coordinator for a shared one, the host with the PBD for a local one); `master` names it.
    `children`: UUIDs of the disks that depend on it.
    """

    attached: tuple[Attachment, ...]
    busy: tuple[str, ...]
    left_over: bool
    shared: bool
    is_master_here: bool
    master: str
    children: tuple[str, ...] = ()


def attachments(
    sm_config: Mapping[str, str], hosts: Mapping[str, PoolHost], here: str | None
) -> tuple[Attachment, ...]:
    """Return the attachments of a disk. `hosts`: by OpaqueRef. `here`: this host's UUID, None on no host.

    A key with another value than ``RO`` counts as a writer.
    """
    found = []
    for key, mode in sorted(sm_config.items()):
        if key.startswith(HOST_KEY):
            ref = key.removeprefix(HOST_KEY)
            host = hosts.get(ref)
            is_here = host is not None and here is not None and host.uuid == here
            found.append(Attachment(ref, host, mode != "RO", is_here))
    return tuple(found)


def busy_keys(sm_config: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys by which SM marks its work on the disk; a pause by smfix is not one of them."""
    return tuple(key for key in BUSY_KEYS if key in sm_config and not (key == "paused" and sm_config[key] == OURS))


def vm_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once, sorted: a VM has several disks."""
    return tuple(sorted({name for name in names if name}))
