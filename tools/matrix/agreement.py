"""smfix's diagnosis against what ``vhd-util check`` says of the same bytes: the same, excused by a rule, or different.

A rule is a decision (docs/adr/0009-stricter-than-vhd-util.md), never an image: it leaves out a finding that
``vhd-util`` cannot make. What is left must agree, verdict and first message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from matrix import mutants
from matrix.reader import SECTOR
from matrix.treatments import Opinion
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.problems.registry import diagnose
from smfix.usecases.image_relatives import parent_places
from smfix.values import ByteView, Finding, Severity, Sound

NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""The mutants' timestamps lie in 2015 or beyond 2127: the day does not matter."""
FLOOR = 2 << 20

Rule = Callable[[VhdImage, Finding], bool]


@dataclass(frozen=True)
class Agreement:
    """`rules` are those that a finding was left out by. `differs` is None where all is well."""

    rules: tuple[str, ...]
    differs: str | None
    findings: tuple[Finding, ...]


def seen(view: ByteView, folder: str) -> tuple[VhdImage, tuple[Finding, ...]]:
    """The image and its findings, its parent looked for in `folder` as the pipeline would."""
    image = inspect(view)
    parent = None
    if image.footer is not None and image.footer.is_differencing:
        places = parent_places(image, f"{folder}/image.vhd")
        beside = f"{folder}/{mutants.PARENT_NAME}"
        astray = tuple(loc.path for loc in image.locators if loc.path and not _leads(loc.path, beside))
        found = beside in places
        parent = Parent(beside, mutants.PARENT_UUID, astray) if found else Parent(", ".join(places) or None)
    return image, diagnose(image, Context(NOW, parent=parent)).findings


def _leads(path: str, beside: str) -> bool:
    """A locator's path leads to the parent: relative to the image's folder, whatever it begins with."""
    return os.path.normpath(f"{os.path.dirname(beside)}/{path}") == beside


def _blocks(finding: Finding) -> list[int]:
    facts = finding.facts
    return [int(facts[name]) for name in ("first", "other", "block") if isinstance(facts.get(name), int)]


