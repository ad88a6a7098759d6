"""Times: read as they stand, completed by the file they stand in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from smfix.smlog.parse.timestamps import BASIC_TIME, ISO_TIME, SYSLOG_TIME, Calendar, Stamp, read_stamp

BERLIN = timezone(timedelta(hours=2))


def at_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def stamp(pattern: str, text: str) -> Stamp | None:
    found = re.match(pattern, text)
    assert found
    return read_stamp(found)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (SYSLOG_TIME, "Aug  9 12:22:23", Stamp(None, 8, 9, 12, 22, 23)),
        (SYSLOG_TIME, "Feb 29 23:59:60", Stamp(None, 2, 29, 23, 59, 59)),
        (SYSLOG_TIME, "Aug 19 12:22:23.5", Stamp(None, 8, 19, 12, 22, 23, 500000)),
        (ISO_TIME, "2012-05-15 00:18:35.127755", Stamp(2012, 5, 15, 0, 18, 35, 127755)),
        (ISO_TIME, "2012-05-15T00:18:35,127", Stamp(2012, 5, 15, 0, 18, 35, 127000)),
        (ISO_TIME, "2012-05-15T00:18:35Z", Stamp(2012, 5, 15, 0, 18, 35, 0, 0)),
        (ISO_TIME, "2012-05-15T00:18:35+02:00", Stamp(2012, 5, 15, 0, 18, 35, 0, 7200)),
        (ISO_TIME, "2012-05-15T00:18:35-0130", Stamp(2012, 5, 15, 0, 18, 35, 0, -5400)),
        (BASIC_TIME, "20121031T18:06:12.123Z", Stamp(2012, 10, 31, 18, 6, 12, 123000, 0)),
        (ISO_TIME, "2013-02-29 00:00:00", None),
        (ISO_TIME, "2013-02-28 24:00:00", None),
        (SYSLOG_TIME, "Apr 31 00:00:00", None),
        (ISO_TIME, "0000-01-01 00:00:00", None),
    ],
)
def test_stamps(pattern, text, expected):
    assert stamp(pattern, text) == expected


def calendar(last: Stamp | None, written: datetime, year: int | None = None) -> Calendar:
    return Calendar(at_utc, written, last, year)


LAST = Stamp(None, 8, 21, 12, 0, 0)


@pytest.mark.parametrize(
    ("written", "year"),
    [
        (datetime(2012, 8, 21, 12, 0, 0, tzinfo=UTC), 2012),
        (datetime(2012, 8, 21, 11, 59, 59, tzinfo=UTC), 2011),
        (datetime(2013, 1, 1, tzinfo=UTC), 2012),
        (datetime(2012, 8, 21, 14, 0, 0, tzinfo=BERLIN), 2012),
    ],
)
def test_the_latest_year_that_is_not_after_the_file(written, year):
    assert calendar(LAST, written).time(LAST).year == year


def test_the_year_in_which_a_zone_east_already_is():
    last = Stamp(None, 1, 1, 0, 30, 0)
    east = Calendar(lambda moment: moment.replace(tzinfo=BERLIN), datetime(2012, 12, 31, 23, 0, tzinfo=UTC), last)
    assert east.time(last) == datetime(2013, 1, 1, 0, 30, tzinfo=BERLIN)


def test_february_29_needs_a_leap_year():
    last = Stamp(None, 2, 29, 1, 0, 0)
    assert calendar(last, datetime(2015, 3, 1, tzinfo=UTC)).time(last).year == 2012
    assert calendar(last, datetime(1904, 1, 1, tzinfo=UTC)).time(last).year == 1896
    earlier = calendar(LAST, datetime(2011, 9, 1, tzinfo=UTC))
    assert earlier.time(last).year == 2008


def test_lines_of_last_year_and_lines_a_little_late():
    january = calendar(Stamp(None, 1, 2, 0, 0, 5), datetime(2013, 1, 2, 1, tzinfo=UTC))
    assert january.time(Stamp(None, 12, 31, 23, 59, 59)).year == 2012
    assert january.time(Stamp(None, 1, 3, 0, 0, 0)).year == 2013
    assert january.time(Stamp(None, 1, 1, 0, 0, 0)).year == 2013


def test_what_the_log_or_the_operator_says_goes_first():
    told = calendar(LAST, datetime(2020, 1, 1, tzinfo=UTC), 2012)
    assert told.time(LAST).year == 2012
    assert told.time(Stamp(1999, 1, 1, 0, 0, 0)) == datetime(1999, 1, 1, tzinfo=UTC)
    assert told.time(Stamp(2012, 5, 15, 0, 18, 35, 127755, 7200)) == datetime(
        2012, 5, 14, 22, 18, 35, 127755, tzinfo=UTC
    )


def test_without_a_last_stamp_the_file_gives_the_year():
    assert calendar(None, datetime(2012, 6, 1, tzinfo=UTC)).time(Stamp(None, 5, 1, 0, 0, 0)).year == 2012


def test_before_the_first_year_there_is():
    first = datetime(1, 1, 1, 12, tzinfo=UTC)
    assert calendar(Stamp(None, 3, 1, 0, 0, 0), first).time(Stamp(None, 3, 1, 0, 0, 0)).year == 1


def test_a_stamp_no_reader_makes():
    with pytest.raises(ValueError, match="month=13"):
        calendar(LAST, datetime(2012, 1, 1, tzinfo=UTC)).time(Stamp(2012, 13, 1, 0, 0, 0))


def test_a_last_line_shortly_after_the_file_is_a_sign():
    late = calendar(LAST, datetime(2012, 8, 21, 3, tzinfo=UTC))
    assert late.is_late() == timedelta(hours=9)
    assert calendar(LAST, datetime(2012, 8, 22, 3, tzinfo=UTC)).is_late() is None
    assert calendar(LAST, datetime(2012, 8, 1, tzinfo=UTC)).is_late() is None
    assert calendar(None, datetime(2012, 8, 1, tzinfo=UTC)).is_late() is None
    assert calendar(Stamp(2012, 8, 21, 0, 0, 0), datetime(2012, 8, 1, tzinfo=UTC)).is_late() is None
    leap = calendar(Stamp(None, 2, 29, 1, 0, 0), datetime(2012, 3, 1, tzinfo=UTC))
    assert leap.is_late() is None
