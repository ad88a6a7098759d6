"""Blocks: whole lines, whatever the reads."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog import blocks as blocks_module
from smfix.smlog.blocks import Cutter
from smfix.smlog.engine import PlainEngine


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
                spare.append(block)
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
        spare.append(block)
    assert len(buffers) < 10


def test_buffers_that_do_not_fit_are_not(small):
    from smfix.smlog.lines import Block

    spare = [Block(b"bytes", 5, 0, 1, 0), Block(bytearray(4), 4, 0, 1, 0)]
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
