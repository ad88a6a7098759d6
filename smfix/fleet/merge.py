"""What all documents say together: each disk once, whoever saw it. Pure.

Theory. Documents come one by one and are forgotten. What they say of disks and of hosts is laid on piles, which may be
larger than the memory (:class:`Pile`; who keeps them is the caller's affair), and is added up afterwards, one after the
other, in the order that each sum needs: what is said of one disk together, then the disks of one SR, then all of one
host. So in memory there is one disk, one SR with the names of its hosts, one host, and sums. What is beyond a bound
is counted, and the picture says that it is not complete.

A disk is known by its SR and its UUID. A log may say only eight digits of it, or no SR: such a disk is the one disk
that it fits, where one host or the SR leaves no other, else one of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from smfix.fleet.documents import REPORTED, RESOLVED, DiskObservation, Said
from smfix.values import Exit

MOST_SIGHTS = 5_000_000
"""What hosts say of disks in trouble: so much of it is kept, some 2 KB each in the temporary folder."""
MOST_IMAGES = 50_000_000
"""Images that were looked at, each as often as hosts have it: some 25 bytes each in the temporary folder."""
MOST_ALIKE = 1_000
"""Disks whose UUIDs begin with the same eight digits."""
MOST_VIEWS = 64
"""Hosts whose view of one disk is kept: the most that a pool has."""
MOST_TROUBLES = 4
MOST_WORDS = 500
"""Different causes, statuses and reasons that one sum names; what is beyond is counted as :data:`OTHER`."""
OTHER = "other"

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
_EACH = 32


class Pile(Protocol):
    """Values that compare with each other, laid down one by one; iterating gives them sorted, as often as asked."""

    def add(self, value: Any, /) -> None:
        """One value more."""

    def __iter__(self) -> Iterator[Any]:
        """Every value, the least first."""


class Piles(Protocol):
    """Makes piles."""

    def __call__(self, *, once: bool = False) -> Pile:
        """An empty one. `once`: of equal values it keeps one."""


def group(status: str) -> str:
    """What a status means for the sum: repaired, sound by now, or left."""
    if status == "repaired":
        return REPAIRED
    return SOUND if status in ("valid", RESOLVED) else LEFT


def _weight(status: str) -> int:
    return _WEIGHT.get(status, _UNKNOWN)


@dataclass(slots=True)
class Disk:
    """One disk in trouble. `views` are (status, reason) by the host that said so."""

    told: DiskObservation
    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    views: dict[str, tuple[str, str | None]]

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


@dataclass(slots=True)
class Sum:
    """Disks, added up. `causes`, `statuses` and `reasons` count disks, `since` is the first report.

    `hosts` and `srs` are numbers of those that the disks of a cause are on.
    """

    disks: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    since: datetime | None = None
    hosts: int = 0
    srs: int = 0

    def add(self, view: tuple[str, str | None], causes: Iterable[str], first: datetime | None) -> None:
        """One disk more, as `view` (status, reason) has it."""
        status, reason = view
        self.disks += 1
        self.groups[group(status)] += 1
        self.statuses[_known(status, self.statuses)] += 1
        if reason is not None:
            self.reasons[_known(reason, self.reasons)] += 1
        self.causes.update({_known(cause, self.causes) for cause in causes})
        self.since = _earlier(self.since, first)


def _known(word: str, words: dict[str, Any]) -> str:
    """The word as it is counted."""
    return word if word in words or len(words) < MOST_WORDS else OTHER


@dataclass(slots=True)
class Host:
    """One host: its documents by kind, what it could not do or say, and its disks as it saw them."""

    name: str
    documents: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    view: Sum = field(default_factory=Sum)


@dataclass(slots=True)
class Repository:
    """One SR (`sr` None: disks whose SR nobody names) and the hosts that speak of its disks."""

    sr: str | None
    hosts: list[str]
    sum: Sum


@dataclass(slots=True)
class FleetPicture:
    """All that was said, added up. `hosts`, `srs` and `silent` (hosts with trouble) are numbers; `srs`: of known SRs.

    `total`: all disks, each as the strongest view has it; `causes`: those of each cause (a disk with two counts for
    both), the most first.
    """

    files: int
    unreadable: int
    left_out: int
    images: int
    total: Sum
    causes: dict[str, Sum]
    srs: int
    rows: int
    """SRs, with the unknown one."""
    hosts: int = 0
    silent: int = 0
    disk_pile: Iterable[Any] = ()
    sr_pile: Iterable[Any] = ()
    host_pile: Iterable[Any] = ()

    def each_disk(self) -> Iterator[Disk]:
        """Each disk in trouble once: those that are left first, then by SR, longest in trouble first."""
        return (disk for _, _, disk in self.disk_pile)

    def each_sr(self) -> Iterator[Repository]:
        """Each SR, those with most left first."""
        return (one for *_, one in self.sr_pile)

    def each_host(self) -> Iterator[Host]:
        """Each host, by its name."""
        return (host for _, host in self.host_pile)

    @property
    def exit(self) -> Exit:
        """The contract's bits: repaired, left, failed."""
        bits = Exit.REPAIRED if self.total.groups[REPAIRED] else Exit.CLEAN
        if self.total.groups[LEFT]:
            bits |= Exit.LEFT
        return bits | Exit.FAILED if self.total.statuses["failed"] or self.silent or self.unreadable else bits


