"""The prefixes in front of what a log says: one table, one row per form.

Pure. A row is a pattern for everything up to the message, a sample that it must match and a near
miss that it must not. To teach smfix a new form of log, add a row. Rows are tried in order; a line
that none matches has no prefix (a continuation, a terminal's output).
Source: `util.SMlog` and `cleanup.Util.log` of the storage manager, rsyslog's traditional format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from smfix.smlog.stamps import ISO_TIME, SYSLOG_TIME, Stamp, read_stamp

_HOST = r"(?P<host>[^\s:]{1,255})"
_IDENT = r"(?P<ident>[A-Za-z0-9_./@()-]{1,64}?)"


@dataclass(frozen=True, slots=True)
class Format:
    """One row. `pattern` may name: the groups of a time, host, ident, pid, gc_pid, own_pid, folded."""

    name: str
    pattern: re.Pattern[str]
    samples: tuple[str, ...]
    near_misses: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """What stands around a message: it is ``line[start:stop]``, `stop` None for the line's end."""

    form: str
    stamp: Stamp | None
    host: str | None
    ident: str
    pid: int | None
    start: int
    stop: int | None = None


FORMATS: tuple[Format, ...] = (
    Format(
        "syslog",
        re.compile(
            rf"{SYSLOG_TIME} +{_HOST} +{_IDENT}(?:\[(?P<own_pid>[0-9]{{1,7}})\])?: ?"
            r"(?P<folded>message repeated [0-9]{1,9} times: \[ ?)?"
            r"(?:\[(?P<pid>[0-9]{1,7})\](?: |$))?"
        ),
        samples=(
            "Aug  9 12:22:23 xen1 SM: [14322]   pread SUCCESS",
            "Aug 21 12:22:23 13 SMGC: [14322] In cleanup",
            "Aug 21 12:22:23 xen1 SM: [14322] ",
            "Aug 21 12:22:23 xen1 fairlock[3906]: /run/fairlock/x acquired",
            "Aug 21 12:22:23 xen1 SM: message repeated 2 times: [ [14322]   pread SUCCESS]",
        ),
        near_misses=(
            "Agu 21 12:22:23 xen1 SM: [14322] In cleanup",
            "Aug 41 12:22:23 xen1 SM: [14322] In cleanup",
            "Aug 21 12:22:23 xen1 no ident here",
        ),
        source="util.SMlog since 2013; rsyslog's RSYSLOG_TraditionalFileFormat",
    ),
    Format(
        "raw",
        re.compile(rf"(?:\[(?P<pid>[0-9]{{1,7}})\]|<(?P<gc_pid>[0-9]{{1,7}})>) ?{ISO_TIME}(?:\t|[ \t]|$)"),
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
        "nova",
        re.compile(
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
)

_IDENT_OF = {"raw": "SM"}


def read_prefix(line: str) -> Prefix | None:
    """What stands in front of the message in `line`; None where no form matches."""
    for row in FORMATS:
        if (found := row.pattern.match(line)) and (stamp := read_stamp(found)):
            return _prefix(row.name, found, stamp)
    return None


def _prefix(form: str, found: re.Match[str], stamp: Stamp) -> Prefix:
    part = found.groupdict()
    pid = part.get("pid") or part.get("gc_pid") or part.get("own_pid")
    ident = "SMGC" if part.get("gc_pid") else part.get("ident") or _IDENT_OF.get(form, "")
    return Prefix(
        form=form,
        stamp=stamp,
        host=part.get("host"),
        ident=ident,
        pid=int(pid) if pid else None,
        start=found.end(),
        stop=-1 if part.get("folded") else None,  # rsyslog closes what it folded with a bracket
    )


@cache
def format_named(name: str) -> Format:
    """The row called `name`. Raises KeyError."""
    return {row.name: row for row in FORMATS}[name]
