"""Recognize the prefixes of log messages: one table, one row per form.

Pure. A row is a pattern for everything up to the message, a sample that it must match and a near
miss that it must not. To teach smfix a new form of log, add a row. Rows are tried in order; a line
that none matches has no prefix (a continuation, a terminal's output).
Source: `util.SMlog` and `cleanup.Util.log` of the storage manager, rsyslog's traditional format.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smfix.smlog.parse.timestamps import BASIC_TIME, ISO_TIME, SYSLOG_TIME, Stamp, read_stamp
from smfix.smlog.patterns import pattern

_HOST = r"(?P<host>[^\s:]{1,255})"
_IDENT = r"(?P<ident>[A-Za-z0-9_./@()-]{1,64}?)"
PID = r"\[(?P<pid>[0-9]{1,7})\](?:\[(?P<thread>[^\[\]\n]{1,64})\])?(?: |$)"
"""What the storage manager puts in front of each line: the pid, and since February 2026 the thread."""


class Format(NamedTuple):
    """One row. `pattern` may name: the groups of a time, host, ident, pid, thread, gc_pid, own_pid, folded."""

    name: str
    pattern: re.Pattern[str]
    samples: tuple[str, ...]
    near_misses: tuple[str, ...]
    source: str


class Prefix(NamedTuple):
    """The text around a message: the message is ``line[start:stop]``, `stop` None for the line's end."""

    form: str
    stamp: Stamp | None
    host: str | None
    ident: str
    pid: int | None
    start: int
    stop: int | None = None
    thread: str | None = None


FORMATS: tuple[Format, ...] = (
    Format(
        "syslog",
        pattern(
            rf"(?:<[0-9]{{1,3}}>)?{SYSLOG_TIME} +{_HOST} +{_IDENT}(?:\[(?P<own_pid>[0-9]{{1,7}})\])?: ?"
            r"(?P<folded>message repeated [0-9]{1,9} times: \[ ?)?"
            rf"(?:{PID})?"
        ),
        samples=(
            "Aug  9 12:22:23 xen1 SM: [14322]   pread SUCCESS",
            "Aug 21 12:22:23 13 SMGC: [14322] In cleanup",
            "Aug 21 12:22:23 xen1 SM: [14322] ",
            "Aug 21 12:22:23.123456 xen1 SM[14322]: [14322] In cleanup",
            "Aug 21 12:22:23 xen1 SM: [14322][MainThread]   pread SUCCESS",
            "Aug 21 12:22:23 xen1 SM[14322]: [14322][ThreadPoolExecutor-0_1] In cleanup",
            "Aug 21 12:22:23 xen1 fairlock[3906]: /run/fairlock/x acquired",
            "Aug 21 12:22:23 xen1 SM: message repeated 2 times: [ [14322]   pread SUCCESS]",
        ),
        near_misses=(
            "Agu 21 12:22:23 xen1 SM: [14322] In cleanup",
            "Aug 41 12:22:23 xen1 SM: [14322] In cleanup",
            "Aug 21 12:22:23 xen1 no ident here",
        ),
        source="util.SMlog since 2013; rsyslog's RSYSLOG_TraditionalFileFormat; journalctl -o short",
    ),
    Format(
        "raw",
        pattern(rf"(?:\[(?P<pid>[0-9]{{1,7}})\]|<(?P<gc_pid>[0-9]{{1,7}})>) ?{ISO_TIME}(?:\t|[ \t]|$)"),
        samples=(
            "[26919] 2012-05-15 00:18:35.127755\tFAILED: (errno 22) stdout: ''",
            "<26919> 2012-05-15 00:18:35.128104      In cleanup",
            "<26919> 2012-05-15 00:18:35\tIn cleanup",
        ),
        near_misses=(
            "[26919> 2012-05-15 00:18:35.127755\tIn cleanup",
            "[26919] 2012-13-15 00:18:35.127755\tIn cleanup",
            "[26919] In cleanup",
        ),
        source="util.SMlog and cleanup.Util.log before 2013-06",
    ),
    Format(
        "iso",
        pattern(
            rf"{ISO_TIME} +{_HOST} +{_IDENT}(?:\[(?P<own_pid>[0-9]{{1,7}})\])?: ?"
            r"(?P<folded>message repeated [0-9]{1,9} times: \[ ?)?"
            rf"(?:{PID})?"
        ),
        samples=(
            "2026-05-01T10:00:00.123456+02:00 xen1 SM: [14322]   pread SUCCESS",
            "2026-05-01T10:00:00+0200 xen1 SMGC[14322]: [14322] In cleanup",
            "2026-05-01T10:00:00+02:00 xen1 SM: [14322][VhdUtil_0]   pread SUCCESS",
        ),
        near_misses=("2026-05-01T10:00 xen1 SM: [14322] x", "2026-05-01T10:00:00Z xen1 says nothing"),
        source="rsyslog's RSYSLOG_FileFormat; journalctl -o short-iso",
    ),
    Format(
        "rfc5424",
        pattern(
            rf"<[0-9]{{1,3}}>1 {ISO_TIME} {_HOST} (?P<ident>[^\s]{{1,48}}) (?:(?P<own_pid>[0-9]{{1,7}})|[^\s]{{1,128}})"
            rf" [^\s]{{1,32}} (?:-|(?:\[[^\]\n]{{0,400}}\])+) ?(?:{PID})?"
        ),
        samples=(
            "<150>1 2026-05-01T10:00:00.123456+02:00 xen1 SM - - - [14322]   pread SUCCESS",
            '<150>1 2026-05-01T10:00:00Z xen1 SMGC 14322 - [meta x="1"] [14322] In cleanup',
            '<150>1 2026-05-01T10:00:00Z xen1 SMGC 14322 - [meta x="1"][m2 y="2"] [14322][MainThread] In cleanup',
        ),
        near_misses=("<150>2 2026-05-01T10:00:00Z xen1 SM - - - [14322] x",),
        source="RFC 5424",
    ),
    Format(
        "nova",
        pattern(
            rf"{ISO_TIME} (?:(?P<own_pid>[0-9]{{1,7}}) )?"
            r"(?P<ident>TRACE|DEBUG|INFO|WARNING|AUDIT|ERROR|CRITICAL) "
            r"(?=[\w.]{1,80}(?: |$))"
        ),
        samples=(
            "2012-10-31 18:06:12 TRACE nova.utils [instance: 4dc16179] Failure: ['x']",
            "2013-08-02 11:54:02.511 12331 ERROR nova.compute.manager [req-1 None None] failed",
        ),
        near_misses=("2012-10-31 18:06:12 nova.utils TRACE", "2012-10-31 TRACE nova.utils x"),
        source="nova-compute's logging_context_format_string",
    ),
    Format(
        "xapi",
        pattern(
            rf"\[{BASIC_TIME}\|(?P<ident>debug| ?info| ?warn|error) ?\|(?P<host>[^|\s]{{1,255}})\|[^\]\n]{{0,300}}\] "
        ),
        samples=(
            "[20121031T18:06:12.123Z|error|xen1|1234 INET 0.0.0.0:80|VDI.copy R:1|x] failed",
            "[20121031T18:06:12.123Z| info|xen1|1234 INET 0.0.0.0:80|VDI.copy R:1|x] copies",
        ),
        near_misses=("[20121031T18:06:12.123Z|error] failed",),
        source="xapi's debug.ml before it logged to syslog",
    ),
)

