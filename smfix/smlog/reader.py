"""Read the incidents of the logs named on the command line. See `read_logs`.

Reads the machine, and only reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import Unreadable, UsageError
from smfix.smlog.correlate.failures import Failure
from smfix.smlog.correlate.incidents import Register, incident
from smfix.smlog.inputs.archive import Log, Stored
from smfix.smlog.inputs.decompress import Damaged
from smfix.smlog.inputs.discover import find_logs
from smfix.smlog.parse.block_reader import Cutter
from smfix.smlog.parse.literal_search import fastest_engine
from smfix.smlog.parse.log_times import first_time, last_time
from smfix.smlog.parse.timestamps import Calendar, Localize, Stamp
from smfix.smlog.parse.window import Block
from smfix.smlog.patterns import pattern
from smfix.smlog.rules.other_words import other_words
from smfix.smlog.scanner import Event, Scanner
from smfix.values import Incident, LogReading, VdiRef

if TYPE_CHECKING:
    from smfix.smlog.inputs.xapi_db import Database

_BEFORE_NOW = pattern(r"\s*(?P<number>[0-9]{1,6})\s*(?P<unit>[smhdw])\s*\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_OFFSET = pattern(r"(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})\Z")
_AT_A_TIME = 6  # blocks; they are within the window's reach, so their text is at hand
_HEAD = 256 << 10  # bytes of a log that identify it, if no line has the form of one
_MOST_KEPT = 200_000  # events, kept if --since or --until needs their times
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
    """Return every incident in the logs called `names`.

    A name is a file (plain or compressed), a folder, ``-`` for standard input, or an archive.
    Rotated files of one log are read oldest first. `tz` and `year` complete times that name
    neither; `since` and `until` are times, or ``2h``, ``3d`` before now. `progress` receives the
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
    collected = _Collected(keep=span.is_bounded)
    views = _read_all(found.sets, collected, _reporter(progress, logs))
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
    other = [] if register.found or stamps else _other_words(files, views)
    notes = [*found.notes, *unread, *other, *_about_times(files, calendars, last, span, since, year)]
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
        """Return True for a time in the span, and for one that the log omits."""
        if moment is None:
            return True
        early = self.earliest is not None and moment < self.earliest
        return not early and not (self.latest is not None and moment > self.latest)


class _View:
    """The extent of one log: its first and last time, bytes, why it ended early."""

    def __init__(self) -> None:
        self.first: Stamp | None = None
        self._last: Stamp | None = None
        self._newest: list[Block] = []  # in which the last time was not looked for yet
        self.size = 0
        self.failure: str | None = None
        self.head = b""

    def add(self, block: Block) -> None:
        """Add the next block of the log."""
        if not self.size:
            self.head = bytes(block.data[: min(block.size, _HEAD)])
        self.size += block.size
        self.first = self.first or first_time(block)
        if len(self._newest) == _AT_A_TIME:
            self._last = self.last
        self._newest.append(block)

    @property
    def last(self) -> Stamp | None:
        """Return the last time so far, looked for in the newest blocks first."""
        newest, self._newest = self._newest, []
        self._last = next((found for block in reversed(newest) if (found := last_time(block))), self._last)
        return self._last


class _Collected:
    """Collects the scanners' events. With a span the events are kept: their year is known at the end."""

    def __init__(self, *, keep: bool) -> None:
        self.register = Register(asks_again=keep)
        self.noise: Counter[str] = Counter()
        self._events: list[Event] | None = [] if keep else None

    def take(self, event: Event) -> None:
        self.register.take(event)
        if self._events is not None and len(self._events) < _MOST_KEPT:
            self._events.append(event)

    def within(self, span: _Span, time_of: Callable[[Failure], datetime | None]) -> Register:
        """Return the incidents reported within `span`. A proof that one is over counts at any time."""
        if self._events is None:
            return self.register
        register = Register()
        for event in self._events:
            if isinstance(event, Failure) and not span.holds(time_of(event)):
                continue
            register.take(event)
        return register


