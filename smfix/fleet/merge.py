"""Merge all documents: each disk once, however many hosts saw it. Pure.

Theory. Documents are added one by one and not kept. Their observations of disks and their facts about hosts go to
stores that sort and may be larger than memory (:class:`Store`; the caller provides them). Then each store is read once,
in the order that a sum needs: all observations of one disk together, then the disks of one SR, then the facts of one
host. So memory holds one disk, one SR with the names of its hosts, one host, and the sums. Input beyond a bound is
counted, and the picture is marked as incomplete.

The identity of a disk is its SR and its UUID. A log may name only eight digits of the UUID, or no SR: such an
observation belongs to the one disk that it fits, if the SR or a common host leaves only one; else it is its own disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from smfix.fleet.documents import REPORTED, RESOLVED, DiskObservation, HostDocument
from smfix.values import Exit

MOST_SIGHTS = 5_000_000
"""Observations of disks in trouble that are kept, about 2 KB each in the temporary folder."""
MOST_IMAGES = 50_000_000
"""Inspected images, counted once for each host, about 25 bytes each in the temporary folder."""
MOST_ALIKE = 1_000
"""Disks whose UUIDs begin with the same eight digits."""
MOST_VIEWS = 64
"""Hosts whose view of one disk is kept: the largest pool."""
MOST_TROUBLES = 4
MOST_WORDS = 500
"""Different causes, statuses and reasons in one sum; further ones are counted as :data:`OTHER`."""
OTHER = "other"

# If several hosts report different statuses of one disk, the first of these counts: a repair before an inspection of
# the image, an inspection before a name in a log.
_RANK = {
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
_UNKNOWN = _RANK["refused"]  # a status of a newer smfix: the image was inspected and something is left to do
REPAIRED, SOUND, LEFT = "repaired", "sound", "left"
_EACH = 32


class Store(Protocol):
    """Rows of sort keys and one value; iterating yields (key, ..., value) in the order of the keys."""

    def add(self, *keys: str | float, value: Any = None) -> None:
        """Add one row."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, the smallest key first."""

    def count_distinct(self) -> int:
        """Return how many different first keys there are."""


def group(status: str) -> str:
    """Return the part of the sum to which a disk with `status` belongs: repaired, sound or left."""
    if status == "repaired":
        return REPAIRED
    return SOUND if status in ("valid", RESOLVED) else LEFT


def _rank(status: str) -> int:
    return _RANK.get(status, _UNKNOWN)


@dataclass(slots=True)
class Disk:
    """One disk in trouble. `best`: the observation of the highest rank. `views`: (status, reason) by host."""

    best: DiskObservation
    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    views: dict[str, tuple[str, str | None]]

    @property
    def group(self) -> str:
        """The part of the sum to which the disk belongs: repaired, sound or left."""
        return group(self.best.status)

    @property
    def causes(self) -> tuple[str, ...]:
        """The codes of its findings; the kinds from the log if its image was not inspected."""
        return self.codes or self.kinds

    def join(self, other: Disk) -> None:
        """Add the observations of `other`, which is the same disk."""
        stronger = _rank(other.best.status) < _rank(self.best.status)
        strong, weak = (other.best, self.best) if stronger else (self.best, other.best)
        # The longer name, whichever observation has it.
        self.best = strong._replace(
            vdi=max(strong.vdi, weak.vdi, key=len), sr=strong.sr or weak.sr, path=strong.path or weak.path
        )
        self.codes = tuple(dict.fromkeys((*self.codes, *other.codes)))[:_EACH]
        self.kinds = tuple(dict.fromkeys((*self.kinds, *other.kinds)))[:_EACH]
        self.first = _earliest(self.first, other.first)
        self.last = _latest(self.last, other.last)
        for host, view in other.views.items():
            known = self.views.get(host)
            if known is None and len(self.views) >= MOST_VIEWS:
                continue
            if known is None or _rank(view[0]) < _rank(known[0]):
                self.views[host] = view


