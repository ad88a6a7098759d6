from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needed_tools import need_tool
from smfix.report.hexdump import hexdump


def test_rows_fold_and_the_end_is_named():
    assert hexdump(b"conectix" + bytes(56) + b"tail") == (
        "00000000  63 6f 6e 65 63 74 69 78  00 00 00 00 00 00 00 00  |conectix........|\n"
        "00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
        "*\n"
        "00000040  74 61 69 6c                                       |tail|\n"
        "00000044\n"
    )


def test_nothing_prints_nothing():
    assert hexdump(b"") == ""


def test_offsets_start_where_told():
    assert hexdump(b"x", 0x1000).splitlines()[0].startswith("00001000  78 ")
    assert hexdump(b"x", 0x1000).splitlines()[1] == "00001001"


SHAPES = [
    b"x",
    bytes(512),
    bytes(range(256)) * 2,
    b"\xc7" * 511,
    b"conectix" + bytes(504),
    bytes(16) + b"\xff" * 32 + bytes(16) + bytes(5),
]


@pytest.mark.tools("hexdump")
@pytest.mark.parametrize("data", SHAPES)
def test_it_is_what_hexdump_prints(data):
    tool = need_tool("hexdump")
    real = subprocess.run([tool, "-C"], input=data, capture_output=True, check=True)
    assert hexdump(data) == real.stdout.decode()


@given(st.binary(max_size=200))
def test_every_byte_is_there(data):
    rows = [line for line in hexdump(data).splitlines() if "|" in line]
    if "*" not in hexdump(data).splitlines():
        assert b"".join(bytes.fromhex(row[10:58].replace(" ", "")) for row in rows) == data
