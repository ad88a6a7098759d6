"""Times as logs write them, and the calendar that completes them.

Pure. A syslog time has no year and no zone; a raw SMlog time has no zone. The missing part is a
property of the *file*, not of the line: the latest year that puts the file's last line not after
the moment the file was last written, and one zone for all of it. Order never comes from here: it is
the position in the file (clocks jump, daylight saving ends).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

# rsyslog writes English names whatever the locale; so they are read.
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = {name: number for number, name in enumerate(MONTHS, 1)}
# Lines a little out of order (a clock set back) stay in the year of the line that follows them.
_OUT_OF_ORDER = timedelta(days=2)
_FEBRUARY_29 = 8  # years: the longest time between two of them (1896-1904, 2096-2104)

_DATE = r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
SYSLOG_TIME = (
    rf"(?P<month_name>{'|'.join(MONTHS)}) {{1,2}}(?P<day>[0-9]{{1,2}}) +{_CLOCK}"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?"
)
BASIC_TIME = (
    r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})T"
    rf"{_CLOCK}(?:\.(?P<fraction>[0-9]{{1,9}}))?(?P<zone>Z)?"
)
ISO_TIME = (
    rf"{_DATE}[T ]{_CLOCK}(?:[.,](?P<fraction>[0-9]{{1,9}}))?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?"
)


class Stamp(NamedTuple):
    """A time with the parts that the log has. `zone` is the offset from UTC in seconds."""

    year: int | None
    month: int
    day: int
    hour: int
    minute: int
    second: int
    microsecond: int = 0
    zone: int | None = None

    def at(self, year: int) -> datetime | None:
        """Return the naive time in `year`; None if that year has no such day."""
        try:
            return datetime(year, *self[1:7])  # noqa: DTZ001 - the zone is added by the Calendar
        except ValueError:
            return None


def read_stamp(found: re.Match[str]) -> Stamp | None:
    """Return the stamp in a match of :data:`SYSLOG_TIME` or :data:`ISO_TIME`; None if no clock shows it.

    A leap second (``:60``) is read as the second before it.
    """
    part = found.groupdict()
    month = _MONTH[part["month_name"]] if part.get("month_name") else int(part["month"])
    fraction = (part.get("fraction") or "")[:6].ljust(6, "0")
    zone = part.get("zone")
    stamp = Stamp(
        int(part["year"]) if part.get("year") else None,
        month,
        int(part["day"]),
        int(part["hour"]),
        int(part["minute"]),
        min(int(part["second"]), 59),
        int(fraction),
        _offset(zone) if zone else None,
    )
    # A leap year replaces the missing one: "Feb 29" is a day some year has.
    return stamp if stamp.at(stamp.year if stamp.year is not None else 2000) else None


def _offset(zone: str) -> int:
    if zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if zone[0] == "-" else seconds


Localize = Callable[[datetime], datetime]


class Calendar(NamedTuple):
    """Completes the stamps of one file.

    `written` is when the file's last line was written at the latest (its mtime, an archive member's
    time, now for stdin), aware. `last` is the file's last stamp. `localize` gives a naive time the
    log's zone. `year` is the operator's word for the year of the last line.
    """

    localize: Localize
    written: datetime
    last: Stamp | None
    year: int | None = None

    def _last_year(self) -> int:
        if self.year is not None:
            return self.year
        newest = self.written.astimezone(UTC).year + 1  # a zone east of UTC is there already
        if self.last is None:
            return newest - 1
        for year in range(newest, newest - _FEBRUARY_29 - 2, -1):
            moment = self.last.at(year)
            if moment is not None and year > 0 and self.localize(moment) <= self.written:
                return year
        return newest - 1

    def time(self, stamp: Stamp) -> datetime:
        """Return the aware time of `stamp`.

        If a stamp without a year is later in the year than the last line, it was written
        in the year before.
        """
        if stamp.year is not None:
            moment = stamp.at(stamp.year)
        else:
            year = self._last_year()
            last = self.last.at(year) if self.last is not None else None
            moment = stamp.at(year)
            if last is not None and (moment is None or moment > last + _OUT_OF_ORDER):
                moment = stamp.at(year - 1)
            while moment is None:  # Feb 29: back to the last year that had one
                year -= 1
                moment = stamp.at(year)
        if moment is None:  # read_stamp never makes such a stamp
            raise ValueError(stamp)
        if stamp.zone is not None:
            return moment.replace(tzinfo=timezone(timedelta(seconds=stamp.zone)))
        return self.localize(moment)

    def is_late(self) -> timedelta | None:
        """Return by how much the last line is after the file's own time, if it is (else None).

        A sign that the log was written in another zone than the one assumed.
        """
        if self.last is None or self.last.year is not None:
            return None
        moment = self.last.at(self._last_year() + 1)
        if moment is None:
            return None
        ahead = self.localize(moment) - self.written
        return ahead if timedelta() < ahead <= timedelta(days=1) else None
