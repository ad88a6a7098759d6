"""FAILED records, put together from what may stand between their lines."""

from __future__ import annotations

import pytest

from smfix.smlog.correlate.failed_commands import arguments, read_record, subject, succeeded
from smfix.smlog.rules.messages import match
from smlog_text import LV, PATH, VDI, check, failed, gc, line_at, said, window_of


def record_of(lines: list[str], number: int = 1):
    window = window_of(lines)
    line = line_at(window, number)
    return read_record(window, line, match(line.text)[1])


def test_a_record_of_many_lines_between_those_of_others():
    lines = [check()]
    for line in failed("primary footer invalid: invalid cookie\nCookie : conectix\n"):
        lines += [line, said("lock: released /x", 4711)]
    record = record_of([*lines, gc("after")], 2)
    assert record.texts == ("primary footer invalid: invalid cookie", "Cookie : conectix", "', stderr: ''")
    assert (record.code, record.program, record.action) == (22, "vhd-util", "check")
    assert record.image.path == PATH


def test_a_record_in_one_line_ends_there():
    record = record_of([*failed("x"), said("after")])
    assert len(record.lines) == 1
    assert (record.program, record.action, record.image) == ("", "", None)


def test_a_record_whose_stderr_has_lines():
    record = record_of([*failed("x', stderr: 'one\ntwo"), said("after")])
    assert record.texts[1:] == ("two', stderr: ''",)


def test_a_record_whose_end_is_lost_ends_with_the_next_message():
    for following in ("['/bin/x']", "  pread SUCCESS", "FAILED in util.pread: (rc 1)", "*~*~*", "gc: EXCEPTION x"):
        record = record_of([failed("one\ntwo")[0], said("Cookie"), said(following), said("more")])
        assert [line.text for line in record.lines[1:]] == ["Cookie"]
    assert len(record_of([failed("one\ntwo")[0], said("Cookie")]).lines) == 2


def test_a_raw_record_goes_on_without_prefix():
    head = "[7] 2012-05-15 00:18:35.127755\tFAILED: (errno -6) stdout: 'one"
    record = record_of([head, "two", "', stderr: ''", "three"])
    assert record.texts == ("one", "two", "', stderr: ''")
    assert record.code == -6


def test_the_command_is_the_last_one_of_the_process():
    assert record_of([check(LV), check(), *failed("")], 3).image.path == PATH
    assert record_of([check(), said("  pread SUCCESS"), *failed("")], 3).command == ()
    assert record_of([check(pid=1), *failed("")], 2).command == ()
    far = [check(), *(said("x") for _ in range(20)), *failed("")]
    assert record_of(far, len(far)).command == ()


def test_a_quiet_command_is_told_afterwards():
    assert record_of([*failed(""), said("Command was: ['/bin/umount', '/x']")]).command == ("/bin/umount", "/x")
    assert record_of([*failed(""), said("x")]).command == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"['/usr/bin/vhd-util', 'check', '-n', '{PATH}', '-B']", ("/usr/bin/vhd-util", "check", "-n", PATH, "-B")),
        ("['a', \"it's\"]", ("a", "it's")),
        ("not ['a']", ()),
        ("[]", ()),
    ],
)
def test_arguments(text, expected):
    assert arguments(text) == expected


def test_what_a_command_is_about():
    assert subject(("vhd-util", "check", "-n", PATH, "-B")).vdi == VDI
    assert subject(("/usr/bin/qemu-img", "check", PATH)).vdi == VDI
    assert subject(("vhd-util", "check", "-n")) is None
    assert subject(()) is None


def test_whether_a_command_succeeded():
    window = window_of([check(), said("lock", 3), said("  pread SUCCESS"), check(), said("x"), check(), check()])
    assert succeeded(window, line_at(window, 1)).text == "  pread SUCCESS"
    assert succeeded(window, line_at(window, 4)) is None
    assert succeeded(window, line_at(window, 7)) is None
