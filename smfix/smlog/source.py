"""Where logs come from: files, folders, standard input. Names in, a LogReading out.

The only module of this package that reads the machine, and it only reads.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import BinaryIO

from smfix.errors import Unreadable, UsageError
from smfix.model import LogReading
from smfix.smlog.engine import Engine, make_engine
from smfix.smlog.events import Failure
from smfix.smlog.incidents import Register, incident
from smfix.smlog.lines import Block, Position, parse_line
from smfix.smlog.proofs import PROOF_ANCHORS
from smfix.smlog.rules import ANCHORS
from smfix.smlog.stamps import Calendar, Stamp
from smfix.smlog.sweep import Event, Sweep

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 16 << 20  # a line longer than this is cut
_STAMPED_WITHIN = 200  # lines searched for a file's first and last time
_BEFORE_NOW = re.compile(r"\s*(?P<number>[0-9]{1,6})\s*(?P<unit>[smhdw])\s*\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})\Z")


@dataclass(slots=True)
class LogFile:
    """One log on its way through: its name as given, when it was last written, its ends."""

    name: str
    written: datetime
    first: Stamp | None = None
    last: Stamp | None = None
    size: int = 0
    lines: int = 0


@dataclass(slots=True)
class _Reading:
    files: list[LogFile] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    noise: Counter[str] = field(default_factory=Counter)


def read_logs(
    names: Sequence[str],
    *,
    tz: str | None,
    year: int | None,
    since: str | None,
    until: str | None,
    progress: Callable[[int, int], None] | None = None,
) -> LogReading:
    """Every incident in the logs called `names`.

    A name is a file, a folder (its SMlog and rotated siblings), or ``-`` for standard input. `tz`
    and `year` complete times that name neither; `since` and `until` are times, or ``2h``, ``3d``
    before now. `progress` is told the bytes read and the bytes there are (0: unknown).

    Raises :class:`~smfix.errors.Unreadable` for a log that cannot be read,
    :class:`~smfix.errors.UsageError` for an option that cannot be meant.
    """
    localize = _zone(tz)
    now = datetime.now(UTC)
    earliest, latest = _moment(since, "--since", now, localize), _moment(until, "--until", now, localize)
    if year is not None and not 1970 <= year <= 9999:
        raise UsageError(f"--year {year}: not a year from 1970 to 9999")
    reading = _read_all(_expand(names), progress, now)
    calendars = [Calendar(localize, file.written, file.last, year) for file in reading.files]

    def time_of(event: Failure) -> datetime | None:
        return calendars[event.file].time(event.stamp) if event.stamp else None

    def wanted(event: Event) -> bool:
        moment = time_of(event) if isinstance(event, Failure) else None
        if moment is None:
            return True
        return not (earliest and moment < earliest) and not (latest and moment > latest)

    register = Register()
    for event in filter(wanted, reading.events):
        register.take(event)
    files = tuple(file.name for file in reading.files)
    stamps = [
        (calendar, stamp)
        for calendar, file in zip(calendars, reading.files, strict=True)
        for stamp in (file.first, file.last)
        if stamp is not None
    ]
    times = [calendar.time(stamp) for calendar, stamp in stamps]
    last = max(times, default=None)
    notes = []
    if earliest and last and last < earliest:
        notes.append(f"the log ends at {last.isoformat()}, before --since {since}")
    for calendar, file in zip(calendars, reading.files, strict=True):
        if (ahead := calendar.is_late()) and year is None:
            hours = ahead.total_seconds() / 3600
            notes.append(
                f"{file.name}: taken to end a year earlier, for its last line would be {hours:.1f} h "
                "after the file's time; if it is from another time zone, say --tz or --year"
            )
    return LogReading(
        files=files,
        bytes=sum(file.size for file in reading.files),
        first=min(times, default=None),
        last=last,
        year_assumed=year is None and any(stamp.year is None for _, stamp in stamps),
        zone_assumed=tz is None and any(stamp.zone is None for _, stamp in stamps),
        incidents=tuple(incident(gathered, files, time_of) for gathered in register.found),
        notes=tuple(notes),
    )


# --------------------------------------------------------------------------- names


def _expand(names: Sequence[str]) -> list[str]:
    """The logs behind `names`, oldest first within a rotated set."""
    logs: list[str] = []
    for name in names:
        logs.extend(_in_folder(name) if name != "-" and os.path.isdir(name) else [name])
    return list(dict.fromkeys(logs))


def _in_folder(folder: str) -> list[str]:
    try:
        found = [name for name in os.listdir(folder) if re.match(r"SMlog(?:\.[0-9]{1,4})?\Z", name)]
    except OSError as error:
        raise Unreadable(f"{folder}: {error.strerror}") from error
    if not found:
        raise Unreadable(f"{folder}: no SMlog in this folder")
    found.sort(key=lambda name: -int(name.partition(".")[2] or 0))
    return [os.path.join(folder, name) for name in found]


# --------------------------------------------------------------------------- bytes


def _read_all(names: list[str], progress: Callable[[int, int], None] | None, now: datetime) -> _Reading:
    reading = _Reading()
    engine = make_engine(ANCHORS)
    sweep = Sweep(engine, make_engine(PROOF_ANCHORS))
    for index, name in enumerate(names):
        for block in _blocks(name, index, reading, engine, progress, now):
            reading.events.extend(sweep.feed(block))
    reading.events.extend(sweep.finish())
    reading.noise = sweep.noise
    return reading


def _blocks(
    name: str,
    index: int,
    reading: _Reading,
    engine: Engine,
    progress: Callable[[int, int], None] | None,
    now: datetime,
) -> Iterator[Block]:
    """The blocks of one log; its LogFile is appended to `reading` and kept up to date."""
    stream, total, written = _open(name, now)
    file = LogFile("-" if name == "-" else name, written)
    reading.files.append(file)
    carry = b""
    with stream:
        while True:
            try:
                chunk = stream.read(BLOCK)
            except OSError as error:
                raise Unreadable(f"{name}: {error.strerror}") from error
            file.size += len(chunk)
            data = carry + chunk
            cut = len(data) if not chunk or len(data) > LONGEST else data.rfind(b"\n") + 1
            carry = data[cut:]
            if cut:
                block = Block(data if not carry else data[:cut], cut, index, file.lines + 1)
                file.lines += engine.count_lines(block.data, block.size)
                _note_times(file, block)
                yield block
            if progress:
                progress(file.size, total)
            if not chunk:
                return


def _open(name: str, now: datetime) -> tuple[BinaryIO, int, datetime]:
    """The stream, its size in bytes (0: unknown), and when it was last written."""
    if name == "-":
        return sys.stdin.buffer, 0, now
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Unreadable(f"{name}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Unreadable(f"{name}: not a file")
    written = datetime.fromtimestamp(status.st_mtime, UTC)
    return os.fdopen(descriptor, "rb", buffering=0), status.st_size, written


def _note_times(file: LogFile, block: Block) -> None:
    """Keep the file's first and last stamp up to date."""
    if file.first is None:
        file.first = _first_stamp(block)
    file.last = _last_stamp(block) or file.last


