"""The window: lines and neighbours, whatever the blocks they came in."""

from __future__ import annotations

import pytest

from smfix.smlog.parse import window as window_module
from smfix.smlog.parse.window import LINE_LIMIT, Block, Position, Window, decode, parse_line, pid_needles
from smlog_text import blocks_of, gc, line_at, said, window_of

TEXT = [said(f"line {number}", 100 + number % 3) for number in range(30)]


@pytest.fixture(params=[1, 4, 7, 100])
def window(request):
    return window_of(TEXT, request.param)


def test_lines_and_their_numbers(window):
    for number in (1, 4, 5, 17, 30):
        line = line_at(window, number)
        assert line.text == f"line {number - 1}"
        assert window.number(line.at) == number
        assert window.file(line.at) == 0


def test_neighbours(window):
    line = line_at(window, 15)
    assert [other.text for other in window.after(line.at)] == [f"line {n}" for n in range(15, 30)]
    assert [other.text for other in window.before(line.at)] == [f"line {n}" for n in range(13, -1, -1)]


def test_neighbours_of_the_same_process(window):
    line = line_at(window, 15)  # pid 102
    assert [other.text for other in window.of_process_after(line)] == [f"line {n}" for n in range(17, 30, 3)]
    assert [other.text for other in window.of_process_before(line)] == [f"line {n}" for n in range(11, -1, -3)]


def test_lines_that_name_a_needle(window):
    line = line_at(window, 15)
    both = (b"line 3", b"line 20")
    assert [other.text for other in window.naming_before(line.at, both)] == ["line 3"]
    assert [other.text for other in window.naming_after(line.at, both)] == ["line 20"]
    assert list(window.naming_after(line.at, (b"nowhere",))) == []


def test_the_line_around_an_offset(window):
    block = window.block(window.first)
    for offset in (0, 5, block.size - 1):
        line = window.line_around(window.first, offset)
        assert line.at.offset <= offset < window.line_end(line.at)


def test_another_host_is_another_process():
    window = window_of([said("a", 7, host="x"), said("b", 7, host="y"), said("c", 7, host="x")])
    first, last = line_at(window, 1), line_at(window, 3)
    assert [line.text for line in window.of_process_after(first)] == ["c"]
    assert [line.text for line in window.of_process_before(last)] == ["a"]


def test_a_pid_in_the_text_is_not_the_process():
    window = window_of([said("a", 7), said("New PID [7]", 8), said("b", 7)])
    assert [line.text for line in window.of_process_after(line_at(window, 1))] == ["b"]


def test_no_pid_no_process():
    window = window_of(["plain", "plain [7] too"])
    line = line_at(window, 1)
    assert list(window.of_process_after(line)) == []
    assert list(window.of_process_before(line)) == []


def test_voice_of_a_form_that_prefixes_every_line():
    window = window_of([said("record", 7), said("other", 8), said("goes on", 7), said("and on", 7)])
    assert [line.text for line in window.voice_after(line_at(window, 1), 1)] == ["goes on"]
    assert [line.text for line in window.voice_after(line_at(window, 1), 9)] == ["goes on", "and on"]


def test_voice_of_the_raw_form_goes_on_without_prefix():
    raw = (
        "[7] 2012-05-15 00:18:35.1\trecord",
        "[8] 2012-05-15 00:18:35.1\tother",
        "goes on",
        "[7] 2012-05-15 00:18:36\tx",
        "y",
    )
    window = window_of(list(raw))
    assert [line.text for line in window.voice_after(line_at(window, 1), 9)] == ["goes on"]
    assert [line.text for line in window.voice_after(line_at(window, 4), 9)] == ["y"]
    bare = window_of(["a", "b", raw[0]])
    assert [line.text for line in bare.voice_after(line_at(bare, 1), 9)] == ["b"]


def test_moving_keeps_what_can_be_reached(monkeypatch):
    monkeypatch.setattr(window_module, "REACH_BACK", 500)
    window = Window()
    dropped = 0
    for block in blocks_of(TEXT, 2):
        serial = window.push(block)
        line = window.line_around(serial, 0)
        dropped += len(window.forget(serial))
        reached = [other.at for other in window.before(line.at)]
        assert all(window.place(line.at) - window.place(at) <= 500 for at in reached)
        assert window.place(line.at) < 500 or len(reached) >= 8
    assert dropped > 5
    assert window.first == dropped


def test_searches_end_at_their_reach(monkeypatch):
    monkeypatch.setattr(window_module, "REACH_BACK", 200)
    monkeypatch.setattr(window_module, "REACH_AHEAD", 200)
    for per_block in (1, 3, 100):
        window = window_of(TEXT, per_block)
        line = line_at(window, 15)
        length = len(TEXT[0]) + 1
        assert len(list(window.after(line.at))) == len(list(window.before(line.at))) == 200 // length
        assert len(list(window.naming_after(line.at, (b"line",)))) <= 200 // length
        assert len(list(window.naming_before(line.at, (b"line",)))) <= 200 // length
        assert list(window.naming_after(line.at, (b"line 29",))) == []
        assert list(window.naming_before(line.at, (b"line 2 ",))) == []


