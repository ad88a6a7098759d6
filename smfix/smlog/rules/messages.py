"""Match the messages of a log about a damaged disk: one table, one row per message.

Pure. A row holds the bytes an engine looks for (`anchors`), the pattern that decides, samples that
it must match and near misses that it must not. A line is read by the first row that matches. To
teach smfix a message, add a row; its meaning is one of :class:`MessageKind`, read in events.py.
Source: the storage manager's public history (xapi-project/sm, xcp-ng/sm) and blktap's vhd-util.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from smfix.smlog.parse.disk_names import GIVEN, UUID, VDI_NAME
from smfix.smlog.parse.prefixes import is_of_storage
from smfix.smlog.parse.quoted_text import merely_tells
from smfix.smlog.parse.window import Line
from smfix.smlog.patterns import pattern
from smfix.smlog.rules.rule_pattern import RulePattern

_BEFORE, _BEHIND = 640, 2400  # characters around an anchor in which its pattern is searched


class MessageKind(Enum):
    """The kind of a row's message, and so how it is read."""

    CORRUPTED = "an EXCEPTION that calls a VDI corrupted"
    PARENT_MISSING = "an EXCEPTION that names a parent nobody finds"
    SCAN_BLOCKED = "an EXCEPTION that ends a scan: the run named the VDI before"
    SCAN_REFUSED = "the error an SM command returned because one VDI cannot be scanned"
    SCAN_ERROR = "vhd-util scan's line for one image"
    FAILED = "a command that failed: a record of several lines"
    INVALID = "vhd-util's verdict in a terminal, a trace, or a record that lost its start"
    GC_ENDED = "GC met a lock that another process held, and ended its run"
    REWORDED = "nova's words for vhd-util's verdict on an image"
    OPEN_REFUSED = "tapdisk finds an image invalid, or one of its parents"
    NOISE = "an error, and not a damaged VHD"


class Rule(NamedTuple):
    """One row. `pattern` is searched in the message; `why` gives the reason of a NOISE row."""

    name: str
    kind: MessageKind
    anchors: tuple[bytes, ...]
    pattern: RulePattern
    samples: tuple[str, ...]
    near_misses: tuple[str, ...]
    source: str
    why: str = ""


# "<class 'util.SMException'>", "<type 'exceptions.KeyError'>", "util.SMException" (Python 2.4).
_CLASS = r"(?:<(?:class|type) ')?+(?P<cls>[A-Za-z_][\w.]{0,80}+)(?:'>)?+"
# The second form: the last line of a traceback, which is all that SM 3.2.0 to 3.2.12-15 leave, in the journal.
_EXCEPTION = rf"(?>: EXCEPTION {_CLASS},\s{{1,9}}+|^(?:\w{{1,40}}+\.){{0,8}}+SMException: )"
_ANY_EXCEPTION = r"EXCEPTION (?:<|[\w.]{1,80}+,)[^\n]{0,400}?"


def _noise(
    name: str,
    why: str,
    text: str,
    samples: tuple[str, ...],
    near_misses: tuple[str, ...],
    anchor: bytes = b"EXCEPTION",
) -> Rule:
    return Rule(name, MessageKind.NOISE, (anchor,), RulePattern(text), samples, near_misses, "facts of the field", why)


_X = "<class 'util.SMException'>"
_C = "<class 'util.CommandException'>"

