"""The search: every engine is `bytes`, and a net finds what one search after the other would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog import engine as engine_module
from smfix.smlog.engine import Net, PlainEngine, fastest_engine
from smfix.smlog.proofs import PROOF_ANCHORS
from smfix.smlog.rules import ANCHORS

ENGINES = [PlainEngine(), fastest_engine()]


@given(st.binary(max_size=80), st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=200)
def test_every_engine_is_bytes_find(data, needles, more):
    start = more.draw(st.integers(0, len(data)))
    stop = more.draw(st.integers(start, len(data)))
    for engine in ENGINES:
        for needle in needles:
            assert engine.find(data, needle, start, stop) == data.find(needle, start, stop)
            assert engine.rfind(data, needle, start, stop) == data.rfind(needle, start, stop)
        assert engine.lines(bytearray(data), start, stop) == data.count(b"\n", start, stop)


LITERALS = (b"opterr=", b"scan-error", b"error open", b"alone", b"=alo")
PIECES = [b"opterr", b"=", b"scan-", b"error", b" open", b"al", b"one", b"err", b"\n", b"x"]


def one_by_one(literals, data):
    found = []
    for literal in literals:
        row, hit = [], data.find(literal)
        while hit >= 0:
            row.append(hit)
            hit = data.find(literal, hit + len(literal))
        found.append(row)
    return found


@given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.integers(1, 5), st.integers(0, 30))
@settings(max_examples=500)
def test_a_net_finds_what_one_search_after_the_other_finds(data, candidates, behind):
    """Also where the shared bytes abound, and the search falls back on each literal itself."""
    before = engine_module._CANDIDATES
    engine_module._CANDIDATES = candidates
    try:
        for engine in ENGINES:
            for shared in ((b"err",), (b"err", b"alo"), ()):
                found = Net(LITERALS, shared).cast(engine, bytearray(data + bytes(behind)), len(data))
                assert found == one_by_one(LITERALS, data)
    finally:
        engine_module._CANDIDATES = before


def test_nothing_behind_the_size_is_found():
    assert Net((b"abc", b"xbc"), (b"bc",)).cast(PlainEngine(), b"abcabc", 5) == [[0], []]
    assert Net((b"abc",)).cast(PlainEngine(), b"abcabc", 5) == [[0]]
    assert Net((b"abcd", b"xbc"), (b"bc",)).cast(PlainEngine(), b"bcabcd", 5) == [[], []]


def test_what_is_left_out_is_never_found():
    assert Net((b"abc", b"bcd", b"x"), (b"bc",), without=(b"bcd",)).cast(PlainEngine(), b"abcdx", 5) == [[0], [], [4]]


def test_no_anchor_stands_in_another():
    """So that what is found for one is not found for another as well."""
    anchors = ANCHORS + PROOF_ANCHORS
    assert not [(one, other) for one in anchors for other in anchors if one != other and one in other]


def test_without_stringzilla_the_plain_engine(monkeypatch):
    import sys
    import types

    monkeypatch.setitem(sys.modules, "stringzilla", None)
    assert isinstance(fastest_engine(), PlainEngine)
    monkeypatch.setitem(sys.modules, "stringzilla", types.ModuleType("stringzilla"))
    assert isinstance(fastest_engine(), PlainEngine)
