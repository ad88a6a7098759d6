"""Read the complaints of `vhd-util` about an image: one table, and how to read its output.

Pure. A row is a pattern for one line, the kind of incident it makes, and its consequence; each has
samples and near misses. To teach smfix a complaint, add a row.
Source: vhd-util-check.c, vhd-util-scan.c and libvhd.c of blktap.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from smfix.smlog.parse.disk_names import GIVEN
from smfix.smlog.patterns import pattern
from smfix.smlog.rules.rule_pattern import RulePattern

T = TypeVar("T")
_LONGEST = 1200  # characters: no line of vhd-util's is longer


class Weight(Enum):
    """The consequence of one of `vhd-util check`'s complaints for the image."""

    DAMAGE = "this image's own metadata is wrong"
    OTHER = "the clock or the parent: not this image, but an EXCEPTION about it is an incident"
    UNCHECKED = "the check could not run, so that an EXCEPTION about the image after it proves nothing"
    STORAGE = "the file or the device could not be read: proves nothing about the format"


class Complaint(NamedTuple):
    """One row: a line that `vhd-util check` prints, and the kind of incident it makes."""

    kind: str
    weight: Weight
    pattern: RulePattern
    samples: tuple[str, ...]
    near_misses: tuple[str, ...] = ()


def _complaint(kind: str, weight: Weight, text: str, *samples: str, near: tuple[str, ...]) -> Complaint:
    return Complaint(kind, weight, RulePattern(text), samples, near)


_DAMAGE, _OTHER, _UNCHECKED, _STORAGE = Weight

# In order: a clock complaint is worded like a footer complaint and must be asked first.
COMPLAINTS: tuple[Complaint, ...] = (
    _complaint(
        "clock",
        _OTHER,
        r"(?:(?:primary|backup) footer|differencing header(?: is)?) (?:is )?invalid: "
        r"(?:parent )?creation time in future",
        "primary footer invalid: creation time in future",
        "differencing header is invalid: parent creation time in future",
        near=("primary footer invalid: invalid cookie",),
    ),
    _complaint(
        "footer-invalid",
        _DAMAGE,
        # -22: a file of an odd size, read past the page cache. It is never too short for this: -5 is the storage's.
        r"primary footer invalid: |error reading primary footer: -22(?![0-9])|invalid file size: 0x",
        "primary footer invalid: invalid cookie",
        "error reading primary footer: -22",
        "invalid file size: 0x1ff",
        near=("backup footer invalid: invalid cookie", "invalid cookie", "error reading primary footer: -5"),
    ),
    _complaint(
        "backup-footer-invalid",
        _DAMAGE,
        r"backup footer invalid: |error (?:reading|seeking to) backup footer: -?[0-9]",
        "backup footer invalid: invalid checksum",
        "error reading backup footer: -22",
        near=("primary footer invalid: invalid checksum",),
    ),
    _complaint(
        "footer-mismatch",
        _DAMAGE,
        r"primary and backup footers do not match",
        "primary and backup footers do not match",
        near=("parent locator 0 name (x) does not match header name (y)",),
    ),
    _complaint(
        "header-invalid",
        _DAMAGE,
        r"(?<!differencing )header is invalid: |differencing header is invalid: "
        r"|error (?:reading|seeking to) header: -?[0-9]",
        "header is invalid: invalid checksum",
        "differencing header is invalid: invalid parent name",
        "error reading header: -22",
        near=("primary footer invalid: x",),
    ),
    _complaint(
        "bat-invalid",
        _DAMAGE,
        r"block [0-9]+ \(offset 0x[0-9a-f]+\) clobbers (?:headers|footer|block)"
        r"|exceeds BAT size|error reading bat: -?[0-9]",
        "block 7 (offset 0x1000) clobbers footer",
        "block 7 (offset 0x1000) clobbers block 9 (offset 0x1200)",
        "VHD size (10 blocks) exceeds BAT size (9)",
        "error reading bat: -22",
        near=("block 7 clobbers all",),
    ),
    _complaint(
        "batmap-invalid",
        _DAMAGE,
        r"batmap is invalid: |batmap shows unallocated block [0-9]+ full"
        r"|error reading batmap: -?[0-9]|error calculating end of metadata: -?[0-9]",
        "batmap is invalid: invalid checksum",
        "batmap shows unallocated block 12 full",
        "error calculating end of metadata: -22",
        near=("Batmap offset       : 83968",),
    ),
    _complaint(
        "parent-missing",
        _OTHER,
        r"could not find parent |parent locator [0-9]+ (?:points to missing file|name \()"
        r"|invalid parent (?!name|creation)|error resolving /|error (?:getting parent|decoding "
        r"parent name|reading parent locator [0-9]+): -?[0-9]|invalid +platform code for locator"
        r"|duplicate platform code in locator",
        "could not find parent /x.vhd",
        "parent locator 0 points to missing file /x.vhd (resolved to /y.vhd)",
        "invalid parent locator 0: invalid data offset",
        "invalid parent /x.vhd: child and parent uuids do not match",
        "error getting parent: -2",
        near=("differencing header is invalid: invalid parent name", "error checking parents: -22"),
    ),
    _complaint(
        "open-failed",
        _DAMAGE,
        # A resize journals the metadata first: it opens the image strictly, and reads the BAT and the batmap.
        rf"(?:(?:error opening|Failed to open) {GIVEN}|creating journal failed): -22(?![0-9])",
        "error opening /run/sr-mount/s/v.vhd: -22",
        "Failed to open /run/sr-mount/s/v.vhd: -22",
        "creating journal failed: -22",
        near=("error opening /run/sr-mount/s/v.vhd: -2", "creating journal failed: -17"),
    ),
    _complaint(
        "",
        _UNCHECKED,
        r"Failed to get (?:shared )?\"[a-z ]{1,40}\" lock|Failed to lock byte|Is another process using the image",
        "qemu-img: Could not open '/x.qcow2': Failed to get shared \"write\" lock",
        "Is another process using the image [/x.qcow2]?",
        near=("qemu-img: Could not open '/x.qcow2': Image is corrupt; cannot be opened read/write",),
    ),
    _complaint(
        "",
        _STORAGE,
        r"error opening /|cannot stat /|is not a regular file or block device"
        r"|error calculating (?:end of file|eof): |failed to read /|error reading primary footer: -?[0-9]",
        "error opening /run/sr-mount/s/v.vhd: -2",
        "error reading primary footer: -5",
        "cannot stat /run/sr-mount/s/v.vhd: 2",
        near=("opening /x",),
    ),
)


