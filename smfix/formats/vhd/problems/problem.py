"""What a row of the problem table is made of.

Theory. A row is data: how to see the problem, how to mend it, who may say yes, and what to call it.
``detect`` answers with *hits* (facts, and where they change it the disposition); the engine turns hits
into findings. ``fix`` answers with edits or a refusal; it never writes. Reports, ``smfix explain`` and the
documentation read the rows, so nothing about a problem is written down twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smfix.formats.vhd.image import VhdImage
from smfix.values import Disposition, Edit, Finding, InUse, Refusal, Severity

SAFE, CONFIRM, REPORT = Disposition.SAFE, Disposition.CONFIRM, Disposition.REPORT
INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


@dataclass(frozen=True, slots=True)
class Parent:
    """What the host found where a differencing image's locators point.

    `path` is where it looked (None: no locator could be followed). `uuid` is the found image's (16
    bytes; None: nothing readable there). `astray` are the locators' paths, as they are stored, at which
    nothing is, although another locator leads to `path`. `outside` are those that lead out of the image's SR: no file
    there was opened.
    """

    path: str | None
    uuid: bytes | None = None
    astray: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file beside the image that has the `uuid` (16 bytes) of one of its footers.

    `is_rival`: the storage manager names disks so, its header and BAT are sound, and its content is another. Else it is
    a copy, or cannot be told from one (:func:`smfix.formats.vhd.problems.witness.is_rival`).
    """

    name: str
    uuid: bytes
    is_rival: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What the bytes of one image cannot say: the time, who has it open, its relatives.

    `parent` is None when nobody looked. `children` are images whose header names this one, by UUID or by file name,
    `child_names` their file names in the same order (empty: unknown). `siblings` have one of its UUIDs. `given_size`
    (bytes) and `given_uuid` (16 bytes) are what the operator knows of a disk whose footers do not tell it.
    """

    now: datetime
    in_use: InUse = InUse.NONE
    parent: Parent | None = None
    children: tuple[VhdImage, ...] = ()
    child_names: tuple[str, ...] = ()
    siblings: tuple[Sibling, ...] = ()
    given_size: int | None = None
    given_uuid: bytes | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A problem seen: the facts for the message, and what differs from the row's defaults.

    `check` is what ``vhd-util check`` prints of it, where it prints anything.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    check: str | None = None
    severity: Severity | None = None
    disposition: Disposition | None = None
    lossy: bool | None = None


Detect = Callable[[VhdImage, Context], Iterable[Detection]]
Fix = Callable[[VhdImage, Finding, Context], tuple[Edit, ...] | Refusal]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row: a code means the same for ever.

    `message` is a template over the hit's facts. `done` says in the past tense what the fix did, `todo` as an
    imperative what it will do. `means`
    tells what it is to whoever owns the disk, `why` how it comes about, `advice` what to do where smfix does
    not mend it, `source` where the rule stands. Rows with a lower `turn` are mended first. `disposition` is what
    holds unless a hit says another, which is one of `also`. `is_orphan`: the data found is read by nothing, so a
    repair that leaves it has repaired the disk in part. `asks_relatives`: children and siblings change the finding.
    """

    code: str
    title: str
    message: str
    severity: Severity
    disposition: Disposition
    detect: Detect
    why: str
    source: str
    means: str = ""
    advice: str = ""
    lossy: bool = False
    fix: Fix | None = None
    done: str = ""
    todo: str = ""
    turn: int = 50
    also: tuple[Disposition, ...] = ()
    is_orphan: bool = False
    asks_relatives: bool = False

    @property
    def dispositions(self) -> tuple[Disposition, ...]:
        """All that a finding of this row can say, the freest first."""
        return tuple(each for each in Disposition if each is self.disposition or each in self.also)


def found(row: Problem, hit: Detection) -> Finding:
    """The finding that `hit` makes of `row`."""
    facts = dict(hit.facts)
    facts["vhd_util"] = hit.check
    return Finding(
        row.code,
        row.title,
        row.message.format(**facts).rstrip(),
        hit.severity or row.severity,
        hit.disposition or row.disposition,
        row.lossy if hit.lossy is None else hit.lossy,
        facts,
    )
