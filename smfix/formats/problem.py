"""The rows of a format's problem table, and what their functions get and return.

Theory. A row is data: how to detect a problem, how to repair it, who must consent, and its texts. ``detect`` returns
*detections* (facts, and a disposition that differs from the row's); :func:`found` turns one into a finding. ``fix``
returns edits or a refusal and never writes. Reports, ``smfix explain`` and the documentation read the rows, so each
fact about a problem is written once. If a finding is planned in a special way, a field of its row says so. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smfix.formats.base import Image
from smfix.values import Disposition, Edit, Finding, InUse, Refusal, Severity

SAFE, CONFIRM, REPORT = Disposition.SAFE, Disposition.CONFIRM, Disposition.REPORT
INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR


@dataclass(frozen=True, slots=True)
class Parent:
    """The image at the place that a child names as its parent's.

    `path` is that place (None: the child names none that can be followed). `uuid` has 16 bytes (None: no readable image
    is there). `astray` are the stored paths that lead to nothing, although another one leads to `path`. `outside` are
    those that lead out of the image's SR: no file there was opened.
    """

    path: str | None
    uuid: bytes | None = None
    astray: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file beside the image that has the `uuid` (16 bytes) of one of its footers.

    `is_rival`: its name is one that the storage manager gives to disks, its metadata is sound, and its content is
    another. Else it is a copy, or cannot be distinguished from one.
    """

    name: str
    uuid: bytes
    is_rival: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Facts that the bytes of one image do not hold: the time, its users, its relatives.

    `parent` is None if it was not looked up. `children` are images that name this one as their parent, by UUID or by
    file name, `child_names` their file names in the same order (empty: unknown). `siblings` have one of its UUIDs.
    `given_size` (bytes) and `given_uuid` (16 bytes) come from the operator, for a disk that lost both its footers.
    """

    now: datetime
    in_use: InUse = InUse.NONE
    parent: Parent | None = None
    children: tuple[Image, ...] = ()
    child_names: tuple[str, ...] = ()
    siblings: tuple[Sibling, ...] = ()
    given_size: int | None = None
    given_uuid: bytes | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A problem that was seen: the facts for its message, and every value that differs from the row's default.

    `check` is the line that the format's own tool prints about it, None if it prints none.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    check: str | None = None
    severity: Severity | None = None
    disposition: Disposition | None = None
    lossy: bool | None = None


Detect = Callable[[Any, Context], Iterable[Detection]]
"""Gets an image of the row's own format."""
Fix = Callable[[Any, Finding, Context], tuple[Edit, ...] | Refusal]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row: a code means the same for ever.

    Texts: `message` is a template over the detection's facts; `means` is for the owner of the disk, `why` names the
    usual causes, `done` says in the past tense what the fix did, `todo` as an imperative what it will do, `advice` what
    to do if smfix does not repair it, `source` names the rule. `disposition` holds unless a detection has another,
    which is one of `also`.

    For the planner. Rows with a lower `turn` are repaired first. `asks_relatives`: children and siblings change the
    finding. `is_orphan`: no structure refers to the data found, so a repair that leaves it is a partial one.
    `may_remain`: the error is no damage of this image (but of its link to the parent, for example), so a repair may
    leave it. `stays_lost`: a loss that it names stays one, even if a repair changes the structures by which it was
    found. `rereads`: after the fix the image is read by another footer or header than before. `proved_at_first`: the
    fix relies on structures as they were found, and must not rely on one that another fix wrote. `places_blocks`: the
    fix gives a block its place; it is decided on the file as it was, because an extended file may hide that a block was
    cut. `bars`: why no plan is made while this is found.
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
    may_remain: bool = False
    stays_lost: bool = False
    rereads: bool = False
    proved_at_first: bool = False
    places_blocks: bool = False
    bars: Refusal | None = None

    @property
    def dispositions(self) -> tuple[Disposition, ...]:
        """All that a finding of this row can have, the freest first."""
        return tuple(each for each in Disposition if each is self.disposition or each in self.also)


def found(row: Problem, detection: Detection) -> Finding:
    """Make the finding of `row` from `detection`."""
    facts = dict(detection.facts)
    facts["vhd_util"] = detection.check
    return Finding(
        row.code,
        row.title,
        row.message.format(**facts).rstrip(),
        detection.severity or row.severity,
        detection.disposition or row.disposition,
        row.lossy if detection.lossy is None else detection.lossy,
        facts,
        may_remain=row.may_remain,
    )
