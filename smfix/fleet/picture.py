"""What all documents say together: each disk once, whoever saw it. Pure.

Theory. Documents come one by one and are forgotten; what is kept is bounded: disks in trouble (:data:`MOST_DISKS`),
hosts (:data:`MOST_HOSTS`), images that were looked at (:data:`MOST_IMAGES`, eight bytes' worth each). What is beyond
a bound is counted, and the picture says that it is not complete.

A disk is known by its SR and its UUID. A log may say only eight digits of it, or no SR: such a disk is the one disk
that it fits, where one host or the SR leaves no other, else one of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from smfix.fleet.documents import REPORTED, RESOLVED, Said, Sight
from smfix.model import Exit

MOST_DISKS = 200_000
MOST_HOSTS = 100_000
MOST_IMAGES = 2_000_000
MOST_VIEWS = 64
"""Hosts whose view of one disk is kept: the most that a pool has."""
MOST_TROUBLES = 4

# What several hosts say of one disk: the first of these that any says. Who repaired it knows best; who looked at it
# knows more than who has only its name.
_WEIGHT = {
    status: number
    for number, status in enumerate(
        (
            "repaired",
            "failed",
            "rolled-back",
            "partly-repaired",
            "would-repair",
            "refused",
            "invalid",
            "not-a-vhd",
            "valid",
            "ambiguous",
            "unreadable",
            "not-found",
            REPORTED,
            RESOLVED,
        )
    )
}
_UNKNOWN = _WEIGHT["refused"]  # a status of a later smfix: somebody looked, and it is not settled
REPAIRED, SOUND, LEFT = "repaired", "sound", "left"


def group(status: str) -> str:
    """What a status means for the sum: repaired, sound by now, or left."""
    if status == "repaired":
        return REPAIRED
    return SOUND if status in ("valid", RESOLVED) else LEFT


def _weight(status: str) -> int:
    return _WEIGHT.get(status, _UNKNOWN)


@dataclass(slots=True)
class Disk:
    """One disk in trouble. `views` are (status, reason) by the number of the host that said so."""

    told: Sight
    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    views: dict[int, tuple[str, str | None]]

    @property
    def group(self) -> str:
        """Repaired, sound or left."""
        return group(self.told.status)

    @property
    def causes(self) -> tuple[str, ...]:
        """The codes of its findings; where nobody looked, the kinds that the log names."""
        return self.codes or self.kinds

    def join(self, other: Disk) -> None:
        """What `other`, which is the same disk, adds."""
        stronger = _weight(other.told.status) < _weight(self.told.status)
        strong, weak = (other.told, self.told) if stronger else (self.told, other.told)
        # The fuller name, whoever has it.
        self.told = strong._replace(
            vdi=max(strong.vdi, weak.vdi, key=len), sr=strong.sr or weak.sr, path=strong.path or weak.path
        )
        self.codes = tuple(dict.fromkeys((*self.codes, *other.codes)))[:_EACH]
        self.kinds = tuple(dict.fromkeys((*self.kinds, *other.kinds)))[:_EACH]
        self.first = _earlier(self.first, other.first)
        self.last = _later(self.last, other.last)
        for host, view in other.views.items():
            known = self.views.get(host)
            if known is None and len(self.views) >= MOST_VIEWS:
                continue
            if known is None or _weight(view[0]) < _weight(known[0]):
                self.views[host] = view


_EACH = 32


@dataclass(slots=True)
class Sum:
    """Disks, added up. `causes`, `statuses` and `reasons` count disks, `since` is the first report."""

    disks: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    since: datetime | None = None
    hosts: set[int] = field(default_factory=set)
    srs: set[str | None] = field(default_factory=set)

    def add(self, disk: Disk, view: tuple[str, str | None]) -> None:
        """One disk more, as `view` (status, reason) has it."""
        status, reason = view
        self.disks += 1
        self.groups[group(status)] += 1
        self.statuses[status] += 1
        if reason is not None:
            self.reasons[reason] += 1
        self.causes.update(disk.causes)
        self.since = _earlier(self.since, disk.first)


@dataclass(slots=True)
class Host:
    """One host: its documents by kind, and what it could not do or say."""

    name: str
    documents: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)


class Picture:
    """Everything that was said so far. Documents are given to :meth:`take`; then the sums are asked for."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.images_of: Counter[str] = Counter()
        self.files = 0
        self.unreadable = 0
        self.left_out = 0
        self._numbers: dict[str, int] = {}
        self._disks: dict[tuple[str | None, str, int], Disk] = {}
        self._images: set[int] = set()

    def take(self, host: str, said: Said) -> None:
        """One document of `host`."""
        self.files += 1
        number = self._host(host)
        if number is None:
            self.left_out += len(said.sights) + said.left_out
            return
        one = self.hosts[number]
        one.documents[said.kind] += 1
        one.trouble.extend(said.trouble[: MOST_TROUBLES - len(one.trouble)])
        self.left_out += said.left_out
        for sr, images in said.images:
            self._count(sr, images)
        for sight in said.sights:
            self._see(number if sight.host is None else self._host(sight.host), sight)

    def refuse(self, host: str, why: str) -> None:
        """A file of `host` that says nothing, and why."""
        self.files += 1
        self.unreadable += 1
        number = self._host(host)
        if number is not None and len(self.hosts[number].trouble) < MOST_TROUBLES:
            self.hosts[number].trouble.append(why)

    def _host(self, name: str) -> int | None:
        number = self._numbers.get(name)
        if number is None and len(self.hosts) < MOST_HOSTS:
            number = self._numbers[name] = len(self.hosts)
            self.hosts.append(Host(name))
        return number

    def _count(self, sr: str, images: Iterable[int]) -> None:
        for image in images:
            if image not in self._images:
                if len(self._images) >= MOST_IMAGES:
                    self.left_out += 1
                    continue
                self._images.add(image)
                self.images_of[sr] += 1

    def _see(self, host: int | None, sight: Sight) -> None:
        if host is None:
            self.left_out += 1
            return
        seen = Disk(sight, sight.codes, sight.kinds, sight.first, sight.last, {host: (sight.status, sight.reason)})
        # Without an SR, and with only the digits of a name, it is told apart by its host; a disk without any name
        # by its path there.
        is_full = len(sight.vdi) == 36
        key = (sight.sr, sight.vdi or sight.path or "", -1 if sight.sr is not None or is_full else host)
        known = self._disks.get(key)
        if known is not None:
            known.join(seen)
        elif len(self._disks) < MOST_DISKS:
            self._disks[key] = seen
        else:
            self.left_out += 1

    # ------------------------------------------------------------------ when all is taken

    @cached_property
    def disks(self) -> list[Disk]:
        """Each disk in trouble once: those that are left first, then by SR, longest in trouble first."""
        whole: dict[str, list[Disk]] = {}
        part: list[Disk] = []
        for disk in self._disks.values():
            if len(disk.told.vdi) == 36 and disk.told.sr is not None:
                whole.setdefault(disk.told.vdi[:8], []).append(disk)
            else:
                part.append(disk)
        apart = []
        for disk in part:
            fits = [one for one in whole.get(disk.told.vdi[:8], ()) if len(disk.told.vdi) >= 8 and _fits(disk, one)]
            if len(fits) == 1:
                fits[0].join(disk)
            else:
                apart.append(disk)
        return sorted([*(disk for disks in whole.values() for disk in disks), *apart], key=_urgency)

    @cached_property
    def total(self) -> Sum:
        """All disks, each as the strongest view has it."""
        total = Sum()
        for disk in self.disks:
            total.add(disk, (disk.told.status, disk.told.reason))
        return total

    @cached_property
    def srs(self) -> dict[str | None, Sum]:
        """The disks of each SR (None: not known), those with most left first."""
        sums: dict[str | None, Sum] = {}
        for disk in self.disks:
            one = sums.setdefault(disk.told.sr, Sum())
            one.add(disk, (disk.told.status, disk.told.reason))
            one.hosts.update(disk.views)
        return dict(sorted(sums.items(), key=lambda item: (-item[1].groups[LEFT], -item[1].disks, item[0] or "")))

    @cached_property
    def causes(self) -> dict[str, Sum]:
        """The disks of each cause; a disk with two counts for both."""
        sums: dict[str, Sum] = {}
        for disk in self.disks:
            for cause in disk.causes:
                one = sums.setdefault(cause, Sum())
                one.add(disk, (disk.told.status, disk.told.reason))
                one.hosts.update(disk.views)
                one.srs.add(disk.told.sr)
        return dict(sorted(sums.items(), key=lambda item: (-item[1].disks, item[0])))

    @cached_property
    def views(self) -> list[Sum]:
        """The disks of each host as that host saw them, in the order of `hosts`."""
        sums = [Sum() for _ in self.hosts]
        for disk in self.disks:
            for host, view in disk.views.items():
                sums[host].add(disk, view)
        return sums

    @property
    def in_trouble(self) -> list[Host]:
        """Hosts that could not be reached, or whose output could not be read, whole or in part."""
        return [host for host in self.hosts if host.trouble]

    @property
    def exit(self) -> Exit:
        """The contract's bits: repaired, left, failed."""
        bits = Exit.REPAIRED if self.total.groups[REPAIRED] else Exit.CLEAN
        if self.total.groups[LEFT]:
            bits |= Exit.LEFT
        failed = self.total.statuses["failed"] or any(host.trouble for host in self.hosts)
        return bits | Exit.FAILED if failed or self.unreadable else bits


def _fits(part: Disk, whole: Disk) -> bool:
    """True where the partly named disk can be `whole`: its digits, and its SR or a host that saw both."""
    if not whole.told.vdi.startswith(part.told.vdi):
        return False
    if part.told.sr is not None:
        return part.told.sr == whole.told.sr
    return len(part.told.vdi) == 36 or not part.views.keys().isdisjoint(whole.views)


def _urgency(disk: Disk) -> tuple[bool, str, bool, float, str]:
    first = disk.first
    return (
        disk.group != LEFT,
        disk.told.sr or "",
        first is None,
        0.0 if first is None else first.timestamp(),
        disk.told.vdi,
    )


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return one if other is None else other if one is None else min(one, other)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return one if other is None else other if one is None else max(one, other)