def test_searches_shrink_where_they_pile_up(monkeypatch):
    monkeypatch.setattr(window_module, "_SEARCHED_FREELY", 0)
    monkeypatch.setattr(window_module, "_SEARCHES", 2)
    monkeypatch.setattr(window_module, "_REACH_WHEN_SPENT", 120)
    window = window_of(TEXT)
    line = line_at(window, 30)
    for _ in range(20):
        found = list(window.naming_before(line.at, (b"line 0",)))
    assert found == []


@pytest.mark.parametrize("near", ["naming_before", "naming_after"])
def test_lines_that_are_found_cost_too(monkeypatch, near):
    """A process that says the same a million times, and each time is asked what it said before."""
    monkeypatch.setattr(window_module, "_SEARCHED_FREELY", 300 << 10)
    monkeypatch.setattr(window_module, "_REACH_WHEN_SPENT", 120)
    window = window_of(TEXT)
    line = line_at(window, 15)
    found = [len(list(getattr(window, near)(line.at, (b"line",)))) for _ in range(5)]
    assert found[0] > 10
    assert found[-1] <= 120 // (len(TEXT[0]) + 1)


def test_ahead_and_end():
    window = Window(start=1000)
    one, two = blocks_of(TEXT, 15)
    first = window.push(one)
    assert window.ahead_of(first) == 0
    window.push(two)
    assert window.ahead_of(first) == two.size
    assert window.end == 1000 + one.size + two.size
    assert window.place(Position(first, 0)) == 1000


def test_lines_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(window_module, "_CACHED", 3)
    window = window_of(TEXT)
    for number in range(1, 9):
        line = line_at(window, number)
    assert window.line(line.at) is line
    long = window_of(["x" * 5000])
    assert long.line(Position(0, 0)) is not long.line(Position(0, 0))


def test_a_long_line_is_read_as_far_as_the_limit():
    window = window_of([said("x" * (2 * LINE_LIMIT)), said("after")])
    line = line_at(window, 1)
    assert len(line.raw) == LINE_LIMIT
    assert [other.text for other in window.after(line.at)] == ["after"]


def test_numbers_of_a_mended_paste():
    data = b"a\nb\nc\n"
    window = Window()
    window.push(Block(data, len(data), 0, 1, 3, (1, 4, 9)))
    assert [window.number(Position(0, offset)) for offset in (0, 2, 4)] == [1, 4, 9]


def test_bytes_that_are_no_text():
    assert decode(b"\0\0\0Aug\xff\r\n") == "Aug\ufffd"
    line = parse_line(b"\0\0" + gc("In cleanup").encode() + b"\r\n", Position(0, 0))
    assert (line.pid, line.ident, line.text) == (26919, "SMGC", "In cleanup")
    assert line.has_prefix


def test_a_journal_entry_is_a_line():
    line = parse_line(b'{"_HOSTNAME": "x", "SYSLOG_IDENTIFIER": "SM", "MESSAGE": "[7] hi"}\n', Position(0, 0))
    assert (line.form, line.pid, line.text) == ("journal", 7, "hi")
    assert parse_line(b'{"no": "entry"}\n', Position(0, 0)).form == ""


def test_needles():
    raw = line_at(window_of(["<26919> 2012-05-15 00:18:35\tIn cleanup"]), 1)
    assert pid_needles(raw) == (b"[26919]", b"<26919>")
    assert pid_needles(line_at(window_of([gc("In cleanup")]), 1)) == (b"[26919]",)


@pytest.mark.parametrize("per_block", [1, 3, 100])
def test_texts_around_digits_are_those_within_reach_nearest_first(per_block, monkeypatch):
    lines = [said(f"/run/1d994938-{number:05d}" if number % 3 == 0 else "y" * 19) for number in range(30)]
    window = window_of(lines, per_block)
    line = line_at(window, 17)
    found = [text[text.index(b"1d99") :][:14] for _, _, text in window.texts_around(line.at, b"1d994938-")]
    numbers = [int(text[9:]) for text in found]
    assert numbers == [15, 12, 9, 6, 3, 0, 18, 21, 24, 27]
    assert len({len(line) for line in lines}) == 1
    monkeypatch.setattr(window_module, "REACH_BACK", 3 * len(lines[0]))
    monkeypatch.setattr(window_module, "REACH_AHEAD", 3 * len(lines[0]))
    found = [text[text.index(b"1d99") :][:14] for _, _, text in window.texts_around(line.at, b"1d994938-")]
    assert [int(text[9:]) for text in found] == [15, 18]


def test_no_text_is_searched_twice_for_one_word(monkeypatch):
    """However often the lines of a process are asked for, and from wherever."""
    window = window_of([said("x", 100 + number % 3) for number in range(3000)], 500)
    for number in (1500, 1499, 1501, 1400, 1600):
        line = line_at(window, number)
        before, after = len(list(window.of_process_before(line))), len(list(window.of_process_after(line)))
        assert before + after == 999
    searched = window._searched
    list(window.of_process_before(line_at(window, 1500)))
    assert window._searched - searched == 500 * window_module._A_LINE - (500 - 499) * window_module._A_LINE


def test_the_words_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(window_module, "_NEEDLES", 2)
    window = window_of([said("x", 100 + number % 9) for number in range(90)])
    for number in range(1, 20):
        assert list(window.of_process_after(line_at(window, number)))
    assert len(window._seen_at) == 2
