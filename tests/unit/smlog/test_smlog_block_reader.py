"""Blocks: whole lines, whatever the reads."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog.parse import block_reader as blocks_module
from smfix.smlog.parse.block_reader import Cutter
from smfix.smlog.parse.literal_search import PlainEngine


class Trickle(io.RawIOBase):
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int):
        self._data, self._size = data, size

    def readinto(self, buffer):
        count = min(self._size, len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK", 16)
    monkeypatch.setattr(blocks_module, "LONGEST", 64)


@given(
    st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=30),
    st.integers(1, 20),
    st.booleans(),
)
@settings(max_examples=150)
def test_the_blocks_are_the_text(lines, size, reuse):
    data = b"\n".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK", 16)
        spare = []
        text, number = b"", 1
        for block in Cutter(PlainEngine(), spare).cut(Trickle(data, size), 3, 1):
            part = bytes(block.data[: block.size])
            assert block.file == 3
            assert block.first_line == number
            assert block.lines == part.count(b"\n")
            assert part.endswith(b"\n") or text + part == data
            text += part
            number += block.lines
            if reuse:
                spare.append(block.take())
        assert text == data


def test_a_line_without_end_is_cut(small):
    sizes = [block.size for block in Cutter(PlainEngine(), []).cut(io.BytesIO(b"x" * 1000 + b"\nend\n"), 0)]
    assert sum(sizes) == 1005
    assert max(sizes) <= 64 + 16


def test_buffers_are_used_again(small):
    spare = []
    cutter = Cutter(PlainEngine(), spare)
    data = b"".join(b"line %d\n" % number for number in range(100))
    buffers = set()
    for block in cutter.cut(io.BytesIO(data), 0):
        buffers.add(id(block.data))
        spare.append(block.take())
    assert len(buffers) < 10


def test_buffers_that_do_not_fit_are_not(small):
    spare = [b"bytes", bytearray(4)]
    assert [bytes(block.data[: block.size]) for block in Cutter(PlainEngine(), spare).cut(io.BytesIO(b"a\nb"), 0)] == [
        b"a\nb"
    ]


def test_what_came_before_a_failure_is_handed_out_first(small):
    class Failing(Trickle):
        def readinto(self, buffer):
            if not self._data:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    blocks = Cutter(PlainEngine(), []).cut(Failing(b"one\ntwo\nthree\nfour and half", 5), 0)
    parts: list[bytes] = []
    with pytest.raises(OSError, match="Input/output error"):
        parts.extend(bytes(block.data[: block.size]) for block in blocks)
    assert b"".join(parts) == b"one\ntwo\nthree\nfour and half"


class Stored(Trickle):
    """What it gave can be asked for again."""

    def __init__(self, data: bytes, size: int):
        super().__init__(data, size)
        self.whole = data

    def again(self, at, view):
        view[:] = self.whole[at : at + len(view)].ljust(len(view), b"\0")


def test_a_block_is_let_go_of_and_read_again(small):
    data = b"".join(b"line %d\n" % number for number in range(50))
    stream = Stored(data, 7)
    blocks = list(Cutter(PlainEngine(), []).cut(stream, 0))
    texts = [bytes(block.data[: block.size]) for block in blocks]
    assert all(block.let_go() is not None and block.let_go() is None for block in blocks)
    assert [bytes(block.data[: block.size]) for block in blocks] == texts
    assert b"".join(texts) == data


def test_what_has_been_cut_short_since_is_nul(small):
    stream = Stored(b"one\ntwo\n", 100)
    (block,) = Cutter(PlainEngine(), []).cut(stream, 0)
    block.let_go()
    stream.whole = b"one"
    assert bytes(block.data[: block.size]) == b"one\0\0\0\0\0"


def test_a_stream_is_kept(small):
    (block,) = Cutter(PlainEngine(), []).cut(io.BytesIO(b"one\n"), 0)
    assert block.let_go() is None
    assert bytes(block.data[: block.size]) == b"one\n"
    assert block.take() is not None
    assert bytes(block.data) == bytes(4)


def test_a_buffer_that_another_thread_took_is_made_anew(small):
    class Taken(list):
        def pop(self, index=-1):
            raise IndexError

    (block,) = Cutter(PlainEngine(), Taken([bytearray(20)])).cut(io.BytesIO(b"one\n"), 0)
    assert bytes(block.data[: block.size]) == b"one\n"
