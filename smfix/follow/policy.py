"""Read the policy of a follower: a TOML text in, a Policy or one line per mistake out. Pure.

A policy only ever permits less than the program can do: no policy makes a repair that is not SAFE
possible unless it names the finding, and none overrides a guard. A repair that it forbids is reported as
`refused`, reason `policy`, with the rule that forbade it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Any

from smfix.usecases.durations import seconds
from smfix.values import Disposition, Finding

SAFE = "SAFE"
LONGEST_HOOK = 300
"""Seconds that a hook may be given at most."""
_SR = re.compile(r"[0-9a-f]{4,8}[0-9a-f*-]*\Z|\*\Z")
_HOURS = re.compile(r"(?P<h1>[0-2][0-9]):(?P<m1>[0-5][0-9])-(?P<h2>[0-2][0-9]):(?P<m2>[0-5][0-9])\Z")
NEVER = "never"
"""What `gc-patience` says to wait for the end of GC however long that takes."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A command (its arguments) for the events named (none: all), and its seconds."""

    command: tuple[str, ...]
    events: frozenset[str] = frozenset()
    timeout: float = 10.0

    def wants(self, event: str) -> bool:
        """Return True if this hook takes `event`."""
        return not self.events or event in self.events


@dataclass(frozen=True, slots=True)
class Policy:
    """The repairs that are permitted without asking. The defaults are those of ``--yes`` alone.

    `srs` and `not_srs` are patterns of SR UUIDs. `findings` holds ``SAFE`` and codes of findings that
    are consented to. `per_hour` and `per_day` bound the repairs (None: no bound). `quiet` are hours of
    the host's day in which nothing is repaired. `remind_first` and `remind_last` are the first and
    the longest time between two reports of the same thing. `gc_patience` is how long a repair waits for
    the end of GC before it takes the gap between two of GC's iterations (None: it never does).
    """

    dry_run: bool = False
    srs: tuple[str, ...] = ("*",)
    not_srs: tuple[str, ...] = ()
    findings: frozenset[str] = frozenset({SAFE})
    per_hour: int | None = None
    per_day: int | None = None
    quiet: tuple[tuple[time, time], ...] = ()
    hooks: tuple[Hook, ...] = ()
    remind_first: timedelta = timedelta(hours=1)
    remind_last: timedelta = timedelta(days=1)
    gc_patience: timedelta | None = None

    @property
    def consent(self) -> frozenset[str]:
        """The codes that need a consent and have it."""
        return self.findings - {SAFE}


def forbids(
    policy: Policy, sr: str | None, fixes: Iterable[Finding], repairs: Sequence[datetime], now: datetime
) -> tuple[str, datetime | None] | None:
    """Why `policy` forbids to mend `fixes` on `sr` at `now` (host's zone), and until when; None: go on.

    `repairs` are the times of the repairs made so far. No time: it stays forbidden.
    """
    if policy.dry_run:
        return "the policy says dry-run", None
    name = sr or ""
    if not any(fnmatchcase(name, one) for one in policy.srs) or any(fnmatchcase(name, one) for one in policy.not_srs):
        return f"the policy does not allow repairs on SR {sr or '(unknown)'}", None
    for fix in fixes:
        allowed = fix.code in policy.findings or (fix.disposition is Disposition.SAFE and SAFE in policy.findings)
        if not allowed:
            return f"the policy does not allow to repair {fix.code}", None
    for begin, end in policy.quiet:
        if (until := _quiet_until(begin, end, now)) is not None:
            return f"quiet hours until {until:%H:%M}", until
    for most, hours in ((policy.per_hour, 1), (policy.per_day, 24)):
        recent = sorted(moment for moment in repairs if moment > now - timedelta(hours=hours))
        if most is not None and len(recent) >= most:
            what = "hour" if hours == 1 else "day"
            free = recent[len(recent) - most] + timedelta(hours=hours) if most else None
            return f"the policy allows {most} repairs per {what}", free
    return None


def _quiet_until(begin: time, end: time, now: datetime) -> datetime | None:
    at = now.time()
    inside = begin <= at < end if begin <= end else at >= begin or at < end
    if not inside:
        return None
    until = now.replace(hour=end.hour, minute=end.minute, second=0, microsecond=0)
    return until if until > now else until + timedelta(days=1)


# --------------------------------------------------------------------------- reading