@dataclass(slots=True)
class Sum:
    """A sum of disks. `groups`, `causes`, `statuses` and `reasons` count disks; `since`: the first report.

    `hosts`, `srs`: for the sum of a cause, how many hosts and SRs its disks are on.
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
        """Add a disk whose status and reason are `view`."""
        status, reason = view
        self.disks += 1
        self.groups[group(status)] += 1
        self.statuses[_bounded(status, self.statuses)] += 1
        if reason is not None:
            self.reasons[_bounded(reason, self.reasons)] += 1
        self.causes.update({_bounded(cause, self.causes) for cause in causes})
        self.since = _earliest(self.since, first)


def _bounded(word: str, words: dict[str, Any]) -> str:
    """Return `word`, or OTHER if `words` is full and does not have it."""
    return word if word in words or len(words) < MOST_WORDS else OTHER


@dataclass(slots=True)
class Host:
    """One host: how many documents of each kind, its errors, and the sum of its disks as it saw them."""

    name: str
    documents: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    view: Sum = field(default_factory=Sum)


@dataclass(slots=True)
class Repository:
    """One SR (`sr` None: disks without a known SR) and the hosts that report its disks."""

    sr: str | None
    hosts: list[str]
    sum: Sum


@dataclass(slots=True)
class FleetPicture:
    """The merged documents. `hosts`, `srs` (known ones) and `silent` (hosts with trouble) are numbers.

    `total`: all disks, each with the status of the highest rank. `causes`: the disks of each cause, the most frequent
    first; a disk with two causes counts for both. `rows`: SRs, and one more if disks without a known SR exist.
    """

    files: int
    unreadable: int
    left_out: int
    images: int
    disk_store: Store
    sr_store: Store
    host_store: Store
    total: Sum = field(default_factory=Sum)
    causes: dict[str, Sum] = field(default_factory=dict)
    srs: int = 0
    rows: int = 0
    hosts: int = 0
    silent: int = 0

    def each_disk(self) -> Iterator[Disk]:
        """Yield each disk in trouble once: those that are left first, then by SR, the oldest trouble first."""
        return (row[-1] for row in self.disk_store)

    def each_sr(self) -> Iterator[Repository]:
        """Yield each SR, those with most disks left first."""
        return (row[-1] for row in self.sr_store)

    def each_host(self) -> Iterator[Host]:
        """Yield each host, by its name."""
        return (row[-1] for row in self.host_store)

    @property
    def exit(self) -> Exit:
        """The contract's bits: repaired, left, failed."""
        bits = Exit.REPAIRED if self.total.groups[REPAIRED] else Exit.CLEAN
        if self.total.groups[LEFT]:
            bits |= Exit.LEFT
        return bits | Exit.FAILED if self.total.statuses["failed"] or self.silent or self.unreadable else bits


# Kinds of facts about a host.
_DOCUMENT, _TROUBLE, _VIEW, _NAMED = range(4)


class FleetMerge:
    """Takes documents by :meth:`add`; then :meth:`picture` sums them up, once.

    `make_store` makes an empty store for a number of sort keys. Errors of the stores pass through.
    """

    def __init__(self, make_store: Callable[[int], Store]) -> None:
        self._make_store = make_store
        self._observations, self._facts, self._images = make_store(2), make_store(2), make_store(1)
        self._files = self._unreadable = self._left_out = 0
        self._fact_count = self._observation_count = self._image_count = 0

    def add(self, host: str, document: HostDocument) -> None:
        """Add one document of `host`."""
        self._files += 1
        self._left_out += document.left_out
        self._add_fact(host, _DOCUMENT, document.kind)
        for trouble in document.trouble[:MOST_TROUBLES]:
            self._add_fact(host, _TROUBLE, trouble)
        kept = document.images[: max(0, MOST_IMAGES - self._image_count)]
        self._image_count += len(kept)
        self._left_out += len(document.images) - len(kept)
        for image in kept:
            self._images.add(image)
        for observation in document.observations:
            self._observe(host, observation)

    def add_unreadable(self, host: str, why: str) -> None:
        """Add a file of `host` that could not be read, and why."""
        self._files += 1
        self._unreadable += 1
        self._add_fact(host, _TROUBLE, why)

    def _add_fact(self, host: str, kind: int, value: object) -> None:
        self._fact_count += 1
        self._facts.add(host, self._fact_count, value=(kind, value))

    def _observe(self, host: str, observation: DiskObservation) -> None:
        if observation.host is not None:
            host = observation.host
            self._add_fact(host, _NAMED, None)
        if self._observation_count == MOST_SIGHTS:
            self._left_out += 1
            return
        self._observation_count += 1
        self._observations.add(_bucket(host, observation), self._observation_count, value=(host, observation))

    # ------------------------------------------------------------------ after the last document

    def picture(self) -> FleetPicture:
        """Sum up all documents."""
        by_sr, number = self._make_store(6), 0
        for _, rows in groupby(self._observations, key=itemgetter(0)):
            disks, left_out = _merge_disks(row[-1] for row in rows)
            self._left_out += left_out
            for disk in disks:
                number += 1
                by_sr.add(disk.best.sr or "", *_urgency(disk), number, value=disk)
        picture = FleetPicture(
            self._files,
            self._unreadable,
            self._left_out,
            self._images.count_distinct(),
            self._make_store(2),
            self._make_store(3),
            self._make_store(1),
        )
        for name, rows in groupby(by_sr, key=itemgetter(0)):
            self._sum_sr(picture, name, (row[-1] for row in rows))
        for name, rows in groupby(self._facts, key=itemgetter(0)):
            _sum_host(picture, name, (row[-1] for row in rows))
        picture.causes = dict(sorted(picture.causes.items(), key=lambda item: (-item[1].disks, item[0])))
        return picture

    def _sum_sr(self, picture: FleetPicture, name: str, disks: Iterator[Disk]) -> None:
        """Add the disks of the SR `name` ("": not known) to the picture, and their views to the facts."""
        one, hosts, causes = Sum(), set[str](), set[str]()
        for disk in disks:
            view = (disk.best.status, disk.best.reason)
            picture.disk_store.add(disk.group != LEFT, picture.total.disks, value=disk)
            for each in (one, picture.total):
                each.add(view, disk.causes, disk.first)
            for cause in {_bounded(cause, picture.causes) for cause in disk.causes}:
                picture.causes.setdefault(cause, Sum()).add(view, (), disk.first)
                causes.add(cause)
            hosts.update(disk.views)
            for host, seen in disk.views.items():
                self._add_fact(host, _VIEW, (seen, disk.causes, disk.first))
        for cause in causes:
            picture.causes[cause].srs += 1
        picture.srs += name != ""
        picture.rows += 1
        repository = Repository(name or None, sorted(hosts), one)
        picture.sr_store.add(-one.groups[LEFT], -one.disks, name, value=repository)