_IDENT_OF = {"raw": "SM"}
_OF_STORAGE = ("SM", "python", "cleanup")  # the last two: journald's names of an unnamed garbage collector


def is_of_storage(ident: str) -> bool:
    """Return True for lines of the storage manager, and for those without a prefix, which may be."""
    return not ident or ident.startswith(_OF_STORAGE)


# Text that a paste puts before a line: mail quotes, comments, indentation, a diff's sign, a console's time, grep's file
# and number.
_QUOTED = pattern(
    r"(?:\s{0,12}>\s?){1,8}|\s{0,12}#+ |\s{1,12}(?=\S)|[`*]{1,3}(?=\S)"
    r"|[+-] ?(?=[A-Z][a-z]{2} )|(?:[0-9-]{10}[T ])?[0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:[.,][0-9]{1,9})?Z? ?\| ?"
)
_MAIL_QUOTE = pattern(r"^(?:\s{0,12}>\s?){1,8}")
_GREPPED = pattern(r"(?:[^\s:]{0,200}SMlog[\w.-]{0,40}[:-])?(?:[0-9]{1,9}[:-])?\s?")
_ESCAPED = pattern(r"\\([*_\[\]<>()#+.!{}|~`-])")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'", "nbsp": " "}
_ENTITY = pattern(r"&(?:(?P<name>lt|gt|amp|quot|apos|nbsp)|#(?P<number>[0-9]{1,4})|#[xX](?P<hex>[0-9a-fA-F]{1,3}));")


def read_prefix(line: str) -> Prefix | None:
    """Find the prefix of the message in `line`; return None if no form matches.

    Text that a paste put before it is passed over.
    """
    if found := _at_start(line, 0):
        return found
    quoted = _QUOTED.match(line)
    start = quoted.end() if quoted else 0
    if quoted and (found := _at_start(line, start)):
        return found
    grepped = _GREPPED.match(line, start)
    if grepped and grepped.end() > start:
        return _at_start(line, grepped.end())
    return None


def _at_start(line: str, start: int) -> Prefix | None:
    for row in FORMATS:
        if (found := row.pattern.match(line, start)) and (stamp := read_stamp(found)):
            return _prefix(row.name, found, stamp)
    return None


def unescape(text: str) -> str:
    """Return `text` without the escapes of markdown and the entities of HTML that a paste has added."""
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", text)
    if "&" in text:
        text = _ENTITY.sub(_character, text)
    return text


def _character(entity: re.Match[str]) -> str:
    if name := entity["name"]:
        return _ENTITIES[name]
    code = int(entity["number"] or entity["hex"], 10 if entity["number"] else 16)
    return chr(code) if code >= ord(" ") else " "  # a line end in a name would begin a line of its own


def unquote(line: str) -> str:
    """Remove the mail quotes before a line without a prefix."""
    return _MAIL_QUOTE.sub("", line, count=1)


def _prefix(form: str, found: re.Match[str], stamp: Stamp) -> Prefix:
    part = found.groupdict()
    pid = part.get("pid") or part.get("gc_pid") or part.get("own_pid")
    ident = "SMGC" if part.get("gc_pid") else part.get("ident") or _IDENT_OF.get(form, "")
    return Prefix(
        form=form,
        stamp=stamp,
        host=part.get("host"),
        ident=ident.strip(),
        pid=int(pid) if pid else None,
        start=found.end(),
        stop=-1 if part.get("folded") else None,  # rsyslog closes a folded message with a bracket
        thread=part.get("thread"),
    )