@dataclass(slots=True)
class _Reader:
    """Reads tables and keeps every mistake, with the name of the key that holds it."""

    mistakes: list[str] = field(default_factory=list)

    def table(self, value: Any, name: str, known: Iterable[str]) -> dict[str, Any]:
        """`value` as a table that holds no other keys than `known`."""
        if not isinstance(value, dict):
            self.mistakes.append(f"{name}: must be a table")
            return {}
        for key in value.keys() - set(known):
            self.mistakes.append(f"{name}.{key}: there is no such setting; {name} knows {', '.join(sorted(known))}")
        return value

    def flag(self, table: dict[str, Any], name: str, *, default: bool) -> bool:
        """A yes or no."""
        value = table.get(name.rpartition(".")[2], default)
        if not isinstance(value, bool):
            self.mistakes.append(f"{name}: must be true or false, not {value!r}")
            return default
        return value

    def number(self, table: dict[str, Any], name: str, most: int) -> int | None:
        """Return a number from 0 to `most`, None if the key is missing."""
        value = table.get(name.rpartition(".")[2])
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            self.mistakes.append(f"{name}: must be a whole number from 0 to {most}, not {value!r}")
            return None
        return value

    def texts(self, table: dict[str, Any], name: str, fits: Callable[[str], bool], what: str) -> tuple[str, ...] | None:
        """Return a list of texts that fit, None if the key is missing."""
        value = table.get(name.rpartition(".")[2])
        if value is None:
            return None
        if not isinstance(value, list):
            self.mistakes.append(f"{name}: must be a list of {what}")
            return None
        for one in value:
            if not isinstance(one, str) or not fits(one):
                self.mistakes.append(f"{name}: {one!r} is not {what}")
        return tuple(one for one in value if isinstance(one, str) and fits(one))

    def span(self, table: dict[str, Any], name: str, default: timedelta) -> timedelta:
        """A time like ``90s``, ``15m``, ``2h``, ``1d``."""
        value = table.get(name.rpartition(".")[2])
        if value is None:
            return default
        found = seconds(value) if isinstance(value, str) else None
        if not found:
            self.mistakes.append(f"{name}: {value!r} is not a time such as 90s, 15m, 2h or 1d")
            return default
        return timedelta(seconds=found)

    def patience(self, table: dict[str, Any], name: str) -> timedelta | None:
        """A time as :meth:`span` reads it; None for ``never``, and if it is missing."""
        return None if table.get(name, NEVER) == NEVER else self.span(table, name, timedelta())


_KNOWN = ("version", "dry-run", "gc-patience", "repair", "quiet", "remind", "hook")


_DEFAULT = Policy()
_LIMIT = Hook(()).timeout


def read(text: str, codes: Iterable[str], events: Iterable[str]) -> Policy | tuple[str, ...]:
    """The policy that `text` (TOML) holds, or every mistake in it, one line each.

    `codes` are the findings there are, `events` the events there are.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return (f"no TOML: {error}",)
    reader = _Reader()
    top = reader.table(document, "policy", _KNOWN)
    if top.get("version", 1) != 1:
        reader.mistakes.append(f"version: {top['version']!r} is unknown; this smfix reads version 1")
    repair = reader.table(top.get("repair", {}), "repair", ("srs", "not-srs", "findings", "per-hour", "per-day"))
    remind = reader.table(top.get("remind", {}), "remind", ("first", "at-most"))
    quiet = reader.table(top.get("quiet", {}), "quiet", ("hours",))
    known_codes, known_events = frozenset(codes), frozenset(events)
    a_finding = f"{SAFE} or a finding (`smfix explain` lists them)"
    findings = reader.texts(repair, "repair.findings", lambda one: one == SAFE or one in known_codes, a_finding)
    an_sr = "an SR's UUID, a pattern of it, or *"
    srs = reader.texts(repair, "repair.srs", lambda one: _SR.match(one) is not None, an_sr)
    hours = reader.texts(quiet, "quiet.hours", lambda one: _hours(one) is not None, "hours such as 22:00-06:00")
    first = reader.span(remind, "remind.first", _DEFAULT.remind_first)
    policy = Policy(
        dry_run=reader.flag(top, "dry-run", default=False),
        srs=("*",) if srs is None else srs,
        not_srs=reader.texts(repair, "repair.not-srs", lambda one: _SR.match(one) is not None, an_sr) or (),
        findings=_DEFAULT.findings if findings is None else frozenset(findings),
        per_hour=reader.number(repair, "repair.per-hour", 10_000),
        per_day=reader.number(repair, "repair.per-day", 100_000),
        quiet=tuple(span for one in hours or () if (span := _hours(one)) is not None),
        hooks=_hooks(reader, top.get("hook", []), known_events),
        remind_first=first,
        remind_last=max(first, reader.span(remind, "remind.at-most", _DEFAULT.remind_last)),
        gc_patience=reader.patience(top, "gc-patience"),
    )
    return tuple(reader.mistakes) or policy


def _hours(text: str) -> tuple[time, time] | None:
    found = _HOURS.match(text)
    if found is None or int(found["h1"]) > 23 or int(found["h2"]) > 23:
        return None
    return time(int(found["h1"]), int(found["m1"])), time(int(found["h2"]), int(found["m2"]))


def _hooks(reader: _Reader, value: Any, events: frozenset[str]) -> tuple[Hook, ...]:
    if not isinstance(value, list):
        reader.mistakes.append("hook: write [[hook]], with two brackets: there may be several")
        return ()
    hooks = []
    for number, one in enumerate(value, 1):
        name = f"hook {number}"
        table = reader.table(one, name, ("command", "events", "timeout"))
        command = reader.texts(table, f"{name}.command", lambda word: "\0" not in word, "words of a command")
        wanted = reader.texts(
            table, f"{name}.events", lambda word: word in events, f"one of {', '.join(sorted(events))}"
        )
        timeout = reader.number(table, f"{name}.timeout", LONGEST_HOOK)
        if not command or not command[0].startswith("/"):
            reader.mistakes.append(f'{name}.command: must be a list that begins with a full path, ["/usr/bin/logger"]')
            continue
        hooks.append(Hook(command, frozenset(wanted or ()), float(timeout or _LIMIT)))
    return tuple(hooks)