# What is laid down of a host.
_DOCUMENT, _TROUBLE, _VIEW, _NAMED = range(4)


class FleetMerge:
    """Everything that was said so far. Documents are given to :meth:`take`; then :meth:`picture` adds them up, once.

    Whatever is raised by the piles that `piles` makes goes through.
    """

    def __init__(self, piles: Piles) -> None:
        self._piles = piles
        self._sights, self._facts, self._images = piles(), piles(), piles(once=True)
        self._files = self._unreadable = self._left_out = self._said = self._seen = self._looked = 0

    def take(self, host: str, said: Said) -> None:
        """One document of `host`."""
        self._files += 1
        self._left_out += said.left_out
        self._fact(host, _DOCUMENT, said.kind)
        for trouble in said.trouble[:MOST_TROUBLES]:
            self._fact(host, _TROUBLE, trouble)
        for image in said.images:
            self._looked += 1
            if self._looked <= MOST_IMAGES:
                self._images.add(image)
            else:
                self._left_out += 1
        for sight in said.sights:
            self._see(host if sight.host is None else sight.host, sight)

    def refuse(self, host: str, why: str) -> None:
        """A file of `host` that says nothing, and why."""
        self._files += 1
        self._unreadable += 1
        self._fact(host, _TROUBLE, why)

    def _fact(self, host: str, what: int, value: object) -> None:
        self._said += 1
        self._facts.add((host, self._said, what, value))

    def _see(self, host: str, sight: DiskObservation) -> None:
        if sight.host is not None:
            self._fact(host, _NAMED, None)
        self._seen += 1
        if self._seen <= MOST_SIGHTS:
            self._sights.add((_alike(host, sight), self._seen, host, sight))
        else:
            self._left_out += 1

    # ------------------------------------------------------------------ when all is taken

    def picture(self) -> FleetPicture:
        """What it comes to."""
        by_sr = self._piles()
        number = 0
        for _, said in groupby(self._sights, key=itemgetter(0)):
            disks, left_out = _disks((host, sight) for *_, host, sight in said)
            self._left_out += left_out
            for disk in disks:
                number += 1
                by_sr.add((disk.told.sr or "", _urgency(disk), number, disk))
        picture = self._of_srs(by_sr)
        self._of_hosts(picture)
        picture.causes = dict(sorted(picture.causes.items(), key=lambda item: (-item[1].disks, item[0])))
        return picture

    def _of_srs(self, by_sr: Iterable[Any]) -> FleetPicture:
        """Disks, SRs and causes."""
        disks, srs = self._piles(), self._piles()
        images = sum(1 for _ in self._images)
        picture = FleetPicture(self._files, self._unreadable, self._left_out, images, Sum(), {}, 0, 0)
        for name, group_ in groupby(by_sr, key=itemgetter(0)):
            one, hosts, causes = Sum(), set[str](), set[str]()
            for *_, disk in group_:
                view = (disk.told.status, disk.told.reason)
                disks.add((disk.group != LEFT, picture.total.disks, disk))
                for each in (one, picture.total):
                    each.add(view, disk.causes, disk.first)
                for cause in {_known(cause, picture.causes) for cause in disk.causes}:
                    picture.causes.setdefault(cause, Sum()).add(view, (), disk.first)
                    causes.add(cause)
                hosts.update(disk.views)
                for host, seen in disk.views.items():
                    self._fact(host, _VIEW, (seen, disk.causes, disk.first))
            for cause in causes:
                picture.causes[cause].srs += 1
            picture.srs += name != ""
            picture.rows += 1
            srs.add((-one.groups[LEFT], -one.disks, name, Repository(name or None, sorted(hosts), one)))
        picture.disk_pile, picture.sr_pile = disks, srs
        return picture

    def _of_hosts(self, picture: FleetPicture) -> None:
        hosts = self._piles()
        for name, facts in groupby(self._facts, key=itemgetter(0)):
            host, causes = Host(name), set[str]()
            for *_, what, value in facts:
                if what == _DOCUMENT:
                    host.documents[value] += 1
                elif what == _TROUBLE:
                    host.trouble += [value] * (len(host.trouble) < MOST_TROUBLES)
                elif what == _VIEW:
                    view, of_disk, first = value
                    host.view.add(view, (), first)
                    causes.update(_known(cause, picture.causes) for cause in of_disk)
            for cause in causes:
                picture.causes[cause].hosts += 1
            picture.hosts += 1
            picture.silent += bool(host.trouble)
            hosts.add((name, host))
        picture.host_pile = hosts


