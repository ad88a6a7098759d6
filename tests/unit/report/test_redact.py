"""No byte that may be a guest's leaves the house, and every other one is where hexdump -C prints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import base, footer_of
from smfix.report.hexdump import hexdump
from smfix.report.redact import HIDDEN, Dump, dump

FOOTER = footer_of(base()).encode()
GUEST = (b"customer secret " * 32)[:512]


def lines(shown: Dump) -> list[str]:
    """The rows as text, as the page places them."""
    return [
        f"{row.offset}  {''.join(run.text for run in row.pairs)}  |{''.join(run.text for run in row.letters)}|"
        if row.pairs
        else row.offset
        for row in shown.rows
    ]


def test_a_sound_footer_is_shown_as_hexdump_prints_it():
    shown = dump(FOOTER, 4096, FOOTER, is_metadata=True)
    assert lines(shown) == hexdump(FOOTER, 4096).splitlines()
    assert shown.hidden == 0
    assert {run.kind for row in shown.rows for run in row.pairs} == {"same"}


def test_a_guests_data_is_hidden_and_counted():
    shown = dump(GUEST, 0, FOOTER, is_metadata=False)
    text = "\n".join(lines(shown))
    assert "secret" not in text
    assert HIDDEN in text
    same = sum(a == b for a, b in zip(GUEST, FOOTER, strict=True))
    assert shown.hidden == 512 - same


def test_whoever_asks_sees_it():
    raw = bytes(range(256)) * 2
    shown = dump(raw, 0, FOOTER, is_metadata=False, show_all=True)
    assert lines(shown) == hexdump(raw).splitlines()
    assert shown.hidden == 0


def test_one_wrong_byte_is_hidden_and_one_that_is_missing_is_marked():
    raw = bytearray(FOOTER)
    raw[3], raw[4] = 0x41, 0
    shown = dump(bytes(raw), 0, FOOTER, is_metadata=False)
    assert [(run.kind, run.text) for run in shown.rows[0].pairs][:4] == [
        ("same", "63 6f 6e"),
        ("hidden", " --"),
        ("other", " 00"),
        ("same", " 74 69 78  00 00 00 02 00 01 00 00"),
    ]
    assert shown.hidden == 1


def test_metadata_is_shown_whatever_belongs_there():
    shown = dump(b"\xc7" * 512, 0, FOOTER, is_metadata=True)
    assert shown.hidden == 0
    assert "c7 c7" in lines(shown)[0]


def test_without_any_sound_footer_only_nul_is_shown():
    shown = dump(b"ab\0", 0, None, is_metadata=False)
    assert lines(shown)[0] == f"{0:08x}  {'-- -- 00':<48}  |--.|"
    assert shown.hidden == 2


def test_a_fold_says_nothing_of_hidden_bytes():
    shown = dump(b"a" * 16 + b"b" * 16 + b"c" * 16, 0, None, is_metadata=False)
    assert lines(shown)[1:] == ["*", "00000030"]


@given(st.binary(max_size=600), st.one_of(st.none(), st.just(FOOTER)))
def test_no_byte_is_shown_that_is_neither_nul_nor_the_footers(raw, like):
    shown = dump(raw, 0, like, is_metadata=False)
    for row in shown.rows:
        at = int(row.offset, 16) if row.offset != "*" else None
        digits = "".join(run.text for run in row.pairs).split()
        for number, pair in enumerate(digits):
            if pair != HIDDEN:
                byte = int(pair, 16)
                assert byte == 0 or (like is not None and byte == like[at + number])


@pytest.mark.parametrize("length", [511, 1, 0])
def test_short_ends(length):
    shown = dump(FOOTER[:length], 0, FOOTER, is_metadata=False)
    assert shown.rows[-1].offset == f"{length:08x}"