RULES: tuple[Rule, ...] = (
    Rule(
        "corrupted",
        MessageKind.CORRUPTED,
        (b"EXCEPTION", b"SMException: "),
        RulePattern(
            rf"(?:{_EXCEPTION}|EXCEPTION while (?P<doing>coalescing): )"
            rf"(?P<what>VHD|COW image)\s{{1,9}}+{VDI_NAME}\s{{1,9}}+corrupted"
        ),
        samples=(
            "     coalesce: EXCEPTION util.SMException, VHD *1d994938(40.00G/14.27G) corrupted",
            f"coalesce: EXCEPTION {_X}, VHD *811e7004(80.000G/2.155G) corrupted",
            "leaf-coalesce: EXCEPTION <class 'sm.core.util.SMException'>, VHD dce4b0fc(2.000G/170.336M?) corrupted",
            f"coalesce: EXCEPTION {_X}, VHD *e25e01be[VHD](500.000G//152.000M|ao) corrupted",
            f"_doCoalesceLeaf: EXCEPTION {_X}, VHD OLD_b545(2.000G?) corrupted",
            "EXCEPTION while coalescing: COW image *cd613e30(16.000M/3.500K?)[vhd] corrupted",
        ),
        near_misses=(
            f"coalesce: EXCEPTION {_X}, Timed out",
            f"coalesce: EXCEPTION {_C}, Signalled 15",
            "VHD *1d994938(40.00G/14.27G) corrupted",
        ),
        source="VDI.validate and Util.logException, cleanup.py",
    ),
    Rule(
        "parent-missing",
        MessageKind.PARENT_MISSING,
        (b"EXCEPTION", b"SMException: "),
        RulePattern(
            rf"{_EXCEPTION}Parent VDI (?P<parent>{UUID}) of (?P<child>(?:OLD_)?+{UUID})\s{{1,9}}+not\s{{1,9}}+found"
        ),
        samples=(
            (
                f"gc: EXCEPTION {_X}, Parent VDI c15521b1-b3dc-a50a-9daa-37e51b591d75 of "
                "3f372617-f0ba-ef3a-86f0-ce2ea6ec39c1 not found"
            ),
        ),
        near_misses=(
            (
                "ERROR: Parent VDI c15521b1-b3dc-a50a-9daa-37e51b591d75 not found! "
                "(for 3f372617-f0ba-ef3a-86f0-ce2ea6ec39c1)"
            ),
        ),
        source="SR._buildTree, cleanup.py",
    ),
    Rule(
        "scan-refused",
        MessageKind.SCAN_REFUSED,
        (b"opterr=",),
        RulePattern(
            rf"(?:SR scan failed|SR_BACKEND_FAILURE_40\b)[^\n]{{0,80}}?opterr=uuid=(?P<vdi>{UUID})"
            rf"|opterr=Error scanning VDI (?P<lvm>{UUID})"
        ),
        samples=(
            (
                "***** sr_scan: EXCEPTION <class 'SR.SROSError'>, The SR scan failed  "
                "[opterr=uuid=3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c]"
            ),
            "Raising exception [40, The SR scan failed  [opterr=uuid=3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c]]",
            "Error parameters: , The SR scan failed  [opterr=uuid=3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c], ",
            (
                "['SR_BACKEND_FAILURE_46', '', 'The VDI is not available [opterr=Error scanning VDI "
                "3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c]', '']"
            ),
        ),
        near_misses=(
            (
                "Raising exception [46, The VDI is not available [opterr=VDI "
                "3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c not found]]"
            ),
            (
                "***** sr_scan: EXCEPTION <class 'SR.SROSError'>, The SR scan failed  "
                "[opterr=error VHD-scanning path /run/sr-mount/x]"
            ),
        ),
        source="FileSR._loadvdis, LVHDSR._loadvdis, xs_errors.py; xe",
    ),
    Rule(
        "scan-blocked",
        MessageKind.SCAN_BLOCKED,
        (b"EXCEPTION", b"SMException: "),
        RulePattern(rf"{_EXCEPTION}Scan error\s*+$"),
        samples=(f"gc: EXCEPTION {_X}, Scan error",),
        near_misses=("Scan error on attempt 0", "Scan error, retrying (1)"),
        source="FileSR._scan, LVHDSR._scan, cleanup.py",
    ),
    Rule(
        "scan-error",
        MessageKind.SCAN_ERROR,
        (b"scan-error",),
        RulePattern(
            r"vhd=(?P<path>\S{1,500}+) scan-error=(?P<code>-?+[0-9]{1,5}+)"
            r"(?: error-message='(?P<message>[^'\n]{0,200}+)')?+"
        ),
        samples=(
            "***** VHD scan error: vhd=/run/sr-mount/s/v.vhd scan-error=-22 error-message='opening file'",
            "        vhd=VHD-3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c scan-error=-22",
        ),
        near_misses=("*** vhd-scan error: 3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c",),
        source="vhd_util_scan_print_image, vhd-util-scan.c; vhdutil._parseVHDInfo",
    ),
    Rule(
        "failed",
        MessageKind.FAILED,
        (b"FAILED",),
        RulePattern(
            r"FAILED(?: in util\.pread[23]?)?: \((?:rc|errno) (?P<code>-?+[0-9]{1,5}+)\) "
            r"stdout: ?+['\"](?P<stdout>.*+)"
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
        MessageKind.INVALID,
        (b" invalid",),
        RulePattern(rf"(?:(?<!\S)['\"]?|\\n){GIVEN} appears invalid(?:; dumping|;?\s*$)"),
        samples=(
            "/run/sr-mount/s/v.vhd appears invalid; dumping metadata",
            "3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c.vhd appears invalid; dumping metadata",
            r"Unexpected output '/x.vhd is valid\n/run/sr-mount/s/v.vhd appears invalid; dumping metadata\n'",
        ),
        near_misses=("/run/sr-mount/s/v.vhd is valid", "it appears invalid; dumping it", "a.vhd appears invalid"),
        source="vhd_util_dump_headers, vhd-util-check.c",
    ),
    Rule(
        "error-opening",
        MessageKind.INVALID,
        (b"error opening",),
        RulePattern(rf"error opening {GIVEN}: -22(?![0-9])"),
        samples=("error opening /dev/drbd/by-res/xcp-volume-1/0: -22",),
        near_misses=("error opening /x.vhd: -2", "error opening /x.vhd"),
        source="vhd-util-query.c, vhd-util-read.c",
    ),
    Rule(
        "gc-ended",
        MessageKind.GC_ENDED,
        (b"acquire GC running",),
        RulePattern(r"Unable to acquire GC running lock"),
        samples=("Unable to acquire GC running lock.",),
        near_misses=(
            "Another GC instance already active, exiting",
            "SMException, Unable to acquire the SR lock",
        ),
        source="_gcLoop, cleanup.py",
    ),
    Rule(
        "reworded",
        MessageKind.REWORDED,
        (b" invalid",),
        RulePattern(
            r"VDI '(?P<path>/[^'\s]{1,500}+)' has an invalid (?P<part>footer|header|setting): "
            r"'(?P<details>[^'\n]{0,200}+)"
        ),
        samples=("VDI '/run/sr-mount/s/os-images/i/v.vhd' has an invalid footer: ' invalid cookie'",),
        near_misses=("VDI '/run/sr-mount/s/v.vhd' is marked as hidden without child",),
        source="nova's XenServer plugin, utils.py, _validate_vhd (2013-2020)",
    ),
    Rule(
        "open-refused",
        MessageKind.OPEN_REFUSED,
        (b"EXCEPTION",),
        RulePattern(
            r"tap-ctl['\"](?>(?:, ['\"](?!vhd:|qcow2:)[^'\"\n]{0,100}+['\"]){1,12}+, ['\"](?:vhd|qcow2):)"
            r"(?P<path>/[^'\"\s]{1,500}+)['\"][^\]\n]{0,300}+\]"
            r" failed: status=22(?![0-9])"
        ),
        samples=(
            (
                "***** ['/usr/sbin/tap-ctl', 'open', '-p', '20499', '-m', '3', '-a', 'vhd:/run/sr-mount/s/v.vhd'] "
                "failed: status=22, pid=20513, errmsg=Invalid argument: EXCEPTION <class 'blktap2.CommandFailure'>, x"
            ),
        ),
        near_misses=(
            "***** ['/usr/sbin/tap-ctl', 'open', '-a', 'vhd:/run/sr-mount/s/v.vhd'] failed: status=2, pid=20513",
            "***** ['/usr/sbin/tap-ctl', 'close', '-p', '1', '-m', '3'] failed: status=22, pid=20513",
        ),
        source="blktap2.py, TapCtl._errmsg; tapdisk's vhd_open",
    ),
    # ---- noise, from the particular to the general
    _noise(
        "cbtlog",
        "a changed-block log that is missing or locked; backups fall back to a full one",
        r"EXCEPTION [^\n]{0,300}(?:cbtlog|CBT)",
        (f"vdi_list_changed_blocks: EXCEPTION {_X}, Failed to perform CBT operation",),
        (f"gc: EXCEPTION {_X}, Scan error",),
    ),
    _noise(
        "nameless-scan",
        "a scan found no readable disk and names none: smfix scan SR tells which",
        r"the (?:VHD|COW) metadata might be corrupted",
        ("ERROR: the VHD metadata might be corrupted",),
        ("the metadata might be large",),
        anchor=b" metadata",
    ),
    _noise(
        "unread-metadata",
        "the metadata of a disk could not be read, and no EXCEPTION says that it is damaged: smfix check tells",
        r"\[VDI [0-9a-fA-F-]{36}: failed to read \w{1,10} metadata\]",
        (" [VDI 3cc036b9-9b64-4c55-8e07-f9e2e6b9c95c: failed to read VHD metadata]",),
        ("failed to read VHD metadata",),
        anchor=b" metadata",
    ),
    _noise(
        "storage",
        "the storage had no space, no path or no answer; the VHD's format is not in question",
        rf"{_ANY_EXCEPTION}(?:No space left|Input/output error|No such file|No such device"
        r"|Connection timed out|Read-only file system|Cannot allocate|Permission denied"
        r"|[Vv]olume group|Transport endpoint|Stale (?:NFS )?file handle|Wrong medium type)",
        (f"This exception has occured: EXCEPTION {_C}, No space left on device",),
        (f"coalesce: EXCEPTION {_X}, Timed out",),
    ),
    _noise(
        "interrupted",
        "the work was stopped or took too long, and is tried again",
        rf"{_ANY_EXCEPTION}(?:Timed out|Signalled [0-9]|Abort|[Ii]nterrupted|exited with error"
        r"|Unable to acquire|could not be coalesced|for relink|Failed to (?:pause|unpause|refresh))",
        (
            f"leaf-coalesce: EXCEPTION {_X}, Timed out",
            f"coalesce: EXCEPTION {_C}, Signalled 15",
            f"coalesce: EXCEPTION {_X}, Child process exited with error",
        ),
        (f"gc: EXCEPTION {_X}, Scan error",),
    ),
    _noise(
        "other-exception",
        "another error of the storage manager",
        r"EXCEPTION (?:<|[\w.]{1,80}+,)",
        ("gc: EXCEPTION <type 'exceptions.KeyError'>, 'x'", "tap: EXCEPTION xs_errors.E, no"),
        ("E X C E P T I O N", "no EXCEPTION here"),
    ),
)

# Starts of the storage manager's own messages: quoted by another program they are no report. XAPI, nova and xe hand
# on the others, in quotes.
_BEGINS_MESSAGE = frozenset(
    {MessageKind.CORRUPTED, MessageKind.PARENT_MISSING, MessageKind.SCAN_BLOCKED, MessageKind.FAILED}
)
_HANDED_ON = frozenset({MessageKind.SCAN_REFUSED, MessageKind.INVALID, MessageKind.REWORDED})
_MERELY_TELLS = frozenset({"debug", "info", "DEBUG", "INFO"})  # XAPI's levels before syslog, and nova's
_QUOTE = pattern(r"(?<!<class )(?<!<type )(?<![A-Za-z])[bBuU]?['\"{\u2018\u201c](?!>)")
# A tool's output, and an error of the storage manager, are handed on in quotes too; a list of arguments is not.
_OUTPUT = pattern(r"(?i:(?:stdout|stderr): ?|unexpected output )\Z")
_FAILURE = pattern(r"\[[bu]?'[A-Z][A-Z0-9_]{5,60}',")

# An engine looks for these and for nothing else.
ANCHORS: tuple[bytes, ...] = tuple(dict.fromkeys(a for rule in RULES for a in rule.anchors))
_WORDS = tuple((rule, tuple(anchor.decode("ascii") for anchor in rule.anchors)) for rule in RULES)


def match(message: str) -> tuple[Rule, re.Match[str]] | None:
    """Return the first row that `message` matches, with the match.

    Only the neighbourhood of the row's anchor is searched: a line of any length costs the same.
    """
    for rule, words in _WORDS:
        at = min((hit for word in words if (hit := message.find(word)) >= 0), default=-1)
        if at >= 0 and (found := rule.pattern.search(message, max(0, at - _BEFORE), at + _BEHIND)):
            return rule, found
    return None


def is_said(rule: Rule, found: re.Match[str], line: Line) -> bool:
    """Return True if the match is the own words of the writer of `line`, not a quote from elsewhere."""
    start = found.start()
    if not line.has_prefix:
        return not merely_tells(line.text[:start])
    quote = _QUOTE.search(line.text, 0, start)
    if is_of_storage(line.ident):
        if quote is not None and rule.kind is MessageKind.OPEN_REFUSED:
            return _is_first_word(line.text, quote, start)
        return quote is None or (rule.kind not in _BEGINS_MESSAGE and _hands_on(line.text, quote.start()))
    if rule.kind not in _HANDED_ON or line.ident in _MERELY_TELLS or merely_tells(line.text[:start]):
        return False
    return quote is None or _hands_on(line.text, quote.start())


def _is_first_word(text: str, quote: re.Match[str], start: int) -> bool:
    """Return True if the program of a failed command begins at `start`: no argument, which a user may have named."""
    return text.startswith("***** [", max(0, quote.start() - 7)) and not _QUOTE.search(text, quote.end(), start)


def _hands_on(text: str, at: int) -> bool:
    """Return True if the first quote, at `at`, holds the output of a tool, or begins an error of the storage manager.

    Any other holds an argument, which a user may have named.
    """
    return _OUTPUT.search(text, max(0, at - 20), at) is not None or _FAILURE.match(text, max(0, at - 1)) is not None
