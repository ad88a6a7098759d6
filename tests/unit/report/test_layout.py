from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smfix.report import layout
from smfix.report.escape import printable

AT = datetime(2012, 5, 15, 0, 18, 35, 127755, tzinfo=UTC)
PATH = "/run/sr-mount/" + "x" * 90 + ".vhd"


def test_prose_is_wrapped_and_long_words_stay_whole():
    text = layout.wrapped(f"{'word ' * 30}{PATH} end", "  ")
    lines = text.splitlines()
    assert [line for line in lines if len(line) > layout.WIDTH] == ["  " + PATH]
    assert all(line.startswith("  ") for line in lines)


def test_rows_are_labelled_and_wrapped_under_themselves():
    lines = layout.row("found", "word " * 30).splitlines()
    assert lines[0].startswith("   found    word")
    assert all(line.startswith(" " * 12 + "word") for line in lines[1:])
    assert max(map(len, lines)) <= layout.WIDTH


@given(st.text(max_size=70), st.sampled_from(["", "  ", "x" * 75]), st.sampled_from([20, 80]))
@example("x" * 80, "", 80)
@example("x" * 81, "", 80)
@example(" x", "  ", 80)
@example("x ", "  ", 80)
@example("a  b", "  ", 80)
def test_one_line_is_what_wrapping_would_make_of_it(text, head, width):
    rules = {"break_long_words": False, "break_on_hyphens": False}
    filled = textwrap.fill(
        printable(text), max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head), **rules
    )
    assert layout.folded(head, text, width) == filled


def test_what_will_be_copied_is_one_line():
    assert layout.verbatim("path", PATH) == f"   path     {PATH}"


UUID = "7a142a29-9556-ee47-1e04-1a8517813369"
QUOTE = (
    "May 15 00:18:35 xen1 SM: [26919] /var/run/sr-mount/7a142a29-9556-ee47-1e04-1a8517813369/"
    "1d994938-058e-102f-80dc-001ec95cb0b6.vhd appears invalid; dumping metadata"
)


def test_quotes_are_folded_at_blanks_and_behind_slashes():
    assert layout.clipped("log", "short", 4) == "   log      short"
    assert layout.clipped("log", "", 4) == "   log      "
    assert layout.clipped("log", f"{'x' * 66} (rc 22)", 4).splitlines()[1].strip() == "(rc 22)"
    assert [line.strip() for line in layout.clipped("", QUOTE, 4).splitlines()] == [
        "May 15 00:18:35 xen1 SM: [26919]",
        "/var/run/sr-mount/7a142a29-9556-ee47-1e04-1a8517813369/",
        "1d994938-058e-102f-80dc-001ec95cb0b6.vhd appears invalid; dumping",
        "metadata",
    ]
    with layout.columns(200):
        assert layout.clipped("log", QUOTE, 4) == f"   log      {QUOTE}"


def test_of_a_long_quote_the_middle_is_left_out():
    shown = layout.clipped("", f"SM: begins {'and goes on ' * 40}corrupted", 4).splitlines()
    assert len(shown) == 4
    assert shown[0].strip().startswith("SM: begins and")
    assert shown[1].strip() == "..."
    assert shown[-1].endswith("corrupted")
    assert [line.strip() for line in layout.clipped("", "x" * 240, 3).splitlines()] == ["x" * 68, "...", "x" * 36]


@given(
    st.lists(st.sampled_from([UUID, "word", f"/a/{UUID}/{UUID}.vhd", "y" * 90, " "]), max_size=12), st.integers(40, 200)
)
def test_quotes_fit_and_lose_nothing(words, width):
    with layout.columns(width):
        shown = layout.clipped("", " ".join(words), 99).splitlines()
    assert max(map(len, shown)) <= width
    assert "".join(line.strip() for line in shown).replace(" ", "") == "".join(words).replace(" ", "")
    whole = sum(line.count(UUID) for line in shown)
    assert width < 12 + len(UUID) + 4 or whole == " ".join(words).count(UUID)


def test_prose_is_as_wide_as_the_terminal_but_readable():
    long = "word " * 100
    for width, widest in ((60, 60), (90, 90), (200, layout.READABLE)):
        with layout.columns(width):
            for told in (layout.wrapped(long), layout.row("x", long), layout.folded("x  ", long)):
                assert widest - 5 < max(map(len, told.splitlines())) <= widest
    assert max(map(len, layout.wrapped(long).splitlines())) <= layout.WIDTH


@pytest.mark.parametrize("make", [layout.wrapped, lambda text: layout.row("x", text)])
def test_nothing_acts_on_the_terminal(make):
    assert "\x1b" not in make("a\x1b[2Jb")
    assert "\x1b" not in layout.verbatim("path", "a\x1b[2Jb")


@pytest.mark.parametrize(
    ("first", "last", "shown"),
    [
        (None, None, "unknown"),
        (AT, None, "2012-05-15 00:18:35.127755+00:00"),
        (None, AT, "2012-05-15 00:18:35.127755+00:00"),
        (AT, AT, "2012-05-15 00:18:35.127755+00:00"),
        (
            AT,
            AT + timedelta(seconds=61),
            "2012-05-15 00:18:35.127755 to 00:19:36.127755+00:00",
        ),
        (
            AT,
            AT + timedelta(days=1),
            "2012-05-15 00:18:35.127755+00:00 to 2012-05-16 00:18:35.127755+00:00",
        ),
        (
            AT,
            AT.astimezone(timezone(timedelta(hours=1))) + timedelta(seconds=1),
            "2012-05-15 00:18:35.127755+00:00 to 2012-05-15 01:18:36.127755+01:00",
        ),
    ],
)
def test_spans(first, last, shown):
    assert layout.span(first, last) == shown


@pytest.mark.parametrize(
    ("number", "words", "shown"),
    [
        (1, ("disk",), "1 disk"),
        (0, ("disk",), "0 disks"),
        (1234567, ("byte",), "1,234,567 bytes"),
        (2, ("entry", "entries"), "2 entries"),
    ],
)
def test_counting(number, words, shown):
    assert layout.counted(number, *words) == shown


def test_folding_under_a_head():
    assert layout.folded("12  ", "one two\tthree", 24) == "12  one two\\tthree"
    assert layout.folded("12  ", "one two three four five six", 24) == "12  one two three four\n    five six"
