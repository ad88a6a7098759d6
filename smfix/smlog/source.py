"""From the names on the command line to what the logs hold. See `read_logs`.

Reads the machine, and only reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import Unreadable, UsageError
from smfix.smlog.archives import Log, Stored
from smfix.smlog.engine import fastest_engine
from smfix.smlog.events import Failure
from smfix.smlog.incidents import Register, incident
from smfix.smlog.names import Disk
from smfix.smlog.parts import Reading, Seen
from smfix.smlog.patterns import pattern
from smfix.smlog.proofs import Proof
from smfix.smlog.stamps import Calendar, Localize
from smfix.smlog.streams import find_logs
from smfix.smlog.sweep import Event, Tally
from smfix.smlog.unpack import Damaged
from smfix.smlog.workers import read_everything
from smfix.values import Incident, LogReading, VdiRef

if TYPE_CHECKING:
    from smfix.smlog.xapi_db import Database

_BEFORE_NOW = pattern(r"\s*(?P<number>[0-9]{1,6})\s*(?P<unit>[smhdw])\s*\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_OFFSET = pattern(r"(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})\Z")
_MOST_KEPT = 200_000  # events, where --since or --until asks for their times
Progress = Callable[[int, int], None]


def read_logs(
    names: Sequence[str],
    *,
    tz: str | None,
    year: int | None,
    since: str | None,
    until: str | None,
    progress: Progress | None = None,
) -> LogReading:
    """Every incident in the logs called `names`.

    A name is a file (plain or compressed), a folder, ``-`` for standard input, or an archive.
    Rotated files of one log are read oldest first. `tz` and `year` complete times that name
    neither; `since` and `until` are times, or ``2h``, ``3d`` before now. `progress` is told the
    bytes read and the bytes there are (0: unknown).

    Raises :class:`~smfix.errors.Unreadable` for a log that cannot be read,
    :class:`~smfix.errors.UsageError` for an option that cannot be meant.
    """
    now = datetime.now(UTC)
    localize = zone_of(tz)
    if year is not None and not 1970 <= year <= 9999:
        raise UsageError(f"--year {year}: not a year from 1970 to 9999")
    span = _Span(_moment(since, "--since", now, localize), _moment(until, "--until", now, localize))
    found = find_logs(names, now)
    logs = [log for members in found.sets for log in members]
    reading = Reading(logs, _indexes(found.sets), fastest_engine(), _reporter(progress, logs))
    collected = _Collected(keep=span.is_bounded)
    seen = read_everything(reading, collected.take, collected.unproved)
    views = [seen.get(index, Seen()) for index in range(len(logs))]
    calendars = [Calendar(localize, log.written, view.last, year) for log, view in zip(logs, views, strict=True)]

    def time_of(event: Failure) -> datetime | None:
        return calendars[event.file].time(event.stamp) if event.stamp else None

    register = collected.within(span, time_of)
    stamps = [
        (calendar.time(stamp), stamp)
        for calendar, view in zip(calendars, views, strict=True)
        for stamp in (view.first, view.last)
        if stamp is not None
    ]
    last = max((moment for moment, _ in stamps), default=None)
    files = tuple(log.name for log in logs)
    unread = _unread(logs, views)
    databases = _databases(found.databases, found.notes) if register.found else []
    notes = [*found.notes, *unread, *_about_times(files, calendars, last, span, since, year)]
    if register.left_out:
        notes.append(f"{register.left_out} reports name more disks than there can be: left out")
    return LogReading(
        files=files,
        bytes=sum(view.size for view in views),
        first=min((moment for moment, _ in stamps), default=None),
        last=last,
        year_assumed=year is None and any(stamp.year is None for _, stamp in stamps),
        zone_assumed=tz is None and any(stamp.zone is None for _, stamp in stamps),
        incidents=tuple(_with_names(incident(gathered, files, time_of), databases) for gathered in register.found),
        notes=tuple(notes),
        unread=tuple(unread),
        since=span.earliest,
        until=span.latest,
        noise=tuple(sorted(collected.noise.items(), key=lambda item: (-item[1], item[0]))),
    )


class _Span(NamedTuple):
    """From when to when reports count; None: from the first, to the last."""

    earliest: datetime | None
    latest: datetime | None

    @property
    def is_bounded(self) -> bool:
        return self.earliest is not None or self.latest is not None

    def holds(self, moment: datetime | None) -> bool:
        """True for a time in the span, and for one the log does not tell."""
        if moment is None:
            return True
        early = self.earliest is not None and moment < self.earliest
        return not early and not (self.latest is not None and moment > self.latest)


class _Collected:
    """What the readers tell. With a span the events are kept: their year is known at the end."""

    def __init__(self, *, keep: bool) -> None:
        self.register = Register()
        self.noise: Counter[str] = Counter()
        self._events: list[Failure | Proof] | None = [] if keep else None

    def take(self, event: Event) -> None:
        if isinstance(event, Tally):
            self.noise.update(dict(event.noise))
            return
        self.register.take(event)
        if self._events is not None and len(self._events) < _MOST_KEPT:
            self._events.append(event)

    def unproved(self, place: int) -> dict[Disk, int]:
        """What is asked of a part that begins at `place`: with a span more, for it may drop what was reported since."""
        return self.register.unproved(place) if self._events is None else self.register.reported(place)

    def within(self, span: _Span, time_of: Callable[[Failure], datetime | None]) -> Register:
        """The incidents reported within `span`. What proves one over counts whenever it is."""
        if self._events is None:
            return self.register
        register = Register()
        for event in self._events:
            if isinstance(event, Failure) and not span.holds(time_of(event)):
                continue
            register.take(event)
        return register


def _indexes(sets: list[list[Log]]) -> list[list[int]]:
    indexes: list[list[int]] = []
    start = 0
    for members in sets:
        indexes.append(list(range(start, start + len(members))))
        start += len(members)
    return indexes


def _reporter(progress: Progress | None, logs: list[Log]) -> Callable[[int], None]:
    """What adds up the bytes for `progress`. What is packed has an unknown total."""
    if progress is None:
        return lambda _count: None
    total = sum(log.size for log in logs) if all(log.path for log in logs) else 0
    read = 0

    def report(count: int) -> None:
        nonlocal read
        read += count
        progress(min(read, total) if total else read, total)

    return report


def _unread(logs: list[Log], views: list[Seen]) -> list[str]:
    """What could not be read, and why. Raises Unreadable where nothing could."""
    failed = [
        f"{log.name}: {view.failure}" + ("; what came before was read" if view.size else "")
        for log, view in zip(logs, views, strict=True)
        if view.failure is not None
    ]
    if failed and not any(view.size for view in views):
        raise Unreadable(failed[0])
    return failed


def _about_times(
    files: tuple[str, ...],
    calendars: list[Calendar],
    last: datetime | None,
    span: _Span,
    since: str | None,
    year: int | None,
) -> list[str]:
    notes = []
    if span.earliest is not None and last is not None and last < span.earliest:
        notes.append(f"The log ends at {last.isoformat(sep=' ')}, before --since {since}.")
    for name, calendar in zip(files, calendars, strict=True):
        if year is None and (ahead := calendar.is_late()) is not None:
            hours = ahead.total_seconds() / 3600
            notes.append(
                f"{name}: taken to end a year earlier, for its last line would be {hours:.1f} h after"
                " the file's own time; if it comes from another time zone, say --tz or --year"
            )
    return notes


# --------------------------------------------------------------------------- names


def _databases(stored: list[Stored], notes: list[str]) -> list[Database]:
    """The databases of the bug reports. One that cannot be read is a note, the incidents stand."""
    if not stored:
        return []
    from smfix.smlog.xapi_db import NotADatabase, read_database

    found = []
    for one in stored:
        stream = one.open()
        try:
            found.append(read_database(iter(lambda: stream.read(1 << 20), b"")))  # noqa: B023 - used at once
        except (NotADatabase, Damaged, OSError) as error:
            notes.append(f"{one.name}: {error}; names are left out")
    return found


def _with_names(one: Incident, databases: list[Database]) -> Incident:
    """`one` with what the pool calls it. Digits that fit one VDI of the pool only are completed."""
    for database in databases:
        fitting = database.starting_with(one.vdi.text, one.sr) if one.vdi.text else []
        if len(fitting) == 1:
            vdi = fitting[0]
            sr = one.sr or database.sr_of(vdi)
            names, around = database.names(vdi, sr), database.surroundings(vdi, sr)
            return one._replace(vdi=VdiRef(vdi), sr=sr, names=names, around=around)
    return one


# --------------------------------------------------------------------------- time


def zone_of(tz: str | None) -> Localize:
    """What gives a naive time its zone. Raises UsageError for a zone nobody knows."""
    if tz is None:
        return lambda moment: moment.astimezone()
    zone: tzinfo
    if found := _OFFSET.match(tz):
        offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
        if offset >= timedelta(days=1):
            raise UsageError(f"--tz {tz}: no such offset")
        zone = timezone(-offset if found["sign"] == "-" else offset)
    elif tz.upper() in {"UTC", "Z", "GMT"}:
        zone = UTC
    else:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            zone = ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(f"--tz {tz}: no such time zone; say Europe/Berlin, +02:00 or UTC") from error
    return lambda moment: moment.replace(tzinfo=zone)


def _moment(text: str | None, option: str, now: datetime, localize: Localize) -> datetime | None:
    """What --since or --until says: ``2h`` before now, or a time in any form dateutil reads."""
    if text is None:
        return None
    try:
        if found := _BEFORE_NOW.match(text):
            return now - timedelta(seconds=int(found["number"]) * _UNIT[found["unit"]])
        from dateutil.parser import parse as parse_time

        moment = parse_time(text)
        return moment if moment.tzinfo else localize(moment)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text}: not a time; say 2h, 3d or 2012-05-15 00:18") from error