def _read_all(sets: list[list[Log]], collected: _Collected, report: Callable[[int], None]) -> list[_View]:
    """Read every set of logs, each in order. Raises Unreadable for storage that fails."""
    engine = fastest_engine()
    views: list[_View] = []
    place = 0
    for origin, members in enumerate(sets):
        scanner = Scanner(engine, wanted=collected.register.in_question, origin=origin, place=place)
        cutter = Cutter(engine, scanner.spare)
        sources = [partial(_blocks, log, len(views) + number, cutter) for number, log in enumerate(members)]
        with closing(_in_turn(members, sources)) as streams:
            for log, blocks in zip(members, streams, strict=True):
                view = _View()
                views.append(view)
                try:
                    for block in blocks:
                        view.add(block)
                        scanner.push(block)
                        for event in scanner.tell():
                            collected.take(event)
                        report(block.size)
                except Damaged as error:
                    view.failure = str(error)
                except OSError as error:
                    raise Unreadable(f"{log.name}: {error.strerror}") from error
        for event in scanner.tell(flush=True):
            collected.take(event)
        collected.noise.update(scanner.noise)
        place = scanner.end
    return views


def _in_turn(
    logs: list[Log], sources: Sequence[Callable[[], Iterator[Block]]]
) -> Generator[Iterator[Block], None, None]:
    """Return the blocks of each log, unpacked ahead if that takes work."""
    if not any(log.is_packed for log in logs):
        return (source() for source in sources)
    from smfix.smlog.inputs.read_ahead import read_ahead  # only here: plain logs need no threads

    return read_ahead([(source, log.is_packed) for log, source in zip(logs, sources, strict=True)])


def _blocks(log: Log, index: int, cutter: Cutter) -> Iterator[Block]:
    """Yield the blocks of the log with that index; a mended paste is one."""
    if log.mended is None:
        yield from cutter.cut(log.open(), index)
    else:
        data, numbers = log.mended
        yield Block(data, len(data), index, 1, data.count(b"\n"), numbers)


def _reporter(progress: Progress | None, logs: list[Log]) -> Callable[[int], None]:
    """Return a function that adds up the bytes for `progress`. Compressed logs have an unknown total."""
    if progress is None:
        return lambda _count: None
    is_known = not any(log.is_packed or log.name == "-" for log in logs)
    total = sum(log.size for log in logs) if is_known else 0
    read = 0

    def report(count: int) -> None:
        nonlocal read
        read += count
        progress(min(read, total) if total else read, total)

    return report


def _unread(logs: list[Log], views: list[_View]) -> list[str]:
    """List the unreadable inputs, and why. Raises Unreadable if none could be read."""
    failed = [
        f"{log.name}: {view.failure}" + ("; what came before was read" if view.size else "")
        for log, view in zip(logs, views, strict=True)
        if view.failure is not None
    ]
    if failed and not any(view.size for view in views):
        raise Unreadable(failed[0])
    return failed


def _other_words(files: tuple[str, ...], views: list[_View]) -> list[str]:
    """Identify the texts, if none is a log. Raises Unreadable if they do not even speak of storage."""
    whole = b"\n".join(view.head for view in views)
    if not whole.strip():
        return []
    row = other_words(whole)
    if row is None:
        raise Unreadable(
            f"{files[0]}: no storage log: no line of it has the form of one, and it does not speak of storage;"
            " name an SMlog, a folder with rotated ones, or a bug report"
        )
    return [f"{files[0]}: this is {row.what}"]


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
    """Read the databases of the bug reports. An unreadable one becomes a note; the incidents remain."""
    if not stored:
        return []
    from smfix.smlog.inputs.xapi_db import NotADatabase, read_database

    found = []
    for one in stored:
        stream = one.open()
        try:
            found.append(read_database(iter(lambda: stream.read(1 << 20), b"")))  # noqa: B023 - used at once
        except (NotADatabase, Damaged, OSError) as error:
            notes.append(f"{one.name}: {error}; names are left out")
    return found


def _with_names(one: Incident, databases: list[Database]) -> Incident:
    """Return `one` with the pool's name for it. Digits that fit one VDI of the pool only are completed."""
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
    """Return a function that gives a naive time its zone. Raises UsageError for an unknown zone."""
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
    """Parse --since or --until: ``2h`` before now, or a time in any form dateutil reads."""
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
