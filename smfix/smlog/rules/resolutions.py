"""Match the messages that prove an incident over: one table, one row per message.

Pure. Only strong evidence counts: a later `check` of the same image that succeeded, the image's
part in a coalesce that went through, or its deletion. "No work, exiting" and the like say nothing
about one VDI. A `check` with ``-i`` ignores just the lost footer: no proof. One with ``-B`` (all
that the storage manager asks of a parent) does not look for overlaps.
Source: cleanup.py, vhdutil.check, lvutil.remove of the storage manager.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from enum import Enum
from itertools import islice
from typing import NamedTuple

from smfix.smlog.correlate.failed_commands import arguments, subject, succeeded
from smfix.smlog.correlate.failures import LogSource, Quote, quote, voice
from smfix.smlog.correlate.process_runs import same_run, sr_of, starts_run
from smfix.smlog.parse.disk_names import UUID, VDI_NAME, ImagePath, image_path, short_name
from smfix.smlog.parse.prefixes import is_of_storage
from smfix.smlog.parse.window import Line, Window
from smfix.smlog.patterns import pattern
from smfix.smlog.rules.rule_pattern import RulePattern

_COALESCE_LINES = 400  # of a process between its coalesce and the relinking
_DELETION_LINES = 2000  # of a process after the announcement of a deletion; before it fails it prints the SR's trees
_SCAN_LINES = 200  # of a process around its message about a scan
_FAILURE = pattern(r"FAILED|EXCEPTION|failed|Aborted")
# The next messages of a garbage collector that appear only if the deletion went through.
_WENT_ON = pattern(
    r"Deleting unlinked VDI |srUpdate for SR |vhd-util['\"], ['\"]scan['\"]|[Cc]oalescing [*0-9a-f]|No work, exiting"
)
_SCAN_ERROR = pattern(r"[Ss]can[ -]error")
_COUNTED = pattern(r"\((?P<vdis>[0-9]+) VDIs in [0-9]+ \w+ trees\)")


class Strength(Enum):
    """The fact that a message proves about an image."""

    CHECKED = "a full check of the image succeeded"
    CHECKED_FAST = "a check without the test for overlaps succeeded"
    GONE = "the image was deleted"
    REMOVED = "the volume was removed"


class Proof(NamedTuple):
    """An image was sound, or gone, at `place`. `vdi` is a full UUID or its first eight digits."""

    place: int
    voice: LogSource
    vdi: str
    sr: str | None
    strength: Strength
    evidence: tuple[Quote, ...]


class Renamed(NamedTuple):
    """The storage manager gave an image another name at `place`: reports of `old` are true of `new`."""

    place: int
    old: ImagePath
    new: ImagePath
    evidence: tuple[Quote, ...]


Wanted = Container[str] | None
"""First eight digits of the VDIs that are asked for; None for all."""


class ResolutionRule(NamedTuple):
    """One row: the literal for the engine, the pattern that decides, and how the line is read."""

    name: str
    anchor: bytes
    pattern: RulePattern
    read: Callable[[Window, Line, re.Match[str], Wanted, int], list[Proof] | list[Renamed]]
    samples: tuple[str, ...]
    near_misses: tuple[str, ...]
    source: str


def _wants(wanted: Wanted, vdi: str) -> bool:
    return wanted is None or vdi[:8] in wanted


def _checked(window: Window, line: Line, _found: re.Match[str], wanted: Wanted, origin: int) -> list[Proof]:
    command = arguments(line.text)
    image = subject(command)
    if image is None or image.vdi is None or not _wants(wanted, image.vdi) or "-i" in command:
        return []
    success = succeeded(window, line)
    if success is None:
        return []
    strength = Strength.CHECKED_FAST if "-B" in command else Strength.CHECKED
    quotes = (quote(window, line), quote(window, success))
    return [Proof(window.place(line.at), voice(line, origin), image.vdi, image.sr, strength, quotes)]


def _removed(window: Window, line: Line, _found: re.Match[str], wanted: Wanted, origin: int) -> list[Proof]:
    command = arguments(line.text)
    image = image_path(command[-1]) if command else None
    if image is None or image.vdi is None or not _wants(wanted, image.vdi):
        return []
    success = succeeded(window, line)
    if success is None:
        return []
    quotes = (quote(window, line), quote(window, success))
    return [Proof(window.place(line.at), voice(line, origin), image.vdi, image.sr, Strength.REMOVED, quotes)]


def _deleted(window: Window, line: Line, found: re.Match[str], wanted: Wanted, origin: int) -> list[Proof]:
    """Read an announced deletion: no proof if the process reports a failure before it goes on.

    In a growing log the process has to go on; in one that ends there, the last word on the disk counts.
    """
    short = short_name(found["short"])
    if short.temporary or not _wants(wanted, short.digits):
        return []
    for other in islice(window.of_process_after(line), _DELETION_LINES):
        if _WENT_ON.search(other.text) or starts_run(other) or not same_run(line.stamp, other.stamp):
            break
        if _FAILURE.search(other.text):
            return []
    else:
        if window.grows:
            return []
    return [_short_proof(window, line, short.digits, Strength.GONE, (line,), origin)]


def _vanished(window: Window, line: Line, found: re.Match[str], wanted: Wanted, origin: int) -> list[Proof]:
    """Read a disappearance: no proof after a failed or empty scan, because storage that is away loses every disk."""
    short = short_name(found["short"])
    if short.temporary or not _wants(wanted, short.digits):
        return []
    if any(_SCAN_ERROR.search(other.text) for other in islice(window.of_process_before(line), _SCAN_LINES)):
        return []
    for other in islice(window.of_process_after(line), _SCAN_LINES):
        if counted := _COUNTED.search(other.text):
            if counted["vdis"] == "0":
                return []
            break
    return [_short_proof(window, line, short.digits, Strength.GONE, (line,), origin)]


def _relinked(window: Window, line: Line, found: re.Match[str], wanted: Wanted, origin: int) -> list[Proof]:
    """Read the end of a coalesce: both images passed their checks, if it was not skipped."""
    child, parent = found["child"].lower(), found["parent"].lower()
    if not _wants(wanted, child) and not _wants(wanted, parent):
        return []
    done: Line | None = None
    for count, other in enumerate(window.of_process_before(line)):
        if count > _COALESCE_LINES or not same_run(other.stamp, line.stamp):
            return []
        if "apparently already done" in other.text:
            return []
        if "Child process completed successfully" in other.text:
            done = done or other
        elif "Running VHD coalesce on" in other.text or "Running COW coalesce on" in other.text:
            if done is None or child not in other.text:
                return []
            lines = (other, done, line)
            return [
                _short_proof(window, line, child, Strength.CHECKED, lines, origin),
                _short_proof(window, line, parent, Strength.CHECKED_FAST, lines, origin),
            ]
    return []


def _renamed(window: Window, line: Line, found: re.Match[str], wanted: Wanted, _origin: int) -> list[Renamed]:
    """Read a leaf coalesce: the leaf becomes ``OLD_``, its parent takes the leaf's name. Logged before it is done."""
    old, new = image_path(found["old"] or found["lv"]), image_path(found["new"] or found["name"])
    if old is None or new is None or old.vdi is None or not _wants(wanted, old.vdi):
        return []
    if found["lv"]:
        if succeeded(window, line) is None:
            return []
        new = new._replace(path=f"{old.path.rpartition('/')[0]}/{new.path}", sr=old.sr)
    return [Renamed(window.place(line.at), old, new, (quote(window, line),))]