def _sum_host(picture: FleetPicture, name: str, facts: Iterator[tuple[int, Any]]) -> None:
    host, causes = Host(name), set[str]()
    for kind, value in facts:
        if kind == _DOCUMENT:
            host.documents[value] += 1
        elif kind == _TROUBLE:
            host.trouble += [value] * (len(host.trouble) < MOST_TROUBLES)
        elif kind == _VIEW:
            view, of_disk, first = value
            host.view.add(view, (), first)
            causes.update(_bounded(cause, picture.causes) for cause in of_disk)
    for cause in causes:
        picture.causes[cause].hosts += 1
    picture.hosts += 1
    picture.silent += bool(host.trouble)
    picture.host_store.add(name, value=host)


def _bucket(host: str, observation: DiskObservation) -> str:
    """Return a key that all observations of one disk share: eight digits, or the whole key of the disk."""
    return observation.vdi[:8] if len(observation.vdi) >= 8 else "\0".join(("", *map(str, _key(host, observation))))


def _key(host: str, observation: DiskObservation) -> tuple[str | None, str, str]:
    """Return the identity of a disk: its SR and UUID.

    The host is part of it if the SR is unknown and the UUID is not whole. A disk without a name is known by its path.
    """
    is_known = observation.sr is not None or len(observation.vdi) == 36
    return observation.sr, observation.vdi or observation.path or "", "" if is_known else host


def _merge_disks(observations: Iterable[tuple[str, DiskObservation]]) -> tuple[list[Disk], int]:
    """Return the disks of one bucket of (host, observation), and how many observations exceeded MOST_ALIKE."""
    known: dict[tuple[str | None, str, str], Disk] = {}
    left_out = 0
    for host, one in observations:
        seen = Disk(one, one.codes, one.kinds, one.first, one.last, {host: (one.status, one.reason)})
        key = _key(host, one)
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
        fits = [one for one in whole if len(disk.best.vdi) >= 8 and _fits(disk, one)]
        if len(fits) == 1:
            fits[0].join(disk)
        else:
            apart.append(disk)
    return [*whole, *apart], left_out


def _is_whole(disk: Disk) -> bool:
    return len(disk.best.vdi) == 36 and disk.best.sr is not None


def _fits(part: Disk, whole: Disk) -> bool:
    """Return True if the partly named disk can be `whole`: same digits, and the same SR or a host that saw both."""
    if not whole.best.vdi.startswith(part.best.vdi):
        return False
    if part.best.sr is not None:
        return part.best.sr == whole.best.sr
    return len(part.best.vdi) == 36 or not part.views.keys().isdisjoint(whole.views)


def _urgency(disk: Disk) -> tuple[bool, bool, float, str]:
    first = disk.first
    return disk.group != LEFT, first is None, 0.0 if first is None else first.timestamp(), disk.best.vdi


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)
