"""The table of line prefixes: each row matches its samples, and only its own."""

from __future__ import annotations

import pytest

from smfix.smlog.parse.journald import read_entry
from smfix.smlog.parse.prefixes import FORMATS, read_prefix, unescape, unquote
from smfix.smlog.parse.timestamps import Stamp

SAMPLES = [(row.name, sample) for row in FORMATS for sample in row.samples]
MISSES = [(row.name, miss) for row in FORMATS for miss in row.near_misses]


@pytest.mark.parametrize(("name", "line"), SAMPLES)
def test_samples_match_their_row_and_no_other(name, line):
    assert read_prefix(line).form == name
    assert [row.name for row in FORMATS if row.pattern.match(line)] == [name]


@pytest.mark.parametrize(("name", "line"), MISSES)
def test_near_misses_do_not(name, line):
    found = read_prefix(line)
    assert found is None or found.form != name


def test_every_row_has_its_proofs_and_its_source():
    for row in FORMATS:
        assert row.samples
        assert row.near_misses
        assert row.source


@pytest.mark.parametrize(
    ("line", "host", "ident", "pid", "message"),
    [
        ("Aug  9 12:22:23 xen1 SM: [14322]   pread SUCCESS", "xen1", "SM", 14322, "  pread SUCCESS"),
        ("Aug 21 12:22:23 13 SMGC: [14322] In cleanup", "13", "SMGC", 14322, "In cleanup"),
        ("Aug 21 12:22:23 xen1 SM: [14322] ", "xen1", "SM", 14322, ""),
        ("Aug 21 12:22:23 xen1 SM: [14322]", "xen1", "SM", 14322, ""),
        ("Aug 21 12:22:23 xen1 fairlock[3906]: acquired", "xen1", "fairlock", 3906, "acquired"),
        (
            "Aug 21 12:22:23 xen1 SM: message repeated 2 times: [ [7]   pread SUCCESS]",
            "xen1",
            "SM",
            7,
            "  pread SUCCESS",
        ),
        ("[26919] 2012-05-15 00:18:35.127755\tFAILED: x", None, "SM", 26919, "FAILED: x"),
        ("<26919> 2012-05-15 00:18:35\t    In cleanup", None, "SMGC", 26919, "    In cleanup"),
        ("2026-05-01T10:00:00+0200 xen1 SMGC[14]: [14] In cleanup", "xen1", "SMGC", 14, "In cleanup"),
        ("<150>1 2026-05-01T10:00:00Z xen1 SM - - - [7] x", "xen1", "SM", 7, "x"),
        ("<150>1 2026-05-01T10:00:00Z xen1 xapi 99 - - x", "xen1", "xapi", 99, "x"),
        ("2012-10-31 18:06:12 TRACE nova.utils x", None, "TRACE", None, "nova.utils x"),
    ],
)
def test_what_a_prefix_says(line, host, ident, pid, message):
    found = read_prefix(line)
    assert (found.host, found.ident, found.pid) == (host, ident, pid)
    assert line[found.start : found.stop] == message


@pytest.mark.parametrize(
    "before",
    [
        "> ",
        "> > ",
        ">> ",
        "# ",
        "    ",
        "`",
        "2170:",
        "2329-",
        "/var/log/SMlog.2.gz:",
        "SMlog:17:",
        "> 2170:",
        "    17- ",
        "+",
        "- ",
        "09:14:04 | ",
        "2026-11-03 09:14:04.120 | ",
    ],
)
def test_what_a_paste_puts_in_front(before):
    line = "Aug  9 12:22:23 xen1 SM: [14322] In cleanup"
    found = read_prefix(before + line)
    assert (before + line)[found.start :] == "In cleanup"
    assert found.stamp == Stamp(None, 8, 9, 12, 22, 23)


@pytest.mark.parametrize("thread", ["MainThread", "ThreadPoolExecutor-0_1", "VhdUtil_0", "Thread-1 (run)", "Dummy-2"])
@pytest.mark.parametrize(
    "before",
    [
        "Aug  9 12:22:23 xen1 SM: ",
        "Aug  9 12:22:23 xen1 SM[7]: ",
        "Aug  9 12:22:23 xen1 SM: message repeated 2 times: [ ",
        "2026-05-01T10:00:00+02:00 xen1 SM: ",
        "<150>1 2026-05-01T10:00:00Z xen1 SM - - - ",
        "> 2170:Aug  9 12:22:23 xen1 SM: ",
    ],
)
def test_the_thread_beside_the_pid(before, thread):
    found = read_prefix(f"{before}[14322][{thread}]   pread SUCCESS]")
    assert (found.pid, found.thread) == (14322, thread)
    assert f"{before}[14322][{thread}]   pread SUCCESS]"[found.start :] == "  pread SUCCESS]"


def test_a_command_behind_the_pid_is_no_thread():
    line = "Aug  9 12:22:23 xen1 SM: [7] ['/usr/bin/vhd-util', 'check']"
    found = read_prefix(line)
    assert (found.pid, found.thread, line[found.start :]) == (7, None, "['/usr/bin/vhd-util', 'check']")


def test_what_is_no_prefix():
    for line in ("", "Cookie : conectix", "    self.validate()", "> said he", "17: x", ":"):
        assert read_prefix(line) is None


def test_escapes_and_entities():
    assert unescape(r"VHD \*1d99\_x \[VHD\] &lt;class 'x'&gt; &amp; &quot;") == "VHD *1d99_x [VHD] <class 'x'> & \""
    assert unescape("&lt;class &#x27;x&#39;&gt; &apos;&nbsp;&bull;&#10;&#xa;") == "<class 'x'> ' &bull;  "
    assert unescape(r"valid\nprimary SMGC@a\x2db") == r"valid\nprimary SMGC@a\x2db"


def test_quotes_of_unprefixed_lines():
    assert unquote("> > Cookie") == "Cookie"
    assert unquote("Cookie > x") == "Cookie > x"


ENTRY = (
    '{"__REALTIME_TIMESTAMP":"1777629608063616","_HOSTNAME":"xen1","SYSLOG_IDENTIFIER":"SM","_PID":"12","MESSAGE":%s}'
)


def test_entries_of_the_journal():
    entry = read_entry(ENTRY % '"[2900] In cleanup"')
    assert entry == (Stamp(2026, 5, 1, 10, 0, 8, 63616, 0), "xen1", "SM", 2900, "In cleanup", None)
    assert read_entry(ENTRY % '"[2900][MainThread] x"')[3:] == (2900, "x", "MainThread")
    assert read_entry(ENTRY % '"plain"')[3:] == (12, "plain", None)
    assert read_entry(ENTRY % "[104, 105, 255]").text == "hi\ufffd"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"MESSAGE": ',
        '["MESSAGE"]',
        '{"MESSAGE": null}',
        '{"MESSAGE": [1, 2, 300]}',
        '{"MESSAGE": [1, "x"]}',
        "[" * 5000 + '"MESSAGE"',
    ],
)
def test_what_is_no_entry(line):
    assert read_entry(line) is None


def test_an_entry_with_little_in_it():
    entry = read_entry('{"MESSAGE": "x", "_PID": "99999999", "__REALTIME_TIMESTAMP": "now"}')
    assert entry == (None, None, "", None, "x", None)