def _short_proof(
    window: Window, line: Line, digits: str, strength: Strength, lines: tuple[Line, ...], origin: int
) -> Proof:
    quotes = tuple(quote(window, one) for one in lines)
    sr = sr_of(window, line)
    return Proof(window.place(line.at), voice(line, origin), digits, sr, strength, quotes)


_NAME = VDI_NAME
_NAMELESS = VDI_NAME.replace("?P<short>", "?:")
_V = "3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c"

RESOLUTION_RULES: tuple[ResolutionRule, ...] = (
    ResolutionRule(
        "check",
        b"'check'",
        RulePattern(r"\[['\"][^'\"]{0,200}vhd-util['\"], ?['\"]check['\"]"),
        _checked,
        samples=(f"['/usr/bin/vhd-util', 'check', '--debug', '-n', '/run/sr-mount/s/{_V}.vhd']",),
        near_misses=("['/usr/bin/cbt-util', 'check', '-n', '/x']",),
        source="vhdutil.check",
    ),
    ResolutionRule(
        "lvremove",
        b"/lvre",
        RulePattern(rf"\[['\"][^'\"]{{0,200}}lvremove['\"].{{0,200}}(?:VHD|LV|QCOW2)-{UUID}"),
        _removed,
        samples=(f"['/sbin/lvremove', '-f', '/dev/VG_XenStorage-{_V}/VHD-{_V}']",),
        near_misses=(f"['/sbin/lvremove', '-f', '/dev/VG_XenStorage-{_V}/coalesce_{_V}_1']",),
        source="lvutil.remove",
    ),
    ResolutionRule(
        "deleting",
        b"unlinked VDI",
        RulePattern(rf"Deleting unlinked VDI {_NAME}"),
        _deleted,
        samples=("Deleting unlinked VDI *1e2feb89(16.000M/5.000K?)",),
        near_misses=("Found 1 VDIs for deletion:",),
        source="SR.deleteVDIs, cleanup.py",
    ),
    ResolutionRule(
        "disappeared",
        b"disappeared since last scan",
        RulePattern(rf"VDI {_NAME} disappeared since last scan"),
        _vanished,
        samples=("VDI *1e2feb89[VHD](16.000M//5.000M|n) disappeared since last scan",),
        near_misses=(f"LV disappeared since last scan: {_V}",),
        source="SR._removeStaleVDIs, cleanup.py",
    ),
    ResolutionRule(
        "renaming",
        b"Renaming /",
        RulePattern(r"Renaming (?P<old>/\S{1,500}) -> (?P<new>/\S{1,500})(?P<lv>)(?P<name>)"),
        _renamed,
        samples=(f"Renaming /run/sr-mount/s/{_V}.vhd -> /run/sr-mount/s/OLD_{_V}.vhd",),
        near_misses=(f"Renaming parent back: {_V} -> {_V}", f"Renaming child back to {_V}"),
        source="FileVDI.rename, cleanup.py",
    ),
    ResolutionRule(
        "lvrename",
        b"/lvre",
        RulePattern(
            r"\[['\"][^'\"]{0,200}lvrename['\"], ['\"](?P<lv>/[^'\"\s]{1,400})['\"], "
            r"['\"](?P<name>[^'\"\s]{1,100})['\"]\](?P<old>)(?P<new>)"
        ),
        _renamed,
        samples=(f"['/sbin/lvrename', '/dev/VG_XenStorage-{_V}/VHD-{_V}', 'VHD-OLD_{_V}']",),
        near_misses=("['/sbin/lvrename', 'VG', 'a', 'b']",),
        source="lvutil.rename",
    ),
    ResolutionRule(
        "relinking",
        b"Relinking ",
        RulePattern(
            rf"Relinking {_NAMELESS} from {VDI_NAME.replace('short', 'child')}"
            rf" to {VDI_NAME.replace('short', 'parent')}"
        ),
        _relinked,
        samples=("  Relinking 78e51061(2.000G?) from *1e2feb89(2.000G?) to *cd613e30(2.000G?)",),
        near_misses=("  Reloading VDI 78e51061(2.000G?)",),
        source="VDI._relinkSkip, cleanup.py",
    ),
)
RESOLUTION_ANCHORS: tuple[bytes, ...] = tuple(dict.fromkeys(rule.anchor for rule in RESOLUTION_RULES))
_WORDS = tuple((rule, rule.anchor.decode("ascii")) for rule in RESOLUTION_RULES)


def read_proofs(window: Window, line: Line, wanted: Wanted, origin: int) -> list[Proof] | list[Renamed]:
    """Return what `line` proves about the `wanted` VDIs."""
    for rule, word in _WORDS if is_of_storage(line.ident) else ():
        if word in line.text and (found := rule.pattern.search(line.text[:4000])):
            return rule.read(window, line, found, wanted, origin)
    return []