# Output of a failed `vhd-util repair` of the parent: the storage manager repairs a parent after a
# coalesce that failed, and that repair failed too.
REPAIR_FAILED = Complaint(
    "repair-failed", _DAMAGE, RulePattern(r"Failed to repair parent"), ("Failed to repair parent /x",)
)


# A program that a signal ended in the middle of an image: libvhd trips over the data there.
CRASHED = Complaint("tool-crashed", _DAMAGE, RulePattern(r"Segmentation fault"), ("Segmentation fault",))
# A check that failed with "Read-only file system": the storage manager calls the image corrupted all the same.
UNCHECKED = Complaint("", _UNCHECKED, RulePattern(r"Read-only file system"), ("Read-only file system",))


def complaint(text: str) -> Complaint | None:
    """Return the row that one line of `vhd-util`'s output matches."""
    for row in COMPLAINTS:
        if row.pattern.search(text):
            return row
    return None


# --------------------------------------------------------------------------- output

APPEARS_INVALID = pattern(rf"(?<![^\s'\"])(?P<path>{GIVEN}) appears invalid(?:; dumping|;?\s*$)")
_IS_VALID = pattern(rf"(?<![^\s'\"])(?P<path>{GIVEN}) is valid\b")
_NAMES_PATH = pattern(rf"(?:opening|open|stat) (?P<path>{GIVEN})")


class Verdict(Generic[T]):
    """The complaints of vhd-util about one image. `said` are the lines that hold them."""

    def __init__(self, said: Iterable[T] = ()) -> None:
        self.path: str | None = None
        self.complaints: list[Complaint] = []
        self.said = list(said)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of incident; `open-failed` only if no complaint says more."""
        weight = self.weight
        kinds = dict.fromkeys(row.kind for row in self.complaints if row.weight is weight)
        if len(kinds) > 1:
            kinds.pop("open-failed", None)
        return tuple(kind for kind in kinds if kind)

    @property
    def weight(self) -> Weight:
        """Return the weight of the gravest complaint."""
        weights = {row.weight for row in self.complaints}
        return next((weight for weight in Weight if weight in weights), Weight.STORAGE)


def verdicts(texts: Iterable[tuple[str, T]]) -> list[Verdict[T]]:
    r"""Parse vhd-util's output, image by image; complaints precede their path.

    `texts` are lines, each with its key in the verdict (a position). A trace carries the
    whole output in one line with literal ``\n``. A last verdict without a path holds complaints
    that no path followed.
    """
    found: list[Verdict[T]] = []
    pending: Verdict[T] = Verdict()
    for text, line in texts:
        for whole in text.split("\\n"):
            part = whole[:_LONGEST]
            if row := complaint(part):
                named = _NAMES_PATH.search(part)
                path = named["path"] if named else None
                if found and not pending.complaints and path == found[-1].path:
                    found[-1].complaints.append(row)  # "Failed to open" follows its verdict
                    found[-1].said.append(line)
                    continue
                pending.complaints.append(row)
                pending.said.append(line)
                pending.path = path or pending.path
            if invalid := APPEARS_INVALID.search(part):  # in a paste the two share a line
                if found and found[-1].path == invalid["path"] and not pending.complaints:
                    continue  # "dumping metadata", then "dumping headers"
                pending.path = invalid["path"]
                pending.said.append(line)
                found.append(pending)
                pending = Verdict()
            elif _IS_VALID.search(part):
                pending = Verdict()
    if pending.complaints:
        found.append(pending)
    return found