def _floored(image: VhdImage, finding: Finding) -> bool:
    """The partial last block: vhd-util's loops end before it, whatever the block size is."""
    codes = ("VHD301", "VHD302", "VHD303", "VHD304", "VHD306", "VHD404")
    if image.footer is None or finding.code not in codes:
        return False
    return any(block >= image.footer.current_size // FLOOR for block in _blocks(finding))


def _other_block_size(image: VhdImage, finding: Finding) -> bool:
    """vhd-util counts blocks of 2 MiB, whatever size the header gives them."""
    if finding.code != "VHD305" or not isinstance(image.header, Sound) or image.footer is None:
        return False
    header = image.header.value
    return header.block_size != FLOOR and -(-image.footer.current_size // FLOOR) <= header.max_bat_size


def _first_byte(image: VhdImage, finding: Finding) -> bool:
    """Areas that must be NUL: vhd-util's test answers with the place of the first byte, and 0 means none."""
    areas: list[bytes] = []
    if finding.code == "VHD118":
        footer = image.end if finding.facts["which"] == "primary" else image.backup
        areas = [footer.value.reserved] if isinstance(footer, Sound) else []
    elif isinstance(image.header, Sound) and finding.code in ("VHD206", "VHD209"):
        header = image.header.value
        if finding.code == "VHD206" and header.reserved1:
            return False
        locators = b"".join(entry.encode() for entry in header.locators)
        areas = [header.reserved2] if finding.code == "VHD206" else [header.parent_name, locators]
    elif isinstance(image.header, Sound) and finding.code == "VHD502":
        areas = [entry.encode() for entry in image.header.value.locators if entry.code == 0]
        if finding.code == "VHD209" and (header.parent_uuid != bytes(16) or header.parent_timestamp):
            return False
        if finding.code == "VHD209":
            areas = [area for area in areas if any(area)]
            return all(area[:1] != b"\0" for area in areas)
    return any(area[:1] != b"\0" for area in areas)


def _wrapped(image: VhdImage, finding: Finding) -> bool:
    """A BAT entry so high that its end does not fit 32 bits: vhd-util compares what is left of it with the end."""
    if finding.code not in ("VHD301", "VHD302") or image.geometry is None:
        return False
    end = (int(finding.facts["offset"]) + image.geometry.block_space) // SECTOR
    return end >= 1 << 32 and end % (1 << 32) <= (image.size - 1) // SECTOR


def _unread(image: VhdImage, finding: Finding) -> bool:
    """Libvhd reads size >> 24 bytes of the batmap: the bits of the blocks behind the last eight are not among them."""
    if finding.code != "VHD404" or not isinstance(image.batmap, Sound):
        return False
    return all(block >= image.batmap.value.summed * 8 for block in finding.facts["blocks"])


def _by_layout(image: VhdImage, finding: Finding) -> bool:
    """The batmap's header is under no checksum: its place and size must fit the layout. vhd-util believes them."""
    return finding.code == "VHD401" and "would lie over" in str(finding.facts["reasons"])


def _never_looked_at(image: VhdImage, finding: Finding) -> bool:
    """An entry beside its block, a block without an entry, a layout that is not the header's."""
    return finding.facts.get("vhd_util") is None and finding.code not in SILENT


FIRST_BYTE = "first reserved byte"
SILENT = ("VHD207", "VHD208", "VHD211")
"""vhd_open refuses these without a word."""
RULES: dict[str, Rule] = {
    "partial last block": _floored,
    "blocks of another size": _other_block_size,
    FIRST_BYTE: _first_byte,
    "32-bit end of a block": _wrapped,
    "batmap bits that libvhd does not read": _unread,
    "batmap header against the layout": _by_layout,
    "never looked at": _never_looked_at,
}
CAUSE = "the cause is named, not what it touches"
SHORT = "a 511-byte footer counts as a whole one"
WRAPPED_LOCATOR = "64-bit end of a locator"


def _order(image: VhdImage, finding: Finding) -> tuple[int, int, int]:
    """Where ``vhd-util check`` meets it: before the BAT, block by block, the batmap, locator by locator."""
    line = str(finding.facts.get("vhd_util"))
    block = re.match(r"block (\d+) .* clobbers (headers|footer|block)", line)
    if block:
        return 2, int(block[1]), ("headers", "footer", "block").index(block[2])
    if line.startswith("error calculating end of metadata"):
        return 1, 0, 1
    if "batmap" in line:
        return 3, 0, 0
    locator = re.search(r"locator (\d+)", line)
    if locator:
        stage = 0 if line.startswith("invalid") else 1 if line.startswith("dup") else 2 if line.startswith("err") else 3
        return 4, int(locator[1]), stage
    if finding.code.startswith("VHD5"):
        first = next((loc.index for loc in image.locators if loc.path is not None), 9)
        return 4, int(finding.facts.get("index", first)), 4
    whose = ("primary footer", "backup footer", "primary and backup footers")
    return 0, next((rank for rank, name in enumerate(whose) if line.startswith(f"{name} ")), len(whose)), 0


def compare(image: VhdImage, findings: tuple[Finding, ...], opinion: Opinion) -> Agreement:
    """Hold smfix's findings against vhd-util's opinion."""
    if not image.looks_like_vhd:
        return Agreement((), "smfix: no VHD" if opinion.is_valid else None, findings)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    used: dict[str, None] = {}
    left: list[Finding] = []
    for finding in errors:
        rule = next((name for name, excuses in RULES.items() if excuses(image, finding)), None)
        if rule is None:
            left.append(finding)
        else:
            used[rule] = None
    left.sort(key=lambda finding: _order(image, finding))
    ours = str(left[0].facts["vhd_util"]) if left else None
    if ours is None and opinion.is_valid:
        return Agreement(tuple(used), None, findings)
    if ours is not None and not opinion.is_valid and (left[0].code in SILENT or _same(ours, opinion.line)):
        return Agreement(tuple(used), None, findings)
    rule = None if opinion.is_valid else _other_words(image, errors, left, opinion.line)
    if rule is not None:
        return Agreement((*used, rule), None, findings)
    return Agreement(tuple(used), f"smfix: {ours}; vhd-util: {opinion.code} {opinion.line}", findings)


def _other_words(image: VhdImage, errors: list[Finding], left: list[Finding], line: str) -> str | None:
    """The rule by which both are wrong about the same thing in other words; None: there is none."""
    touched = [int(number) for number in re.findall(r"block (\d+) ", line)]
    entries = ("VHD301", "VHD302", "VHD303", "VHD306")
    named = {block for finding in errors if finding.code in entries for block in _blocks(finding)}
    if line.startswith("differencing header is invalid: invalid non-") and any(f.code == "VHD209" for f in errors):
        return FIRST_BYTE
    if line.endswith("clobbers headers") and any("invalid size" in str(f.facts["vhd_util"]) for f in errors):
        return CAUSE
    if errors and not left and any(_other_block_size(image, finding) for finding in errors):
        return CAUSE
    if touched and (named & set(touched) or (named and line.startswith("batmap shows"))):
        return CAUSE
    if (touched or "batmap" in line) and any(_by_layout(image, finding) for finding in errors):
        return CAUSE
    short = re.match(r"batmap is invalid: invalid batmap size$|invalid parent locator \d: invalid size$", line)
    if not left and image.size % SECTOR == SECTOR - 1 and short:
        return SHORT
    if left and left[0].code == "VHD502" and line.startswith("error reading parent locator"):
        return WRAPPED_LOCATOR if any(loc.entry.extent.end >= 1 << 63 for loc in image.locators) else None
    return None


READ_ERROR = re.compile(r"error (reading|seeking to|calculating end of) (primary footer|backup footer|header|file)")
ODD = "error reading primary footer"
"""Of an odd length: whether the read fails depends on the file system; where it does not, no cookie is found."""


def _same(ours: str, line: str) -> bool:
    """The same first message. One that names no field (a short file, a failed read) agrees with any."""
    if not line or "appears invalid" in line or READ_ERROR.match(line) or ours.startswith(ODD):
        return True
    if line == "batmap is invalid: invalid batmap offset" and ours.startswith("error calculating end of metadata"):
        return True  # a read that begins no sector fails, but not from a hole: that depends on the file system
    return _plain(ours) == _plain(line)


def _plain(line: str) -> str:
    """Without the folder of the parent and without the number of an I/O error."""
    line = re.sub(r"\S*/(?=[^/ ]*: invalid parent uuid)", "", line)
    return re.sub(r"^(error .*: )-\d+$", r"\1", line)