def _first_stamp(block: Block) -> Stamp | None:
    offset = 0
    for _ in range(_STAMPED_WITHIN):
        end = block.data.find(b"\n", offset, block.size) + 1 or block.size
        if stamp := parse_line(bytes(block.data[offset:end]), Position(0, 0)).stamp:
            return stamp
        offset = end
        if offset >= block.size:
            return None
    return None


def _last_stamp(block: Block) -> Stamp | None:
    end = block.size
    for _ in range(_STAMPED_WITHIN):
        start = block.data.rfind(b"\n", 0, end - 1) + 1
        if stamp := parse_line(bytes(block.data[start:end]), Position(0, 0)).stamp:
            return stamp
        end = start
        if end <= 0:
            return None
    return None


# --------------------------------------------------------------------------- time


def _zone(tz: str | None) -> Callable[[datetime], datetime]:
    """What gives a naive time its zone. Raises UsageError for a zone nobody knows."""
    if tz is None:
        return lambda moment: moment.astimezone()
    zone: tzinfo
    if found := _OFFSET.match(tz):
        seconds = int(found["hours"]) * 3600 + int(found["minutes"]) * 60
        from datetime import timezone

        zone = timezone(timedelta(seconds=-seconds if found["sign"] == "-" else seconds))
    elif tz.upper() in {"UTC", "Z", "GMT"}:
        zone = UTC
    else:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            zone = ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(f"--tz {tz}: no such time zone; say Europe/Berlin, +02:00 or UTC") from error
    return lambda moment: moment.replace(tzinfo=zone)


def _moment(text: str | None, option: str, now: datetime, localize: Callable[[datetime], datetime]) -> datetime | None:
    """What --since or --until says: ``2h`` before now, or a time in any form dateutil reads."""
    if text is None:
        return None
    if found := _BEFORE_NOW.match(text):
        return now - timedelta(seconds=int(found["number"]) * _UNIT[found["unit"]])
    from dateutil.parser import ParserError
    from dateutil.parser import parse as parse_time

    try:
        moment = parse_time(text)
    except (ParserError, OverflowError) as error:
        raise UsageError(f"{option} {text}: not a time; say 2h, 3d or 2012-05-15 00:18") from error
    return moment if moment.tzinfo else localize(moment)