def _alike(host: str, sight: DiskObservation) -> str:
    """What all sights that may be of one disk have in common: eight digits, or all that tells it apart."""
    return sight.vdi[:8] if len(sight.vdi) >= 8 else "\0".join(("", *map(str, _key(host, sight))))


def _key(host: str, sight: DiskObservation) -> tuple[str | None, str, str]:
    """What tells a disk apart from others.

    Without an SR, and with only the digits of a name, that is also its host; of a disk without any name its path there.
    """
    is_full = len(sight.vdi) == 36
    return sight.sr, sight.vdi or sight.path or "", "" if sight.sr is not None or is_full else host


def _disks(said: Iterable[tuple[str, DiskObservation]]) -> tuple[list[Disk], int]:
    """The disks of which `said` (host, sight) speaks, alike as they are; and how many sights were too many."""
    known: dict[tuple[str | None, str, str], Disk] = {}
    left_out = 0
    for host, sight in said:
        seen = Disk(sight, sight.codes, sight.kinds, sight.first, sight.last, {host: (sight.status, sight.reason)})
        key = _key(host, sight)
        if key in known:
            known[key].join(seen)
        elif len(known) < MOST_ALIKE:
            known[key] = seen
        else:
            left_out += 1
    whole = [disk for disk in known.values() if _is_whole(disk)]
    apart = []
    for disk in known.values():
        if _is_whole(disk):
            continue
        fits = [one for one in whole if len(disk.told.vdi) >= 8 and _fits(disk, one)]
        if len(fits) == 1:
            fits[0].join(disk)
        else:
            apart.append(disk)
    return [*whole, *apart], left_out


def _is_whole(disk: Disk) -> bool:
    return len(disk.told.vdi) == 36 and disk.told.sr is not None


def _fits(part: Disk, whole: Disk) -> bool:
    """True where the partly named disk can be `whole`: its digits, and its SR or a host that saw both."""
    if not whole.told.vdi.startswith(part.told.vdi):
        return False
    if part.told.sr is not None:
        return part.told.sr == whole.told.sr
    return len(part.told.vdi) == 36 or not part.views.keys().isdisjoint(whole.views)


def _urgency(disk: Disk) -> tuple[bool, bool, float, str]:
    first = disk.first
    return disk.group != LEFT, first is None, 0.0 if first is None else first.timestamp(), disk.told.vdi


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return one if other is None else other if one is None else min(one, other)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return one if other is None else other if one is None else max(one, other)
