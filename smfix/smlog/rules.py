"""What a log may say about a damaged disk: one table, one row per message.

Pure. A row holds the bytes an engine looks for (`anchors`), the pattern that decides, samples that
it must match and near misses that it must not. A line matches at most one row. To teach smfix a
message, add a row; what a row *means* is one of :class:`Says`, and read in events.py.
Source: the storage manager's public history (xapi-project/sm, xcp-ng/sm) and blktap's vhd-util.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from smfix.smlog.names import UUID, VDI_NAME


class Says(Enum):
    """What a row tells, and so how it is read."""

    CORRUPTED = "an EXCEPTION that calls a VDI corrupted"
    FAILED = "a command that failed: a record of several lines"
    INVALID = "vhd-util check's verdict, in a terminal, a trace, or a record that lost its start"
    SCAN_ERROR = "vhd-util scan's line for one image"
    NOISE = "an error, and not a damaged VHD"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. `pattern` is searched in the message; `why` says why a NOISE row is noise."""

    name: str
    says: Says
    anchors: tuple[bytes, ...]
    pattern: re.Pattern[str]
    samples: tuple[str, ...]
    near_misses: tuple[str, ...]
    source: str
    why: str = ""


# "<class 'util.SMException'>", "<type 'exceptions.KeyError'>", "util.SMException" (Python 2.4).
CLASS = r"(?:<(?:class|type) ')?(?P<cls>[A-Za-z_][\w.]{0,80})(?:'>)?"
_TAG = r"(?P<tag>[^\n]{1,200}?)"

RULES: tuple[Rule, ...] = (
    Rule(
        "corrupted",
        Says.CORRUPTED,
        (b"EXCEPTION",),
        re.compile(rf"{_TAG}: EXCEPTION {CLASS}, (?P<what>VHD|COW image) {VDI_NAME} corrupted"),
        samples=(
            "     coalesce: EXCEPTION util.SMException, VHD *1d994938(40.00G/14.27G) corrupted",
            "coalesce: EXCEPTION <class 'util.SMException'>, VHD *811e7004(80.000G/2.155G) corrupted",
            "leaf-coalesce: EXCEPTION <class 'sm.core.util.SMException'>, VHD dce4b0fc(2.000G/170.336M?) corrupted",
            "coalesce: EXCEPTION <class 'util.SMException'>, VHD *e25e01be[VHD](500.000G//152.000M|ao) corrupted",
            "_doCoalesceLeaf: EXCEPTION <class 'util.SMException'>, VHD OLD_b545(2.000G?) corrupted",
        ),
        near_misses=(
            "coalesce: EXCEPTION <class 'util.SMException'>, Timed out",
            "coalesce: EXCEPTION <class 'util.CommandException'>, Signalled 15",
            "VHD *1d994938(40.00G/14.27G) corrupted",
        ),
        source="VDI.validate and Util.logException, cleanup.py",
    ),
    Rule(
        "failed",
        Says.FAILED,
        (b"FAILED",),
        re.compile(
            r"FAILED(?: in util\.pread[23]?)?: \((?:rc|errno) (?P<code>-?[0-9]{1,5})\) "
            r"stdout: '(?P<stdout>.*)"
        ),
        samples=(
            "FAILED: (errno 22) stdout: 'primary footer invalid: invalid cookie",
            "FAILED in util.pread: (rc 22) stdout: 'error opening /x.vhd: -22', stderr: ''",
            "FAILED in util.pread3: (errno 5) stdout: '', stderr: ''",
        ),
        near_misses=("FAILED to atomic write to /x", "FAILED in util.pread: stdout: ''"),
        source="util.pread, util.pread3",
    ),
    Rule(
        "appears-invalid",
        Says.INVALID,
        (b"appears invalid",),
        re.compile(r"/\S{1,500} appears invalid(?:; dumping|;?$)"),
        samples=("/run/sr-mount/s/v.vhd appears invalid; dumping metadata",),
        near_misses=("/run/sr-mount/s/v.vhd is valid", "it appears invalid; dumping it"),
        source="vhd_util_dump_headers, vhd-util-check.c",
    ),
)

# An engine looks for these and for nothing else.
ANCHORS: tuple[bytes, ...] = tuple(dict.fromkeys(a for rule in RULES for a in rule.anchors))


def match(message: str) -> tuple[Rule, re.Match[str]] | None:
    """The first row that `message` matches, with the match."""
    for rule in RULES:
        if found := rule.pattern.search(message):
            return rule, found
    return None


# --------------------------------------------------------------------------- vhd-util check


class Weight(Enum):
    """What one of `vhd-util check`'s complaints proves."""

    DAMAGE = "this image's own metadata is wrong"
    OTHER = "the clock or the parent: not this image, but an EXCEPTION about it is an incident"
    STORAGE = "the file or the device could not be read: proves nothing about the format"


@dataclass(frozen=True, slots=True)
class Complaint:
    """One row: a line that `vhd-util check` prints, and the kind of incident it makes."""

    kind: str
    weight: Weight
    pattern: re.Pattern[str]
    samples: tuple[str, ...]
    near_misses: tuple[str, ...] = ()


def _complaint(kind: str, weight: Weight, pattern: str, *samples: str, near: tuple[str, ...]) -> Complaint:
    return Complaint(kind, weight, re.compile(pattern), samples, near)


_DAMAGE, _OTHER, _STORAGE = Weight.DAMAGE, Weight.OTHER, Weight.STORAGE

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
        r"primary footer invalid: |error reading primary footer: -?[0-9]|invalid file size: 0x",
        "primary footer invalid: invalid cookie",
        "error reading primary footer: -22",
        "invalid file size: 0x1ff",
        near=("backup footer invalid: invalid cookie", "invalid cookie"),
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
        r"(?:error opening /\S{1,500}|Failed to open /\S{1,500}): -22(?![0-9])",
        "error opening /run/sr-mount/s/v.vhd: -22",
        "Failed to open /run/sr-mount/s/v.vhd: -22",
        near=("error opening /run/sr-mount/s/v.vhd: -2",),
    ),
    _complaint(
        "",
        _STORAGE,
        r"error opening /|cannot stat /|is not a regular file or block device"
        r"|error calculating (?:end of file|eof): |failed to read /",
        "error opening /run/sr-mount/s/v.vhd: -2",
        "cannot stat /run/sr-mount/s/v.vhd: 2",
        near=("opening /x",),
    ),
)


def complaint(text: str) -> Complaint | None:
    """The row that one line of `vhd-util`'s output matches."""
    for row in COMPLAINTS:
        if row.pattern.search(text):
            return row
    return None


FULL_UUID = re.compile(UUID)
